"""k-means clustering: Lloyd's algorithm from k-means++ seeds, the best of several starts.

Lloyd, "Least squares quantization in PCM", 1982; Arthur and Vassilvitskii, "k-means++", 2007;
Hamerly, "Making k-means even faster", 2010, for what need not be computed again.

Below, N examples x of D features have K centers c; both are taken from an origin o near the mean of the data, so that
nothing cancels where the data lie far from zero: |x - c|^2 = |x - o|^2 + (c - o)(c + o - 2 x).
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

SETTLED = 1 / 32  # the share of labels that change, from which on margins spare more than they cost; by measurement


def parts(n: int, width: int) -> Iterator[slice]:
    """Cut n rows into slices whose arrays of `width` columns stay within a processor's cache."""
    step = 1 + 2**17 // width
    return (slice(start, min(start + step, n)) for start in range(0, n, step))


def relative_distances(x: np.ndarray, centers: np.ndarray, origin: np.ndarray) -> np.ndarray:
    """Return |x - c|^2 - |x - o|^2, (K, N), for x (N, D) and centers (K, D), these relative to the origin (D,)."""
    if len(centers) > 16:
        products = -2 * centers @ x.T
    else:  # BLAS is twice as fast with few columns than with few rows
        products = (x @ (-2 * centers).T).T
    return np.add(products, (centers * (centers + 2 * origin)).sum(1)[:, None], order="C")


def first_least(distances: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return `distances.argmin(0)` and `.min(0)` of (K, N): by comparisons along N, several times faster."""
    least = distances.min(0)
    k = len(distances)
    code = np.arange(k, 0, -1, dtype=np.min_scalar_type(k))[:, None]  # of equal ones the first has the highest
    return k - ((distances == least) * code).max(0).astype(np.intp), least


def squared_norms(x: np.ndarray, origin: np.ndarray) -> np.ndarray:
    """Return |x - o|^2, (N,)."""
    norms = np.empty(len(x))
    for part in parts(*x.shape):
        shifted = x[part] - origin
        np.einsum("nd,nd->n", shifted, shifted, out=norms[part])
    return norms


def k_means_plus_plus(
    x: np.ndarray, norms: np.ndarray, origin: np.ndarray, n_clusters: int, rng: np.random.Generator
) -> np.ndarray:
    """Return the numbers of n_clusters rows, each drawn in proportion to its squared distance from those before.

    Greedy: of 2 + log K draws, the one that leaves the least sum of distances (section 5 of the paper).
    """
    trials = 2 + int(np.log(n_clusters))
    chosen = np.array([rng.integers(len(x))])
    nearest, candidates = np.full(len(x), np.inf), chosen
    while True:
        distances = np.empty((len(candidates), len(x)))
        for part in parts(len(x), x.shape[1] + trials):
            distances[:, part] = relative_distances(x[part], x[candidates] - origin, origin) + norms[part]
        np.clip(distances, 0, nearest, out=distances)
        distances[np.arange(len(candidates)), candidates] = 0  # exact, so that none is drawn twice
        best = distances.sum(1).argmin()
        nearest = distances[best]
        chosen[-1] = candidates[best]
        if len(chosen) == n_clusters:
            return chosen
        cumulated = nearest.cumsum()
        drawn = np.searchsorted(cumulated, rng.random(trials) * cumulated[-1], side="right")
        candidates = np.minimum(drawn, len(x) - 1)  # rounding, or nothing left to draw
        chosen = np.append(chosen, -1)


def inertia(x: np.ndarray, centers: np.ndarray, labels: np.ndarray) -> float:
    """Return the sum of squared distances to the assigned centers."""
    total = 0.0
    for part in parts(*x.shape):
        difference = (x[part] - centers[labels[part]]).ravel()
        total += float(difference @ difference)
    return total


class Lloyd:
    """The state of one run: labels, and for each cluster the count and the sum of its points.

    The margin of a point is a lower bound of how much farther the second nearest center is than its own. It shrinks
    by what centers move; while it is positive, the label stands and no distance is computed.
    """

    def __init__(self, x: np.ndarray, norms: np.ndarray, origin: np.ndarray, centers: np.ndarray):
        self.x, self.norms, self.origin = x, norms, origin
        self.centers = centers - origin
        self.labels = np.full(len(x), -1)
        self.margin = np.full(len(x), -np.inf)
        self.moved, self.settled = len(x), False  # points that the last assignment moved; whether margins are taken
        self.sums, self.counts = np.zeros_like(self.centers), np.zeros(len(centers))

    def assign(self) -> None:
        """Give every point the nearest center. Margins are taken once centers move little, so that they last."""
        stale = np.flatnonzero(self.margin <= 0) if self.settled else np.empty(0, np.intp)
        few = self.settled and len(stale) < len(self.x) / 2  # else to copy them costs more than it spares
        self.settled |= self.moved < SETTLED * len(self.x)
        self.moved = 0
        for part in parts(len(stale) if few else len(self.x), sum(self.centers.shape)):
            rows: slice | np.ndarray = stale[part] if few else part
            x = self.x.take(stale[part], axis=0) if few else self.x[part]
            distances = relative_distances(x, self.centers, self.origin)
            labels, least = first_least(distances)
            if self.settled:
                distances[labels, np.arange(len(x))] = np.inf
                norms = self.norms[rows]
                second = np.sqrt(np.maximum(distances.min(0) + norms, 0))
                self.margin[rows] = second - np.sqrt(np.maximum(least + norms, 0))
            before = self.labels[rows]
            moved = np.flatnonzero(labels != before)
            if len(moved):
                self.moved += len(moved)
                self.move(x[moved] - self.origin, before[moved], labels[moved])
                self.labels[rows] = labels

    def move(self, x: np.ndarray, before: np.ndarray, after: np.ndarray) -> None:
        """Take points (M, D) out of the clusters `before` and into the clusters `after`, (M,); -1 is none."""
        clusters = np.arange(len(self.centers))[:, None]
        moves = np.subtract(clusters == after, clusters == before, dtype=np.float64)
        self.sums += moves @ x
        self.counts += moves.sum(1)

    def fill_empty(self) -> None:
        """Let each empty cluster take over the point that is farthest from its own center."""
        distances = np.empty(len(self.x))
        for part in parts(*self.x.shape):
            shifted = self.x[part] - self.origin - self.centers[self.labels[part]]
            np.einsum("nd,nd->n", shifted, shifted, out=distances[part])
        for empty in np.flatnonzero(self.counts == 0):
            distances[self.counts[self.labels] == 1] = 0  # moving a lone point empties another cluster
            farthest = distances.argmax()
            if distances[farthest] > 0:
                point = self.x[[farthest]] - self.origin
                self.sums[empty] = 0
                self.move(point, self.labels[[farthest]], np.array([empty]))
                self.labels[farthest], self.margin[farthest], distances[farthest] = empty, -np.inf, 0

    def update(self) -> float:
        """Put each center in the mean of its cluster; return the sum of squared shifts. An empty one stays."""
        filled = self.counts > 0
        old, self.centers = self.centers, self.centers.copy()
        self.centers[filled] = self.sums[filled] / self.counts[filled, None]
        shifts = np.sqrt(((self.centers - old) ** 2).sum(1))
        if self.settled:
            self.margin -= (shifts + shifts.max())[self.labels]
        return float(shifts @ shifts)

    def run(self, max_iter: int, tolerance: float) -> int:
        """Assign and update until no label changes or the shifts are within tolerance; return the iterations."""
        for iteration in range(1, max_iter + 1):
            self.assign()
            if not self.moved:
                return iteration
            if (self.counts == 0).any():
                self.fill_empty()
            if self.update() <= tolerance:
                break
        self.assign()
        return iteration


class KMeans(TransformerMixin, ClusterMixin, ClassNamePrefixFeaturesOutMixin, BaseEstimator):
    """Partitions the examples into n_clusters with the least inertia that is found; it never sees a label.

    init: "k-means++", "random" (rows of X) or the centers, (n_clusters, D). n_init: the number of starts, "auto" is 10
    for random ones and else 1; centers that are given are one start. tol is a share of the features' mean variance:
    a run ends when the squared shifts of the centers sum to no more.
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
        """X: (N, D). Raises ValueError where there are fewer examples than clusters.

        Warns where fewer distinct clusters are found, as for want of distinct examples.
        """
        check_keywords(self)
        X = validate_data(self, X, dtype=np.float64)
        if self.n_clusters > len(X):
            raise ValueError(f"n_clusters: {self.n_clusters} should be at most n_samples={len(X)}")
        origin = X.mean(0)
        norms = squared_norms(X, origin)
        tolerance = self.tol * norms.mean() / X.shape[1]
        self.inertia_ = np.inf
        for start in self._starts(X, norms, origin):
            lloyd = Lloyd(X, norms, origin, start)
            n_iter = lloyd.run(self.max_iter, tolerance)
            centers = lloyd.centers + origin
            if (found := inertia(X, centers, lloyd.labels)) < self.inertia_:
                self.cluster_centers_, self.labels_ = centers, lloyd.labels
                self.inertia_, self.n_iter_ = found, n_iter
        if (distinct := len(np.unique(self.labels_))) < self.n_clusters:
            warnings.warn(
                f"n_clusters: {self.n_clusters} should be at most {distinct}, the clusters that are not empty; "
                "are there as many distinct examples?",
                ConvergenceWarning,
                stacklevel=2,
            )
        return self

    def _starts(self, X: np.ndarray, norms: np.ndarray, origin: np.ndarray) -> Iterator[np.ndarray]:
        """Yield the centers to start from, (K, D)."""
        if not isinstance(self.init, str):
            centers = check_array(self.init, dtype=np.float64, input_name="init")
            if centers.shape != (wanted := (self.n_clusters, X.shape[1])):
                raise ValueError(f"init: its shape {centers.shape} should be {wanted}, (n_clusters, n_features)")
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
        labels = np.empty(len(X), np.intp)
        for part in parts(len(X), sum(self.cluster_centers_.shape)):
            labels[part], _ = first_least(relative_distances(X[part], self.cluster_centers_ - origin, origin))
        return labels

    def transform(self, X: np.ndarray) -> np.ndarray:
        """Return the distance of each example from each center, (N, K)."""
        check_is_fitted(self)
        X = validate_data(self, X, reset=False, dtype=np.float64)
        origin = self.cluster_centers_.mean(0)
        distances = np.empty((len(X), len(self.cluster_centers_)))
        for part in parts(len(X), sum(self.cluster_centers_.shape)):
            relative = relative_distances(X[part], self.cluster_centers_ - origin, origin)
            distances[part] = (relative + squared_norms(X[part], origin)).T
        return np.sqrt(np.maximum(distances, 0, out=distances), out=distances)

    def score(self, X: np.ndarray, y: object = None) -> float:
        """Return minus the inertia of X under the centers."""
        labels = self.predict(X)
        return -inertia(validate_data(self, X, reset=False, dtype=np.float64), self.cluster_centers_, labels)

    @property
    def _n_features_out(self) -> int:
        return len(self.cluster_centers_)
