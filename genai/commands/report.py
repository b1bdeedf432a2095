"""Set every figure beside its baseline: reports/, with the leaderboard, the curves, and one page of it all."""

import csv
import json
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file as load_arrays

from genai import figures, leaderboard, page
from genai.core.config import PARAMS, Params, validate
from genai.core.dataset import replaced, write_image_grid, write_json, write_text
from genai.core.stage import stage

REPORTS = Path("reports")
SHOWN = 80  # images of which the weights of a model are shown
KINDS = ("curves", "confusion", "calibration", "residuals", "contingency", "denoising_error", "bits_per_character")
READS = ("figures", "generated", "grades", "learning_curves", "looks", "metrics", "models", "plots", "samples")


def main() -> None:
    with stage("report", "report") as this:
        params = validate(Params, this.whole(), str(PARAMS))
        for folder in READS:
            this.reads(Path(folder))
        board = leaderboard.rows(params)
        write_json(REPORTS / "leaderboard.json", board)
        write_text(REPORTS / "leaderboard.md", leaderboard.markdown(board))
        with replaced(REPORTS / "plots") as folder:
            plots(params, folder)
        with replaced(REPORTS / "figures") as folder:
            draw_curves(params, folder)
            learning_curves(params, folder)
            for name in params.experiments:
                draw_weights(name, folder / name)
        page.write(Path())  # it shows what was measured, so it is no output of the stage


def plots(params: Params, folder: Path) -> None:
    """Gather the tables that DVC plots, KIND/NAME.csv: of losses, and what each task left."""
    for kind in KINDS:
        (folder / kind).mkdir()  # DVC wants those that dvc.yaml names, whatever the experiments
    for name in params.experiments:
        tables = {"curves": Path("models") / name / "history.csv"}
        tables |= {path.stem: path for path in sorted((Path("plots") / name).glob("*.csv"))}
        for kind, path in tables.items():
            if path.exists():
                write_text(folder / kind / f"{name}.csv", path.read_text(encoding="utf-8"))


def read_csv(path: Path) -> list[dict[str, str]]:
    """Return the rows of a table."""
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def draw_curves(params: Params, folder: Path) -> None:
    """Draw training and validation loss over the steps, a panel per experiment."""
    paths = {name: Path("models") / name / "history.csv" for name in params.experiments}
    curves = {name: read_csv(path) for name, path in paths.items() if path.exists()}
    if not curves:
        return
    columns = min(2, len(curves))
    rows = -(-len(curves) // columns)
    figure, axes = figures.new(2.4 * rows, rows, columns, squeeze=False)
    for ax, (name, history) in zip(axes.flat, curves.items(), strict=False):
        steps = [int(row["step"]) for row in history]
        for column, label in (("train_loss", "training"), ("validation_loss", "validation")):
            ax.plot(steps, [float(row[column]) for row in history], label=label, linewidth=1.5)
        ax.set(title=name, xlabel="step", ylabel="loss")
        ax.grid(alpha=0.3)
    for ax in axes.flat[len(curves) :]:
        ax.remove()
    axes[0, 0].legend(frameon=False)
    figures.save(figure, folder / "curves.png")


def learning_curves(params: Params, folder: Path) -> None:
    """Draw the error of every model on validation and test over the number of its training examples."""
    by_data: dict[str, list[str]] = {}
    for name, curve in params.learning_curves.items():
        by_data.setdefault(curve.data, []).append(name)
    for data, names in by_data.items():
        figure, axes = figures.new(4, columns=2, sharey=True)
        for i, name in enumerate(names):
            rows = read_csv(Path("learning_curves") / f"{name}.csv")
            metric = list(rows[0])[3]
            style = {
                "color": figures.LINES[i % len(figures.LINES)],
                "marker": figures.MARKERS[i % len(figures.MARKERS)],
            }
            for ax, split in zip(axes, ("validation", "test"), strict=True):
                of: dict[int, list[float]] = {}
                for row in rows:
                    if row["split"] == split:
                        of.setdefault(int(row["examples"]), []).append(1 - float(row[metric]))
                mean = np.array([np.mean(v) for v in of.values()])
                spread = np.array([np.std(v) for v in of.values()])
                ax.plot([*of], mean, markersize=4, linewidth=1.5, label=name, **style)
                ax.fill_between([*of], mean - spread, mean + spread, alpha=0.15, color=style["color"], linewidth=0)
                ax.set(title=f"{data}: {split}", xlabel="training examples", xscale="log", yscale="log")
                ax.grid(alpha=0.3, which="both")
                ax.xaxis.set_major_formatter(lambda x, _: f"{x:,g}")
                for axis in (ax.yaxis.set_major_formatter, ax.yaxis.set_minor_formatter):
                    axis(lambda y, _: f"{y:g}" if f"{y:e}"[0] in "125" else "")
        axes[0].set_ylabel(f"1 − {metric}, mean and sd over seeds")
        columns = min(4, int(figures.WIDTH / (0.072 * max(map(len, names)) + 0.55)))  # of letters so wide
        entries = axes[0].get_legend_handles_labels()
        figure.legend(*entries, loc="outside lower center", ncols=max(1, columns), frameon=False, fontsize=9)
        figures.save(figure, folder / f"learning_curve_{data}.png")


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
        images = images[np.unique(np.linspace(0, len(images) - 1, SHOWN).astype(int))]
        low, high = images.min(), images.max()
        images = (images - low) / (high - low)
        columns = min(16, len(images))
        empty = np.full((-len(images) % columns, *images.shape[1:]), 0.5, images.dtype)
        images = np.concatenate([images, empty]).reshape(-1, columns, *images.shape[1:])
        write_image_grid(images, folder / "weights.png")
        return
