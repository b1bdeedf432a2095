"""Prefect: when, where and how often the stages of dvc.yaml run. Knows DVC alone: nothing of genai, torch or mlflow."""

from pathlib import Path

STATE = Path(".dvc/tmp/flow")  # the flow's own files


class UserError(Exception):
    """A mistake of the user's; its message is one line, and says what is right."""
