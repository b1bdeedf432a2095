"""Regression: how far predicted numbers are from the true ones."""

from pathlib import Path
from typing import Any

import numpy as np

from genai.core.dataset import Dataset, Description
from genai.model import Loaded

RANKED_BY = ("r2",)
HIGHER_IS_BETTER = True
RESAMPLES = 1000


def evaluate(loaded: Loaded, dataset: Dataset, split: str) -> tuple[dict[str, float], dict[str, np.ndarray]]:
    """Return the metrics of a split, and the squared error of each example as its score."""
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
    return {k: float(v) for k, v in metrics.items()} | {"examples": len(y)}, {"score": squared}


def signature(description: dict[str, Any], sampling: dict[str, Any]) -> dict[str, Any]:
    """Return what a served model takes and answers."""
    return {**Description.model_validate(description).served(), "outputs": ("columns", {"prediction": "double"})}


def answer(loaded: Loaded, directory: Path, data: Any, sampling: dict[str, Any]) -> Any:
    """Return the prediction for each example of data (N, ...), or row of a table."""
    import pandas as pd

    return pd.DataFrame({"prediction": loaded.apply("predict", loaded.description.encode(data))})
