"""The report: every figure beside its baseline (leaderboard), the curves, and what each topic's models look like."""

import csv
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
from safetensors.numpy import load_file

from genai.core.config import Params, UserError
from genai.core.dataset import atomic, write_json, write_text
from genai.sample import write_image_grid

# The figure that ranks a table's rows, and whether more of it is better.
RANKED_BY = {
    "r2": True,
    "accuracy": True,
    "clustering_accuracy": True,
    "bpc": False,
    "nelbo_bpc": False,
    "label_accuracy": True,
}


def write(params: Params, folder: Path) -> None:
    """Write leaderboard.json, leaderboard.md, curves.csv and the figures into `folder`."""
    rows = leaderboard(params)
    write_json(folder / "leaderboard.json", rows)
    write_text(folder / "leaderboard.md", markdown(rows))
    curves = {name: history(name) for name in params.experiments if (Path("models") / name / "history.csv").exists()}
    write_curves(curves, folder)
    if curves:
        draw_curves(curves, folder / "curves.png")
    for name in params.experiments:
        draw_weights(name, folder)


def leaderboard(params: Params) -> list[dict]:
    """Return a row per experiment: name, topic, data, its ranking figure first; grouped by data set, best first."""
    rows = []
    for name, experiment in params.experiments.items():
        path = Path("metrics") / f"{name}.json"
        try:
            metrics = json.loads(path.read_text())
        except (OSError, ValueError):
            raise UserError(f"{path}: missing or damaged; run: dvc repro evaluate@{name}") from None
        ranked_by = next((metric for metric in RANKED_BY if metric in metrics), next(iter(metrics)))
        rows.append(
            {
                "experiment": name,
                "topic": experiment.model.split(".")[0],
                "data": experiment.data,
                "metric": ranked_by,
                "value": metrics[ranked_by],
                "others": {metric: value for metric, value in metrics.items() if metric != ranked_by},
            }
        )
    datasets = list(params.datasets)

    def place(row: dict) -> tuple:
        kind = list(RANKED_BY).index(row["metric"]) if row["metric"] in RANKED_BY else len(RANKED_BY)
        kind = min(kind, list(RANKED_BY).index("bpc")) if row["metric"] == "nelbo_bpc" else kind  # one ranking
        return datasets.index(row["data"]), kind, -row["value"] if RANKED_BY.get(row["metric"], True) else row["value"]

    return sorted(rows, key=place)


def markdown(rows: list[dict]) -> str:
    """Return the leaderboard as a markdown table, columns padded to be read in a terminal too."""
    table = [["data", "experiment", "topic", "test metric", "value", "beside it"]]
    for row in rows:
        others = ", ".join(f"{name} {number(value)}" for name, value in row["others"].items())
        table.append([row["data"], row["experiment"], row["topic"], row["metric"], number(row["value"]), others])
    widths = [max(len(line[i]) for line in table) for i in range(len(table[0]))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |" for line in table
    ]
    lines.insert(1, "| " + " | ".join("-" * width for width in widths) + " |")
    return "\n".join(lines) + "\n"


def number(value: float) -> str:
    """Return a figure with as many digits as carry meaning: counts whole, the rest four decimals at most."""
    if isinstance(value, int):
        return str(value)
    return f"{round(value, 4) + 0.0:.4f}" if abs(value) < 10 else f"{value:.1f}"  # + 0.0: no minus before a zero


def history(name: str) -> list[dict[str, str]]:
    """Return the rows of an experiment's history.csv."""
    with open(Path("models") / name / "history.csv", newline="") as file:
        return list(csv.DictReader(file))


def write_curves(curves: dict[str, list[dict[str, str]]], folder: Path) -> None:
    """Write the histories of all experiments as one table, the source of `dvc plots show`."""
    lines = ["experiment,step,train_loss,validation_loss"]
    for name, rows in curves.items():
        lines += [f"{name},{row['step']},{row['train_loss']},{row['validation_loss']}" for row in rows]
    write_text(folder / "curves.csv", "\n".join(lines) + "\n")


def draw_curves(curves: dict[str, list[dict[str, str]]], path: Path) -> None:
    """Draw training and validation loss over the steps, a panel per experiment."""
    from matplotlib.figure import Figure

    columns = min(3, len(curves))
    rows = -(-len(curves) // columns)
    figure = Figure(figsize=(4 * columns, 2.8 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for ax, (name, history) in zip(axes, curves.items(), strict=False):
        steps = [int(row["step"]) for row in history]
        for column, label in (("train_loss", "training"), ("validation_loss", "validation")):
            ax.plot(steps, [float(row[column]) for row in history], label=label, linewidth=1.5)
        ax.set(title=name, xlabel="step", ylabel="loss")
        ax.grid(alpha=0.3)
    for ax in axes[len(curves) :]:
        ax.remove()
    axes[0].legend()
    save_figure(figure, path)


def draw_weights(name: str, folder: Path) -> None:
    """Draw what a model of images learned, where its weights can be seen: centroids, templates, filters."""
    weights = load_file(Path("models") / name / "model.safetensors")
    config = json.loads((Path("models") / name / "config.json").read_text())
    shape = tuple(config["description"]["shape"])
    for key, array in weights.items():
        if array.ndim == 2 and array.shape[1] == np.prod(shape) and len(shape) == 3 and len(array) <= 32:
            images = array.reshape(-1, *shape)  # a row of weights is an image: a centroid, a class's template
        elif array.ndim == 4 and array.shape[1] == shape[0] and array.shape[2] > 1 and "running" not in key:
            images = array  # the filters that look at the pixels
        else:
            continue
        if shape[0] not in (1, 3):
            continue
        low, high = images.min(), images.max()
        columns = min(16, len(images))
        images = images[: len(images) // columns * columns].reshape(-1, columns, *images.shape[1:])
        write_image_grid((images - low) / (high - low), folder / f"{name}.png")
        return


def save_figure(figure: SimpleNamespace, path: Path) -> None:
    """Write a figure as PNG, the same bytes every time."""
    with atomic(path) as temporary:
        figure.savefig(temporary, format="png", dpi=110, metadata={"Software": None})
