"""Prefect: when, where and how often the stages of dvc.yaml run. Knows DVC alone: nothing of genai, torch or mlflow."""

import os
from pathlib import Path

_HERE = Path.cwd()
# the DVC project: this folder, or the nearest above it; its dvc.yaml may be one of several in it
PROJECT = Path(os.path.relpath(next((f for f in (_HERE, *_HERE.parents) if (f / ".dvc").is_dir()), _HERE)))
FLOW = PROJECT / ".dvc" / "tmp" / "flow"  # the flow's own files
STATE = FLOW / os.path.relpath(_HERE, PROJECT)  # those of the dvc.yaml in this folder
# of the names of flows, deployments and artifacts, where a Prefect server has those of other projects too
PREFIX = os.environ.get("FLOW_PREFIX", "")


class UserError(Exception):
    """A mistake of the user's; its message is one line, and says what is right."""
