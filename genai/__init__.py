"""Machine learning from the basics to diffusion, as one reproducible pipeline."""

__version__ = "0.1.0"  # pyproject.toml's, for those who run the source
