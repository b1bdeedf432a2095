"""Register the models; a better one becomes champion."""

from pathlib import Path


def main(names: list[str]) -> None:
    """names: of experiments; all that are finished where there are none."""
    from genai import tracking

    tracking.release(Path.cwd(), names or None)
