"""Fitting at once."""
