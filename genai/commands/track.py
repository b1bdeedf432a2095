"""Mirror the files of all stages, and DVC's experiments, into MLflow."""

import time
from pathlib import Path

from genai.core.stage import limit_threads


def main(follow: bool, release: bool) -> None:
    """follow: until standard input ends, while stages run; release: then release."""
    limit_threads(1)  # a release measures champions beside whatever runs here: two threads would wait for each other
    from genai import tracking
    from genai.core.dataset import write_json

    if follow:
        tracking.follow(Path.cwd(), release)
    else:
        tracking.track(Path.cwd())
        if release:
            tracking.release(Path.cwd(), None)
    write_json(Path(".work/track.json"), {"cpu_seconds": round(time.process_time(), 2)})
