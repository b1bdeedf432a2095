"""Diffusion: text by unmasking, images by flow matching."""
