"""The flows that prefect.yaml deploys beside that of a worker, flows/worker.py: the pipeline."""

from collections.abc import Iterator
from contextlib import contextmanager

from flows.pipeline import Opened, only_run_here, opened, set_environment
from flows.stages import flow_of


@contextmanager
def here(targets: list[str]) -> Iterator[Opened]:
    """Open the project in the clone in which the worker was started."""
    set_environment()
    with only_run_here() as lock, opened(targets, lock) as this:
        yield this


pipeline = flow_of(here)
