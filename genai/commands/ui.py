"""Serve the page of it all, MLflow and Prefect on 127.0.0.1."""

from pathlib import Path


def main() -> None:
    from genai import ui

    ui.ui(Path.cwd())
