"""Measure a trained model on validation and test: metrics/NAME.json, scores/NAME.csv, figures/NAME, plots/NAME."""

import csv
import io
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from genai.core.config import load_file
from genai.core.stage import limit_threads, stage, trained_threads


def main(name: str) -> None:
    with stage("evaluate", name) as this:
        folder = this.reads(Path("models") / name)
        limit_threads(trained_threads(folder))
        from genai import model as models
        from genai.core.dataset import Dataset, replaced, write_json, write_text

        loaded = models.load(folder)
        task = load_file("tasks", loaded.experiment.task, f"experiments.{name}.task")
        dataset = Dataset(this.reads(Path("data") / loaded.experiment.data))
        metrics = {}
        for split in ("validation", "test"):
            metrics[split], columns = task.evaluate(loaded, dataset, split)
        rows = zip(*(column.tolist() for column in columns.values()), strict=True)  # of test, the last split
        scores = [[i, *(f"{v:.9g}" if isinstance(v, float) else v for v in row)] for i, row in enumerate(rows)]
        write_text(Path("scores") / f"{name}.csv", as_csv([["example", *columns], *scores]))
        write_json(Path("metrics") / f"{name}.json", metrics)
        with replaced(Path("figures") / name) as figures, replaced(Path("plots") / name) as plots:
            for kind, table in task.figures(loaded, dataset, columns, figures).items():
                write_text(plots / f"{kind}.csv", as_csv(table))


def as_csv(rows: Iterable[Iterable[Any]]) -> str:
    """Return rows as the text of a CSV."""
    table = io.StringIO()
    csv.writer(table, lineterminator="\n").writerows(rows)
    return table.getvalue()
