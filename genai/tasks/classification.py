"""Classification: how often the most probable class is the true one, and how probable the true one was."""

from pathlib import Path
from typing import Any

import numpy as np

from genai.core.dataset import Dataset, Description
from genai.model import Loaded

RANKED_BY = ("accuracy",)
HIGHER_IS_BETTER = True


def evaluate(loaded: Loaded, dataset: Dataset, split: str) -> tuple[dict[str, float], dict[str, np.ndarray]]:
    """Return the metrics of a split, and of each example the log loss as its score, label and predicted class."""
    arrays = dataset.arrays(split)
    if not hasattr(loaded.model, "predict_proba"):  # a support-vector machine tells sides, not probabilities
        prediction, y = loaded.apply("predict", arrays["x"]), arrays["y"]
        columns = {"score": (prediction != y).astype(np.float64), "label": y, "prediction": prediction}
        return accuracy_of(prediction, y) | {"examples": len(y)}, columns
    return measure(loaded.apply("predict_proba", arrays["x"]), arrays["y"])


def measure(probabilities: np.ndarray, y: np.ndarray) -> tuple[dict[str, float], dict[str, np.ndarray]]:
    """Accuracy with its binomial standard error, and the mean of -log p(class) in nats.

    probabilities: (N, K), y: (N,) int.
    """
    prediction = probabilities.argmax(1)
    log_loss = -np.log(np.clip(probabilities[np.arange(len(y)), y].astype(np.float64), 1e-12, 1))
    metrics = accuracy_of(prediction, y) | {"log_loss": float(log_loss.mean()), "examples": len(y)}
    return metrics, {"score": log_loss, "label": y, "prediction": prediction}


def accuracy_of(prediction: np.ndarray, y: np.ndarray) -> dict[str, float]:
    """Accuracy with its binomial standard error."""
    accuracy = float((prediction == y).mean())
    error = float(np.sqrt(accuracy * (1 - accuracy) / len(y)))
    return {"accuracy": accuracy, "accuracy_se": error}


def signature(description: dict[str, Any], sampling: dict[str, Any]) -> dict[str, Any]:
    """Return what a served model takes and answers."""
    return {
        **Description.model_validate(description).served(),
        "outputs": ("columns", dict.fromkeys(description["classes"], "double")),
    }


def answer(loaded: Loaded, directory: Path, data: Any, sampling: dict[str, Any]) -> Any:
    """Return the probability of each class for each example of data (N, ...), or row of a table."""
    import pandas as pd

    return pd.DataFrame(
        loaded.apply("predict_proba", loaded.description.encode(data)), columns=loaded.description.classes
    )
