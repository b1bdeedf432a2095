"""Linear regression: least squares, ridge regression, the lasso and the elastic net.

Hastie, Tibshirani and Friedman, "The Elements of Statistical Learning" (ESL), 2nd edition, chapter 3; Friedman, Hastie
and Tibshirani, "Regularization Paths for Generalized Linear Models via Coordinate Descent", 2010 (FHT).
"""

import warnings
from collections.abc import Callable, Iterable, Iterator
from typing import Annotated, Any

import numpy as np
from pydantic import Field
from scipy.linalg import blas, lapack
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.validation import check_is_fitted, validate_data

from genai.core.config import Count, check_keywords


def gradient_descent(X: np.ndarray, y: np.ndarray, n_steps: int) -> np.ndarray:
    """Return the w, (D,), after n_steps from 0 down the gradient of |y - X w|^2 / 2; X: (N, D), y: (N,).

    The step is 1/L, L the largest curvature, so the loss falls with every step. Along an eigenvector of X^T X of
    curvature c the distance to the minimum shrinks by 1 - c/L a step: ill-conditioned tables take long.
    """
    L = np.linalg.norm(X, 2) ** 2
    w = np.zeros(X.shape[1])
    for _ in range(n_steps):
        w -= X.T @ (X @ w - y) / L
    return w


Means = tuple[np.ndarray, np.ndarray]  # of X (D,) and Y (K,), or zeros


def centred(X: np.ndarray, Y: np.ndarray, means: Means) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield the rows of X and Y less their means, a cacheful at a time: no second table is ever held."""
    n = max(1024, 4 * X.shape[1])
    for i in range(0, len(X), n):
        yield X[i : i + n] - means[0], Y[i : i + n] - means[1]


def moments(X: np.ndarray, Y: np.ndarray, means: Means) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return X^T X (D, D), X^T Y (D, K) and the sums of Y^2 (K,), of centred X and Y."""
    D, K = X.shape[1], Y.shape[1]
    XX, XY, YY = np.zeros((D, D)), np.zeros((D, K)), np.zeros(K)
    for x, y in centred(X, Y, means):
        XX += x.T @ x
        XY += x.T @ y
        YY += (y**2).sum(0)
    return XX, XY, YY


def triangle(X: np.ndarray, Y: np.ndarray, means: Means) -> tuple[np.ndarray, np.ndarray]:
    """Return R (D, D) and Q^T Y (D, K) of the QR decomposition X = Q R, X and Y centred.

    A part's rows go below the R of those before: the QR of the two has the R of them all.
    """
    D = X.shape[1]
    R: np.ndarray = np.empty((0, D + Y.shape[1]))
    for x, y in centred(X, Y, means):
        R = np.asarray(np.linalg.qr(np.vstack([R, np.column_stack([x, y])]), mode="r"))
    return R[:D, :D], R[:D, D:]


def cholesky_solve(A: np.ndarray, B: np.ndarray, tol: float) -> np.ndarray | None:
    """Return A^-1 B, or None where that is unsafe: A not positive definite, or its condition too large.

    Scaled to a diagonal of 1, as the error of Cholesky's method does not depend on units, A has to leave 8 digits. As it
    is it has to be above tol^2 times its largest eigenvalue in all directions, so that tol cuts none off.
    """
    factor, failed = lapack.dpotrf(A)
    if failed:
        return None
    d = 1 / np.sqrt(A.diagonal())
    scaled, _ = lapack.dpocon(factor * d, np.abs(A * d * d[:, None]).sum(0).max())
    unscaled, _ = lapack.dpocon(factor, np.abs(A).sum(0).max())
    return lapack.dpotrs(factor, B)[0] if scaled > 1e-8 and unscaled > tol**2 else None


def ridge(X: np.ndarray, Y: np.ndarray, means: Means, alpha: float, tol: float) -> np.ndarray:
    """Return the W, (D, K), that minimises |Y - X W|^2 + alpha |W|^2 of centred X and Y; of several the least.

    Singular values of X up to tol times the largest count as 0. The normal equations are solved where they are well
    enough conditioned to leave 8 digits, at half the price of QR; squaring X has then lost nothing that matters.
    """
    N, D = X.shape
    if D <= N:
        XX, XY, _ = moments(X, Y, means)
        W = cholesky_solve(XX + alpha * np.eye(D), XY, tol)
        if W is not None:
            return W
        R, Z = triangle(X, Y, means)
    else:
        R, Z = X - means[0], Y - means[1]
        RR = R @ R.T + alpha * np.eye(N)
        if means[0].any():  # the rows of R then sum to 0, and so do those of Z and A: what is added vanishes from RR A
            RR += RR.trace() / N**2
        A = cholesky_solve(RR, Z, tol)  # the same W, by N equations
        if A is not None:
            return R.T @ A
    U, s, Vt = np.linalg.svd(R, full_matrices=False)
    kept = s > max(tol, max(N, D) * np.finfo(np.float64).eps) * s[0]  # the others are rounding
    U, s, Vt = U[:, kept], s[kept], Vt[kept]
    return Vt.T @ ((U.T @ Z) / (s + alpha / s)[:, None])  # ESL (3.47)


class LinearModel(RegressorMixin, BaseEstimator):
    """What the four share: y = X w + b, with b such that the residuals sum to 0, unless fit_intercept is False."""

    fit_intercept: bool
    coef_: np.ndarray
    intercept_: Any

    def means(self, X: np.ndarray, Y: np.ndarray) -> Means:
        """Return what to take off X and Y, so that the rest needs no intercept."""
        return (X.mean(0), Y.mean(0)) if self.fit_intercept else (np.zeros(X.shape[1]), np.zeros(Y.shape[1]))

    def predict(self, X: np.ndarray) -> np.ndarray:
        """Return X w + b, (N,) or (N, K)."""
        check_is_fitted(self)
        y = validate_data(self, X, reset=False, dtype=np.float64) @ self.coef_.T
        y += self.intercept_
        return y


class ClosedForm(LinearModel):
    """What least squares and ridge regression share: a solution without iterations, for several targets at once."""

    def solve(self, X: np.ndarray, y: np.ndarray, alpha: float, tol: float) -> None:
        """Learn coef_ (D,) and intercept_ from y (N,), or (K, D) and (K,) from y (N, K)."""
        X, y = validate_data(self, X, y, y_numeric=True, multi_output=True, dtype=np.float64)
        Y = y.reshape(len(y), -1).astype(np.float64, copy=False)
        means = self.means(X, Y)
        W = ridge(X, Y, means, alpha, tol)
        b = means[1] - means[0] @ W
        self.coef_, self.intercept_ = (W[:, 0], b[0]) if y.ndim == 1 else (W.T, b)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags


class LinearRegression(ClosedForm):
    """Minimises |y - X w - b|^2; where many w do, the least of them.

    Singular values of the centred X below tol times the largest count as 0: features that differ less are the same.
    """

    takes = frozenset({"table", "images"})
    task = "regression"

    def __init__(self, *, fit_intercept: bool = True, tol: Annotated[float, Field(ge=0, lt=1)] = 1e-6):
        self.fit_intercept = fit_intercept
        self.tol = tol

    def fit(self, X: np.ndarray, y: np.ndarray) -> "LinearRegression":
        """X: (N, D), y: (N,) or (N, K)."""
        check_keywords(self)
        self.solve(X, y, alpha=0.0, tol=self.tol)
        return self


class Ridge(ClosedForm):
    """Minimises |y - X w - b|^2 + alpha |w|^2: shrinks w most where the features hardly vary. ESL (3.41)."""

    takes = frozenset({"table", "images"})
    task = "regression"

    def __init__(self, alpha: Annotated[float, Field(ge=0)] = 1.0, *, fit_intercept: bool = True):
        self.alpha = alpha
        self.fit_intercept = fit_intercept

    def fit(self, X: np.ndarray, y: np.ndarray) -> "Ridge":
        """X: (N, D), y: (N,) or (N, K)."""
        check_keywords(self)
        self.solve(X, y, self.alpha, tol=0.0)
        return self


def sweep(
    coordinates: Iterable[int],
    w: list[float],
    correlation: Callable[[int], float],
    state: np.ndarray,
    rows: list[np.ndarray],
    squares: list[float],
    l1: float,
    l2: float,
) -> float:
    """Minimise over one w_j after the other, in place; return the largest change. FHT (5)."""
    largest = 0.0
    for j in coordinates:
        old = w[j]
        rho = correlation(j) + squares[j] * old
        new = w[j] = (rho - l1 if rho > l1 else rho + l1 if rho < -l1 else 0.0) / (squares[j] + l2)
        if new != old:
            blas.daxpy(rows[j], state, a=old - new)  # in place, in a quarter of NumPy's time for short rows
            largest = max(largest, abs(new - old))
    return largest


def duality_gap(w: np.ndarray, XR: np.ndarray, XY: np.ndarray, yy: float, l1: float, l2: float) -> float:
    """Return an upper bound on how far |y - X w|^2 / 2 + l1 |w|_1 + l2 |w|^2 / 2 is above its minimum.

    XR: X^T (y - X w). The bound is the objective less the dual one at the residual of the lasso on the rows of X with
    sqrt(l2) I below them, scaled by s <= 1 until it is feasible. Kim et al., "An Interior-Point Method for Large-Scale
    l1-Regularized Least Squares", 2007, section III.
    """
    ry = yy - w @ XY
    rr = ry - w @ XR + l2 * (w @ w)  # squared norm of that residual
    s = l1 / max(l1, np.abs(XR - l2 * w).max())
    return float((1 + s**2) / 2 * rr + l1 * np.abs(w).sum() - s * ry)


def coordinate_descent(
    X: np.ndarray, y: np.ndarray, means: Means, l1: float, l2: float, tol: float, max_iter: int
) -> tuple[np.ndarray, float, float, int]:
    """Return w, (D,), its duality gap, what it should be at most, tol |y|^2, and the sweeps made; X and y centred.

    A sweep needs each feature's correlation with the residual. For N >= D all of them are the state, kept by rows of
    X^T X (FHT, covariance updates), and each sweep visits all features. Else the residual is the state, kept by columns
    of X, and a sweep visits the features in the model, and after a look at the gap those that by the gradient should be.
    """
    N, D = X.shape
    if N >= D:
        XX, XY, (yy,) = moments(X, y, means)
        state, rows, squares = XY[:, 0].copy(), list(XX), XX.diagonal().tolist()
        correlation: Callable[[int], float] = state.item
    else:
        columns = np.ascontiguousarray((X - means[0]).T)
        state = (y - means[1])[:, 0]
        XY, yy = columns @ state, state @ state
        rows, squares = list(columns), np.einsum("dn,dn->d", columns, columns).tolist()
        correlation = lambda j: blas.ddot(rows[j], state)
    XR = XY = XY.reshape(-1)
    w, gap = [0.0] * D, np.inf
    coordinates = np.flatnonzero(squares if N >= D else np.abs(XR) > l1).tolist()
    for n_iter in range(1, max_iter + 1):
        largest = sweep(coordinates, w, correlation, state, rows, squares, l1, l2)
        if largest <= tol * max(map(abs, w)) or n_iter == max_iter:
            v, XR = np.array(w), state if N >= D else columns @ state
            gap = duality_gap(v, XR, XY, yy, l1, l2)
            if gap <= tol * yy:
                break
            if N < D:
                coordinates = np.flatnonzero((v != 0) | (np.abs(XR) > l1)).tolist()
        elif N < D:
            coordinates = [j for j in coordinates if w[j]]
    return np.array(w), gap, tol * yy, n_iter


class ElasticNet(LinearModel):
    """Minimises |y - X w - b|^2 / 2N + alpha (l1_ratio |w|_1 + (1 - l1_ratio) |w|^2 / 2). FHT (1), (2).

    The corners of |w|_1 set coefficients to 0 exactly. For l1_ratio towards 0 it is Ridge(alpha * N).
    """

    takes = frozenset({"table", "images"})
    task = "regression"

    def __init__(
        self,
        alpha: Annotated[float, Field(gt=0)] = 1.0,
        *,
        l1_ratio: Annotated[float, Field(gt=0, le=1)] = 0.5,
        fit_intercept: bool = True,
        max_iter: Count = 1000,
        tol: Annotated[float, Field(gt=0)] = 1e-4,
    ):
        self.alpha = alpha
        self.l1_ratio = l1_ratio
        self.fit_intercept = fit_intercept
        self.max_iter = max_iter
        self.tol = tol

    def fit(self, X: np.ndarray, y: np.ndarray) -> "ElasticNet":
        """X: (N, D), y: (N,). Warns where max_iter sweeps leave a duality gap above tol times the variance of y."""
        check_keywords(self)
        X, y = validate_data(self, X, y, y_numeric=True, dtype=np.float64)
        Y = y.astype(np.float64, copy=False)[:, None]
        means = self.means(X, Y)
        l1, l2 = len(X) * self.alpha * self.l1_ratio, len(X) * self.alpha * (1 - self.l1_ratio)
        self.coef_, gap, most, self.n_iter_ = coordinate_descent(X, Y, means, l1, l2, self.tol, self.max_iter)
        self.dual_gap_ = gap / len(X)
        self.intercept_ = means[1][0] - means[0] @ self.coef_
        if gap > most:
            warnings.warn(
                f"max_iter: {self.max_iter} sweeps leave a duality gap of {gap / len(X):.3g}, above {most / len(X):.3g}; "
                "more sweeps, standardised features or a larger alpha would help",
                ConvergenceWarning,
                stacklevel=2,
            )
        return self


class Lasso(ElasticNet):
    """Minimises |y - X w - b|^2 / 2N + alpha |w|_1: the elastic net without its L2 part."""

    l1_ratio = 1.0

    def __init__(
        self,
        alpha: Annotated[float, Field(gt=0)] = 1.0,
        *,
        fit_intercept: bool = True,
        max_iter: Count = 1000,
        tol: Annotated[float, Field(gt=0)] = 1e-4,
    ):
        self.alpha = alpha
        self.fit_intercept = fit_intercept
        self.max_iter = max_iter
        self.tol = tol
