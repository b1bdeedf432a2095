"""Train an experiment's model: models/NAME."""

import contextlib
import getpass
import hashlib
import os
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

from genai.core.config import Experiment, load_method, validate
from genai.core.stage import limit_threads, stage


def main(name: str) -> None:
    with stage("train", name) as this:
        experiment: Experiment = this.section("experiments")
        limit_threads(experiment.train.threads)
        from genai import model as models
        from genai.core.dataset import Dataset, replaced, write_json
        from genai.training.environment import environment

        at = f"experiments.{name}.train"
        method = load_method(experiment.train.method, f"{at}.method")
        training = validate(method.Config, experiment.train.model_dump(), at)
        dataset = Dataset(this.reads(Path("data") / experiment.data))
        here = environment(training)
        first = int(os.environ.get("RANK", "0")) == 0  # of the processes that torchrun starts
        if first:
            write_json(this.work / "started.json", started(experiment, here))
        key = fingerprint(experiment, dataset.directory)
        model = method.train(
            lambda: models.build(name, experiment, dataset.description),
            dataset, training, this.work, key, Previews(this.work, dataset),
        )  # fmt: skip
        if not first:
            return
        with replaced(Path("models") / name) as folder:
            text = dataset.description.kind == "text"
            tokenizer = dataset.directory / "tokenizer.json" if text else None
            models.save(folder, name, experiment, dataset.description, model, here, tokenizer)
            if hasattr(model, "loss"):
                shutil.copyfile(this.work / "history.csv", folder / "history.csv")
    (this.work / "checkpoint.pt").unlink(missing_ok=True)


def started(experiment: Experiment, environment: dict[str, Any]) -> dict[str, Any]:
    """Return what MLflow shows of a training from its start: numbers, environment, user, commit and time."""
    facts = {"experiment": experiment.model_dump(), "environment": environment, "started": round(time.time(), 3)}
    with contextlib.suppress(KeyError, OSError):  # a user without a name
        facts["user"] = getpass.getuser()
    describe = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    with contextlib.suppress(OSError, subprocess.CalledProcessError):  # outside Git
        facts["commit"] = subprocess.run(describe, capture_output=True, text=True, check=True).stdout.strip()
    return facts


def fingerprint(experiment: Experiment, dataset: Path) -> str:
    """Return a hash of an experiment's numbers and data."""
    digest = hashlib.sha256(experiment.model_dump_json().encode())
    for path in sorted(dataset.iterdir()):
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


class Previews:
    """Keeps the samples that a generator draws while it trains, by step, in .work/NAME/previews."""

    def __init__(self, work: Path, dataset: Any):
        self.folder, self.dataset = work / "previews", dataset

    def __call__(self, step: int, samples: Any) -> None:
        """samples: an array of images (N, C, H, W) in [0, 1], or of tokens (N, T)."""
        from genai.core.dataset import write_image_grid, write_text

        if samples.ndim == 4:
            write_image_grid(samples[None], self.folder / f"{step}.png")
        else:
            texts = [self.dataset.tokenizer.decode(row) for row in samples.tolist()]
            write_text(self.folder / f"{step}.txt", "\n\n---\n\n".join(texts) + "\n")
