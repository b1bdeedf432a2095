"""What the flow remembers of its runs, in .dvc/tmp/flow: what a stage took, and dvc.lock's order before one that was cut short."""

import json
import os
from contextlib import suppress
from pathlib import Path

from flows.project import Stage

STATE = Path(".dvc/tmp/flow")
SECONDS = STATE / "cpu_seconds.json"  # of each stage's command, when it last ran
ORDER = STATE / "order.json"  # the stages of dvc.lock when the last run began that has not completed


def order_before(now: list[str]) -> list[str]:
    """Return the order of dvc.lock from which DVC alone would have started; now: its order.

    A run that was killed or failed leaves the order in which its stages completed; what completes it later
    shall give the file that an undisturbed run gives.
    """
    with suppress(FileNotFoundError, ValueError):
        return json.loads(ORDER.read_text())
    write(ORDER, now)
    return now


def urgency(stages: list[Stage]) -> dict[str, float]:
    """Return for each stage the CPU-seconds from its start to the end of the longest path that begins with it.

    Of a stage that never ran it is taken that those written down later in dvc.yaml's groups are the larger.
    """
    took = cpu_seconds()
    urgent: dict[str, float] = {}
    below = {stage.name: 0.0 for stage in stages}
    for i, stage in reversed(list(enumerate(stages))):  # dependents come before what they depend on
        urgent[stage.name] = below[stage.name] + took.get(stage.name, 1.0 + 0.001 * i)
        for above in stage.upstream:
            below[above] = max(below.get(above, 0.0), urgent[stage.name])
    return urgent


def cpu_seconds() -> dict[str, float]:
    """Return what each stage's command took when it last ran."""
    with suppress(OSError, ValueError):
        return json.loads(SECONDS.read_text())
    return {}


def write(path: Path, value: object) -> None:
    """Write JSON atomically."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(json.dumps(value))
    os.replace(temporary, path)
