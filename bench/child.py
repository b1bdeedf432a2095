"""A measurement in a process of its own, so that its peak of memory is its own: one thread, the peers at hand."""

import json
import os
import resource
import signal
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


def measured(module: str, *arguments: str, patience: int | None = None) -> dict[str, Any] | str:
    """Run `python -m module arguments`; return the JSON that it printed last, or why there is none.

    patience: in CPU-seconds.
    """

    def limit() -> None:
        if patience is not None:
            resource.setrlimit(resource.RLIMIT_CPU, (patience, patience + 1))

    command = [sys.executable, "-m", module, *arguments]
    done = subprocess.run(command, check=False, capture_output=True, text=True, env=ENVIRONMENT, preexec_fn=limit)
    if done.returncode == -signal.SIGXCPU:
        return f"more than {patience} CPU-seconds"
    if done.returncode:
        return done.stderr.strip().splitlines()[-1][:60] if done.stderr.strip() else f"status {done.returncode}"
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def peak() -> float:
    """Return the most memory that this process has held, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
