"""Clustering: how well groups that were found without labels agree with the classes."""

from pathlib import Path
from typing import Any

import numpy as np

from genai.core.dataset import Dataset, Description
from genai.figures import HALF, Plane, Tables, counts, mark, new, save, titled
from genai.model import Loaded

RANKED_BY = ("clustering_accuracy",)
HIGHER_IS_BETTER = True


def evaluate(loaded: Loaded, dataset: Dataset, split: str) -> tuple[dict[str, float], dict[str, np.ndarray]]:
    """Return the metrics of a split, and of each example 0 or 1 as its score (whether its class is its cluster's), class, cluster."""
    arrays = dataset.arrays(split)
    return measure(loaded.apply("predict", arrays["x"]), arrays["y"])


def measure(clusters: np.ndarray, y: np.ndarray) -> tuple[dict[str, float], dict[str, np.ndarray]]:
    """Accuracy under the best one-to-one match of clusters and classes, and normalised mutual information.

    clusters, y: (N,) int. The match is that of the split itself (Kuhn, "The Hungarian method", 1955).
    """
    from sklearn.metrics import normalized_mutual_info_score

    matched = match(clusters, y)
    wrong = np.array([matched.get(cluster) != label for cluster, label in zip(clusters, y, strict=True)])
    metrics = {
        "clustering_accuracy": float(1 - wrong.mean()),
        "clustering_accuracy_se": float(wrong.std() / np.sqrt(len(y))),
        "nmi": float(normalized_mutual_info_score(y, clusters)),
        "examples": len(y),
    }
    return metrics, {"score": wrong.astype(np.float64), "label": y, "cluster": clusters}


def match(clusters: np.ndarray, y: np.ndarray) -> dict[int, int]:
    """Return cluster -> class of the one-to-one match in which most examples agree; some may have none."""
    from scipy.optimize import linear_sum_assignment
    from sklearn.metrics.cluster import contingency_matrix

    table = contingency_matrix(y, clusters)  # (classes, clusters)
    rows, columns = linear_sum_assignment(table, maximize=True)
    return dict(zip(np.unique(clusters)[columns].tolist(), np.unique(y)[rows].tolist(), strict=True))


def figures(loaded: Loaded, dataset: Dataset, columns: dict[str, np.ndarray], folder: Path) -> Tables:
    """Draw what `evaluate` found on test: how classes fall into clusters, and both on a plane through the examples."""
    y, clusters, classes = columns["label"], columns["cluster"], dataset.description.classes
    matched, found = match(clusters, y), np.unique(clusters)
    order = sorted(found.tolist(), key=lambda cluster: matched.get(cluster, len(classes)))
    table = np.array([[np.sum((y == k) & (clusters == c)) for c in order] for k in range(len(classes))])
    names, title = [str(c) for c in order], titled(loaded.name, "classes and clusters on test")
    save(
        counts(table, classes, names, "class", "cluster, in the order of the classes that they match", title),
        folder / "contingency.png",
    )
    train = dataset.arrays("train")["x"]
    if train[0].size > 1 and np.isfinite(train).all():
        save(
            cluster_map(loaded.name, Plane(train), dataset.arrays("test")["x"], columns, classes),
            folder / "cluster_map.png",
        )
    return {"contingency": [("class", "cluster"), *((classes[k], int(c)) for k, c in zip(y, clusters, strict=True))]}


def cluster_map(name: str, plane: Plane, x: np.ndarray, columns: dict[str, np.ndarray], classes: list[str]) -> Any:
    """Draw examples x (N, ...) on the plane: the colour is the cluster's, the mark the class's."""
    matched, figure, ax = match(columns["cluster"], columns["label"]), *new(HALF, width=HALF)
    free = iter(range(len(classes), len(classes) + len(columns["cluster"])))  # colours of clusters without a class
    colors = {c: matched[c] if c in matched else next(free) for c in np.unique(columns["cluster"]).tolist()}
    color = np.array([colors[c] for c in columns["cluster"].tolist()])
    mark(ax, plane.project(x), color, columns["label"], classes)
    plane.label(ax)
    share = f"{100 * plane.share:.0f} %"
    title = f"{name}: clusters (colours) on test\nclasses (marks); {share} of variance"
    ax.set_title(title, fontsize=10)
    return figure


def signature(description: dict[str, Any], sampling: dict[str, Any]) -> dict[str, Any]:
    """Return what a served model takes and answers."""
    return {**Description.model_validate(description).served(), "outputs": ("columns", {"cluster": "long"})}


def answer(loaded: Loaded, directory: Path, data: Any, sampling: dict[str, Any]) -> Any:
    """Return the number of each example's cluster, for data (N, ...) or the rows of a table."""
    import pandas as pd

    return pd.DataFrame({"cluster": loaded.apply("predict", loaded.description.encode(data))})
