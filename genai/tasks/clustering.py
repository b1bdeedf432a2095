"""Clustering: how well groups that were found without labels agree with the classes."""

from pathlib import Path
from typing import Any

import numpy as np

from genai.core.dataset import Dataset, Description
from genai.model import Loaded

RANKED_BY = ("clustering_accuracy",)
HIGHER_IS_BETTER = True


def evaluate(loaded: Loaded, dataset: Dataset, split: str) -> tuple[dict[str, float], dict[str, np.ndarray]]:
    """Return the metrics of a split, and of each example 0 or 1 as its score: whether its class is its cluster's."""
    arrays = dataset.arrays(split)
    return measure(loaded.apply("predict", arrays["x"]), arrays["y"])


def measure(clusters: np.ndarray, y: np.ndarray) -> tuple[dict[str, float], dict[str, np.ndarray]]:
    """Accuracy under the best one-to-one match of clusters and classes, and normalised mutual information.

    clusters, y: (N,) int. The match is that of the split itself (Kuhn, "The Hungarian method", 1955).
    """
    from scipy.optimize import linear_sum_assignment
    from sklearn.metrics import normalized_mutual_info_score
    from sklearn.metrics.cluster import contingency_matrix

    table = contingency_matrix(y, clusters)  # (classes, clusters)
    rows, columns = linear_sum_assignment(table, maximize=True)
    matched = dict(zip(np.unique(clusters)[columns], np.unique(y)[rows], strict=True))
    wrong = np.array([matched.get(cluster) != label for cluster, label in zip(clusters, y, strict=True)])
    metrics = {
        "clustering_accuracy": float(1 - wrong.mean()),
        "clustering_accuracy_se": float(wrong.std() / np.sqrt(len(y))),
        "nmi": float(normalized_mutual_info_score(y, clusters)),
        "examples": len(y),
    }
    return metrics, {"score": wrong.astype(np.float64)}


def signature(description: dict[str, Any], sampling: dict[str, Any]) -> dict[str, Any]:
    """Return what a served model takes and answers."""
    return {**Description.model_validate(description).served(), "outputs": ("columns", {"cluster": "long"})}


def answer(loaded: Loaded, directory: Path, data: Any, sampling: dict[str, Any]) -> Any:
    """Return the number of each example's cluster, for data (N, ...) or the rows of a table."""
    import pandas as pd

    return pd.DataFrame({"cluster": loaded.apply("predict", loaded.description.encode(data))})
