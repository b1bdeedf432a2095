"""Register the models; a better one becomes champion."""

from pathlib import Path

from genai.core.stage import limit_threads


def main(names: list[str]) -> None:
    """names: of experiments; all that are finished where there are none."""
    limit_threads(1)  # as `track`
    from genai import tracking

    tracking.release(Path.cwd(), names or None)
