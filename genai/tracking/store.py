"""MLflow's store, opened; and what this project remembers of it, so that nothing to do needs no MLflow.

MLFLOW_TRACKING_URI names the store (default: mlflow.db in the project), MLFLOW_EXPERIMENT_NAME the experiment,
MLflow's page that lists the runs (default: genai), and GENAI_MODEL_PREFIX what stands before the names of
registered models (default: nothing), so that several projects can share a server.
"""

import contextlib
import fcntl
import json
import logging
import os
import re
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from genai.core.config import UserError
from genai.core.dataset import write_json
from genai.tracking.finished import COLUMNS, History, agree, hashed, md5

VIEW = "all"
TAGS = {  # of the experiment
    "mlflow.experimentKind": "custom_model_development",  # the pages for training, not for chat
    # a view that the address can name: the charts show all runs, where MLflow's own default is the ten newest
    f"mlflow.sharedViewState.{VIEW}": '{"runsHiddenMode": "SHOWALL"}',
}


def home(root: Path) -> Path:
    """Return where MLflow's files are: beside the code, which vision/ and its like share by a link."""
    code = (root / "genai").resolve()
    return code.parent if code.is_dir() else root.resolve()


def store_uri(root: Path) -> str:
    """Return the address of MLflow's store."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{home(root)}/mlflow.db"


def experiment_name() -> str:
    return os.environ.get("MLFLOW_EXPERIMENT_NAME") or "genai"


def registered_name(name: str) -> str:
    """Return an experiment's name in the registry. Raises UserError where MLflow could not address it."""
    prefix = os.environ.get("GENAI_MODEL_PREFIX", "")
    if not re.fullmatch(r"[\w.-]*", prefix):
        raise UserError(f"GENAI_MODEL_PREFIX: {prefix!r} should be of letters, digits, '_', '-' and '.'")
    return prefix + name


def shown(text: str) -> str:
    """Return a text without the passwords of its addresses."""
    return re.sub(r"//[^/@\s]*@", "//***@", text)


# --- what is remembered: .work/tracked.json ---------------------------------------------------------


def some(names: list[str]) -> str:
    """Return names as a line shows them: the first of many."""
    return ", ".join(names if len(names) < 9 else [*names[:6], f"and {len(names) - 6} more"])


def remembered(root: Path) -> dict[str, Any]:
    """Return what this project knows of its store; nothing where that is another store or a new file.

    mark, size: of the store. experiment_id. names: the finished experiments. lock, released: hash of the
    dvc.lock of which all is mirrored, all is released. live: the trainings whose runs were left RUNNING.
    """
    with contextlib.suppress(FileNotFoundError, ValueError):
        known = json.loads((root / ".work" / "tracked.json").read_text())
        mark, size = _mark(root)
        if mark and known["mark"] == mark and known["size"] <= size:
            return known
    return {}


def remember(root: Path, **facts: Any) -> None:
    """Add to what is known of the store; the caller holds the lock of `alone`."""
    mark, size = _mark(root)
    write_json(root / ".work" / "tracked.json", remembered(root) | facts | {"mark": mark, "size": size})


def lock_hash(root: Path) -> str | None:
    """Return the hash of dvc.lock, which names all that can be mirrored."""
    return md5(root / "dvc.lock")


def _mark(root: Path) -> tuple[str | None, int]:
    """Return what tells this store from another, and its size; (None, 0) where its file does not exist.

    A file that was deleted and made anew may get the same number, but is smaller: SQLite's do not shrink.
    """
    uri, number, size = store_uri(root), 0, 0
    if uri.startswith("sqlite:///"):
        try:
            status = Path(uri.removeprefix("sqlite:///")).stat()
        except OSError:
            return None, 0
        number, size = status.st_ino, status.st_size
    return hashed([uri, experiment_name(), registered_name(""), number]), size


@contextlib.contextmanager
def alone(root: Path) -> Iterator[None]:
    """Wait until no other process of this project mirrors, and keep others waiting meanwhile."""
    (root / ".work").mkdir(exist_ok=True)
    with open(root / ".work" / "track.lock", "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def one_line_errors(root: Path) -> Iterator[None]:
    """Turn what MLflow raises for a store that is down, full or not one into a UserError."""
    try:
        yield
    except (UserError, KeyboardInterrupt, AssertionError):
        raise
    except Exception as error:
        import requests
        from mlflow.exceptions import MlflowException
        from sqlalchemy.exc import SQLAlchemyError

        if not isinstance(error, (MlflowException, SQLAlchemyError, requests.RequestException, OSError)):
            raise
        reason = shown(str(error).strip().splitlines()[0])[:300]
        reason = "no answer" if "Max retries exceeded" in reason else reason
        raise UserError(f"MLflow at {shown(store_uri(root))}: {reason}") from None


class Store:
    """MLflow's store of this project, opened; it is created where there is none."""

    def __init__(self, root: Path):
        os.environ.update(MLFLOW_DISABLE_TELEMETRY="true", DO_NOT_TRACK="1")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")  # 7 would keep a user waiting for minutes
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
        os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
        os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
        import mlflow
        from mlflow.exceptions import RESOURCE_ALREADY_EXISTS, ErrorCode, MlflowException

        logging.getLogger("mlflow").setLevel(logging.WARNING)  # after the import, which sets it

        self.root = root
        self.uri = store_uri(root)
        self.mirrored: dict[str, dict[str, str]] = {}  # experiment -> tags found or made by this process
        self.new: list[str] = []  # what it made
        self.place = f"{socket.gethostname()}:{root.resolve()}"
        named = os.environ.get("MLFLOW_TRACKING_URI")
        mlflow.set_tracking_uri(self.uri)  # what MLflow does by itself would else go to a file in this folder
        if named is None:  # it sets the variable too, which another project in this process would take for the user's
            os.environ.pop("MLFLOW_TRACKING_URI", None)
        self.client = mlflow.MlflowClient(self.uri, self.uri)
        name = experiment_name()
        if (experiment := self.client.get_experiment_by_name(name)) is None:
            # a server has a place of its own for artifacts
            location = None if self.uri.startswith("http") else (home(root) / "mlartifacts").as_uri()
            try:
                self.experiment_id = self.client.create_experiment(name, location, TAGS)
                return
            except MlflowException as error:  # another host was faster
                if error.error_code != ErrorCode.Name(RESOURCE_ALREADY_EXISTS):
                    raise
            experiment = self.client.get_experiment_by_name(name)
            assert experiment
        if experiment.lifecycle_stage == "deleted":
            raise UserError(f"MLflow's experiment {name!r} is in its trash; restore or purge it")
        self.experiment_id = experiment.experiment_id
        for key in TAGS.keys() - experiment.tags.keys():
            self.client.set_experiment_tag(self.experiment_id, key, TAGS[key])

    def runs(self, **tags: str) -> list[Any]:
        """Return the runs with these tags (`genai.` before each), the newest first."""
        conditions = [f"tags.`genai.{key}` = '{value}'" for key, value in tags.items()]
        return list(self.client.search_runs([self.experiment_id], " and ".join(conditions)))

    def history(self, run: Any) -> History:
        """Return the curves that a run has."""
        history: History = {}
        for key in COLUMNS.values():
            if key in run.data.metrics:
                for metric in self.client.get_metric_history(run.info.run_id, key):
                    history.setdefault(metric.step, {})[key] = metric.value
        return history

    def log_history(self, run_id: str, history: History, logged: History) -> None:
        """Log what is not logged yet, and note it: MLflow would keep a step that is logged twice twice."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        metrics = [
            Metric(key, value, now, step)
            for step, values in history.items()
            for key, value in values.items()
            if key not in logged.get(step, {})
        ]
        self.log_metrics(run_id, metrics)
        for metric in metrics:
            logged.setdefault(metric.step, {})[metric.key] = metric.value

    def log_metrics(self, run_id: str, metrics: list[Any]) -> None:
        """Log metrics in as few calls as MLflow takes."""
        for i in range(0, len(metrics), 1000):
            self.client.log_batch(run_id, metrics[i : i + 1000])

    def live_run(self, name: str, history: History, params: dict[str, str], whole: bool) -> tuple[Any, History]:
        """Return the run that this training continues, and its curves; (None, {}) where there is none.

        A run that another follower left, dead or alive, is continued where its params are these and the steps that
        both have agree; with `whole`, the history must have all its steps. Any other was abandoned.
        """
        for run in self.runs(experiment=name, live=self.place):
            logged, known = self.history(run), run.data.params
            same = all(params[key] == known[key] for key in params.keys() & known.keys())
            if same and agree(history, logged) and (not whole or logged.keys() <= history.keys()):
                return run, logged
            if run.info.status == "RUNNING":
                self.client.set_terminated(run.info.run_id, "KILLED")
            self.client.delete_tag(run.info.run_id, "genai.live")
        return None, {}


def page(root: Path) -> str:
    """Return where, on an MLflow server, the runs are shown."""
    known = remembered(root).get("experiment_id")
    view = f"workflowType=machine_learning&compareRunsMode=CHART&viewStateShareKey={VIEW}"
    return f"/#/experiments/{known}/runs?{view}" if known else "/#/experiments"
