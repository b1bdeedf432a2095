"""Train an experiment's model: models/NAME."""

import getpass
import hashlib
import os
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

from genai.core.config import Experiment, load_file, validate
from genai.core.stage import limit_threads, stage


def main(name: str) -> None:
    with stage("train", name) as this:
        experiment: Experiment = this.section("experiments")
        limit_threads(experiment.train.threads)
        from genai import model as models
        from genai.core.dataset import Dataset, replaced, write_json

        at = f"experiments.{name}.train"
        method = load_file("training", experiment.train.method, f"{at}.method")
        training = validate(method.Config, experiment.train.model_dump(), at)
        dataset = Dataset(this.reads(Path("data") / experiment.data))
        method.seed(training)
        model = models.build(name, experiment, dataset.description)
        method.check(model, at)
        environment = method.environment(training)
        first = int(os.environ.get("RANK", "0")) == 0  # of the processes that torchrun starts
        if first:
            write_json(this.work / "started.json", started(experiment, environment))
        key = fingerprint(experiment.model_dump_json(), this.code_hash(), *contents(dataset.directory))
        model = method.train(model, dataset, training, this.work, key, Previews(this.work, dataset, name))
        if not first:
            return
        with replaced(Path("models") / name) as folder:
            tokenizer = dataset.directory / "tokenizer.json"
            models.save(folder, name, experiment, dataset.description, model, environment, tokenizer)
            if (history := this.work / "history.csv").exists() and method.STEPS:
                shutil.copyfile(history, folder / "history.csv")
    for leftover in ("checkpoint.pt", "progress.json"):
        (this.work / leftover).unlink(missing_ok=True)
