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

TREE_DIMENSIONS, TREE_QUERIES = 10, 100  # up to the one and from the other on, building a tree pays; measured
QUERIES, EXAMPLES = 512, 4096  # compared at a time, 10 MiB
GROUPS = 64  # of examples, the least of each taken
VALUES = 2**16  # differences at a time, 512 KiB


def exact_squares(queries: np.ndarray, examples: np.ndarray, i: np.ndarray, j: np.ndarray) -> np.ndarray:
    """Return |q_i - x_j|^2 of pairs i, j (P,), by differences, in which nothing cancels."""
    squares, size = np.empty(len(i)), max(1, VALUES // queries.shape[1])
    for p in range(0, len(i), size):
        part = queries[i[p : p + size]]
        part -= examples[j[p : p + size]]
        np.einsum("pd,pd->p", part, part, out=squares[p : p + size])
    return squares


def single(x: np.ndarray, scale: float) -> tuple[np.ndarray, np.ndarray]:
    """Return x / scale in single precision, with room for a further column, (N, D + 1), and its squares, (N,)."""
    x /= scale
    rows = np.empty((len(x), x.shape[1] + 1), np.float32)
    rows[:, :-1] = x
    return rows, np.einsum("nd,nd->n", x, x)


def unknown(queries: int, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the squared distances and numbers of the k nearest before any is known, (Q, k)."""
    return np.full((queries, k), np.inf), np.full((queries, k), -1)


def merged(
    nearest: np.ndarray, numbers: np.ndarray, i: np.ndarray, j: np.ndarray, squares: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the nearest (Q, k) and their numbers, with further examples j of queries i, (P,), i rising, considered."""
    k, counts = nearest.shape[1], np.bincount(i, minlength=len(nearest))
    place = k + np.arange(len(i)) - (np.cumsum(counts) - counts)[i]
    all_squares, all_numbers = (np.full((len(nearest), k + counts.max()), rest) for rest in (np.inf, -1))
    all_squares[:, :k], all_numbers[:, :k] = nearest, numbers
    all_squares[i, place], all_numbers[i, place] = squares, j
    order = np.argsort(all_squares, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(all_squares, order, 1), np.take_along_axis(all_numbers, order, 1)


def by_comparison(queries: np.ndarray, examples: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the distances and numbers of the k nearest examples, (Q, k), of equally near ones the first.

    |x|^2 - 2 q.x orders the examples x of a query q as the distance does, and is a matrix product. It is taken in single
    precision, from below by its greatest rounding error, so that none of the nearest is missed; those few that could be
    among them are then measured exactly.
    """
    center = examples.mean(0)
    scale = max(max((x.max(0) - center).max(), (center - x.min(0)).max()) for x in (examples, queries)) or 1.0
    rounding = (examples.shape[1] + 8) * float(np.finfo(np.float32).eps)  # of |q|^2 + |x|^2
    nearest, numbers = unknown(len(queries), k)
    step = max(EXAMPLES, k)
    scores, close = np.empty(QUERIES * step, np.float32), np.empty(QUERIES * step, bool)
    for start in range(0, len(examples), step):
        some = examples[start : start + step]
        x, squares = single(some - center, scale)
        x[:, -1] = squares * (1 - rounding)
        for first in range(0, len(queries), QUERIES):
            rows = slice(first, first + QUERIES)
            q, q_squares = single(queries[rows] - center, -scale / 2)
            q[:, -1], q_squares = 1, q_squares / 4
            slack = rounding * q_squares + 1e-30
            shape = len(q), len(x)
            table = scores[: len(q) * len(x)].reshape(shape)
            np.matmul(q, x.T, out=table)
            if start == 0:
                # the k-th least of the minima of groups is no less than the k-th least of all
                size = max(1, len(x) // max(GROUPS, 8 * k))
                groups = len(x) // size
                minima = table[:, : size * groups].reshape(len(q), size, groups).min(1)
                limit = np.partition(minima, k - 1)[:, k - 1] + slack + 2 * rounding * squares.max()
            else:
                limit = nearest[rows, -1] / scale**2 - q_squares
            limit = (limit + slack).astype(np.float32)[:, None]
            found = np.flatnonzero(np.less_equal(table, limit, out=close[: table.size].reshape(shape)))
            i, j = np.divmod(found, len(x))
            nearest[rows], numbers[rows] = merged(
                nearest[rows], numbers[rows], i, j + start, exact_squares(queries[rows], some, i, j)
            )
    return np.sqrt(nearest), numbers


def by_tree(queries: np.ndarray, examples: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Return what by_comparison returns, from a tree that leaves out boxes of examples farther than k found ones."""
    tree = KDTree(examples, leafsize=32)
    nearest, numbers = np.empty((len(queries), k)), np.empty((len(queries), k), int)
    rest, asked = np.arange(len(queries)), k
    while len(rest) and asked < min(16 * k, len(examples)):
        asked = min(2 * asked, len(examples)) if asked > k else k + 1
        unsure = []
        for n in range(0, len(rest), QUERIES):
            rows = rest[n : n + QUERIES]
            distances, found = tree.query(queries[rows], np.arange(1, asked + 1))
            i, j = np.repeat(np.arange(len(rows)), asked), np.sort(found, axis=1).ravel()
            nearest[rows], numbers[rows] = merged(
                *unknown(len(rows), k), i, j, exact_squares(queries[rows], examples, i, j)
            )
            # where the last is as near as the k-th, others that are may not have been met
            unsure.append(rows[distances[:, -1] <= distances[:, k - 1] * (1 + 1e-9)])
        rest = np.concatenate(unsure) if asked < len(examples) else rest[:0]
    nearest = np.sqrt(nearest)
    if len(rest):
        nearest[rest], numbers[rest] = by_comparison(queries[rest], examples, k)
    return nearest, numbers


class Neighbors(BaseEstimator):
    """What both tasks share: the examples, kept, and the search among them."""

    def __init__(self, n_neighbors: Count = 5, *, weights: Literal["uniform", "distance"] = "uniform"):
        self.n_neighbors = n_neighbors
        self.weights = weights

    def kneighbors(self, X: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the Euclidean distances and the numbers of the n_neighbors nearest examples, nearest first, (N, k).

        Of equally near ones the first in the training data come first. Raises ValueError where there are too few.
        """
        check_is_fitted(self)
        X = validate_data(self, X, reset=False, dtype=np.float64)
        if self.n_neighbors > len(self.X_):
            raise ValueError(f"n_neighbors: {self.n_neighbors} should be at most {len(self.X_)}, the n_samples_fit")
        search = by_tree if X.shape[1] <= TREE_DIMENSIONS and len(X) >= TREE_QUERIES else by_comparison
        return search(X, self.X_, self.n_neighbors)

    def _weighed(self, X: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the weights, which sum to 1, and the numbers of the neighbours, (N, k)."""
        distances, numbers = self.kneighbors(X)
        weights = np.ones_like(distances)
        if self.weights == "distance":
            # the limit of 1 / d where some d are 0: those alone count
            same = distances == 0
            weights = np.where(same.any(1)[:, None], same, 1 / np.where(same, 1, distances))
        return weights / weights.sum(1, keepdims=True), numbers


class KNeighborsClassifier(ClassifierMixin, Neighbors):
    """The class that most of the n_neighbors nearest examples have, each with equal weight or with 1 / distance."""

    takes = frozenset({"table", "images"})
    task = "classification"

    def fit(self, X: np.ndarray, y: np.ndarray) -> Self:
        """X: (N, D), y: (N,) classes: kept as they are."""
        check_keywords(self)
        self.X_, y = validate_data(self, X, y, dtype=np.float64)
        check_classification_targets(y)
        self.classes_, self.y_ = np.unique(y, return_inverse=True)
        return self

    def predict_proba(self, X: np.ndarray) -> np.ndarray:
        """Return the share of the neighbours' weight that each class has, (N, K)."""
        weights, numbers = self._weighed(X)
        n, k = len(weights), len(self.classes_)
        cells = np.arange(n)[:, None] * k + self.y_[numbers]
        return np.bincount(cells.ravel(), weights.ravel(), n * k).reshape(n, k)

    def predict(self, X: np.ndarray) -> np.ndarray:
        """Return the class with the greatest share, the first of equals, (N,)."""
        shares = self.predict_proba(X)
        return self.classes_[shares.argmax(1)]


class KNeighborsRegressor(RegressorMixin, Neighbors):
    """The mean of the n_neighbors nearest examples, each with equal weight or with 1 / distance."""

    takes = frozenset({"table", "images"})
    task = "regression"

    def fit(self, X: np.ndarray, y: np.ndarray) -> Self:
        """X: (N, D), y: (N,): kept as they are."""
        check_keywords(self)
        self.X_, self.y_ = validate_data(self, X, y, y_numeric=True, dtype=np.float64)
        return self

    def predict(self, X: np.ndarray) -> np.ndarray:
        """Return the weighted mean of the neighbours, (N,)."""
        weights, numbers = self._weighed(X)
        return (weights * self.y_[numbers]).sum(1)
