"""What is finished: the experiments that dvc.lock says are trained, measured and, where they generate, graded."""

import contextlib
import csv
import hashlib
import json
import math
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

from genai.core.config import PARAMS, UserError, code_hash, read
from genai.core.dataset import SPLITS

COLUMNS = {"train_loss": "train/loss", "validation_loss": "validation/loss", "learning_rate": "train/learning_rate"}
History = dict[int, dict[str, float]]  # step -> curve -> value


@dataclass(frozen=True)
class Finished:
    """A finished experiment. Its entries of dvc.lock hold what made it: cmd, deps, params, outs."""

    root: Path
    name: str
    train: dict[str, Any]
    evaluate: dict[str, Any]
    grade: dict[str, Any] | None  # of a generator
    sample: dict[str, Any] | None

    @cached_property
    def tags(self) -> dict[str, str]:
        """What tells whether MLflow holds the run, its samples and its figures already."""
        tags = {"genai.content": hashed([self.train, self.evaluate, self.grade])}
        if self.samples and self.sample:
            tags["genai.samples"] = hashed(self.sample["outs"])
        if self.figures:
            tags["genai.figures"] = hashed({path.name: md5(path) for path in self.figures})
        return tags

    @cached_property
    def model_hash(self) -> str:
        """What tells a registered version from another: its files and, of a generator, how it samples."""
        return hashed([md5s(self.train["outs"]), self.generator.get("sampling")])

    @property
    def data(self) -> tuple[str, str]:
        """Name of the data set that it was trained on, and DVC's hash of it."""
        return next((Path(p).name, h) for p, h in md5s(self.train["deps"]).items() if p.startswith("data/"))

    @property
    def real(self) -> tuple[str, str]:
        """Name and hash of the data set that a generator's samples are held against; of others, of the same data."""
        deps = md5s((self.grade or self.train)["deps"])
        return next((Path(p).name, h) for p, h in deps.items() if p.startswith("data/"))

    def splits(self, data: tuple[str, str]) -> dict[str, str]:
        """Return a hash of each split of a data set, of its file; where that is not here, of all of the data and its name.

        The test split's is what the gate goes by: a new card, training part or tokenizer leaves it the same.
        """
        name, whole = data
        files = {split: next((self.root / "data" / name).glob(f"{split}.*"), None) for split in SPLITS}
        return {split: (path and md5(path)) or hashed([whole, split]) for split, path in files.items()}

    @cached_property
    def config(self) -> dict[str, Any]:
        """What the model was built from: experiment, description, code, environment."""
        return json.loads((self.root / "models" / self.name / "config.json").read_text())

    @cached_property
    def generator(self) -> dict[str, Any]:
        """The section of params.yaml by which it was graded and sampled; empty where it generates nothing."""
        section: dict[str, Any] = {}
        for stage in (self.sample, self.grade):
            for key, value in ((stage or {}).get("params", {}).get(str(PARAMS)) or {}).items():
                _, _, field = key.removeprefix("generators.").partition(".")
                section |= {field: value} if field else value
        return section

    @property
    def task(self) -> str:
        """What it is served as."""
        return self.generator.get("task") or self.config["experiment"]["task"]

    @property
    def judge(self) -> tuple[str, str] | None:
        """Name of the model that graded it, and DVC's hash of it."""
        deps = md5s(self.grade["deps"]) if self.grade else {}
        path = f"models/{self.generator.get('judge')}"
        return (Path(path).name, deps[path]) if path in deps else None

    @property
    def measured_by(self) -> str:
        """A hash of the code that says what a score is."""
        deps = md5s(self.evaluate["deps"])
        return hashed({path: h for path, h in deps.items() if path.startswith("genai/tasks")})

    @cached_property
    def metrics(self) -> dict[str, dict[str, float]]:
        """Split -> metric -> value; of a generator its grades among them."""
        files = [self.root / "metrics" / f"{self.name}.json"]
        files += [self.root / "grades" / f"{self.name}.json"] if self.grade else []
        merged: dict[str, dict[str, float]] = {}
        for path in files:
            for split, values in json.loads(path.read_text()).items():
                merged[split] = merged.get(split, {}) | values
        return merged

    @property
    def samples(self) -> list[Path]:
        return sorted((self.root / "samples" / self.name).glob("*")) if self.sample else []

    @property
    def figures(self) -> list[Path]:
        """Its task's figures, and what the report drew of it."""
        return [p for f in ("figures", "reports/figures") for p in sorted((self.root / f / self.name).glob("*.png"))]

    @cached_property
    def started(self) -> dict[str, Any]:
        """What is known of the training's start; empty where DVC restored the model from its cache."""
        work, folder = self.root / ".work" / self.name, self.root / "models" / self.name
        facts = read_started(work)
        with contextlib.suppress(FileNotFoundError):
            ended = (work / "train.json").stat().st_mtime
            here = abs(ended - (folder / "config.json").stat().st_mtime) < 10  # so it was made here, and then
            if here and all(facts.get(key) == self.config[key] for key in ("experiment", "environment")):
                return facts
        return {}

    def changed(self) -> str | None:
        """Return a file that is not what dvc.lock says it is, because a stage is running or was not run."""
        stages = [self.train, self.evaluate] + ([self.grade] if self.grade else [])
        entries = {path: h for stage in stages for path, h in md5s(stage["outs"]).items()}
        deps = {path: h for stage in stages for path, h in md5s(stage["deps"]).items()}
        here = {path for path in deps if path.startswith("data/") or path.endswith(".py")}
        entries |= {path: deps[path] for path in here if (self.root / path).exists()}
        if path := next((path for path, h in entries.items() if md5(self.root / path) != h), None):
            return path
        code = self.config["experiment"]["code"]
        return code if code_hash(code) != self.config["code"] else None


def finished(root: Path) -> dict[str, Finished]:
    """Return the finished experiments by name: those whose measures in dvc.lock are of the model in dvc.lock."""
    if not (root / "dvc.lock").exists():
        return {}
    stages = (read(root / "dvc.lock") or {}).get("stages", {})
    generators: Any = {}
    with contextlib.suppress(UserError, AttributeError):
        generators = read(root / PARAMS).get("generators") or {}
    found = {}
    for stage, train in stages.items():
        command, _, name = stage.partition("@")
        if command != "train":
            continue

        # what both stages read must be the same: while a run goes on, the entry of one may be older than the other's
        known = md5s(train["deps"]) | md5s(train["outs"])

        def of_this_model(command: str, name: str = name, known: dict[str, str] = known) -> dict[str, Any] | None:
            entry = stages.get(f"{command}@{name}")
            deps = md5s(entry["deps"]) if entry else {}
            same = f"models/{name}" in deps and all(known.get(path, h) == h for path, h in deps.items())
            return entry if same else None

        evaluate, grade = of_this_model("evaluate"), of_this_model("grade")
        if evaluate and (grade or name not in generators):
            found[name] = Finished(root, name, train, evaluate, grade, of_this_model("sample"))
    return found


def read_started(work: Path) -> dict[str, Any]:
    """Return started.json of .work/NAME; empty where there is none."""
    with contextlib.suppress(FileNotFoundError, ValueError):
        return json.loads((work / "started.json").read_text())
    return {}


def read_history(path: Path) -> History:
    """Return the curves of a history.csv."""
    history = {}
    for row in _rows(path):
        values = {metric: float(row[column]) for column, metric in COLUMNS.items() if row.get(column)}
        history[int(row["step"])] = {key: value for key, value in values.items() if math.isfinite(value)}
    return history


def read_load(path: Path) -> list[tuple[float, str, float]]:
    """Return the rows of a system.csv, which another machine wrote of itself: unix seconds, system metric, value."""
    rows = [(float(row["time"]), row["name"], float(row["value"])) for row in _rows(path)]
    return [row for row in rows if math.isfinite(row[2])]


def _rows(path: Path) -> list[dict[str, str]]:
    """Return the rows of a CSV that grows; none where there is no file, a last line being written left for later."""
    try:
        text = path.read_text()
    except FileNotFoundError:
        return []
    return list(csv.DictReader(text[: text.rfind("\n") + 1].splitlines()))


def agree(history: History, logged: History) -> bool:
    """Say whether two curves are the same at the steps that both have."""
    return all(history[step].get(k) == v for step in history.keys() & logged.keys() for k, v in logged[step].items())


def flat(values: dict[str, Any], prefix: str = "") -> dict[str, str]:
    """Return a tree of values as MLflow's params: their keys joined by dots."""
    found: dict[str, str] = {}
    for key, value in values.items():
        found |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": str(value)[:6000]}
    return found


def md5s(entries: list[dict[str, Any]]) -> dict[str, str]:
    return {entry["path"]: entry["md5"] for entry in entries}


def hashed(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:32]


def md5(path: Path) -> str | None:
    """Return the hash that DVC gives a file or a folder; None where there is none."""
    if path.is_dir():
        files = sorted((file.relative_to(path).as_posix(), file) for file in path.rglob("*") if file.is_file())
        listing = json.dumps([{"md5": md5(file), "relpath": name} for name, file in files], sort_keys=True)
        return hashlib.md5(listing.encode()).hexdigest() + ".dir"
    with contextlib.suppress(FileNotFoundError):
        status = path.stat()
        return _file_md5(path, status.st_size, status.st_mtime_ns)
    return None


@lru_cache(maxsize=10_000)
def _file_md5(path: Path, size: int, time: int) -> str:
    """Hash a file, once while its size and time stay: many experiments share a data set."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest()
