"""Gradient descent: the one training loop, and what a step, a checkpoint and a device are."""
