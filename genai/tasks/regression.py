"""Regression: how far predicted numbers are from the true ones."""

from pathlib import Path
from typing import Any

import numpy as np

from genai.core.dataset import Dataset, Description
from genai.figures import HALF, PALETTE, Tables, examples, new, save, titled
from genai.model import Loaded

RANKED_BY = ("r2",)
HIGHER_IS_BETTER = True
RESAMPLES = 1000
SHOWN = 12  # examples that are most wrong


def evaluate(loaded: Loaded, dataset: Dataset, split: str) -> tuple[dict[str, float], dict[str, np.ndarray]]:
    """Return the metrics of a split, and of each example the squared error as its score, the number and the prediction."""
    arrays = dataset.arrays(split)
    return measure(loaded.apply("predict", arrays["x"]), arrays["y"])


def measure(prediction: np.ndarray, y: np.ndarray) -> tuple[dict[str, float], dict[str, np.ndarray]]:
    """R2 = 1 - sum (y - prediction)^2 / sum (y - mean y)^2, and the root of the mean squared error.

    prediction, y: (N,). The standard error of R2 is that of its bootstrap over examples (Efron and
    Tibshirani, "An Introduction to the Bootstrap", 1993, chapter 6).
    """
    prediction, y = prediction.astype(np.float64), y.astype(np.float64)
    squared = (y - prediction) ** 2
    drawn = np.random.default_rng(0).integers(len(y), size=(RESAMPLES, len(y)))
    r2 = 1 - squared.sum() / ((y - y.mean()) ** 2).sum()
    resampled = 1 - squared[drawn].sum(1) / (len(y) * y[drawn].var(1))
    metrics = {"r2": r2, "r2_se": resampled.std(ddof=1), "rmse": np.sqrt(squared.mean())}
    columns = {"score": squared, "label": y, "prediction": prediction}
    return {k: float(v) for k, v in metrics.items()} | {"examples": len(y)}, columns


def figures(loaded: Loaded, dataset: Dataset, columns: dict[str, np.ndarray], folder: Path) -> Tables:
    """Draw what `evaluate` found on test: predictions and true numbers, residuals, the most wrong examples."""
    y, prediction = columns["label"], columns["prediction"]
    residual = y - prediction
    target = dataset.description.target
    save(against_truth(loaded.name, target, y, prediction), folder / "predictions.png")
    save(residuals(loaded.name, target, prediction, residual), folder / "residuals.png")
    worst = np.argsort(-columns["score"], kind="stable")[:SHOWN]
    numbers = {"true": y, "prediction": prediction, "residual": residual}
    told = {name: [f"{value:.4g}".replace("-", "−") for value in of[worst]] for name, of in numbers.items()}
    x, train = dataset.arrays("test")["x"][worst], dataset.arrays("train")["x"]
    save(examples(dataset.description, x, train, told, f"{loaded.name}: most wrong on test"), folder / "most_wrong.png")
    rows = [tuple(f"{value:.6g}" for value in row) for row in zip(*numbers.values(), strict=True)]
    return {"residuals": [tuple(numbers), *rows]}


def against_truth(name: str, target: str, y: np.ndarray, prediction: np.ndarray) -> Any:
    """Draw predictions over true numbers, (N,) each; target: what they are, with its unit."""
    figure, ax = new(HALF, width=HALF)
    low, high = min(y.min(), prediction.min()), max(y.max(), prediction.max())
    ax.plot([low, high], [low, high], color="#999999", linestyle="--", linewidth=1, label="prediction = true")
    cloud(ax, y, prediction)
    ax.set(title=titled(name, "predictions on test"), xlabel=of("true", target), ylabel=of("predicted", target))
    ax.set_aspect("equal", adjustable="datalim")
    ax.legend(loc="upper left", fontsize=8, frameon=False)
    return figure


def residuals(name: str, target: str, prediction: np.ndarray, residual: np.ndarray) -> Any:
    """Draw residuals over predictions, (N,) each, and beside them how many there are of each size."""
    figure, (ax, beside) = new(HALF, columns=2, width=HALF, sharey=True, width_ratios=(3, 1))
    cloud(ax, prediction, residual)
    beside.hist(residual, bins="auto" if len(residual) < 1000 else 50, orientation="horizontal", color=PALETTE[0])
    rmse = np.sqrt((residual**2).mean())
    for one in (ax, beside):
        one.axhline(0, color="#999999", linestyle="--", linewidth=1)
        for sign in (-1, 1):
            one.axhline(sign * rmse, color=PALETTE[1], linewidth=1)
    ax.set(xlabel=of("predicted", target), ylabel="residual: true − predicted")
    beside.set(xlabel="examples")
    beside.grid(alpha=0.3)
    figure.suptitle(titled(name, f"residuals on test (lines: ± rmse, {rmse:.3g})"), fontsize=11)
    return figure


def of(what: str, target: str) -> str:
    """Return an axis's label."""
    return f"{what} {target}" if target else what


def cloud(ax: Any, x: np.ndarray, y: np.ndarray) -> None:
    """Draw points, the fainter the more there are."""
    ax.scatter(
        x,
        y,
        s=14 if len(x) < 1000 else 5,
        alpha=float(np.clip(30 / np.sqrt(len(x)), 0.1, 0.7)),
        color=PALETTE[0],
        linewidths=0,
    )
    ax.grid(alpha=0.3)


def signature(description: dict[str, Any], sampling: dict[str, Any]) -> dict[str, Any]:
    """Return what a served model takes and answers."""
    return {**Description.model_validate(description).served(), "outputs": ("columns", {"prediction": "double"})}


def answer(loaded: Loaded, directory: Path, data: Any, sampling: dict[str, Any]) -> Any:
    """Return the prediction for each example of data (N, ...), or row of a table."""
    import pandas as pd

    return pd.DataFrame({"prediction": loaded.apply("predict", loaded.description.encode(data))})
