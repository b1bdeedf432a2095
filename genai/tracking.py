"""The files of the stages, mirrored into MLflow: runs, live curves, a registry with a gate for its champion.

Files are the truth, MLflow is a view of them: no stage needs it, and all of it can be made again by
`python -m genai track`. A run is known by `genai.content`, a hash of what made it: the entries of
dvc.lock for train@NAME and evaluate@NAME. MLflow takes seconds to import, so it is imported only once
there is something to mirror.
"""

import contextlib
import csv
import fcntl
import hashlib
import json
import logging
import math
import os
import re
import select
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from genai.core.config import Experiment, UserError, model_class, pick, read, validate
from genai.core.dataset import Dataset

EXPERIMENT = "genai"  # in MLflow's sense: the page that lists the runs
CURVES = ("train_loss", "validation_loss", "learning_rate")
POLL = 2.0  # seconds
RESAMPLES = 10_000
ALIAS = "champion"


# --- what is there: dvc.lock and files --------------------------------------------------------------


@dataclass(frozen=True)
class Finished:
    """An experiment that is trained and evaluated, as dvc.lock tells it."""

    root: Path
    name: str
    train: dict[str, Any]  # the stage's entry: cmd, deps, params, outs
    evaluate: dict[str, Any]
    sample: dict[str, Any] | None

    @cached_property
    def tags(self) -> dict[str, str]:
        """What tells whether MLflow holds the run, its samples and its figures already."""
        tags = {"genai.content": _hash([self.train, self.evaluate])}
        if self.samples:
            tags["genai.samples"] = _hash(self.sample["outs"])
        if self.figures:
            tags["genai.figures"] = _hash({path.name: _md5(path) for path in self.figures})
        return tags

    @cached_property
    def model_hash(self) -> str:
        return _hash(_md5s(self.train["outs"]))

    @property
    def data(self) -> tuple[str, str]:
        """Name of the data set, and DVC's hash of it."""
        return next((Path(p).name, md5) for p, md5 in _md5s(self.train["deps"]).items() if p.startswith("data/"))

    @cached_property
    def config(self) -> dict[str, Any]:
        """What the model was built from: name, task, experiment, description."""
        return json.loads((self.root / "models" / self.name / "config.json").read_text())

    @cached_property
    def sampling(self) -> dict[str, Any]:
        """The numbers by which a generator was evaluated, defaults included; empty for other models."""
        experiment = validate(Experiment, self.config["experiment"], f"models/{self.name}/config.json")
        if self.config["task"] not in ("language", "image_generation"):
            return {}
        cls = model_class(self.name, experiment)
        return cls.Sampling(**experiment.sample or {}).model_dump() if hasattr(cls, "Sampling") else {}

    @cached_property
    def metrics(self) -> dict[str, float]:
        return json.loads((self.root / "metrics" / f"{self.name}.json").read_text())

    @property
    def samples(self) -> list[Path]:
        return sorted((self.root / "samples" / self.name).glob("*")) if self.sample else []

    @cached_property
    def figures(self) -> list[Path]:
        """The pictures of reports/ whose name begins with this experiment's and with no longer one."""
        names = [path.stem for path in (self.root / "metrics").glob("*.json")]

        def owner(stem: str) -> str:
            return max((name for name in names if f"{stem}_".startswith(f"{name}_")), key=len, default="")

        return [path for path in sorted((self.root / "reports").glob("*.png")) if owner(path.stem) == self.name]

    @property
    def times(self) -> tuple[int | None, int | None]:
        """When training began and evaluation ended, in ms; None where DVC restored the files from its cache."""
        work = self.root / ".work" / self.name / "train.json"
        with contextlib.suppress(FileNotFoundError):
            trained = (self.root / "models" / self.name / "config.json").stat().st_mtime
            if abs(work.stat().st_mtime - trained) < 10:  # so it was made here, and then
                began = trained - json.loads(work.read_text())["seconds"]
                evaluated = (self.root / "metrics" / f"{self.name}.json").stat().st_mtime
                return int(began * 1000), int(evaluated * 1000)
        return None, None

    def changed(self) -> str | None:
        """Return a file that is not what dvc.lock says it is, because a stage is running or was not run."""
        entries = {**_md5s(self.train["outs"]), **_md5s(self.evaluate["outs"])}
        entries |= {path: md5 for path, md5 in _md5s(self.train["deps"]).items() if path.endswith(".py")}
        return next((path for path, md5 in entries.items() if _md5(self.root / path) != md5), None)


def finished(root: Path) -> dict[str, Finished]:
    """Return the finished experiments by name: those whose evaluation in dvc.lock is of the model in dvc.lock."""
    if not (root / "dvc.lock").exists():
        return {}
    stages = (read(root / "dvc.lock") or {}).get("stages", {})
    found = {}
    for stage, train in stages.items():
        command, _, name = stage.partition("@")
        evaluate = stages.get(f"evaluate@{name}")
        if command == "train" and evaluate:
            outs, deps = _md5s(train["outs"]), _md5s(evaluate["deps"])
            if all(deps.get(path, md5) == md5 for path, md5 in outs.items()):
                found[name] = Finished(root, name, train, evaluate, stages.get(f"sample@{name}"))
    return found


def _md5s(entries: list[dict[str, Any]]) -> dict[str, str]:
    return {entry["path"]: entry["md5"] for entry in entries}


def _hash(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:32]


def _md5(path: Path) -> str | None:
    """Return the hash that DVC gives a file or a folder; None where there is none."""
    if path.is_dir():
        files = sorted((file.relative_to(path).as_posix(), file) for file in path.rglob("*") if file.is_file())
        listing = json.dumps([{"md5": _md5(file), "relpath": name} for name, file in files], sort_keys=True)
        return hashlib.md5(listing.encode()).hexdigest() + ".dir"
    with contextlib.suppress(FileNotFoundError):
        return hashlib.md5(path.read_bytes()).hexdigest()
    return None


def read_history(path: Path) -> dict[int, dict[str, float]]:
    """Return step -> {curve: value} of a history.csv; a last line still being written is left for later."""
    try:
        text = path.read_text()
    except FileNotFoundError:
        return {}
    rows = csv.DictReader(text[: text.rfind("\n") + 1].splitlines())
    history = {}
    for row in rows:
        values = {key: float(row[key]) for key in CURVES if row.get(key)}
        history[int(row["step"])] = {key: value for key, value in values.items() if math.isfinite(value)}
    return history


def _agree(history: dict[int, dict[str, float]], logged: dict[int, dict[str, float]]) -> bool:
    """Say whether two curves are the same at the steps that both have."""
    return all(history[step].get(k) == v for step in history.keys() & logged.keys() for k, v in logged[step].items())


# --- the store --------------------------------------------------------------------------------------


def store_uri(root: Path) -> str:
    """Return the address of MLflow's store: MLFLOW_TRACKING_URI, else a SQLite file in the project's root."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{root.resolve()}/mlflow.db"


def _shown(uri: str) -> str:
    return re.sub(r"//[^/@]*@", "//***@", uri)


@contextlib.contextmanager
def _one_line_errors(root: Path) -> Iterator[None]:
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
        reason = _shown(str(error).strip().splitlines()[0])[:300]
        reason = "no answer" if "Max retries exceeded" in reason else reason
        raise UserError(f"MLflow at {_shown(store_uri(root))}: {reason}") from None


@contextlib.contextmanager
def _alone(root: Path, what: str) -> Iterator[None]:
    """Wait until no other process of this project tracks (releases), and keep others waiting meanwhile."""
    (root / ".work").mkdir(exist_ok=True)
    with open(root / ".work" / f"{what}.lock", "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


class Store:
    """MLflow's store of this project, opened; it is created where there is none."""

    def __init__(self, root: Path):
        os.environ.update(MLFLOW_DISABLE_TELEMETRY="true", DO_NOT_TRACK="1")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")  # 7 would keep a user waiting for minutes
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
        os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
        os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
        import mlflow

        logging.getLogger("mlflow").setLevel(logging.WARNING)  # after the import, which sets it

        self.root = root
        self.mirrored: dict[str, dict[str, str]] = {}  # experiment -> tags found or made by this process
        self.new: list[str] = []  # what it made
        self.place = f"{socket.gethostname()}:{root.resolve()}"
        uri = store_uri(root)
        self.client = mlflow.MlflowClient(uri, uri)
        experiment = self.client.get_experiment_by_name(EXPERIMENT)
        if experiment is None:
            # a server has a place of its own for artifacts
            location = None if uri.startswith("http") else (root / "mlartifacts").resolve().as_uri()
            tags = {"mlflow.experimentKind": "custom_model_development"}  # the pages for training, not for chat
            self.experiment_id = self.client.create_experiment(EXPERIMENT, location, tags)
        elif experiment.lifecycle_stage == "deleted":
            raise UserError(f"MLflow's experiment {EXPERIMENT!r} is in its trash; restore or purge it")
        else:
            self.experiment_id = experiment.experiment_id

    def runs(self, **tags: str) -> list[Any]:
        """Return the runs with these tags (`genai.` before each), the newest first."""
        conditions = [f"tags.`genai.{key}` = '{value}'" for key, value in tags.items()]
        return list(self.client.search_runs([self.experiment_id], " and ".join(conditions)))

    def history(self, run: Any) -> dict[int, dict[str, float]]:
        """Return the curves that a run has."""
        history: dict[int, dict[str, float]] = {}
        for key in CURVES:
            if key in run.data.metrics:
                for metric in self.client.get_metric_history(run.info.run_id, key):
                    history.setdefault(metric.step, {})[key] = metric.value
        return history

    def log_history(
        self, run_id: str, history: dict[int, dict[str, float]], logged: dict[int, dict[str, float]]
    ) -> None:
        """Log what is not logged yet, and note it: MLflow would keep a step that is logged twice twice."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        metrics = [
            Metric(key, value, now, step)
            for step, values in history.items()
            for key, value in values.items()
            if key not in logged.get(step, {})
        ]
        for i in range(0, len(metrics), 1000):  # the most that MLflow takes at once
            self.client.log_batch(run_id, metrics[i : i + 1000])
        for metric in metrics:
            logged.setdefault(metric.step, {})[metric.key] = metric.value

    def live_run(self, name: str, history: dict[int, dict[str, float]], whole: bool) -> tuple[Any, dict]:
        """Return the run that this history continues, and what it holds; (None, {}) where there is none.

        A run that another follower left, dead or alive, is continued where the steps that both have agree;
        with `whole`, the history must have all its steps. A run of which this is not so was abandoned.
        """
        for run in self.runs(experiment=name, live=self.place):
            logged = self.history(run)
            if _agree(history, logged) and (not whole or logged.keys() <= history.keys()):
                return run, logged
            self.client.set_terminated(run.info.run_id, "KILLED")
            self.client.delete_tag(run.info.run_id, "genai.live")
        return None, {}


def _ask(root: Path, sql: str) -> list[tuple] | None:
    """Ask the SQLite store without MLflow; None where that is not possible.

    Importing MLflow to learn that there is nothing to do would be the greater part of a run of the
    pipeline with nothing to do.
    """
    uri = store_uri(root)
    if not uri.startswith("sqlite:///"):
        return None
    path = Path(uri.removeprefix("sqlite:///")).resolve()
    try:
        with contextlib.closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as connection:
            return connection.execute(sql).fetchall()
    except sqlite3.Error:
        return None


def page(root: Path) -> str:
    """Return where, on an MLflow server, the runs are shown."""
    found = _ask(root, f"select experiment_id from experiments where name = '{EXPERIMENT}'")
    return f"/#/experiments/{found[0][0]}/runs?workflowType=machine_learning" if found else "/#/experiments"


def _is_mirrored(root: Path, experiments: dict[str, Finished]) -> bool:
    """Say whether the store is known to hold all of them, and no run is left RUNNING."""
    rows = _ask(
        root,
        "select r.run_uuid, r.status, t.key, t.value from runs r join tags t on t.run_uuid = r.run_uuid "
        "where r.lifecycle_stage = 'active' and t.key like 'genai.%'",
    )
    if rows is None:
        return not experiments
    if any(status == "RUNNING" for _, status, _, _ in rows):
        return False
    runs: dict[str, set] = {}
    for run_id, _, key, value in rows:
        runs.setdefault(run_id, set()).add((key, value))
    return all(any(set(e.tags.items()) <= tags for tags in runs.values()) for e in experiments.values())


# --- track ------------------------------------------------------------------------------------------


def track(root: Path) -> None:
    """Mirror every finished experiment into MLflow; what is there already is left as it is.

    Raises UserError where the store cannot be reached or written.
    """
    with _alone(root, "track"), _one_line_errors(root):
        print(_mirror_all(root, None)[1])


def _mirror_all(root: Path, store: Store | None) -> tuple[Store | None, str]:
    """Mirror what is finished; return the store, opened if it was needed, and what was done in one line."""
    experiments = finished(root)
    if _is_mirrored(root, experiments):
        return store, f"MLflow: {len(experiments)} runs, none new"
    store = store or Store(root)
    stale: dict[str, str] = {}
    for e in experiments.values():
        if store.mirrored.get(e.name) == e.tags:
            continue
        try:
            changed = _mirror(store, e)
        except FileNotFoundError as error:  # a stage began meanwhile: DVC deletes what it will make
            changed = str(error.filename)
        if changed:
            stale[e.name] = changed
    line = f"MLflow: {len(experiments)} runs, " + (f"new: {', '.join(store.new)}" if store.new else "none new")
    if stale:
        line += (
            f"; left out, run dvc repro ({next(iter(stale.values()))} is not what dvc.lock says): {', '.join(stale)}"
        )
    return store, line


def _mirror(store: Store, e: Finished) -> str | None:
    """Mirror one experiment; return a file that is not what dvc.lock says where there is one."""
    client, known = store.client, {}
    run = next(iter(store.runs(content=e.tags["genai.content"], experiment=e.name)), None)
    new = run is None or run.info.status != "FINISHED"
    if new:
        if changed := e.changed():
            return changed
        history = read_history(e.root / "models" / e.name / "history.csv")
        logged = store.history(run) if run else {}
        if run is None:
            run, logged = store.live_run(e.name, history, whole=True)
        if run is None:
            run = client.create_run(store.experiment_id, e.times[0], {"genai.experiment": e.name}, e.name)
        elif run.info.status != "RUNNING":
            client.update_run(run.info.run_id, "RUNNING")
        store.log_history(run.info.run_id, history, logged)
        _log_results(store, e, run)
    else:
        known = run.data.tags
    for tag, folder, files in (("genai.samples", "samples", e.samples), ("genai.figures", "figures", e.figures)):
        if tag in e.tags and known.get(tag) != e.tags[tag]:
            for path in files:
                client.log_artifact(run.info.run_id, str(path), folder)
            client.set_tag(run.info.run_id, tag, e.tags[tag])
    if new:
        client.set_terminated(run.info.run_id, "FINISHED", e.times[1])
        store.new.append(e.name)
    store.mirrored[e.name] = e.tags
    return None


def _log_results(store: Store, e: Finished, run: Any) -> None:
    """Give a run all that an experiment has besides curves, samples and figures; doing it twice changes nothing."""
    from mlflow.entities import Dataset as DatasetEntity
    from mlflow.entities import DatasetInput, InputTag, Metric, Param, RunTag

    client, run_id = store.client, run.info.run_id
    params = _flat(e.config["experiment"])
    tags = {
        "genai.content": e.tags["genai.content"],  # first: a tracker that dies here is continued by the next
        "topic": e.config["experiment"]["model"].partition(".")[0],
        "data_hash": e.data[1],
        "params_hash": _hash(e.train["params"]),
        "code_hash": _hash({path: md5 for path, md5 in _md5s(e.train["deps"]).items() if path.startswith("genai/")}),
        "mlflow.source.type": "LOCAL",
        "mlflow.source.name": f"dvc repro evaluate@{e.name}",
    }
    if commit := _git_commit(e.root):
        tags |= {"git_commit": commit, "mlflow.source.git.commit": commit.removesuffix("-dirty")}
    client.log_batch(
        run_id, params=[Param(*item) for item in params.items()], tags=[RunTag(*item) for item in tags.items()]
    )
    if "genai.live" in run.data.tags:
        client.delete_tag(run_id, "genai.live")
    name, md5 = e.data
    data = DatasetEntity(name, md5, source_type="local", source=json.dumps({"uri": f"data/{name}"}))
    client.log_inputs(run_id, [DatasetInput(data, [InputTag("mlflow.data.context", "training, validation, test")])])
    model_id = run.data.tags.get("genai.model_id") or _log_model(store, e, run_id, params)
    now = int(time.time() * 1000)
    metrics = [
        Metric(key, value, now, 0, model_id, dataset_name=name, dataset_digest=md5, run_id=run_id)
        for key, value in e.metrics.items()
        if key not in run.data.metrics
    ]
    client.log_batch(run_id, metrics=metrics)
    client.log_artifact(run_id, str(e.root / "metrics" / f"{e.name}.json"), "metrics")
    client.log_artifact(run_id, str(e.root / "scores" / f"{e.name}.csv"), "scores")


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, str]:
    flat = {}
    for key, value in values.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": str(value)[:6000]}
    return flat


def _git_commit(root: Path) -> str | None:
    """Return the commit of the working tree, with `-dirty` where it has changes; None outside Git."""
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    with contextlib.suppress(OSError, subprocess.CalledProcessError):
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    return None


# --- the model --------------------------------------------------------------------------------------


def _log_model(store: Store, e: Finished, run_id: str, params: dict[str, str]) -> str:
    """Log the model's folder with this package beside it, and return its id.

    What `mlflow.pyfunc.log_model` does, less its trial of the example, which would import torch and run
    the model for every one of them.
    """
    import mlflow.pyfunc
    from mlflow.entities import LoggedModelOutput
    from mlflow.models import Model

    signature, example = _signature(e)
    tags = {"task": e.config["task"], "data_hash": e.data[1], "genai.model": e.model_hash}
    logged = store.client.create_logged_model(
        store.experiment_id, e.name, run_id, tags, params, model_type=e.config["task"]
    )
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "model"
        mlflow.pyfunc.save_model(
            str(folder),
            loader_module="genai.serving",
            data_path=str(e.root / "models" / e.name),
            code_paths=[str(Path(__file__).parent)],
            mlflow_model=Model(artifact_path=logged.artifact_location, run_id=run_id, model_id=logged.model_id),
            signature=signature,
            input_example=example,
            pip_requirements=_requirements(e),
        )
        store.client.log_model_artifacts(logged.model_id, str(folder))
    store.client.finalize_logged_model(logged.model_id, "READY")
    store.client.log_outputs(run_id, [LoggedModelOutput(logged.model_id, step=0)])
    store.client.set_tag(run_id, "genai.model_id", logged.model_id)
    return logged.model_id


def _signature(e: Finished) -> tuple[Any, Any]:
    """Return the signature of genai/serving.py's answers for this task, and an example of a request."""
    import pandas as pd
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema, TensorSpec

    task, description, sampling = e.config["task"], e.config["description"], e.sampling
    shape = tuple(description["shape"])
    if task == "language":
        column, answer = ("prompt", ColSpec("string", "text")) if sampling else ("text", ColSpec("double", "nats"))
        inputs, outputs = [ColSpec("string", column)], [answer]
        example = pd.DataFrame({column: [*sampling.get("prompts", []), "The"][:1]})
    elif task == "image_generation":
        inputs, outputs = [ColSpec("string", "label")], [TensorSpec(np.dtype("float32"), (-1, *shape))]
        example = pd.DataFrame({"label": description["classes"][:1]})
    else:
        inputs, example = [TensorSpec(np.dtype("float32"), (-1, *shape))], _example(e, shape)
        outputs = {
            "regression": [ColSpec("double", "prediction")],
            "clustering": [ColSpec("long", "cluster")],
            "classification": [ColSpec("double", name) for name in description["classes"]],
        }[task]
    # how many: the request's rows say that
    numbers = {k: v for k, v in sampling.items() if type(v) in (int, float) and k not in ("n", "per_class")}
    kinds = {int: DataType.long, float: DataType.double}
    params = ParamSchema([ParamSpec(k, kinds[type(v)], v) for k, v in numbers.items()]) if numbers else None
    return ModelSignature(Schema(inputs), Schema(outputs), params), example


def _example(e: Finished, shape: tuple[int, ...]) -> np.ndarray:
    """Return one example of the validation split, or zeros where the data are not on this machine."""
    with contextlib.suppress(UserError):
        return Dataset(e.root / "data" / e.data[0]).arrays("validation")["x"][:1]
    return np.zeros((1, *shape), np.float32)


def _requirements(e: Finished) -> list[str]:
    from importlib.metadata import version

    names = ["mlflow", "numpy", "pydantic", "ruamel.yaml", "safetensors"]
    names += ["torch"] if "steps" in e.config["experiment"]["train"] else []
    names += ["tokenizers"] if e.config["description"]["kind"] == "text" else []
    return [f"{name}=={version(name).partition('+')[0]}" for name in names]


# --- track --follow ---------------------------------------------------------------------------------


def follow(root: Path, then_release: bool) -> None:
    """Mirror while stages run, until standard input ends; then all that is finished, and release if asked.

    A run whose training did not finish is left KILLED, to be continued should the training be. SIGTERM and
    SIGINT end it at once: what is finished by then is left to the next pass. Raises UserError where the
    store fails in the end.
    """
    reader, writer = os.pipe()
    before = {n: signal.signal(n, lambda *_: os.write(writer, b"!")) for n in (signal.SIGTERM, signal.SIGINT)}
    live = _Live(root)
    try:
        live.look()
        while not (ready := select.select([0, reader], [], [], POLL)[0]) or (ready == [0] and os.read(0, 4096)):
            live.look()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        os.close(reader), os.close(writer)
    with _alone(root, "track"), _one_line_errors(root):
        store = live.store
        if reader not in ready:
            store, line = _mirror_all(root, store)
            print(line)
        if store or not _is_mirrored(root, {}):
            live.end(store or Store(root))
    if then_release and reader not in ready:
        release(root, None)


class _Live:
    """The trainings that run, and the runs that mirror them."""

    def __init__(self, root: Path):
        self.root = root
        self.store: Store | None = None
        self.runs: dict[str, tuple[str, dict]] = {}  # experiment -> run id, steps logged
        self.seen: dict[Path, tuple[int, int]] | None = None
        self.failures = 0

    def look(self) -> None:
        """Mirror what changed since the last look. A failure is told once and tried again; it costs no training."""
        paths = [*self.root.glob(".work/*/history.csv"), self.root / "dvc.lock"]
        now = {}
        for path in paths:
            with contextlib.suppress(FileNotFoundError):
                now[path] = (path.stat().st_mtime_ns, path.stat().st_size)
        changed = [path for path in now if self.seen is not None and self.seen.get(path) != now[path]]
        if changed:
            try:
                with _one_line_errors(self.root), _alone(self.root, "track"):
                    self.store = self.store or Store(self.root)
                    for path in changed:
                        self._curve(path) if path.name == "history.csv" else _mirror_all(self.root, self.store)
            except UserError as error:
                self.failures += 1
                if self.failures == 2:  # once may be a dvc.lock that is being written
                    print(f"genai: {error} (training goes on; trying again)", file=sys.stderr)
                return
        self.seen, self.failures = now, 0

    def _curve(self, path: Path) -> None:
        name, history = path.parent.name, read_history(path)
        if not history or self.store is None:
            return
        run_id, logged = self.runs.get(name, ("", {}))
        if not run_id or not _agree(history, logged):
            run, logged = self.store.live_run(name, history, whole=False)
            if run is None:
                tags = {"genai.experiment": name, "genai.live": self.store.place}
                run = self.store.client.create_run(self.store.experiment_id, run_name=name, tags=tags)
            elif run.info.status != "RUNNING":
                self.store.client.update_run(run.info.run_id, "RUNNING")
            run_id = run.info.run_id
            self.runs[name] = run_id, logged
        self.store.log_history(run_id, history, logged)

    def end(self, store: Store) -> None:
        """Close the runs of trainings that did not finish."""
        for run in store.runs(live=store.place):
            if run.info.status == "RUNNING":
                store.client.set_terminated(run.info.run_id, "KILLED")


# --- release ----------------------------------------------------------------------------------------


def release(root: Path, names: list[str] | None) -> None:
    """Register the models of the named experiments, of all where none is named; the better become champion.

    A model is registered once: a version with the same weights and config is found, not made again. The
    first version becomes champion, a later one where `gate` says so. Raises UserError where a name is
    unknown or the store fails.
    """
    experiments = finished(root)
    chosen = {name: pick(experiments, name, "the finished experiments") for name in names or experiments}
    if not chosen:
        print("nothing to release: no experiment is trained and evaluated")
    with _alone(root, "release"), _one_line_errors(root):
        rows = _ask(
            root,
            "select t.name, t.value from model_version_tags t join model_versions v using (name, version) "
            "where t.key = 'genai.released' and v.current_stage != 'Deleted_Internal'",
        )
        before = [name for name, e in chosen.items() if (name, e.model_hash) in (rows or [])]
        if len(before) < len(chosen):
            with _alone(root, "track"):
                store, line = _mirror_all(root, None)
            if store and store.new:
                print(line)
            store = store or Store(root)
            for name in [name for name in chosen if name not in before]:
                if line := _release(store, chosen[name]):
                    print(line, flush=True)
                else:
                    before.append(name)
        if before:
            print(f"released already: {', '.join(before)}")


def _release(store: Store, e: Finished) -> str | None:
    """Register one model, decide on its alias and return the decision in one line."""
    client = store.client
    run = next(iter(store.runs(content=e.tags["genai.content"], experiment=e.name)), None)
    if run is None or run.info.status != "FINISHED":
        return f"{e.name}: not released; its files are not what dvc.lock says"
    registered = client.search_registered_models(f"name = '{e.name}'")
    if not registered:
        client.create_registered_model(e.name)
    versions = client.search_model_versions(f"name = '{e.name}'")
    version = next((v for v in versions if v.tags.get("genai.model") == e.model_hash), None)
    if version is None:
        tags = {key: run.data.tags[key] for key in ("data_hash", "params_hash", "git_commit") if key in run.data.tags}
        tags |= {f"test.{key}": f"{value:.6g}" for key, value in e.metrics.items()} | {"genai.model": e.model_hash}
        model_id = run.data.tags["genai.model_id"]
        version = client.create_model_version(e.name, f"models:/{model_id}", run.info.run_id, tags, model_id=model_id)
    number = str(version.version)
    if version.tags.get("genai.released"):
        return None  # decided before; only a store that cannot be asked without MLflow comes here
    champion = str((registered[0].aliases if registered else {}).get(ALIAS, number))
    if champion == number:
        decision, better = "there is no other", True
    else:
        decision, better = _challenge(store, e, client.get_model_version(e.name, champion))
    if better:
        client.set_registered_model_alias(e.name, ALIAS, number)
    line = f"version {number} {'becomes' if better else 'does not become'} {ALIAS}: {decision}"
    client.update_model_version(e.name, number, line)  # the description
    client.set_model_version_tag(e.name, number, "genai.released", e.model_hash)
    return f"{e.name}: {line}"


def _challenge(store: Store, e: Finished, champion: Any) -> tuple[str, bool]:
    """Compare an experiment with its champion; return the figures, or why they cannot be had, and the decision."""
    against = f"version {champion.version}"
    if champion.tags.get("data_hash") != e.data[1]:
        return f"not comparable with {against}, which was tested on other data", False
    from mlflow.exceptions import MlflowException

    path = f"scores/{e.name}.csv"
    with tempfile.TemporaryDirectory() as folder:
        try:
            theirs = _scores(Path(store.client.download_artifacts(champion.run_id, path, folder)))
        except (MlflowException, OSError):
            return f"not comparable with {against}, whose scores are no longer in MLflow", False
    ours = _scores(e.root / path)
    if ours.keys() != theirs.keys():
        return (
            f"not comparable with {against}, which was tested on other examples ({len(theirs)}, now {len(ours)})",
            False,
        )
    difference = np.array([ours[example] - theirs[example] for example in ours])
    if not np.isfinite(difference).all():
        return f"not comparable with {against}: {np.sum(~np.isfinite(difference))} scores are not finite", False
    mean, low, high = paired_bootstrap(difference)
    figures = (
        f"mean score {mean:+.4g} against {against}, 95 % interval {low:+.4g} to {high:+.4g}, n = {len(difference)}"
    )
    return f"{figures} ({RESAMPLES} resamples; lower is better)", high < 0


def _scores(path: Path) -> dict[str, float]:
    with open(path, newline="") as file:
        return {row["example"]: float(row["score"]) for row in csv.DictReader(file)}


def paired_bootstrap(difference: np.ndarray, resamples: int = RESAMPLES, seed: int = 0) -> tuple[float, float, float]:
    """Return the mean of paired differences (N,) and the 95 % percentile interval of it.

    Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, section 13.3; the pairs are drawn, so
    that what makes an example hard for both models cancels.
    """
    rng, n = np.random.default_rng(seed), len(difference)
    means = np.empty(resamples)
    block = max(1, 1_000_000 // n)  # of resamples, so that memory stays small
    for i in range(0, resamples, block):
        size = min(block, resamples - i)
        means[i : i + size] = difference[rng.integers(n, size=(size, n))].mean(1)
    low, high = np.quantile(means, [0.025, 0.975])
    return float(difference.mean()), float(low), float(high)


def local_copy(uri: str, into: Path) -> Path:
    """Download the model at `models:/NAME@ALIAS` or `models:/NAME/VERSION`; return its folder below `into`.

    Raises UserError where there is none.
    """
    if not re.fullmatch(r"models:/[^/@]+(@[^/@]+|/\d+)", uri):
        raise UserError(f"--from: {uri!r} should be like models:/text_diffusion@champion or models:/text_diffusion/3")
    root = Path.cwd()
    if store_uri(root).startswith("sqlite:///") and not _ask(root, "select name from model_versions"):
        raise UserError(f"--from: no model is registered in {_shown(store_uri(root))}; run: python -m genai release")
    with _one_line_errors(root):
        where = store_uri(root)
        Store(root)
        from mlflow.artifacts import download_artifacts

        folder = Path(download_artifacts(uri, dst_path=str(into), tracking_uri=where, registry_uri=where))
        for config in folder.glob("data/*/config.json"):
            return config.parent
    raise UserError(f"--from: {uri} is not a model of this project")
