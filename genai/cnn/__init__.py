"""Convolutional networks for image recognition."""
