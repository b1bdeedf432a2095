"""A measurement in a process of its own, so that its peak of memory is its own: one thread, the peers at hand."""

import json
import os
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

PEERS = Path(__file__).resolve().parents[1] / ".peers"  # `make peers` installs bench/peers.txt there
HAS_PEERS = (PEERS / "installed").exists()
ENVIRONMENT = os.environ | {
    **{f"{library}_NUM_THREADS": "1" for library in ("OMP", "OPENBLAS", "MKL", "VECLIB_MAXIMUM")},
    "PYTHONPATH": os.pathsep.join(filter(None, [str(PEERS), os.environ.get("PYTHONPATH")])),
    "KERAS_BACKEND": "torch",
    "KERAS_HOME": str(PEERS / ".keras"),  # else it writes into the home folder
    "DO_NOT_TRACK": "1",
}


def measured(module: str, *arguments: str, patience: float | None = None) -> dict[str, Any] | str:
    """Run `python -m module arguments`; return the JSON that it printed last, or why there is none."""
    command = [sys.executable, "-m", module, *arguments]
    try:
        done = subprocess.run(command, check=False, capture_output=True, text=True, env=ENVIRONMENT, timeout=patience)
    except subprocess.TimeoutExpired:
        return f"more than {patience:.0f} s"
    if done.returncode:
        return done.stderr.strip().splitlines()[-1][:60] if done.stderr.strip() else f"status {done.returncode}"
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def peak() -> float:
    """Return the most memory that this process has held, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
