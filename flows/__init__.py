"""Prefect: when, where and how often the stages of dvc.yaml run. Knows DVC alone: nothing of genai, torch or mlflow."""

import os
import sys

# `python -m` looks for modules in the working directory first, where another project may have any name
if sys.path[0] in ("", os.getcwd()) and os.path.dirname(os.path.dirname(os.path.abspath(__file__))) != os.getcwd():
    del sys.path[0]

from pathlib import Path

_HERE = Path.cwd()
# the DVC project: this folder, or the nearest above it; its dvc.yaml may be one of several in it
PROJECT = Path(os.path.relpath(next((f for f in (_HERE, *_HERE.parents) if (f / ".dvc").is_dir()), _HERE)))
FLOW = PROJECT / ".dvc" / "tmp" / "flow"  # the flow's own files
STATE = FLOW / os.path.relpath(_HERE, PROJECT)  # those of the dvc.yaml in this folder
# of the names of flows, deployments and artifacts, where a Prefect server has those of other projects too
PREFIX = os.environ.get("FLOW_PREFIX", "")


def write_atomically(path: Path, text: str) -> None:
    """Write a file, of which a kill or a power cut leaves all or nothing, nor anything beside it."""
    temporary = FLOW / f"{path.name}.{os.getpid()}"
    with open(temporary, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


class UserError(Exception):
    """A mistake of the user's; its message is one line, and says what is right."""
