"""The flows that prefect.yaml deploys beside that of a worker (flows/worker.py); each runs in the clone of its worker."""

import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from prefect import flow, get_run_logger, suspend_flow_run
from prefect.artifacts import create_markdown_artifact
from prefect.input import RunInput
from prefect.states import Completed, Failed, State

from flows import PREFIX
from flows.pipeline import GENAI, Opened, only_run_here, opened, set_environment
from flows.results import as_markdown, slug
from flows.stages import flow_of, without_empty_traceback

logging.getLogger("prefect.engine").addFilter(without_empty_traceback)


@contextmanager
def here(targets: list[str], release: bool) -> Iterator[Opened]:
    """Open the project in the worker's clone."""
    set_environment()
    with only_run_here() as lock, opened(targets, release, lock) as this:
        yield this


pipeline = flow_of(here)


@flow(name=f"{PREFIX}batch", flow_run_name="{model} {file}", result_serializer="json")
def batch(model: str, file: str, out: str) -> State:
    """Answer each row of a CSV by a model of the registry: predictions, or of a generator texts or images.

    Args:
        model: such as models:/cnn@champion.
        file: a CSV whose columns are what the model takes; of a text generator `prompt`, of an image generator `label`.
        out: the JSON file to write, in one piece. Git ignores the folder batch/, which so outlives other runs here.
    """
    if not Path(file).is_file():
        return Failed(message=f"file: {file!r} is not in {Path.cwd()}, the folder of the worker")
    temporary = Path(out).with_name(f".{Path(out).name}.{os.getpid()}")
    command = [sys.executable, "-m", "mlflow", "models", "predict", "--env-manager", "local", "--content-type", "csv"]
    try:
        failed = run([*command, "-m", model, "-i", file, "-o", str(temporary)])
        if failed is None:
            os.replace(temporary, out)
    finally:
        temporary.unlink(missing_ok=True)
    return Failed(message=failed) if failed else Completed(message=f"written: {out}", data={"out": out})


class Decision(RunInput):
    """What a person says to a release."""

    release: bool


@flow(name=f"{PREFIX}release", flow_run_name="release", result_serializer="json")
def release(names: list[str] = [], approval: bool = True, timeout: int = 86_400) -> State:  # noqa: B006
    """Register the models that are finished; one that is better beyond chance becomes champion.

    Args:
        names: of experiments; all that are finished where there are none.
        approval: whether to show the leaderboard and wait until a person says yes in Prefect's page of the run.
        timeout: seconds to wait for that.
    """
    if approval:
        shown = as_markdown(Path("reports/leaderboard.md")) or "no leaderboard here yet"
        create_markdown_artifact(shown, key=f"{slug(PREFIX)}to-be-released", description="what would be released")
        asked = f"Release {', '.join(names) or 'all models'}? The leaderboard is an artifact of this run.\n\n{shown}"
        # its process ends, and its worker is free until then
        decision = suspend_flow_run(Decision.with_initial_data(description=asked, release=True), timeout=timeout)
        if not decision.release:
            return Completed(message="declined: nothing was released", data={"released": False})
    failed = run([*GENAI, "release", *names])
    return Failed(message=failed) if failed else Completed(message="released", data={"released": True})


def run(command: list[str]) -> str | None:
    """Run a command, its output in the log; return its last line where it failed."""
    environment = {"MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    if "MLFLOW_TRACKING_URI" not in os.environ:
        environment["MLFLOW_TRACKING_URI"] = f"sqlite:///{Path('mlflow.db').resolve()}"
    last = ""
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=os.environ | environment
    ) as process:
        assert process.stdout
        for line in process.stdout:
            get_run_logger().info(line.rstrip())
            last = line.strip() or last
    return (last or f"exit status {process.returncode}") if process.returncode else None
