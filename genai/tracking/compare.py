"""A challenger beside the champion: both measured on the same test split, and the decision in one line.

Experiments, text generators among them, are compared by their score of each test example; generators whose judge
has features (of images), by the kernel distance of their graded samples to the real test examples: a judge's
likelihood would reward a generator that draws one good image for ever.

A champion that was tested on other examples, or whose scores are gone, is scored anew, by the code that it was
registered with where the model's code has changed since. One that cannot be measured on the present
test split (it does not load, or is made for data of another shape) cannot be defended: the challenger takes its
place, and the line says so.

MLflow's own gate, `validate_evaluation_results`, holds two figures to a threshold: it knows no error of either, no
look taken before, and scores models that answer a data frame, not samples.
"""

import csv
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from genai.core.config import UserError, code_hash, load_file
from genai.core.dataset import Dataset, Description, write_arrays
from genai.tasks.language_model import block_length
from genai.tracking import gate
from genai.tracking.finished import Finished, md5
from genai.tracking.store import Store


class Gone(Exception):
    """The champion cannot be measured; the message says why."""


@dataclass(frozen=True)
class Decision:
    better: bool
    line: str


def compare(store: Store, e: Finished, champion: Any, look: int) -> Decision:
    """Decide whether e takes the place of the champion, a version; look: the how-manieth comparison with it.

    Raises UserError where the judge is not what graded e.
    """
    at, against = gate.level(look), f"version {champion.version}"
    task = load_file("tasks", e.task, e.name)
    with tempfile.TemporaryDirectory() as temporary:
        try:
            if "features" in getattr(task, "JUDGE_NEEDS", ()):
                p, enough, figures = _by_samples(store, e, champion, at, Path(temporary))
            else:
                p, enough, figures = _by_scores(store, e, champion, at, Path(temporary))
        except Gone as reason:
            return Decision(True, f"{against} cannot be measured on the present test split ({reason})")
    line = f"{figures.format(against=against)}, p = {p:.2g} (look {look} at it: at most {at:.2g})"
    return Decision(enough and p <= at, line)


# --- by scores --------------------------------------------------------------------------------------


def _by_scores(store: Store, e: Finished, champion: Any, at: float, folder: Path) -> tuple[float, bool, str]:
    """Return the p-value, whether the floors hold (there is none), and the figures."""
    ours, anew, path = read_scores(e.root / "scores" / f"{e.name}.csv"), "", None
    if champion.tags.get("test_hash") == e.splits(e.data)["test"] and champion.tags.get("measured_by") == e.measured_by:
        path = _artifact(store, champion.run_id, f"scores/{e.name}.csv", folder)
    text = e.config["description"]["kind"] == "text"
    theirs = read_scores(path) if path else np.zeros(0)
    if len(theirs) != len(ours) and not (text and len(theirs)):
        theirs, anew = _score_anew(store, e, champion, folder), ", scored anew"
    n = min(len(ours), len(theirs))
    if len(ours) != len(theirs) and not text:  # of text the last stretch depends on the tokenizer
        raise Gone(f"it has {len(theirs)} scores where there are {len(ours)}")
    difference = ours[:n] - theirs[:n]
    if not np.isfinite(ours).all():
        return 1.0, False, f"{np.sum(~np.isfinite(ours))} scores are not finite, against {{against}}"
    if not np.isfinite(theirs).all():
        raise Gone(f"{np.sum(~np.isfinite(theirs))} of its scores are not finite")
    block = block_length(n) if text else 1  # the neighbours of a text are alike
    blocks = f" in blocks of {block}" if text else ""
    figures = f"mean score {difference.mean():+.4g} against {{against}}{anew} (n = {n}{blocks}, lower is better)"
    return gate.better_score(difference, block, at), True, figures


def read_scores(path: Path) -> np.ndarray:
    """Return the scores of a table, in the order of the test split."""
    with open(path, newline="") as file:
        return np.array([float(row["score"]) for row in csv.DictReader(file)])


def _score_anew(store: Store, e: Finished, champion: Any, folder: Path) -> np.ndarray:
    """Return the champion's scores on the present test split. Raises Gone."""
    data = e.root / "data" / e.data[0]
    if not data.exists():
        raise UserError(f"{data}: not on this machine, but {e.name}'s champion was tested on other data; run: dvc pull")
    model, code = download(store, f"models:/{champion.name}/{champion.version}", folder)
    config = json.loads((model / "config.json").read_text())
    theirs, present = config["description"], json.loads((data / "description.json").read_text())
    old, new = _compared(theirs), _compared(present)
    if other := [key for key in new if old.get(key) != new[key]]:
        raise Gone(f"its data are of another {other[0]}: {old.get(other[0])}, now {new[other[0]]}")
    if (task := config["experiment"]["task"]) != e.config["experiment"]["task"]:
        raise Gone(f"it is measured at another task, {task}")
    view = folder / "view" / data.name  # the present data as the champion takes them: its windows, its tokenizer
    view.mkdir(parents=True)
    files = {path.name: path for path in [*data.iterdir(), *model.glob("tokenizer.json")]}
    del files["description.json"]
    for name, path in files.items():
        (view / name).symlink_to(path.resolve())
    (view / "description.json").write_text(json.dumps(theirs))
    out = folder / "anew.json"
    try:
        if "columns" in new:
            _encode_anew(Dataset(data), Description.model_validate(theirs), view / "test.safetensors")
        if config["code"] == code_hash(config["experiment"]["code"]):
            score(model, view, out)
        else:
            _run_there(code, model, view, out)
    except (
        UserError,
        ArithmeticError,
        AttributeError,
        LookupError,
        OSError,
        RuntimeError,
        TypeError,
        ValueError,
    ) as error:
        raise Gone(f"it does not load: {str(error).splitlines()[-1][:200]}") from None
    return np.array(json.loads(out.read_text()), dtype=np.float64)


def _compared(description: dict[str, Any]) -> dict[str, Any]:
    """Return what must be the same of two data sets for a model of one to be measured on the other."""
    about = {key: description[key] for key in ("kind", "classes")}
    if columns := description.get("columns"):  # each may have other means and levels
        return about | {"columns": [column["name"] for column in columns]}
    return (
        about if description["kind"] == "text" else about | {"shape": description["shape"]}
    )  # a window: of any length


def _encode_anew(dataset: Dataset, theirs: Description, path: Path) -> None:
    """Write the test split of a table by the means and levels that a model was trained with. Raises UserError."""
    arrays = dataset.arrays("test")
    x = theirs.encode(dataset.description.decode(arrays["x"]))
    write_arrays(path, arrays | {"x": x})  # takes the place of the link


def score(model: Path, data: Path, out: Path) -> None:
    """Write the scores of a model's folder on the test split of a data set's."""
    from genai import model as models

    loaded = models.load(model, same_code=False)
    task: ModuleType = load_file("tasks", loaded.experiment.task, str(model))
    _, columns = task.evaluate(loaded, Dataset(data), "test")
    out.write_text(json.dumps(columns["score"].tolist()))


def _run_there(code: Path, *paths: Path) -> None:
    """Call `score` in the code that lies beside a registered model."""
    command = "import sys; from pathlib import Path; from genai.tracking.compare import score; "
    command += "score(*map(Path, sys.argv[1:]))"
    here = [str(path.resolve()) for path in paths]
    environment = os.environ | {"PYTHONPATH": str(code)}
    done = subprocess.run(
        [sys.executable, "-c", command, *here],
        check=False,
        cwd=code,
        env=environment,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise RuntimeError((done.stderr.strip() or f"exit status {done.returncode}").splitlines()[-1])


# --- by samples -------------------------------------------------------------------------------------


def _by_samples(store: Store, e: Finished, champion: Any, at: float, folder: Path) -> tuple[float, bool, str]:
    """Return the p-value of the kernel distance, whether the labels are right as often, and the figures.

    Both are graded under the present judge. The share of samples that the judge takes for what they were
    drawn as must not be lower than the champion's, nor need it be higher than of real examples: a
    generator that the judge recognises more often than the real thing draws stereotypes.
    """
    from safetensors.numpy import load_file as load_arrays

    from genai import model as models
    from genai.tasks.image_generation import kernel_distance

    assert e.judge
    judge_name, judge_hash = e.judge
    if md5(e.root / "models" / judge_name) != judge_hash:
        raise UserError(f"models/{judge_name}: not the judge that graded {e.name}; run: dvc repro grade@{e.name}")
    judge = models.load(e.root / "models" / judge_name)
    real = Dataset(e.root / "data" / e.real[0]).arrays("test")
    path = _artifact(store, champion.run_id, "generated/samples.safetensors", folder)
    if path is None:
        raise Gone("its samples are no longer in MLflow")
    ours = load_arrays(e.root / "generated" / e.name / "samples.safetensors")
    theirs = load_arrays(path)
    if theirs["x"].shape[1:] != real["x"].shape[1:]:
        raise Gone(f"it draws {theirs['x'].shape[1:]} where the data are {real['x'].shape[1:]}")

    def right(x: dict[str, np.ndarray]) -> float:
        return float((judge.apply("predict_proba", x["x"]).argmax(1) == x["y"]).mean())

    a, b, features = (judge.apply("features", x["x"]).astype(np.float64) for x in (ours, theirs, real))
    if not np.isfinite(b).all():
        raise Gone("its samples are not finite")
    if not np.isfinite(a).all():
        return 1.0, False, "samples are not finite, against {against}"
    p = gate.better_samples(a, b, features, at)
    floor = min(right(theirs), right(real))
    figures = (
        f"kernel distance {kernel_distance(a, features):.4g} against {kernel_distance(b, features):.4g} of {{against}}, "
        f"label accuracy {right(ours):.4g} where the floor is {floor:.4g}, by {judge_name} {judge_hash[:8]} "
        f"(n = {len(a)}, {len(b)} and {len(features)} real)"
    )
    return p, right(ours) >= floor, figures


# --- the champion's files ---------------------------------------------------------------------------


def download(store: Store, uri: str, folder: Path) -> tuple[Path, Path]:
    """Return the folders of a registered model and of the code beside it, copied below `folder`. Raises Gone."""
    from mlflow.artifacts import download_artifacts
    from mlflow.exceptions import RESOURCE_DOES_NOT_EXIST, ErrorCode, MlflowException

    place = folder / "model"
    place.mkdir(parents=True)
    try:
        where = Path(download_artifacts(uri, dst_path=str(place), tracking_uri=store.uri, registry_uri=store.uri))
    except FileNotFoundError:
        raise Gone("its files are gone") from None
    except MlflowException as error:
        if error.error_code != ErrorCode.Name(RESOURCE_DOES_NOT_EXIST):
            raise
        raise Gone(f"it is not there: {error.message}") from None
    for config in where.glob("data/*/config.json"):
        return config.parent, where / "code"
    raise Gone("it is not a model of this project")


def _artifact(store: Store, run_id: str, path: str, folder: Path) -> Path | None:
    """Download an artifact of a run; None where run or artifact are gone."""
    from mlflow.exceptions import RESOURCE_DOES_NOT_EXIST, ErrorCode, MlflowException

    try:
        listed = store.client.list_artifacts(run_id, str(Path(path).parent))
    except MlflowException as error:
        if error.error_code != ErrorCode.Name(RESOURCE_DOES_NOT_EXIST):
            raise
        return None
    if path not in [artifact.path for artifact in listed]:
        return None
    return Path(store.client.download_artifacts(run_id, path, str(folder)))
