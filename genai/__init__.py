"""Machine learning from the basics to diffusion, as one reproducible pipeline."""
