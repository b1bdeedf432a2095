"""k-means clustering: Lloyd's algorithm from k-means++ seeds, the best of several starts.

Lloyd, "Least squares quantization in PCM", 1982; Arthur and Vassilvitskii, "k-means++", 2007.
"""

import numpy as np
from pydantic import Field

from genai.core.config import Count, Strict, UserError
from genai.core.dataset import Description


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


class KMeans:
    """Partitions the examples into n_clusters; it never sees a label."""

    takes = frozenset({"images"})
    task = "clustering"

    class Config(Strict):
        n_clusters: Count
        n_init: Count = Field(description="starts, of which the one with the least inertia is kept")
        max_iterations: Count = 300

    def __init__(self, config: Config, description: Description):
        self.config = config

    def fit(self, x: np.ndarray, y: np.ndarray | None, seed: int) -> "KMeans":
        """x: (N, ...) flattened to (N, D); y is ignored. Raises UserError where there are too few distinct examples."""
        x = x.reshape(len(x), -1).astype(np.float64)
        n_clusters = self.config.n_clusters
        if n_clusters > (distinct := len(np.unique(x, axis=0))):
            raise UserError(
                f"k-means: n_clusters {n_clusters}: should be at most {distinct}, the number of distinct examples"
            )
        rng = np.random.default_rng(seed)
        starts = [
            lloyd(x, k_means_plus_plus(x, n_clusters, rng), self.config.max_iterations)
            for _ in range(self.config.n_init)
        ]
        self.cluster_centers_, self.inertia_ = min(starts, key=lambda start: start[1])
        return self

    def predict(self, x: np.ndarray) -> np.ndarray:
        """Return the number of the nearest center, (N,)."""
        return squared_distances(x.reshape(len(x), -1).astype(np.float64), self.cluster_centers_).argmin(1)
