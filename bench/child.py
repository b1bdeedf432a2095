"""A measurement in a process of its own, so that its peak of memory is its own: one thread, the peers at hand."""

import json
import os
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil

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

    command = [sys.executable, "-m", module, *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT)
    while True:
        try:
            output, errors = process.communicate(timeout=1)
            break
        except subprocess.TimeoutExpired:  # a limit set by the system would make its clock of CPU-seconds coarse
            if patience and psutil.Process(process.pid).cpu_times().user > patience:
                process.kill()
                process.communicate()
                return f"more than {patience} CPU-seconds"
    if process.returncode:
        return errors.strip().splitlines()[-1][:60] if errors.strip() else f"status {process.returncode}"
    found: dict[str, Any] = json.loads(output.splitlines()[-1])
    return found


def peak() -> float:
    """Return the most memory that this process has held, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
