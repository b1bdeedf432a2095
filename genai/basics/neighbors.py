"""k nearest neighbours: an example is taken for what the examples nearest to it are.

Cover and Hart, "Nearest neighbor pattern classification", 1967; the tree: Friedman, Bentley and Finkel, "An algorithm
for finding best matches in logarithmic expected time", 1977.
"""

from typing import Literal, Self

import numpy as np
from scipy.spatial import KDTree
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from genai.core.config import Count, check_keywords

TREE_DIMENSIONS = 10  # up to here a tree is faster than comparing with all, measured on Gaussian data
TREE_QUERIES = 100  # from here on, that is: a tree costs what some dozens of comparisons with all cost
QUERIES, EXAMPLES = 256, 4096  # compared at a time, 4 MiB
GROUPS = 256


def exact_distances(queries: np.ndarray, examples: np.ndarray, i: np.ndarray, j: np.ndarray) -> np.ndarray:
    """Return |q_i - x_j|^2 of pairs i, j (P,), by differences, as nothing cancels in them."""
    size = max(1, 2**20 // queries.shape[1])
    parts = [queries[i[p : p + size]] - examples[j[p : p + size]] for p in range(0, len(i), size)]
    return np.concatenate([np.einsum("pd,pd->p", part, part) for part in parts] or [np.empty(0)])


def by_comparison(queries: np.ndarray, examples: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the distances and numbers of the k nearest examples, (Q, k), of equally near ones the first.

    |x|^2 - 2 q.x orders the examples x of a query q as the distance does, and is a matrix product. It is taken in single
    precision, from below by its greatest rounding error, so that none of the nearest is missed; those few that could be
    among them are then measured exactly.
    """
    center = examples.mean(0)
    scale = max(np.abs(examples - center).max(), np.abs(queries - center).max()) or 1.0
    rounding = (examples.shape[1] + 8) * float(np.finfo(np.float32).eps)  # of (|q|^2 + |x|^2)
    nearest, numbers = np.full((len(queries), k), np.inf), np.full((len(queries), k), -1)
    step = max(EXAMPLES, k)
    for start in range(0, len(examples), step):
        x = (examples[start : start + step] - center) / scale
        squares = (x**2).sum(1)
        right = np.column_stack([-2 * x, squares * (1 - rounding)]).astype(np.float32).T
        for first in range(0, len(queries), QUERIES):
            rows = slice(first, first + QUERIES)
            q = (queries[rows] - center) / scale
            q_squares = (q**2).sum(1)
            slack = rounding * q_squares + 1e-30
            scores = np.column_stack([q, np.ones(len(q))]).astype(np.float32) @ right
            if start == 0:
                # the k-th least of the minima of groups is no less than the k-th least of all
                size = max(1, len(x) // max(GROUPS, 8 * k))
                groups = len(x) // size
                minima = scores[:, : size * groups].reshape(len(q), size, groups).min(1)
                limit = np.partition(minima, k - 1)[:, k - 1] + slack + 2 * rounding * squares.max()
            else:
                limit = nearest[rows, -1] / scale**2 - q_squares
            i, j = np.nonzero(scores <= (limit + slack).astype(np.float32)[:, None])
            distances = exact_distances(queries[rows], examples[start : start + step], i, j)
            i = np.concatenate([np.repeat(np.arange(len(q)), k), i])
            j = np.concatenate([numbers[rows].ravel(), j + start])
            distances = np.concatenate([nearest[rows].ravel(), distances])
            order = np.lexsort((j, distances, i))
            best = order[np.searchsorted(i[order], np.arange(len(q)))[:, None] + np.arange(k)]
            nearest[rows], numbers[rows] = distances[best], j[best]
    return np.sqrt(nearest), numbers
