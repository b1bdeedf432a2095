"""Principal component analysis: the directions in which the data vary most, by a singular value decomposition.

Pearson, "On lines and planes of closest fit to systems of points in space", 1901; Hastie, Tibshirani and Friedman, "The
Elements of Statistical Learning", 2nd edition, section 14.5.1; Eckart and Young, 1936: no other K directions
reconstruct the data with less squared error.
"""

from typing import Annotated

import numpy as np
from pydantic import Field
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils.validation import check_is_fitted, validate_data

from genai.core.config import Count, check_keywords

CHUNK = 1024  # rows whose products are summed at a time: they stay in the cache
TALL = 10  # times as many examples as features: then the covariance is the cheaper way


class PCA(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """X - mean = U S V^T; the rows of V^T are the components, and X V the coordinates.

    n_components: how many, or the share of the variance to be kept (below 1), or None for all. whiten: coordinates of
    variance 1. Of many more examples than features V comes from the eigenvectors of the covariance, at half the digits
    for directions that hardly vary, else from X itself. The sign of a component is that of its largest entry, made
    positive. Learned: components_ (K, D), explained_variance_, explained_variance_ratio_, singular_values_ (K,), mean_
    (D,), n_components_, noise_variance_, the mean variance of the directions left out.
    """

    def __init__(
        self,
        n_components: Count | Annotated[float, Field(gt=0, lt=1)] | None = None,
        *,
        whiten: bool = False,
    ):
        self.n_components = n_components
        self.whiten = whiten

    def fit(self, X: np.ndarray, y: object = None) -> "PCA":
        """X: (N, D). Raises ValueError where n_components exceeds min(N, D)."""
        check_keywords(self)
        X = validate_data(self, X, dtype=np.float64, ensure_min_samples=2)
        N, D = X.shape
        if isinstance(self.n_components, int) and self.n_components > min(N, D):
            raise ValueError(f"n_components={self.n_components} should be at most {min(N, D)}, min(N, D) of X {(N, D)}")
        if N >= TALL * D:
            self.mean_, variance, components = self._by_covariance(X)
        else:
            self.mean_ = X.mean(0)
            _, s, components = np.linalg.svd(X - self.mean_, full_matrices=False)
            variance = s**2 / (N - 1)
        share = variance / total if (total := variance.sum()) > 0 else np.zeros_like(variance)
        K = min(N, D) if self.n_components is None else self.n_components
        if isinstance(K, float):  # the fewest that keep more than this share
            K = min(int(np.searchsorted(np.cumsum(share), K, side="right")) + 1, len(share))
        largest = np.take_along_axis(components, np.abs(components).argmax(1)[:, None], 1)
        self.components_ = (components * np.where(largest < 0, -1, 1))[:K]
        self.n_components_ = K
        self.explained_variance_, self.explained_variance_ratio_ = variance[:K], share[:K]
        self.singular_values_ = np.sqrt(self.explained_variance_ * (N - 1))
        self.noise_variance_ = float(variance[K:].mean()) if len(variance) > K else 0.0
        return self

    @staticmethod
    def _by_covariance(X: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return mean (D,), variances (D,), largest first, and components (D, D), in one pass over X."""
        origin = X[:CHUNK].mean(0)  # near the mean, so that the products do not cancel
        first, second = np.zeros(X.shape[1]), np.zeros((X.shape[1],) * 2)
        buffer, ones = np.empty((min(CHUNK, len(X)), X.shape[1])), np.ones(CHUNK)
        for i in range(0, len(X), CHUNK):
            rows = X[i : i + CHUNK]
            z = np.subtract(rows, origin, out=buffer[: len(rows)])
            first += ones[: len(rows)] @ z
            second += z.T @ z  # of one array with itself: half the work
        shift = first / len(X)
        covariance = (second - len(X) * np.outer(shift, shift)) / (len(X) - 1)
        variance, vectors = np.linalg.eigh(covariance)
        return origin + shift, np.maximum(variance[::-1], 0), vectors.T[::-1]

    def transform(self, X: np.ndarray) -> np.ndarray:
        """Return the coordinates, (N, K)."""
        check_is_fitted(self)
        X = validate_data(self, X, reset=False, dtype=np.float64)
        directions = self._scaled().T
        coordinates = X @ directions
        coordinates -= self.mean_ @ directions
        return coordinates

    def inverse_transform(self, X: np.ndarray) -> np.ndarray:
        """Return the point of the plane with these coordinates, (N, D)."""
        check_is_fitted(self)
        scale = np.sqrt(self.explained_variance_)[:, None] if self.whiten else 1.0
        return np.asarray(X) @ (self.components_ * scale) + self.mean_

    def _scaled(self) -> np.ndarray:
        if not self.whiten:
            return self.components_
        scale = np.sqrt(self.explained_variance_)[:, None]
        return np.divide(self.components_, scale, out=np.zeros_like(self.components_), where=scale > 0)

    @property
    def _n_features_out(self) -> int:
        return int(self.n_components_)
