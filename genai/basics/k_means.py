"""k-means clustering: Lloyd's algorithm from k-means++ seeds, the best of several starts.

Lloyd, "Least squares quantization in PCM", 1982; Arthur and Vassilvitskii, "k-means++", 2007.
"""

import numpy as np
from sklearn.base import BaseEstimator, ClusterMixin
from sklearn.utils.validation import check_is_fitted, validate_data

from genai.core.config import Count, Seed, check_keywords


def squared_distances(x: np.ndarray, centers: np.ndarray) -> np.ndarray:
    """Return |x_n - c_k|^2, (N, K), for x (N, D) and centers (K, D)."""
    return np.maximum((x**2).sum(1)[:, None] - 2 * x @ centers.T + (centers**2).sum(1), 0)


def k_means_plus_plus(x: np.ndarray, n_clusters: int, rng: np.random.Generator) -> np.ndarray:
    """Return n_clusters rows of x, each drawn in proportion to its squared distance from the nearest one before."""
    chosen = [int(rng.integers(len(x)))]
    nearest = squared_distances(x, x[chosen])[:, 0]
    for _ in range(1, n_clusters):
        nearest[chosen] = 0  # exact, so that none is drawn twice
        chosen.append(int(rng.choice(len(x), p=nearest / nearest.sum())))
        nearest = np.minimum(nearest, squared_distances(x, x[chosen[-1:]])[:, 0])
    return x[chosen]


def lloyd(x: np.ndarray, centers: np.ndarray, max_iterations: int) -> tuple[np.ndarray, float]:
    """Return the centers where assigning points to the nearest and averaging changes nothing, and their inertia.

    The inertia, the sum of squared distances to the nearest center, falls with every step.
    """
    labels = None
    for _ in range(max_iterations):
        distances = squared_distances(x, centers)
        if labels is not None and np.array_equal(labels, distances.argmin(1)):
            break
        labels = distances.argmin(1)
        counts = np.bincount(labels, minlength=len(centers))
        # an empty cluster takes over the point that is farthest from its own center
        for empty in np.flatnonzero(counts == 0):
            farthest = np.where(counts[labels] > 1, distances[np.arange(len(x)), labels], -1).argmax()
            counts[labels[farthest]] -= 1
            labels[farthest], counts[empty] = empty, 1
        centers = np.eye(len(centers))[labels].T @ x / counts[:, None]
    return centers, squared_distances(x, centers).min(1).sum()


class KMeans(ClusterMixin, BaseEstimator):
    """Partitions the examples into n_clusters; it never sees a label."""

    takes = frozenset({"table", "images"})
    task = "clustering"

    def __init__(
        self, n_clusters: Count = 8, *, n_init: Count = 10, max_iter: Count = 300, random_state: Seed | None = None
    ):
        self.n_clusters = n_clusters
        self.n_init = n_init
        self.max_iter = max_iter
        self.random_state = random_state

    def fit(self, X: np.ndarray, y: object = None) -> "KMeans":
        """X: (N, D). Raises ValueError where there are too few distinct examples."""
        check_keywords(self)
        X = validate_data(self, X, dtype=np.float64)
        if self.n_clusters > (distinct := len(np.unique(X, axis=0))):
            raise ValueError(f"n_clusters: {self.n_clusters} should be at most {distinct}, the distinct examples")
        rng = np.random.default_rng(self.random_state)
        starts = [lloyd(X, k_means_plus_plus(X, self.n_clusters, rng), self.max_iter) for _ in range(self.n_init)]
        self.cluster_centers_, self.inertia_ = min(starts, key=lambda start: start[1])
        self.labels_ = self.predict(X)
        return self

    def predict(self, X: np.ndarray) -> np.ndarray:
        """Return the number of the nearest center, (N,)."""
        check_is_fitted(self)
        X = validate_data(self, X, reset=False, dtype=np.float64)
        return squared_distances(X, self.cluster_centers_).argmin(1)
