"""A mixture of Gaussians fitted by expectation and maximisation: soft clusters, and a density of the data.

Dempster, Laird and Rubin, "Maximum likelihood from incomplete data via the EM algorithm", 1977; Bishop, "Pattern
Recognition and Machine Learning", section 9.2.

    p(x) = sum_k pi_k N(x | mu_k, Sigma_k)
"""

import warnings
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field
from scipy.cluster.vq import kmeans2
from scipy.linalg import LinAlgError, cholesky, solve_triangular
from sklearn.base import BaseEstimator, DensityMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.validation import check_is_fitted, validate_data

from genai.core.config import Count, Seed, check_keywords

CHUNK = 4096  # rows held at a time beside the data


def normalised(joint: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return log p(x_n), (N,), and p(k | x_n), (N, K), of log p(x_n, k), (N, K)."""
    largest = joint.max(1, keepdims=True)
    r = np.exp(joint - largest)
    total = r.sum(1, keepdims=True)
    r /= total
    return (largest + np.log(total))[:, 0], r


class GaussianMixture(DensityMixin, BaseEstimator):
    """EM: responsibilities r_nk = p(k | x_n) by Bishop (9.23), then parameters by (9.24) to (9.28), by turns.

    covariance_type: 'full', or 'diag' for axis-parallel ellipsoids. reg_covar is added to every variance, so that no
    component collapses on one example. The first responsibilities are those of a k-means clustering ('kmeans') or
    drawn ('random'); the *_init arrays replace what they name. Of n_init starts the likeliest is kept; a start ends
    where the mean log-likelihood of an example rises by less than tol. Learned: weights_ (K,), means_ (K, D),
    covariances_ and precisions_cholesky_ (K, D, D) or (K, D), converged_, n_iter_, lower_bound_ and lower_bounds_, the
    mean log-likelihood at the last and at every step, which never falls.
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
        weights_init: Any = None,
        means_init: Any = None,
        precisions_init: Any = None,
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
        """X: (N, D). Raises ValueError where there are fewer examples than components, or a covariance is singular."""
        check_keywords(self)
        X = validate_data(self, X, dtype=np.float64, ensure_min_samples=2)
        if len(X) < self.n_components:
            raise ValueError(f"n_samples={len(X)} should be >= n_components={self.n_components}.")
        rng = np.random.default_rng(self.random_state)
        best: tuple[float, dict[str, Any]] = (-np.inf, {})
        for _ in range(self.n_init):
            self._start(X, rng)
            bounds: list[float] = []
            self.converged_ = False
            while len(bounds) < self.max_iter and not self.converged_:
                bounds.append(self._step(X))
                self.converged_ = len(bounds) > 1 and bounds[-1] - bounds[-2] < self.tol
            self.n_iter_, self.lower_bounds_, self.lower_bound_ = len(bounds), np.array(bounds), bounds[-1]
            if self.lower_bound_ > best[0] or not best[1]:
                best = self.lower_bound_, {k: v for k, v in vars(self).items() if k.endswith("_")}
        for name, value in best[1].items():
            setattr(self, name, value)
        if not self.converged_ and self.max_iter > 1:
            warnings.warn(f"max_iter={self.max_iter} steps did not converge; raise it or tol", ConvergenceWarning, 2)
        return self

    def _start(self, X: np.ndarray, rng: np.random.Generator) -> None:
        """Set the parameters to those of the first responsibilities, and to what the *_init arrays say."""
        if self.init_params == "kmeans":
            scale = X.std() or 1.0
            labels = kmeans2((X - X.mean(0)) / scale, self.n_components, minit="++", rng=rng, missing="warn")[1]
            r = np.eye(self.n_components)[labels]
        else:
            r = rng.random((len(X), self.n_components))
            r /= r.sum(1, keepdims=True)
        blocks = ((X[i : i + CHUNK], r[i : i + CHUNK]) for i in range(0, len(X), CHUNK))
        self._maximise(len(X), *self._moments(X, blocks))
        if self.weights_init is not None:
            self.weights_ = np.asarray(self.weights_init, np.float64)
        if self.means_init is not None:
            self.means_ = np.asarray(self.means_init, np.float64)
        if self.precisions_init is not None:
            precisions = np.asarray(self.precisions_init, np.float64)
            full = self.covariance_type == "full"
            self.precisions_cholesky_ = (
                np.stack([cholesky(p, lower=True) for p in precisions]) if full else np.sqrt(precisions)
            )

    def _step(self, X: np.ndarray) -> float:
        """Take one step of EM in one pass over the data; return the mean log-likelihood before it."""
        found = []

        def blocks():
            for i in range(0, len(X), CHUNK):
                log_p, r = normalised(self._joint(X[i : i + CHUNK]))
                found.append(log_p.sum())
                yield X[i : i + CHUNK], r

        moments = self._moments(X, blocks())
        bound = float(np.sum(found)) / len(X)
        self._maximise(len(X), *moments)
        return bound

    def _moments(self, X: np.ndarray, blocks: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Return sum_n r_nk, sum_n r_nk z_n and sum_n r_nk z_n z_n^T (or z_n^2), z = x - origin, and the origin.

        About the present means, the first time about that of the data, so that the products do not cancel.
        """
        K, D = self.n_components, X.shape[1]
        full = self.covariance_type == "full"
        origin = getattr(self, "means_", np.tile(X.mean(0), (K, 1)))
        if origin.shape != (K, D):
            origin = np.tile(X.mean(0), (K, 1))
        n, first, second = np.zeros(K), np.zeros((K, D)), np.zeros((K, D, D) if full else (K, D))
        for x, r in blocks:
            n += r.sum(0)
            for k in range(K):
                z = x - origin[k]
                first[k] += r[:, k] @ z
                if full:
                    z *= np.sqrt(r[:, k])[:, None]
                    second[k] += z.T @ z  # of one array with itself: half the work
                else:
                    second[k] += r[:, k] @ (z * z)
        return n, first, second, origin

    def _maximise(self, N: int, n: np.ndarray, first: np.ndarray, second: np.ndarray, origin: np.ndarray) -> None:
        """Bishop (9.24) to (9.26). Raises ValueError where a covariance is singular."""
        n = n + 10 * np.finfo(np.float64).eps
        shift = first / n[:, None]
        self.weights_ = n / N
        self.weights_ /= self.weights_.sum()
        self.means_ = origin + shift
        if self.covariance_type == "diag":
            self.covariances_ = np.maximum(second / n[:, None] - shift**2, 0) + self.reg_covar
            if not (self.covariances_ > 0).all():
                raise ValueError(f"reg_covar: {self.reg_covar} leaves a variance of 0; raise it")
            self.precisions_cholesky_ = 1 / np.sqrt(self.covariances_)
            return
        self.covariances_ = second / n[:, None, None] - shift[:, :, None] * shift[:, None, :]
        self.covariances_[:, range(len(shift[0])), range(len(shift[0]))] += self.reg_covar
        try:
            lower = [cholesky(covariance, lower=True) for covariance in self.covariances_]
        except LinAlgError:
            raise ValueError(f"reg_covar: {self.reg_covar} leaves a singular covariance; raise it") from None
        identity = np.eye(len(shift[0]))
        self.precisions_cholesky_ = np.stack([solve_triangular(factor, identity, lower=True).T for factor in lower])

    def _joint(self, x: np.ndarray) -> np.ndarray:
        """Return log pi_k + log N(x_n | mu_k, Sigma_k), (N, K); with P P^T the precision, |(x - mu) P|^2 is the distance."""
        full = self.covariance_type == "full"
        joint = np.empty((len(x), len(self.weights_)))
        for k, P in enumerate(self.precisions_cholesky_):
            z = (x - self.means_[k]) @ P if full else (x - self.means_[k]) * P
            log_determinant = np.log(np.diagonal(P) if full else P).sum()
            joint[:, k] = np.einsum("nd,nd->n", z, z) * -0.5 + log_determinant
        return joint + (np.log(self.weights_) - x.shape[1] / 2 * np.log(2 * np.pi))

    def _chunks(self, X: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return log p(x_n), (N,), and p(k | x_n), (N, K)."""
        check_is_fitted(self)
        X = validate_data(self, X, reset=False, dtype=np.float64)
        parts = [normalised(self._joint(X[i : i + CHUNK])) for i in range(0, len(X), CHUNK)]
        return np.concatenate([p for p, _ in parts]), np.concatenate([r for _, r in parts])

    def score_samples(self, X: np.ndarray) -> np.ndarray:
        """Return log p(x), (N,)."""
        return self._chunks(X)[0]

    def score(self, X: np.ndarray, y: object = None) -> float:
        """Return the mean of log p(x)."""
        return float(self.score_samples(X).mean())

    def predict_proba(self, X: np.ndarray) -> np.ndarray:
        """Return the responsibilities p(k | x), (N, K)."""
        return self._chunks(X)[1]

    def predict(self, X: np.ndarray) -> np.ndarray:
        """Return the component that is likeliest to have made each example, (N,)."""
        return self._chunks(X)[1].argmax(1)

    def fit_predict(self, X: np.ndarray, y: object = None) -> np.ndarray:
        """Fit, and return the components of X, (N,)."""
        return self.fit(X).predict(X)

    def n_parameters(self) -> int:
        """Return the number of free parameters."""
        K, D = self.means_.shape
        return int(K - 1 + K * D + K * (D * (D + 1) // 2 if self.covariance_type == "full" else D))

    def bic(self, X: np.ndarray) -> float:
        """Return -2 log p(X) + parameters log N (Schwarz, 1978): lower is better."""
        return -2 * self.score(X) * len(X) + self.n_parameters() * np.log(len(X))

    def aic(self, X: np.ndarray) -> float:
        """Return -2 log p(X) + 2 parameters (Akaike, 1974): lower is better."""
        return -2 * self.score(X) * len(X) + 2 * self.n_parameters()

    def sample(self, n_samples: int = 1) -> tuple[np.ndarray, np.ndarray]:
        """Draw examples (n_samples, D), and the components that made them (n_samples,)."""
        check_is_fitted(self)
        rng = np.random.default_rng(self.random_state)
        components = rng.choice(len(self.weights_), n_samples, p=self.weights_)
        z = rng.normal(size=(n_samples, self.means_.shape[1]))
        if self.covariance_type == "diag":
            return self.means_[components] + z / self.precisions_cholesky_[components], components
        factors = np.stack([cholesky(covariance, lower=True) for covariance in self.covariances_])
        return self.means_[components] + np.einsum("nij,nj->ni", factors[components], z), components
