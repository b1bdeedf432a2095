"""Data sets: one file per source, and what a prepared data set is."""
