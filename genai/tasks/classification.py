"""Classification: how often the most probable class is the true one, and how probable the true one was."""

from pathlib import Path
from typing import Any

import numpy as np

from genai.core.dataset import Dataset, Description
from genai.figures import HALF, PALETTE, Plane, Tables, counts, examples, mark, new, regions, save, titled
from genai.model import Loaded

RANKED_BY = ("accuracy",)
HIGHER_IS_BETTER = True
BINS = 15  # of confidence
SHOWN = 15  # examples that are most wrong
MAPPED = 16  # classes that a map of the plane tells apart


def evaluate(loaded: Loaded, dataset: Dataset, split: str) -> tuple[dict[str, float], dict[str, np.ndarray]]:
    """Return the metrics of a split, and of each example its score, label, predicted class and confidence.

    The score is the log loss; of a model without probabilities, a support vector machine say, see `constant_log_loss`.
    """
    arrays = dataset.arrays(split)
    if not hasattr(loaded.model, "predict_proba"):
        prediction, y = loaded.apply("predict", arrays["x"]), arrays["y"]
        score = constant_log_loss(prediction == y, dataset.description.n_classes)
        columns = {"score": score, "label": y, "prediction": prediction}
        return accuracy_of(prediction, y) | {"examples": len(y)}, columns
    return measure(loaded.apply("predict_proba", arrays["x"]), arrays["y"])


def measure(probabilities: np.ndarray, y: np.ndarray) -> tuple[dict[str, float], dict[str, np.ndarray]]:
    """Accuracy with its binomial standard error, the mean of -log p(class) in nats, and the calibration error.

    probabilities: (N, K), y: (N,) int.
    """
    prediction, confidence = probabilities.argmax(1), probabilities.max(1).astype(np.float64)
    log_loss = -np.log(np.clip(probabilities[np.arange(len(y)), y].astype(np.float64), 1e-12, 1))
    metrics = accuracy_of(prediction, y) | {
        "log_loss": float(log_loss.mean()),
        "calibration_error": calibration_error(calibration(confidence, prediction == y)),
        "examples": len(y),
    }
    return metrics, {"score": log_loss, "label": y, "prediction": prediction, "confidence": confidence}


def accuracy_of(prediction: np.ndarray, y: np.ndarray) -> dict[str, float]:
    """Accuracy with its binomial standard error."""
    accuracy = float((prediction == y).mean())
    error = float(np.sqrt(accuracy * (1 - accuracy) / len(y)))
    return {"accuracy": accuracy, "accuracy_se": error}


def constant_log_loss(right: np.ndarray, n_classes: int) -> np.ndarray:
    """Return -log p(class) of each example, (N,), had the model given its prediction always the same probability.

    That is the share of the N that it got `right`, (N,) bool, by Laplace's rule of succession, and each other class has
    an equal part of the rest: so that a model without probabilities stands beside one that has some, in the same unit.
    """
    share = (right.sum() + 1) / (len(right) + n_classes)
    return -np.log(np.where(right, share, (1 - share) / (n_classes - 1)))


def calibration(confidence: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Return mean confidence, accuracy and number of examples of each bin of confidence that has some, (B, 3).

    confidence: (N,) in [0, 1], of the predicted class; right: (N,) bool. The bins are equally wide.
    """
    of = np.minimum((confidence * BINS).astype(int), BINS - 1)
    n, sure, hits = (np.bincount(of, weights, BINS) for weights in (np.ones_like(confidence), confidence, right))
    some = n > 0
    return np.column_stack([sure[some] / n[some], hits[some] / n[some], n[some]])


def calibration_error(bins: np.ndarray) -> float:
    """Return sum_b n_b / N |accuracy_b - confidence_b| (Guo et al., "On calibration of modern neural networks", 2017, eq. 3)."""
    sure, accuracy, n = bins.T
    return float((n * np.abs(accuracy - sure)).sum() / n.sum())


def figures(loaded: Loaded, dataset: Dataset, columns: dict[str, np.ndarray], folder: Path) -> Tables:
    """Draw what `evaluate` found on test: confusion matrix, calibration, the most wrong examples, decision regions."""
    description, arrays = dataset.description, dataset.arrays("test")
    train, classes = dataset.arrays("train")["x"], dataset.description.classes
    label, prediction = columns["label"], columns["prediction"]
    pairs = [(classes[a], classes[b]) for a, b in zip(label, prediction, strict=True)]
    tables: Tables = {"confusion": [("label", "prediction"), *pairs]}
    table = np.zeros((len(classes), len(classes)), int)
    np.add.at(table, (label, prediction), 1)
    title = titled(loaded.name, "classes and predictions on test")
    save(counts(table, classes, classes, "class", "prediction", title), folder / "confusion.png")
    worst = np.argsort(-columns["score"], kind="stable")[:SHOWN]
    if "confidence" not in columns:  # of the right ones none is more wrong than another
        worst = np.flatnonzero(label != prediction)[:SHOWN]
    told = {"class → prediction": [" → ".join(pairs[i]) for i in worst]}
    if "confidence" in columns:
        bins = calibration(columns["confidence"], label == prediction)
        save(reliability(bins, loaded.name), folder / "calibration.png")
        rows = [(f"{sure:.4f}", f"{accuracy:.4f}", int(n)) for sure, accuracy, n in bins]
        tables["calibration"] = [("confidence", "accuracy", "examples"), *rows]
        told["confidence"] = [f"{100 * c:.0f} %" for c in columns["confidence"][worst]]
    title = f"{loaded.name}: most wrong on test\n{', '.join(told)}"
    if len(worst):
        save(examples(description, arrays["x"][worst], train, told, title), folder / "most_wrong.png")
    # the plane needs two dimensions, its colours few classes, its axes finite numbers
    if len(classes) <= MAPPED and train[0].size > 1 and np.isfinite(train).all():
        save(decisions(loaded, Plane(train), arrays["x"], label, prediction), folder / "decision_regions.png")
    return tables


def reliability(bins: np.ndarray, name: str) -> Any:
    """Draw the accuracy of each bin over its confidence, with Wilson's 95 % interval, and the number of its examples."""
    sure, accuracy, n = bins.T
    figure, (ax, below) = new(HALF, 2, width=HALF, sharex=True, height_ratios=(3, 1))
    z = 1.96
    middle = (accuracy + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z * np.sqrt(accuracy * (1 - accuracy) / n + z**2 / (4 * n**2)) / (1 + z**2 / n)
    ax.plot([0, 1], [0, 1], color="#999999", linestyle="--", linewidth=1, label="calibrated")
    ax.vlines(sure, middle - half, middle + half, color=PALETTE[0], linewidth=1.5, alpha=0.5)
    ax.plot(sure, accuracy, "o", color=PALETTE[0], label="bins of confidence, 95 % interval")
    error = calibration_error(bins)
    title = titled(name, f"calibration on test (error {error:.3f})")
    ax.set(title=title, ylabel="accuracy", ylim=(-0.03, 1.03))
    ax.legend(loc="lower right", fontsize=8, frameon=False)
    below.bar(sure, n, width=0.8 / BINS, color=PALETTE[0])
    below.set(xlabel="confidence in the predicted class", ylabel="examples", yscale="log", xlim=(-0.03, 1.03))
    below.set_ylim(0.7, None)
    for one in (ax, below):
        one.grid(alpha=0.3)
    return figure


def decisions(loaded: Loaded, plane: Plane, x: np.ndarray, label: np.ndarray, prediction: np.ndarray) -> Any:
    """Draw what the model says of the examples in the plane, and where the test examples fall on it.

    They lie outside of it, and what the model says of them need not be what it says below: the title tells how often it is.
    """

    def predict(flat: np.ndarray) -> np.ndarray:
        these = flat.reshape(-1, *loaded.description.shape)
        if hasattr(loaded.model, "predict_proba"):
            return loaded.apply("predict_proba", these).argmax(1)
        return loaded.apply("predict", these)

    figure, ax = new(HALF, width=HALF)
    points = plane.project(x)
    same = np.mean(regions(plane, predict, ax, points, loaded.description.classes) == prediction)
    mark(ax, points, label, label, loaded.description.classes)
    plane.label(ax)
    share, agree = f"{100 * plane.share:.0f} %", f"{100 * same:.0f} %"
    title = f"{loaded.name}: decisions in a plane\n{share} of variance; colour = prediction for {agree} of marks"
    ax.set_title(title, fontsize=10)
    return figure


def signature(description: dict[str, Any], sampling: dict[str, Any]) -> dict[str, Any]:
    """Return what a served model takes and answers."""
    return {
        **Description.model_validate(description).served(),
        "outputs": ("columns", dict.fromkeys(description["classes"], "double")),
    }


def answer(loaded: Loaded, directory: Path, data: Any, sampling: dict[str, Any]) -> Any:
    """Return the probability of each class for each example of data (N, ...), or row of a table.

    Of a model without probabilities, 1 for the class that it predicts.
    """
    import pandas as pd

    x, classes = loaded.description.encode(data), loaded.description.classes
    if hasattr(loaded.model, "predict_proba"):
        return pd.DataFrame(loaded.apply("predict_proba", x), columns=classes)
    return pd.DataFrame(np.eye(len(classes))[loaded.apply("predict", x)], columns=classes)
