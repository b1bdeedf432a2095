"""Train a model again on ever more examples: learning_curves/NAME.csv, how wrong it is after how much experience."""

import csv
import io
import shutil
from pathlib import Path
from typing import Any

from genai.core.config import LearningCurve, UserError, load_file, load_method, validate
from genai.core.stage import limit_threads, stage, trained_threads

FILE = Path("learning_curves")


def main(name: str) -> None:
    with stage("learning_curve", name) as this:
        section: LearningCurve = this.section("learning_curves")
        folder = this.reads(Path("models") / name)
        limit_threads(trained_threads(folder))
        from genai import model as models
        from genai.core.dataset import Dataset, write_text

        loaded = models.load(folder)
        dataset = Dataset(this.reads(Path("data") / section.data))
        rows = []
        for examples in section.examples:
            for seed in range(section.seeds):
                part = beginning(dataset, examples, seed, f"learning_curves.{name}.examples")
                model = train(loaded, part, seed, this.work / "learning_curve")
                task = load_file("tasks", section.task, f"learning_curves.{name}.task")
                trained = models.Loaded(model, name, loaded.experiment, loaded.description, folder)
                for split in ("train", "validation", "test"):
                    metrics, _ = task.evaluate(trained, part, split)
                    rows.append((examples, seed, split, metrics[task.RANKED_BY[0]]))
        table = io.StringIO()
        writer = csv.writer(table, lineterminator="\n")
        writer.writerows([("examples", "seed", "split", task.RANKED_BY[0]), *rows])
        write_text(FILE / f"{name}.csv", table.getvalue())


def beginning(dataset: Any, n: int, seed: int, at: str) -> Any:
    """Return the data set with n of its training examples, of each class one at least and else its share, drawn by the seed.

    A larger n adds to a smaller one of the same seed. Raises UserError where there are not so many, or a class has none.
    """
    import numpy as np

    arrays = dataset.arrays("train")
    total, classes = len(arrays["y"]), max(1, len(dataset.description.classes))
    if not classes <= n <= total:
        raise UserError(f"{at}: {n} should be from {classes}, one of each class, to {total}, the training examples")
    order = np.random.default_rng(seed).permutation(total)
    if dataset.description.classes:
        y = arrays["y"][order]
        turn = np.empty(total)  # of each example, the share of its class that comes before it
        for c in np.unique(y):
            turn[y == c] = np.linspace(0, 1, np.count_nonzero(y == c), endpoint=False)
        order = order[np.argsort(turn, kind="stable")]
    part = type(dataset)(dataset.directory)
    part.arrays = lambda split: (
        {key: array[order[:n]] for key, array in arrays.items()} if split == "train" else dataset.arrays(split)
    )
    return part


def train(loaded: Any, part: Any, seed: int, work: Path) -> Any:
    """Return the experiment's model trained on a part of its data by its own recipe, a batch at most all of it."""
    from genai import model as models

    n = len(part.arrays("train")["y"])
    numbers = loaded.experiment.train.model_dump() | {"seed": seed}
    if "batch_size" in numbers:
        numbers["batch_size"] = min(numbers["batch_size"], n)
    experiment = loaded.experiment.model_copy(update={"train": type(loaded.experiment.train)(**numbers)})
    method = load_method(experiment.train.method, "train.method")
    config = validate(method.Config, numbers, "train")
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    model = method.train(
        lambda: models.build(loaded.name, experiment, part.description), part, config, work, f"{n} examples"
    )
    shutil.rmtree(work)
    if hasattr(model, "eval"):
        model.eval()
    return model
