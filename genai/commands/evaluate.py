"""Measure a trained model on validation and test: metrics/NAME.json, scores/NAME.csv, figures/NAME."""

import csv
import io
from pathlib import Path

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
        table = io.StringIO()
        writer = csv.writer(table, lineterminator="\n")
        writer.writerow(["example", *columns])
        rows = zip(*(column.tolist() for column in columns.values()), strict=True)
        writer.writerows([i, *(f"{v:.9g}" if isinstance(v, float) else v for v in row)] for i, row in enumerate(rows))
        write_text(Path("scores") / f"{name}.csv", table.getvalue())
        write_json(Path("metrics") / f"{name}.json", metrics)
        with replaced(Path("figures") / name) as out:
            task.figures(loaded, dataset, columns, out)  # columns: of test, the last split
