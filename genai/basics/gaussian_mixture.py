"""A mixture of Gaussians fitted by expectation maximization, each step one pass over the data.

Bishop, "Pattern Recognition and Machine Learning", section 9.2; Dempster, Laird and Rubin, "Maximum likelihood from
incomplete data via the EM algorithm", 1977.
"""

import warnings
from collections.abc import Iterator
from typing import Annotated, Literal, NamedTuple

import numpy as np
from pydantic import Field, InstanceOf
from pydantic.json_schema import SkipJsonSchema
from scipy.linalg import LinAlgError, cholesky, solve_triangular
from sklearn.base import BaseEstimator, DensityMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.validation import check_array, check_is_fitted, validate_data

from genai.core.config import Count, Seed, check_keywords

Array = SkipJsonSchema[InstanceOf[np.ndarray]]


class Mixture(NamedTuple):
    """The parameters."""

    weights: np.ndarray  # (K,)
    means: np.ndarray  # (K, D)
    covariances: np.ndarray  # (K, D, D), or their diagonals (K, D)


class Moments(NamedTuple):
    """Sums over the examples weighted by their responsibilities r: r, r (x - a), r (x - a)(x - a)^T.

    The points a (K, D) are near the data, so that nothing cancels where these lie far from zero.
    """

    about: np.ndarray
    zeroth: np.ndarray  # (K,)
    first: np.ndarray  # (K, D)
    second: np.ndarray  # (K, D, D), or its diagonals (K, D)


def parts(x: np.ndarray) -> Iterator[slice]:
    """Cut N rows into slices that stay within a processor's cache."""
    step = max(256, 2**15 // x.shape[1])
    return (slice(start, start + step) for start in range(0, len(x), step))


def features(x: np.ndarray, origin: np.ndarray) -> np.ndarray:
    """Return x - o and its squares side by side, (N, 2 D): a diagonal Gaussian's log density is linear in them."""
    shifted = x - origin
    return np.hstack([shifted, shifted * shifted])


def log_joint(x: np.ndarray, weights: np.ndarray, means: np.ndarray, factors: np.ndarray) -> np.ndarray:
    """Return log(weight_k) + log N(x_n | mean_k, covariance_k), (K, N), by the factors of the precisions."""
    if factors.ndim == 2:
        shift = means - (origin := means.mean(0))
        precisions = factors**2
        products = features(x, origin) @ np.hstack([-2 * shift * precisions, precisions]).T
        distances = np.add(products.T, (shift**2 * precisions).sum(1)[:, None], order="C")
        diagonals = factors
    else:
        distances = np.empty((len(means), len(x)))
        for mean, factor, out in zip(means, factors, distances, strict=True):
            whitened = (x - mean) @ factor
            np.einsum("nd,nd->n", whitened, whitened, out=out)
        diagonals = np.diagonal(factors, axis1=1, axis2=2)
    constants = np.log(weights) + np.log(diagonals).sum(1) - 0.5 * x.shape[1] * np.log(2 * np.pi)
    distances *= -0.5
    distances += constants[:, None]
    return distances


def log_sum_exp(log_p: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return log sum_k p_k, (N,), and p_k / sum_k p_k, (K, N), which may take the place of log_p."""
    greatest = log_p.max(0)
    log_p -= greatest
    p = np.exp(log_p, out=log_p)
    total = p.sum(0)
    p /= total
    return np.log(total) + greatest, p


def no_moments(about: np.ndarray, covariance_type: str) -> Moments:
    """Return the sums over no examples."""
    k, d = about.shape
    second = np.zeros((k, d, d) if covariance_type == "full" else (k, d))
    if covariance_type == "diag":
        about = np.broadcast_to(about.mean(0), (k, d))  # one point for all, so that they share their features
    return Moments(about, np.zeros(k), np.zeros((k, d)), second)


def add_moments(moments: Moments, x: np.ndarray, r: np.ndarray) -> None:
    """Add the examples x (N, D), of responsibilities r (K, N), to the sums."""
    about, zeroth, first, second = moments
    zeroth += r.sum(1)
    if second.ndim == 2:
        sums = r @ features(x, about[0])
        first += sums[:, : x.shape[1]]
        second += sums[:, x.shape[1] :]
        return
    roots = np.sqrt(r)
    for k, root in enumerate(roots):
        weighted = (x - about[k]) * root[:, None]
        first[k] += root @ weighted
        second[k] += weighted.T @ weighted  # symmetric: BLAS computes one half


def maximize(moments: Moments, reg_covar: float) -> Mixture:
    """Return the parameters of greatest expected log likelihood, Bishop (9.24) to (9.26)."""
    about, zeroth, first, second = moments
    n = zeroth + 10 * np.finfo(float).eps  # nobody's component is divided by this
    shift = first / n[:, None]
    if second.ndim == 2:
        covariances = second / n[:, None] - shift**2 + reg_covar
    else:
        covariances = second / n[:, None, None] - shift[:, :, None] * shift[:, None] + reg_covar * np.eye(len(shift.T))
    return Mixture(n / n.sum(), about + shift, covariances)


def precision_factors(covariances: np.ndarray) -> np.ndarray:
    """Return upper triangular L with L L^T = inverse of the covariance; reciprocal deviations where it is diagonal.

    Raises LinAlgError where a covariance is singular.
    """
    if covariances.ndim == 2:
        if covariances.min() <= 0:
            raise LinAlgError
        return 1 / np.sqrt(covariances)
    identity = np.eye(covariances.shape[1])
    return np.stack([solve_triangular(cholesky(c, lower=True), identity, lower=True).T for c in covariances])


def em_step(x: np.ndarray, mixture: Mixture, covariance_type: str, reg_covar: float) -> tuple[float, Mixture]:
    """Return the mean log likelihood of the mixture, and the next mixture; with reg_covar 0 its likelihood is no lower."""
    log_likelihood, factors = 0.0, precision_factors(mixture.covariances)
    moments = no_moments(mixture.means, covariance_type)
    for part in parts(x):
        log_p, r = log_sum_exp(log_joint(x[part], mixture.weights, mixture.means, factors))
        log_likelihood += float(log_p.sum())
        add_moments(moments, x[part], r)
    return log_likelihood / len(x), maximize(moments, reg_covar)


def squared_distances(x: np.ndarray, centers: np.ndarray, origin: np.ndarray) -> np.ndarray:
    """Return |x - c|^2, (N, K), for x (N, D) and centers (K, D), computed from an origin (D,) near the data."""
    x, centers = x - origin, centers - origin
    return np.maximum(np.einsum("nd,nd->n", x, x)[:, None] - 2 * x @ centers.T + (centers**2).sum(1), 0)


def seeds(x: np.ndarray, k: int, rng: np.random.Generator) -> np.ndarray:
    """Return k rows of x, by k-means++: each the best of a few drawn in proportion to their squared distance."""
    origin, trials = x.mean(0), 2 + int(np.log(k))
    centers = x[[rng.integers(len(x))]]
    nearest = squared_distances(x, centers, origin)
    while len(centers) < k:
        cumulated = nearest.cumsum()
        drawn = np.searchsorted(cumulated, rng.random(trials) * cumulated[-1], side="right")
        candidates = x[np.minimum(drawn, len(x) - 1)]
        left = np.minimum(nearest, squared_distances(x, candidates, origin))
        best = left.sum(0).argmin()
        nearest, centers = left[:, [best]], np.vstack([centers, candidates[best]])
    return centers


def k_means(x: np.ndarray, k: int, rng: np.random.Generator, steps: int = 100) -> np.ndarray:
    """Return the centers (K, D) of k-means from one start, on at most 1000 K rows: it is only where EM starts."""
    x = x[rng.choice(len(x), min(len(x), 1000 * k), replace=False, shuffle=False)]
    centers = seeds(x, k, rng)
    for _ in range(steps):
        labels = squared_distances(x, centers, centers.mean(0)).argmin(1)
        members = np.equal.outer(np.arange(k), labels).astype(np.float64)
        counts = members.sum(1)[:, None]
        moved = np.where(counts > 0, members @ x / np.maximum(counts, 1), centers)
        if np.array_equal(moved, centers):
            break
        centers = moved
    return centers


class GaussianMixture(DensityMixin, BaseEstimator):
    """p(x) = sum_k weight_k N(x | mean_k, covariance_k), of locally greatest likelihood.

    init_params: the first responsibilities, those of k-means or random ones; weights_init (K,), means_init (K, D) and
    precisions_init, shaped as the covariances, replace what follows from them. reg_covar is added to the variances.
    A run ends when the mean log likelihood rises by less than tol; of n_init runs the one with the greatest is kept.
    Learned: weights_ (K,), means_ (K, D), covariances_ and precisions_cholesky_ (K, D, D) or (K, D), converged_, n_iter_,
    lower_bound_ and lower_bounds_, the mean log likelihood before the last step and before each.
    """

    takes = frozenset({"table", "images"})
    task = "clustering"

    def __init__(
        self,
        n_components: Count = 1,
        *,
        covariance_type: Literal["full", "diag"] = "full",
        tol: Annotated[float, Field(ge=0)] = 1e-3,
        reg_covar: Annotated[float, Field(ge=0)] = 1e-6,
        max_iter: Count = 100,
        n_init: Count = 1,
        init_params: Literal["kmeans", "random"] = "kmeans",
        weights_init: list[float] | Array | None = None,
        means_init: list[list[float]] | Array | None = None,
        precisions_init: list[list[float]] | list[list[list[float]]] | Array | None = None,
        random_state: Seed | None = None,
    ):
        self.n_components = n_components
        self.covariance_type = covariance_type
        self.tol = tol
        self.reg_covar = reg_covar
        self.max_iter = max_iter
        self.n_init = n_init
        self.init_params = init_params
        self.weights_init = weights_init
        self.means_init = means_init
        self.precisions_init = precisions_init
        self.random_state = random_state

    def fit(self, X: np.ndarray, y: object = None) -> "GaussianMixture":
        """X: (N, D). Raises ValueError where there are fewer examples than components or a covariance is singular."""
        check_keywords(self)
        X = validate_data(self, X, dtype=np.float64, ensure_min_samples=2)
        if self.n_components > len(X):
            raise ValueError(f"n_components: {self.n_components} should be at most n_samples={len(X)}")
        rng = np.random.default_rng(self.random_state)
        try:
            runs = [self._run(X, self._start(X, rng)) for _ in range(self.n_init)]
            mixture, bounds, self.converged_ = max(runs, key=lambda run: run[1][-1])
            self.precisions_cholesky_ = precision_factors(mixture.covariances)
        except LinAlgError:
            raise ValueError(
                f"reg_covar: {self.reg_covar} leaves a covariance singular, it should be greater"
            ) from None
        self.weights_, self.means_, self.covariances_ = mixture
        self.lower_bounds_, self.lower_bound_, self.n_iter_ = np.array(bounds), bounds[-1], len(bounds)
        if not self.converged_:
            warnings.warn(
                f"max_iter: {self.max_iter} steps did not reach tol: {self.tol}", ConvergenceWarning, stacklevel=2
            )
        return self

    def _run(self, X: np.ndarray, mixture: Mixture) -> tuple[Mixture, list[float], bool]:
        """Return the mixture that EM ends with, the mean log likelihood before each step, and if these sufficed."""
        bounds: list[float] = []
        while len(bounds) < self.max_iter:
            bound, mixture = em_step(X, mixture, self.covariance_type, self.reg_covar)
            bounds.append(bound)
            if len(bounds) > 1 and abs(bound - bounds[-2]) < self.tol:
                return mixture, bounds, True
        return mixture, bounds, False

    def _start(self, X: np.ndarray, rng: np.random.Generator) -> Mixture:
        """Return the first mixture. Raises ValueError where a given parameter is not what it should be."""
        k, d = self.n_components, X.shape[1]
        wanted = {
            "weights": (k,),
            "means": (k, d),
            "precisions": (k, d, d) if self.covariance_type == "full" else (k, d),
        }
        given = {}
        for name, shape in wanted.items():
            if (value := getattr(self, f"{name}_init")) is not None:
                given[name] = check_array(value, dtype=np.float64, ensure_2d=False, allow_nd=True)
                if given[name].shape != shape:
                    raise ValueError(f"{name}_init: its shape {given[name].shape} should be {shape}")
        if "weights" in given and (given["weights"].min() < 0 or abs(given["weights"].sum() - 1) > 1e-8):
            raise ValueError(f"weights_init: {self.weights_init} should be numbers of at least 0, of sum 1")
        if "precisions" in given:
            precisions = given.pop("precisions")
            try:
                precision_factors(precisions)
            except LinAlgError:
                raise ValueError("precisions_init: all should be positive definite, one is not") from None
            given["covariances"] = np.linalg.inv(precisions) if precisions.ndim == 3 else 1 / precisions
        if len(given) == len(wanted):
            return Mixture(**given)
        return self._first_guess(X, rng)._replace(**given)

    def _first_guess(self, X: np.ndarray, rng: np.random.Generator) -> Mixture:
        """Return the mixture that follows from the first responsibilities."""
        k = self.n_components
        centers = k_means(X, k, rng) if self.init_params == "kmeans" else np.tile(X.mean(0), (k, 1))
        moments = no_moments(centers, self.covariance_type)
        for part in parts(X):
            if self.init_params == "kmeans":
                nearest = squared_distances(X[part], centers, centers.mean(0)).argmin(1)
                r = np.equal.outer(np.arange(k), nearest).astype(np.float64)
            else:
                r = rng.random((k, len(X[part])))
                r /= r.sum(0)
            add_moments(moments, X[part], r)
        return maximize(moments, self.reg_covar)

    def _log_joint(self, X: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
        """Yield slices of X and the log of weight times density there, (K, n)."""
        check_is_fitted(self)
        X = validate_data(self, X, reset=False, dtype=np.float64)
        for part in parts(X):
            yield part, log_joint(X[part], self.weights_, self.means_, self.precisions_cholesky_)

    def score_samples(self, X: np.ndarray) -> np.ndarray:
        """Return log p(x), (N,)."""
        return np.concatenate([log_sum_exp(log_p)[0] for _, log_p in self._log_joint(X)])

    def score(self, X: np.ndarray, y: object = None) -> float:
        """Return the mean of log p(x)."""
        return float(self.score_samples(X).mean())

    def predict(self, X: np.ndarray) -> np.ndarray:
        """Return the number of the most probable component, (N,)."""
        return np.concatenate([log_p.argmax(0) for _, log_p in self._log_joint(X)])

    def predict_proba(self, X: np.ndarray) -> np.ndarray:
        """Return the probability of each component given x, the responsibilities, (N, K)."""
        return np.concatenate([log_sum_exp(log_p)[1].T for _, log_p in self._log_joint(X)])

    def fit_predict(self, X: np.ndarray, y: object = None) -> np.ndarray:
        """Return the numbers of the most probable components of what was fitted, (N,)."""
        return self.fit(X).predict(X)

    def sample(self, n_samples: int = 1) -> tuple[np.ndarray, np.ndarray]:
        """Return n_samples draws (N, D) and their components (N,), one component after the other."""
        check_is_fitted(self)
        rng = np.random.default_rng(self.random_state)
        labels = np.repeat(np.arange(len(self.weights_)), rng.multinomial(n_samples, self.weights_))
        x = rng.standard_normal((n_samples, self.means_.shape[1]))
        for k, covariance in enumerate(self.covariances_):
            root = np.diag(np.sqrt(covariance)) if covariance.ndim == 1 else np.linalg.cholesky(covariance)
            x[labels == k] = x[labels == k] @ root.T + self.means_[k]
        return x, labels

    def _n_parameters(self) -> int:
        k, d = self.means_.shape
        return k - 1 + k * d + k * (d * (d + 1) // 2 if self.covariances_.ndim == 3 else d)

    def bic(self, X: np.ndarray) -> float:
        """Return the Bayesian information criterion; of several models the one with the least is to be preferred."""
        return -2 * self.score(X) * len(X) + self._n_parameters() * float(np.log(len(X)))

    def aic(self, X: np.ndarray) -> float:
        """Return Akaike's information criterion, which lets a model have more parameters than the Bayesian."""
        return -2 * self.score(X) * len(X) + 2 * self._n_parameters()
