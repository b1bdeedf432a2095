"""k-means clustering: Lloyd's algorithm from k-means++ seeds, made fast by Hamerly's bounds; the best of several starts.

Lloyd, "Least squares quantization in PCM", 1982; Arthur and Vassilvitskii, "k-means++", 2007, here AV; Hamerly,
"Making k-means even faster", 2010.
"""

import warnings
from typing import Annotated, Any

import numpy as np
from pydantic import Field
from scipy.sparse import csr_array
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, ClusterMixin, TransformerMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.validation import check_array, check_is_fitted, validate_data

from genai.core.config import Count, Seed, check_keywords

CHUNK = 1024  # rows whose distances are held at a time: they stay in the cache


def squared_distances(x: np.ndarray, centers: np.ndarray) -> np.ndarray:
    """Return |x_n - c_k|^2, (N, K), for x (N, D) and centers (K, D)."""
    return np.maximum(np.einsum("nd,nd->n", x, x)[:, None] - 2 * x @ centers.T + (centers**2).sum(1), 0)


def nearest_two(x: np.ndarray, centers: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the nearest center of each row of x, the distance from it, and that from the second nearest; each (N,)."""
    labels, first = np.empty(len(x), dtype=np.intp), np.empty(len(x))
    second = np.full(len(x), np.inf)
    minus_twice, squares = -2 * centers.T, (centers**2).sum(1)
    for i in range(0, len(x), CHUNK):
        rows = x[i : i + CHUNK]
        distances = rows @ minus_twice  # |x - c|^2 but for |x|^2, which is the same for all centers
        distances += squares
        chosen, at = distances.argmin(1), np.arange(len(rows))
        norms = np.einsum("nd,nd->n", rows, rows)
        labels[i : i + CHUNK] = chosen
        first[i : i + CHUNK] = distances[at, chosen] + norms
        if len(centers) > 1:
            distances[at, chosen] = np.inf
            second[i : i + CHUNK] = distances.min(1) + norms
    return labels, np.sqrt(np.maximum(first, 0)), np.sqrt(np.maximum(second, 0))


def k_means_plus_plus(x: np.ndarray, n_clusters: int, rng: np.random.Generator) -> np.ndarray:
    """Return n_clusters rows of x, each drawn in proportion to its squared distance from the nearest one before.

    Greedy (AV, section 6): of 2 + log K draws the one is kept that leaves the least sum of these distances.
    """
    chosen = [int(rng.integers(len(x)))]
    nearest = squared_distances(x, x[chosen])[:, 0]
    for _ in range(1, n_clusters):
        nearest[chosen] = 0  # exact, so that none is drawn twice
        cumulative = np.cumsum(nearest)
        if cumulative[-1] == 0:  # as many centers as distinct rows
            chosen.append(int(rng.integers(len(x))))
            continue
        drawn = np.searchsorted(cumulative, rng.random(2 + int(np.log(n_clusters))) * cumulative[-1])
        left = np.minimum(nearest, squared_distances(x[drawn.clip(max=len(x) - 1)], x))
        best = left.sum(1).argmin()
        chosen.append(int(drawn[best]))
        nearest = left[best]
    return x[chosen]


def lloyd(
    x: np.ndarray, centers: np.ndarray, max_iter: int, tolerance: float = 0.0
) -> tuple[np.ndarray, np.ndarray, int]:
    """Assign each row of x to its nearest center and move each center to the mean of its rows, until no label changes.

    Or until the centers move, all together, by a squared distance of at most `tolerance`. Returns centers (K, D),
    labels (N,) and the number of steps. A row can have changed its center only where `upper`, at least its distance
    from its own center, exceeds `lower`, at most its distance from any other: a center that moves by m changes either
    by m at most (the triangle inequality). For the other rows no distance is computed.
    """
    labels, upper, lower = nearest_two(x, centers)
    sums, counts = totals(x, labels, len(centers))
    step = 0
    while step < max_iter:
        step += 1
        if (counts == 0).any():
            labels, upper, lower = refilled(x, centers, labels, counts)
            sums, counts = totals(x, labels, len(centers))
        before, centers = centers, sums / counts[:, None]
        moved = np.sqrt(((centers - before) ** 2).sum(1))
        upper += moved[labels]
        lower -= moved.max()
        doubtful = np.flatnonzero(upper * (1 + 1e-9) >= lower)  # the margin is for rounding
        rows = x[doubtful] if len(doubtful) < len(x) else x
        new, upper[doubtful], lower[doubtful] = nearest_two(rows, centers)
        changed = np.flatnonzero(new != labels[doubtful])
        if len(changed) == 0 or (moved**2).sum() <= tolerance:
            labels[doubtful] = new
            break
        for sign, of in ((-1, labels[doubtful[changed]]), (1, new[changed])):
            part, number = totals(rows[changed], of, len(centers))
            sums += sign * part
            counts += sign * number
        labels[doubtful] = new
    return centers, labels, step


def totals(x: np.ndarray, labels: np.ndarray, n_clusters: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the sum of the rows of each cluster, (K, D), and their number, (K,)."""
    belongs = csr_array((np.ones(len(x)), labels, np.arange(len(x) + 1)), shape=(len(x), n_clusters))
    return belongs.T @ x, np.bincount(labels, minlength=n_clusters)


def refilled(
    x: np.ndarray, centers: np.ndarray, labels: np.ndarray, counts: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Give each empty cluster the row that is farthest from its own center; return labels, and bounds that bind nothing."""
    labels, counts = labels.copy(), counts.copy()
    distances = ((x - centers[labels]) ** 2).sum(1)
    for empty in np.flatnonzero(counts == 0):
        farthest = np.where(counts[labels] > 1, distances, -1).argmax()
        counts[labels[farthest]] -= 1
        labels[farthest], counts[empty], distances[farthest] = empty, 1, 0
    return labels, np.full(len(x), np.inf), np.zeros(len(x))


class KMeans(ClassNamePrefixFeaturesOutMixin, TransformerMixin, ClusterMixin, BaseEstimator):
    """Partitions the examples into n_clusters so that the inertia, sum_n |x_n - c(x_n)|^2, is small; it sees no label.

    init: 'k-means++', 'random' (rows drawn evenly) or the first centers, (n_clusters, D). n_init: starts, of which the
    one with the least inertia is kept. tol: of the mean variance of the features, see `lloyd`; 0 waits until no label
    changes. Learned: cluster_centers_ (K, D), labels_ (N,), inertia_, n_iter_.
    """

    takes = frozenset({"table", "images"})
    task = "clustering"

    def __init__(
        self,
        n_clusters: Count = 8,
        *,
        init: Any = "k-means++",
        n_init: Count = 10,
        max_iter: Count = 300,
        tol: Annotated[float, Field(ge=0)] = 1e-4,
        random_state: Seed | None = None,
    ):
        self.n_clusters = n_clusters
        self.init = init
        self.n_init = n_init
        self.max_iter = max_iter
        self.tol = tol
        self.random_state = random_state

    def fit(self, X: np.ndarray, y: object = None) -> "KMeans":
        """X: (N, D). Raises ValueError where there are fewer examples than clusters; warns where fewer are distinct."""
        check_keywords(self)
        X = validate_data(self, X, dtype=np.float64, ensure_min_samples=1)
        if len(X) < self.n_clusters:
            raise ValueError(f"n_samples={len(X)} should be >= n_clusters={self.n_clusters}.")
        rng = np.random.default_rng(self.random_state)
        mean = X.mean(0)
        x = X - mean  # squared distances cancel least about the origin
        tolerance = self.tol * x.var(0).mean()
        starts = 1 if not isinstance(self.init, str) else self.n_init
        self.inertia_ = np.inf
        for _ in range(starts):
            centers, labels, steps = lloyd(x, self._start(x, mean, rng), self.max_iter, tolerance)
            inertia = sum(
                ((x[i : i + CHUNK] - centers[labels[i : i + CHUNK]]) ** 2).sum() for i in range(0, len(x), CHUNK)
            )
            if inertia < self.inertia_:
                self.inertia_, self.labels_, self.n_iter_ = float(inertia), labels.astype(np.int32), steps
                self.cluster_centers_ = centers + mean
        if (distinct := len(np.unique(self.labels_))) < self.n_clusters:
            warnings.warn(
                f"found {distinct} clusters: fewer examples are distinct than n_clusters", ConvergenceWarning, 2
            )
        return self

    def _start(self, x: np.ndarray, mean: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        if not isinstance(self.init, str):
            centers = check_array(self.init, dtype=np.float64) - mean
            if centers.shape != (right := (self.n_clusters, x.shape[1])):
                raise ValueError(f"init: centers of shape {centers.shape} should be {right}")
            return centers
        if self.init == "k-means++":
            return k_means_plus_plus(x, self.n_clusters, rng)
        if self.init != "random":
            raise ValueError(f"init: {self.init!r} should be 'k-means++', 'random' or an array of centers")
        return x[rng.choice(len(x), self.n_clusters, replace=False)]

    def predict(self, X: np.ndarray) -> np.ndarray:
        """Return the number of the nearest center, (N,)."""
        check_is_fitted(self)
        X = validate_data(self, X, reset=False, dtype=np.float64)
        mean = self.cluster_centers_.mean(0)
        twice, half = (self.cluster_centers_ - mean).T, ((self.cluster_centers_ - mean) ** 2).sum(1) / 2
        offset = half + mean @ twice  # the nearest center has the greatest x.c - |c|^2 / 2
        parts = [(X[i : i + CHUNK] @ twice - offset).argmax(1) for i in range(0, len(X), CHUNK)]
        return np.concatenate(parts).astype(np.int32)

    def transform(self, X: np.ndarray) -> np.ndarray:
        """Return the distances from the centers, (N, K)."""
        check_is_fitted(self)
        X = validate_data(self, X, reset=False, dtype=np.float64)
        mean = self.cluster_centers_.mean(0)
        return np.sqrt(squared_distances(X - mean, self.cluster_centers_ - mean))

    def score(self, X: np.ndarray, y: object = None) -> float:
        """Return minus the inertia of X."""
        return -float((self.transform(X).min(1) ** 2).sum())

    @property
    def _n_features_out(self) -> int:
        return len(self.cluster_centers_)
