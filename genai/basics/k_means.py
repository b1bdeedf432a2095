"""k-means clustering: Lloyd's algorithm from k-means++ seeds, the best of several starts.

Lloyd, "Least squares quantization in PCM", 1982; Arthur and Vassilvitskii, "k-means++", 2007; Hamerly, "Making k-means
even faster", 2010, for what need not be computed again.

Below, N examples x of D features have K centers c, both taken from an origin o, the mean of the data, so that nothing
cancels where the data lie far from zero: |x - c|^2 = |x - o|^2 + (c - o)(c + o - 2 x). No second table is ever held.
"""

import warnings
from collections.abc import Iterator
from typing import Annotated, Literal

import numpy as np
from pydantic import Field, InstanceOf
from pydantic.json_schema import SkipJsonSchema
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, ClusterMixin, TransformerMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.validation import check_array, check_is_fitted, validate_data

from genai.core.config import Count, Seed, check_keywords

MANY, SETTLED = 5_000, 1 / 32  # rows, and the share of them that moves, from which on margins pay; by measurement


def parts(n: int, width: int) -> Iterator[slice]:
    """Cut n rows into slices whose arrays of `width` columns stay within a processor's cache."""
    step = 1 + 2**16 // width
    return (slice(start, start + step) for start in range(0, n, step))


def relative_distances(x: np.ndarray, centers: np.ndarray, origin: np.ndarray) -> np.ndarray:
    """Return |x - c|^2 - |x - o|^2, (K, N), for x (N, D) and centers (K, D), these relative to the origin (D,)."""
    products = x @ np.multiply(-2, centers.T, order="C")  # the layout that BLAS is fastest with
    return np.add(products.T, (centers * (centers + 2 * origin)).sum(1)[:, None], order="C")


def first_least(distances: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return `distances.argmin(0)` and `.min(0)` of (K, N), several times faster: by comparisons along N."""
    least = distances.min(0)
    k = len(distances)
    code = np.arange(k, 0, -1, dtype=np.min_scalar_type(k))[:, None]  # of equal ones the first has the highest
    return k - ((distances == least) * code).max(0).astype(np.intp), least


def squared_norms(x: np.ndarray, origin: np.ndarray) -> np.ndarray:
    """Return |x - o|^2, (N,); the origin may be one for each row, (N, D)."""
    shifted = x - origin
    return np.einsum("nd,nd->n", shifted, shifted)


def k_means_plus_plus(
    x: np.ndarray, norms: np.ndarray, origin: np.ndarray, n_clusters: int, rng: np.random.Generator
) -> np.ndarray:
    """Return the numbers of n_clusters rows, each drawn in proportion to its squared distance from those before.

    Greedy: of 2 + log K draws, the one that leaves the least sum of distances (the conclusion of the paper). norms: |x - o|^2.
    """
    chosen: list[int] = []
    nearest, candidates = np.full(len(x), np.inf), rng.integers(len(x), size=1)
    while True:
        distances = np.empty((len(candidates), len(x)))
        for part in parts(len(x), x.shape[1] + len(candidates)):
            distances[:, part] = relative_distances(x[part], x[candidates] - origin, origin) + norms[part]
        np.clip(distances, 0, nearest, out=distances)
        distances[np.arange(len(candidates)), candidates] = 0  # exact, so that none is drawn twice
        best = distances.sum(1).argmin()
        nearest = distances[best]
        chosen.append(candidates[best])
        if len(chosen) == n_clusters:
            return np.array(chosen)
        cumulated = nearest.cumsum()
        drawn = np.searchsorted(cumulated, rng.random(2 + int(np.log(n_clusters))) * cumulated[-1], side="right")
        candidates = np.minimum(drawn, len(x) - 1)  # rounding, or nothing left to draw


class Lloyd:
    """One run: each row of x gets the label of the nearest center, each center moves to the mean of its rows, by turns.

    The margin of a row is a lower bound of how much farther the second nearest center is than its own. It shrinks by what
    the two may have moved; while it is positive, the label stands and no distance is computed.
    """

    def __init__(self, x: np.ndarray, norms: np.ndarray, origin: np.ndarray, centers: np.ndarray):
        self.x, self.norms, self.origin = x, norms, origin
        self.centers = centers - origin
        self.labels, self.margin = np.full(len(x), -1), np.full(len(x), -np.inf)
        self.moved, self.settled = len(x), False  # rows that the last assignment moved; whether margins are taken
        self.sums, self.counts = np.zeros(centers.shape), np.zeros(len(centers))  # of the rows of each cluster

    def assign(self) -> None:
        """Give every row the nearest center. Margins are taken once few rows move, so that they last."""
        n = len(self.x)
        stale = np.flatnonzero(self.margin <= 0)
        few = len(stale) < n / 2  # else to copy them costs more than it spares
        self.settled |= n > MANY and self.moved < SETTLED * n
        self.moved = 0
        for part in parts(len(stale) if few else n, sum(self.centers.shape)):
            rows = stale[part] if few else part
            x = self.x[rows]
            distances = relative_distances(x, self.centers, self.origin)
            labels, least = first_least(distances)
            if self.settled:
                distances[labels, np.arange(len(x))] = np.inf
                norms = self.norms[rows]
                second = np.sqrt(np.maximum(distances.min(0) + norms, 0))
                self.margin[rows] = second - np.sqrt(np.maximum(least + norms, 0))
            before = self.labels[rows]
            if len(moved := np.flatnonzero(labels != before)):
                self.moved += len(moved)
                self.move(x[moved], before[moved], labels[moved])
                self.labels[rows] = labels

    def move(self, x: np.ndarray, before: np.ndarray, after: np.ndarray) -> None:
        """Take rows x (M, D) out of the clusters `before` and into the clusters `after`, (M,); -1 is none."""
        clusters = np.arange(len(self.centers))[:, None]
        moves = np.subtract(clusters == after, clusters == before, dtype=np.float64)
        self.sums += moves @ x
        self.counts += moves.sum(1)

    def fill_empty(self) -> None:
        """Let each empty cluster take over the row that is farthest from its own center."""
        distances = np.concatenate(
            [squared_norms(self.x[i] - self.origin, self.centers[self.labels[i]]) for i in parts(*self.x.shape)]
        )
        for empty in np.flatnonzero(self.counts == 0):
            distances[self.counts[self.labels] == 1] = 0  # to move a lone row would empty another cluster
            farthest = [distances.argmax()]
            if distances[farthest] > 0:
                self.move(self.x[farthest], self.labels[farthest], np.array([empty]))
                self.labels[farthest], self.margin[farthest], distances[farthest] = empty, -np.inf, 0

    def update(self) -> float:
        """Put each center in the mean of its cluster; return the sum of the squared shifts. An empty one stays."""
        n = self.counts[:, None]
        means = np.where(n > 0, self.sums / np.maximum(n, 1) - self.origin, self.centers)
        shifts = np.sqrt(squared_norms(means, self.centers))
        self.centers = means
        if self.settled:
            self.margin -= (shifts + shifts.max())[self.labels]
        return float(shifts @ shifts)

    def run(self, max_iter: int, tolerance: float) -> int:
        """Assign and update until no label changes or the shifts are within tolerance; return the iterations."""
        for iteration in range(1, max_iter + 1):
            self.assign()
            if not self.moved:
                return iteration
            if not self.counts.all():
                self.fill_empty()
            if self.update() <= tolerance:
                break
        self.assign()
        return iteration


def inertia(x: np.ndarray, centers: np.ndarray, labels: np.ndarray) -> float:
    """Return the sum of squared distances from the assigned centers."""
    return float(sum(squared_norms(x[part], centers[labels[part]]).sum() for part in parts(*x.shape)))


class KMeans(ClassNamePrefixFeaturesOutMixin, TransformerMixin, ClusterMixin, BaseEstimator):
    """Partitions the examples into n_clusters so that the inertia, sum_n |x_n - c(x_n)|^2, is small; it sees no label.

    init: 'k-means++', 'random' (rows drawn evenly) or the first centers, (n_clusters, D), which are one start. n_init:
    starts, of which the one with the least inertia is kept; 'auto' is 10 of random ones and else 1. tol: a share of the
    features' mean variance; a start ends when the squared shifts of the centers sum to no more, with 0 when no label
    changes. Learned: cluster_centers_ (K, D), labels_ (N,), inertia_, n_iter_.
    """

    takes = frozenset({"table", "images"})
    task = "clustering"

    def __init__(
        self,
        n_clusters: Count = 8,
        *,
        init: Literal["k-means++", "random"] | list[list[float]] | SkipJsonSchema[InstanceOf[np.ndarray]] = "k-means++",
        n_init: Count | Literal["auto"] = "auto",
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
        X = validate_data(self, X, dtype=np.float64)
        if len(X) < self.n_clusters:
            raise ValueError(f"n_clusters: {self.n_clusters} should be at most n_samples={len(X)}")
        origin = X.mean(0)
        norms = np.concatenate([squared_norms(X[part], origin) for part in parts(*X.shape)])
        tolerance = self.tol * norms.mean() / X.shape[1]
        self.inertia_ = np.inf
        for start in self._starts(X, norms, origin):
            run = Lloyd(X, norms, origin, start)
            n_iter, centers = run.run(self.max_iter, tolerance), run.centers + origin
            if (found := inertia(X, centers, run.labels)) < self.inertia_:
                self.inertia_, self.n_iter_ = found, n_iter
                self.cluster_centers_, self.labels_ = centers, run.labels.astype(np.int32)
        if (distinct := len(np.unique(self.labels_))) < self.n_clusters:
            message = f"n_clusters: {self.n_clusters} should be at most {distinct}, as no more examples are distinct"
            warnings.warn(message, ConvergenceWarning, stacklevel=2)
        return self

    def _starts(self, X: np.ndarray, norms: np.ndarray, origin: np.ndarray) -> Iterator[np.ndarray]:
        """Yield the centers to start from, (K, D)."""
        if not isinstance(self.init, str):
            centers = check_array(self.init, dtype=np.float64, input_name="init")
            if centers.shape != (wanted := (self.n_clusters, X.shape[1])):
                raise ValueError(f"init: centers of shape {centers.shape} should be {wanted}, (n_clusters, n_features)")
            yield centers
            return
        rng = np.random.default_rng(self.random_state)
        for _ in range(self.n_init if self.n_init != "auto" else 10 if self.init == "random" else 1):
            if self.init == "random":
                yield X[rng.choice(len(X), self.n_clusters, replace=False)]
            else:
                yield X[k_means_plus_plus(X, norms, origin, self.n_clusters, rng)]

    def predict(self, X: np.ndarray) -> np.ndarray:
        """Return the number of the nearest center, (N,)."""
        check_is_fitted(self)
        X = validate_data(self, X, reset=False, dtype=np.float64)
        origin = self.cluster_centers_.mean(0)
        labels = np.empty(len(X), np.int32)
        for part in parts(len(X), sum(self.cluster_centers_.shape)):
            labels[part], _ = first_least(relative_distances(X[part], self.cluster_centers_ - origin, origin))
        return labels

    def transform(self, X: np.ndarray) -> np.ndarray:
        """Return the distances from the centers, (N, K)."""
        check_is_fitted(self)
        X = validate_data(self, X, reset=False, dtype=np.float64)
        origin = self.cluster_centers_.mean(0)
        distances = np.empty((len(X), len(self.cluster_centers_)))
        for part in parts(len(X), sum(self.cluster_centers_.shape)):
            squares = relative_distances(X[part], self.cluster_centers_ - origin, origin)
            squares += squared_norms(X[part], origin)
            distances[part] = np.sqrt(np.maximum(squares, 0, out=squares), out=squares).T
        return distances

    def score(self, X: np.ndarray, y: object = None) -> float:
        """Return minus the inertia of X."""
        labels = self.predict(X)
        return -inertia(validate_data(self, X, reset=False, dtype=np.float64), self.cluster_centers_, labels)

    @property
    def _n_features_out(self) -> int:
        return len(self.cluster_centers_)
