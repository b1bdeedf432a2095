"""Serve the MLflow and Prefect pages on 127.0.0.1."""

from pathlib import Path


def main() -> None:
    from genai import ui

    ui.ui(Path.cwd())
