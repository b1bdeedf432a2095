"""Diffusion of text, its autoregressive control, and the transformer that both are."""
