"""Machine learning basics: one file per algorithm, in NumPy."""
