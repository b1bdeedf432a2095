"""Set every figure beside its baseline: reports/, with the leaderboard, the curves and what the models look like."""

import base64
import csv
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from safetensors.numpy import load_file as load_arrays

from genai.core.config import PARAMS, Params, UserError, load_file, validate
from genai.core.dataset import atomic, replaced, write_image_grid, write_json, write_text
from genai.core.stage import stage

TOPICS = {
    "basics": "Machine learning basics",
    "neural_networks": "Neural networks",
    "cnn": "Convolutional networks",
    "diffusion": "Diffusion",
}
SHOWN = 64  # weights of a model: neighbours have as many as examples
BESIDE = 4  # other figures of a row that the table shows; metrics/ and grades/ have all
CONFUSION = "label,prediction"  # the columns of a classifier's scores


def main() -> None:
    with stage("report", "report") as this:
        params = validate(Params, this.whole(), str(PARAMS))
        for folder in ("metrics", "grades", "scores", "models", "samples", "learning_curves", "looks"):
            this.reads(Path(folder))
        with replaced(Path("reports")) as folder:
            write(params, folder)


def write(params: Params, folder: Path) -> None:
    """Write leaderboard, summary, curves, confusion tables and figures into `folder`."""
    rows = leaderboard(params)
    write_json(folder / "leaderboard.json", rows)
    write_text(folder / "leaderboard.md", markdown(rows))
    histories = [Path("models") / name / "history.csv" for name in params.experiments]
    curves = {path.parent.name: read_csv(path) for path in histories if path.exists()}
    for name in curves:
        write_text(folder / "curves" / f"{name}.csv", (Path("models") / name / "history.csv").read_text())
    if curves:
        draw_curves(curves, folder / "figures" / "curves.png")
    for name in params.experiments:
        draw_weights(name, folder / "figures" / name)
        confusion(name, folder)
    learning_curves(params, folder)
    write_text(folder / "summary.txt", summary(params, rows, folder))
    write_text(folder / "index.html", page(params, rows, folder))


def leaderboard(params: Params) -> list[dict[str, Any]]:
    """Return a row for each experiment, and one for each generator's grades.

    Grouped by data set and task; within a group ranked by the figure of the test split, best first.
    """
    entries = [(name, e.data, e.task, Path("metrics")) for name, e in params.experiments.items()]
    entries += [(name, g.real, g.task, Path("grades")) for name, g in params.generators.items()]
    groups = list(dict.fromkeys((data, task) for data in params.datasets for _, d, task, _ in entries if d == data))
    rows: list[tuple[int, float, dict[str, Any]]] = []
    for name, data, task_name, folder in entries:
        path = folder / f"{name}.json"
        try:
            metrics = json.loads(path.read_text())
            validation, test = metrics["validation"], metrics["test"]
        except (OSError, ValueError, KeyError, TypeError):
            stage = "evaluate" if folder.name == "metrics" else "grade"
            raise UserError(f"{path}: missing or damaged; run: dvc repro {stage}@{name}") from None
        task: ModuleType = load_file("tasks", task_name, f"experiments.{name}.task")
        metric = next(metric for metric in task.RANKED_BY if metric in test)
        row = {
            "data": data,
            "experiment": name,
            "topic": params.experiments[name].code.split("/")[1],
            "task": task_name,
            "metric": metric,
            "validation": validation[metric],
            "test": test[metric],
            "test_se": test.get(f"{metric}_se"),
            "others": {key: value for key, value in test.items() if key not in (metric, f"{metric}_se")},
        }
        rows.append((groups.index((data, task_name)), -test[metric] if task.HIGHER_IS_BETTER else test[metric], row))
    return [row for _, _, row in sorted(rows, key=lambda entry: entry[:2])]


def markdown(rows: list[dict[str, Any]]) -> str:
    """Return the leaderboard as a markdown table, columns padded to be read in a terminal too."""
    table = [["data", "experiment", "metric", "validation", "test (ranks)", "beside it, on test"]]
    for row in rows:
        others = ", ".join(f"{name} {number(value)}" for name, value in [*row["others"].items()][:BESIDE])
        error = f" ± {number(row['test_se'])}" if row["test_se"] is not None else ""
        figures = [row["metric"], number(row["validation"]), number(row["test"]) + error]
        table.append([row["data"], row["experiment"], *figures, others])
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


def summary(params: Params, rows: list[dict[str, Any]], folder: Path) -> str:
    """Return what a run of the pipeline prints at its end."""
    lines = [markdown(rows)]
    for name in params.generators:
        samples = Path("samples") / name / "samples.json"
        if samples.exists():
            lines.append(f"{name} writes:")
            texts = json.loads(samples.read_text(encoding="utf-8"))
            lines += ["  " + " ".join(one["text"].split())[:150] for one in texts[:2]] + [""]
    figures = [Path("reports") / path.relative_to(folder) for path in sorted(folder.rglob("*.png"))]
    figures += sorted(Path("samples").rglob("*.png"))
    lines += ["figures: " + "  ".join(map(str, figures)), "", "to look at it in MLflow and Prefect: make ui"]
    return "\n".join(lines) + "\n"


def page(params: Params, rows: list[dict[str, Any]], folder: Path) -> str:
    """Return one HTML page of it all, which needs no other file and no network: leaderboard, then topic by topic."""
    from jinja2 import Environment

    topic = {name: experiment.code.split("/")[1] for name, experiment in params.experiments.items()}
    shown: dict[str, list[tuple[str, str, str]]] = {key: [] for key in TOPICS}  # topic -> experiment, caption, image
    for name, key in topic.items():
        for of, kind in (
            (folder / "figures" / name, ""),
            (Path("looks") / name, ""),
            (Path("samples") / name, "samples"),
        ):
            for path in sorted(of.glob("*.png")):
                caption = kind or path.stem.replace("_", " ")
                shown.setdefault(key, []).append((name, caption, data_uri(path)))
    whole = [(path.stem.replace("_", " "), data_uri(path)) for path in sorted((folder / "figures").glob("*.png"))]
    texts = {name: Path("samples") / name / "samples.json" for name in params.generators}
    groups: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault(row["data"], []).append(row)
    return (
        Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
        .from_string(PAGE)
        .render(
            groups=groups, number=number, titles=TOPICS, shown=shown, whole=whole,
            texts={n: json.loads(p.read_text(encoding="utf-8")) for n, p in texts.items() if p.exists()},
        )
    )  # fmt: skip


def data_uri(path: Path) -> str:
    """Return an image as an address that holds it."""
    return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode("ascii")


PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>genai: what was learned</title>
<style>
:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; }
h1, h2, h3 { line-height: 1.2; } h2 { margin-top: 3rem; border-bottom: 1px solid #8888; }
nav a { margin-right: 1rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: 0.9rem; }
th, td { text-align: left; padding: 0.2rem 0.8rem 0.2rem 0; border-bottom: 1px solid #8884; white-space: nowrap; }
td.n, th.n { text-align: right; }
th.group { padding-top: 1rem; }
figure { margin: 1.5rem 0; } figcaption { font-size: 0.9rem; opacity: 0.8; }
img { max-width: 100%; height: auto; background: white; }
pre { white-space: pre-wrap; font: 0.9rem/1.45 ui-monospace, monospace; background: #8881; padding: 0.8rem; }
</style>
</head>
<body>
<h1>What was learned</h1>
<nav><a href="#leaderboard">Leaderboard</a>
{% for key, title in titles.items() if shown[key] or key == "diffusion" and texts %}
<a href="#{{ key }}">{{ title }}</a>
{% endfor %}</nav>
<h2 id="leaderboard">Leaderboard</h2>
<p>Recipes are chosen on validation; the table ranks by test, which only evaluation reads. ± is a standard error.</p>
<div class="wide"><table>
{% for data, rows in groups.items() %}
<tr><th class="group" colspan="5">{{ data }}</th></tr>
<tr><th>experiment</th><th>figure</th><th class="n">validation</th><th class="n">test</th><th>beside it, on test</th></tr>
{% for row in rows %}
<tr><td>{{ row.experiment }}</td><td>{{ row.metric }}</td><td class="n">{{ number(row.validation) }}</td>
<td class="n">{{ number(row.test) }}{% if row.test_se is not none %} ± {{ number(row.test_se) }}{% endif %}</td>
<td>{% for name, value in row.others.items() %}{{ name }} {{ number(value) }}{{ ", " if not loop.last }}{% endfor %}</td></tr>
{% endfor %}
{% endfor %}
</table></div>
{% for caption, image in whole %}
<figure><img src="{{ image }}" alt="{{ caption }}"><figcaption>{{ caption }}</figcaption></figure>
{% endfor %}
{% for key, title in titles.items() if shown[key] or key == "diffusion" and texts %}
<h2 id="{{ key }}">{{ title }}</h2>
{% for name, caption, image in shown[key] %}
<figure><img src="{{ image }}" alt="{{ name }}: {{ caption }}"><figcaption><b>{{ name }}</b>: {{ caption }}</figcaption></figure>
{% endfor %}
{% if key == "diffusion" %}
{% for name, samples in texts.items() %}
<h3>{{ name }} writes</h3>
{% for sample in samples %}
{% if sample.prompt %}<p>Prompt: <code>{{ sample.prompt }}</code></p>{% endif %}
<pre>{{ sample.text }}</pre>
{% endfor %}
{% endfor %}
{% endif %}
{% endfor %}
</body>
</html>
"""


def learning_curves(params: Params, folder: Path) -> None:
    """Draw the error of every model on validation and test against the number of its training examples."""
    from genai import figures

    by_data: dict[str, list[str]] = {}
    for name, curve in params.learning_curves.items():
        by_data.setdefault(curve.data, []).append(name)
    for data, names in by_data.items():
        figure, axes = figures.new(3.6, columns=2, sharey=True)
        for i, name in enumerate(names):
            color, line = figures.PALETTE[i % len(figures.PALETTE)], ("-", "--", ":")[i // len(figures.PALETTE) % 3]
            rows = read_csv(Path("learning_curves") / f"{name}.csv")
            metric = list(rows[0])[3]
            for ax, split in zip(axes, ("validation", "test"), strict=True):
                of: dict[int, list[float]] = {}
                for row in rows:
                    if row["split"] == split:
                        of.setdefault(int(row["examples"]), []).append(1 - float(row[metric]))
                mean = np.array([np.mean(v) for v in of.values()])
                spread = np.array([np.std(v) for v in of.values()])
                ax.plot([*of], mean, marker="o", markersize=3, linewidth=1.5, linestyle=line, color=color, label=name)
                ax.fill_between([*of], mean - spread, mean + spread, alpha=0.15, color=color, linewidth=0)
                ax.set(title=f"{data}: {split}", xlabel="training examples", xscale="log", yscale="log")
                ax.grid(alpha=0.3, which="both")
        axes[0].set_ylabel(f"1 - {metric}")
        figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False)
        figures.save(figure, folder / "figures" / f"learning_curve_{data}.png")


def read_csv(path: Path) -> list[dict[str, str]]:
    """Return the rows of a table."""
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


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
    weights = load_arrays(Path("models") / name / "model.safetensors")
    config = json.loads((Path("models") / name / "config.json").read_text())
    shape = tuple(config["description"]["shape"])
    for key, array in weights.items():
        if array.ndim == 2 and key.endswith("_") and array.shape[1] == np.prod(shape) and len(shape) == 3:
            images = array.reshape(-1, *shape)  # of a fitted model: a row is an image, a centroid, a class's template
        elif array.ndim == 4 and array.shape[1] == shape[0] and array.shape[2] > 1 and "running" not in key:
            images = array  # the filters that look at the pixels
        else:
            continue
        if shape[0] not in (1, 3):
            continue
        low, high = images.min(), images.max()
        images = (images[:SHOWN] - low) / (high - low)
        columns = min(16, len(images))
        empty = np.full((-len(images) % columns, *images.shape[1:]), 0.5, images.dtype)
        images = np.concatenate([images, empty]).reshape(-1, columns, *images.shape[1:])
        write_image_grid(images, folder / "weights.png")
        return


def confusion(name: str, folder: Path) -> None:
    """Write a classifier's classes and predictions on test as a table for DVC's plots, and draw their counts."""
    rows = read_csv(Path("scores") / f"{name}.csv")
    if not rows or "prediction" not in rows[0]:
        return
    config = json.loads((Path("models") / name / "config.json").read_text())
    classes = config["description"]["classes"]
    pairs = [(int(row["label"]), int(row["prediction"])) for row in rows]
    table = "".join(f"{classes[label]},{classes[prediction]}\n" for label, prediction in pairs)
    write_text(folder / "confusion" / f"{name}.csv", CONFUSION + "\n" + table)
    counts = np.zeros((len(classes), len(classes)), int)
    np.add.at(counts, tuple(np.array(pairs).T), 1)
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.2, 4), layout="constrained")
    ax = figure.subplots()
    ax.imshow(counts, cmap="Blues")
    for i, j in np.argwhere(counts):
        ax.text(
            j, i, counts[i, j], ha="center", va="center", color="white" if counts[i, j] > counts.max() / 2 else "black"
        )
    ax.set(title=name, xlabel="prediction", ylabel="class", xticks=range(len(classes)), yticks=range(len(classes)))
    ax.set_xticklabels(classes), ax.set_yticklabels(classes)
    save_figure(figure, folder / "figures" / name / "confusion.png")


def save_figure(figure: Any, path: Path) -> None:
    """Write a figure as PNG, the same bytes every time."""
    with atomic(path) as temporary:
        figure.savefig(temporary, format="png", dpi=110, metadata={"Software": None})
