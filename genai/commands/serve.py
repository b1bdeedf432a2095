"""Serve a champion over HTTP, behind a password."""

from pathlib import Path


def main(name: str, host: str, port: int) -> None:
    """name: of a registered model; host, port: where to listen."""
    from genai.tracking.serve import serve

    serve(Path.cwd(), name, host, port)
