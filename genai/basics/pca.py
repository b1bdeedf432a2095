"""Principal component analysis: the orthogonal directions in which the data vary most.

Bishop, "Pattern Recognition and Machine Learning", section 12.1; Tipping and Bishop, "Probabilistic principal component
analysis", 1999, for the density; Chan, Golub and LeVeque, "Algorithms for computing the sample variance", 1983, for
means and covariances by parts.
"""

from typing import Annotated, Literal

import numpy as np
from pydantic import Field
from scipy.linalg import svd
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils.validation import check_is_fitted, validate_data

from genai.core.config import Count, check_keywords


def scatter(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the mean (D,) and sum_n (x_n - mean)(x_n - mean)^T (D, D) of x (N, D), read once, part by part.

    Each part is centered by its own mean, so that nothing cancels where the data lie far from zero (Chan et al., (2.1)).
    """
    mean, total = np.zeros(x.shape[1]), np.zeros((x.shape[1], x.shape[1]))
    step = max(2**18 // x.shape[1], 8 * x.shape[1])  # as many as stay in a cache, but worth adding D x D numbers
    ones, buffer = np.ones(min(step, len(x))), np.empty((min(step, len(x)), x.shape[1]))
    for start in range(0, len(x), step):
        part = x[start : start + step]
        part_mean = ones[: len(part)] @ part / len(part)
        centered = np.subtract(part, part_mean, out=buffer[: len(part)])
        total += centered.T @ centered
        share, shift = len(part) / (start + len(part)), part_mean - mean
        total += start * share * np.outer(shift, shift)
        mean += share * shift
    return mean, total


class PCA(TransformerMixin, ClassNamePrefixFeaturesOutMixin, BaseEstimator):
    """z = (x - mean) V with V the leading right singular vectors of the centered data; whitened: z / standard deviation.

    n_components: how many, or the share of the variance that they must exceed, or None for all, min(N, D).
    svd_solver: "full" is the singular value decomposition of X; "covariance_eigh" that of its D x D covariance, many times
    faster where N is much larger than D and as exact for the variances, relative to the largest: both err by some
    1e-16 of it, but a singular value below 1e-8 of the largest is lost. "auto" takes it from N = 10 D on. Learned:
    components_ (K, D), the largest entry of each positive, explained_variance_, explained_variance_ratio_ and
    singular_values_ (K,), mean_ (D,), n_components_, noise_variance_, the mean variance of the directions left out.
    """

    def __init__(
        self,
        n_components: Count | Annotated[float, Field(gt=0, lt=1)] | None = None,
        *,
        whiten: bool = False,
        svd_solver: Literal["auto", "full", "covariance_eigh"] = "auto",
    ):
        self.n_components = n_components
        self.whiten = whiten
        self.svd_solver = svd_solver

    def fit(self, X: np.ndarray, y: object = None) -> "PCA":
        """X: (N, D), N at least 2. Raises ValueError where n_components is more than min(N, D)."""
        check_keywords(self)
        X = validate_data(self, X, dtype=np.float64, ensure_min_samples=2)
        most = min(X.shape)
        if self.n_components is not None and self.n_components > most:
            raise ValueError(
                f"n_components: {self.n_components} should be at most {most}, min(n_samples, n_features) of {X.shape}"
            )
        by_covariance = self.svd_solver == "covariance_eigh" or (
            self.svd_solver == "auto" and len(X) >= 10 * X.shape[1]
        )
        variances, vectors = self._by_covariance(X) if by_covariance else self._by_svd(X)
        ratios = variances / max(variances.sum(), np.finfo(float).tiny)
        k = most if self.n_components is None else self.n_components
        if k < 1:
            k = min(1 + int(np.searchsorted(ratios.cumsum(), k, side="right")), most)
        largest = np.abs(vectors).argmax(1)
        signs = np.sign(vectors[np.arange(most), largest])  # a direction has two; that of its largest entry is positive
        self.n_components_, self.n_samples_ = int(k), len(X)
        self.components_ = np.ascontiguousarray((signs[:, None] * vectors)[:k])
        self.explained_variance_, self.explained_variance_ratio_ = variances[:k], ratios[:k]
        self.singular_values_ = np.sqrt(variances[:k] * (len(X) - 1))
        self.noise_variance_ = float(variances[k:].mean()) if k < most else 0.0
        return self

    def _by_svd(self, X: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the variances, falling, and the directions in rows, (min(N, D), D)."""
        self.mean_ = X.mean(0)
        _, s, vectors = svd(X - self.mean_, full_matrices=False, check_finite=False, overwrite_a=True)
        return s**2 / (len(X) - 1), vectors

    def _by_covariance(self, X: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the same; the variances are the eigenvalues of the covariance."""
        self.mean_, total = scatter(X)
        variances, vectors = np.linalg.eigh(total / (len(X) - 1))
        most = min(X.shape)
        return np.maximum(variances[::-1][:most], 0), vectors.T[::-1][:most]

    def _scale(self) -> np.ndarray:
        """Return the standard deviations by which whitening divides, never 0."""
        deviations = np.sqrt(self.explained_variance_)
        return np.maximum(deviations, np.finfo(float).eps)

    def transform(self, X: np.ndarray) -> np.ndarray:
        """Return the coordinates of X along the components, (N, K)."""
        check_is_fitted(self)
        X = validate_data(self, X, reset=False, dtype=np.float64)
        z = X @ self.components_.T
        z -= self.mean_ @ self.components_.T
        if self.whiten:
            z /= self._scale()
        return z

    def inverse_transform(self, X: np.ndarray) -> np.ndarray:
        """Return the points (N, D) that have the coordinates X (N, K), the nearest ones to what was transformed."""
        check_is_fitted(self)
        X = np.asarray(X, dtype=np.float64)
        return (X * self._scale() if self.whiten else X) @ self.components_ + self.mean_

    def score_samples(self, X: np.ndarray) -> np.ndarray:
        """Return log p(x), (N,), under the Gaussian with covariance V (L - s I) V^T + s I, Bishop (12.36).

        L holds the explained variances, s the noise variance, the mean of the rest (12.46): a likelihood that can be
        compared on held-out data. Raises ValueError where it has no density, because a variance is zero.
        """
        check_is_fitted(self)
        X = validate_data(self, X, reset=False, dtype=np.float64)
        k, d = self.components_.shape
        noise, variances = float(self.noise_variance_), self.explained_variance_
        least = noise if k < d else variances[-1]
        if least <= np.finfo(float).eps * variances[0]:  # no more than rounding makes of zero
            raise ValueError(f"n_components: with {k} of {d} features the rest has no variance, so there is no density")
        centered = X - self.mean_
        z = centered @ self.components_.T
        distance = (z**2 / variances).sum(1)
        log_determinant = np.log(variances).sum()
        if k < d:
            residual = centered - z @ self.components_
            distance += (residual**2).sum(1) / noise
            log_determinant += (d - k) * np.log(noise)
        return -0.5 * (d * np.log(2 * np.pi) + log_determinant + distance)

    def score(self, X: np.ndarray, y: object = None) -> float:
        """Return the mean of log p(x)."""
        return float(self.score_samples(X).mean())

    @property
    def _n_features_out(self) -> int:
        return len(self.components_)
