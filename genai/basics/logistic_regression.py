"""Logistic regression with an L2 penalty, binary and multinomial: L-BFGS in coordinates where the loss is nearly round.

Bishop, "Pattern Recognition and Machine Learning", sections 4.3.2 to 4.3.4; Böhning, "Multinomial Logistic Regression
Algorithm", 1992, for the bound on the curvature.
"""

import warnings
from typing import Annotated

import numpy as np
from pydantic import Field
from scipy.linalg import solve_triangular
from scipy.optimize import minimize
from scipy.special import expit, log_expit, log_softmax
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from genai.core.config import Count, check_keywords

STEPS = 15  # of L-BFGS until the coordinates are made round again, where the loss is now


def sigmoid(z: np.ndarray) -> np.ndarray:
    """Return 1 / (1 + e^-z), with exponentials of negative numbers only: none overflows."""
    return np.exp(np.minimum(z, 0)) / (1 + np.exp(-np.abs(z)))


def sigmoid_loss(z: np.ndarray, y: np.ndarray) -> tuple[float, np.ndarray]:
    """Return -sum_n log p(y_n), p(1) = sigmoid(z), and its gradient p(1) - y, (1, N), for z (1, N) and y (N,) of 0, 1.

    Bishop (4.90), (4.91).
    """
    return float((np.log(1 + np.exp(-np.abs(z))) + np.maximum(z, 0)).sum() - z[0] @ y), sigmoid(z) - y


def softmax_loss(z: np.ndarray, y: np.ndarray) -> tuple[float, np.ndarray]:
    """Return -sum_n log p(y_n), p = softmax(z), and its gradient p - onehot(y), (K, N), for logits z (K, N), y (N,).

    Bishop (4.108), (4.109).
    """
    n = np.arange(len(y))
    z = z - z.max(0)
    p = np.exp(z)
    total = p.sum(0)
    loss = float(np.log(total).sum() - z[y, n].sum())
    p /= total
    p[y, n] -= 1
    return loss, p


def loss_and_gradient(w: np.ndarray, x: np.ndarray, y: np.ndarray, l2: float) -> tuple[float, np.ndarray]:
    """Return the mean cross-entropy plus l2/2 |W|^2, and its gradient; the last column of w, the bias, is free.

    w: (K, D + 1), x: (N, D), y: (N,) classes from 0; K = 1 means two classes, and the logit of class 1. The rows go
    through both products a cacheful at a time, so that x is read once.
    """
    cross_entropy = sigmoid_loss if len(w) == 1 else softmax_loss
    n = max(256, 2**17 // x.shape[1])
    loss, gradient = l2 / 2 * np.vdot(w[:, :-1], w[:, :-1]), l2 * w
    gradient[:, -1] = 0
    for i in range(0, len(x), n):
        part, error = cross_entropy(w[:, :-1] @ x[i : i + n].T + w[:, -1:], y[i : i + n])
        loss += part / len(x)
        gradient[:, :-1] += error @ x[i : i + n] / len(x)
        gradient[:, -1] += error.sum(1) / len(x)
    return loss, gradient


def round_coordinates(x: np.ndarray, p: np.ndarray, l2: float, fit_intercept: bool) -> np.ndarray:
    """Return T such that the loss at w + u T has curvature about 1 in every direction of u, in whatever units x is.

    p: the class probabilities at w, (N, K) or (1, K). Example n adds c_n x_n x_n^T / N to the Hessian of a logit, c_n
    the mean of its p (1 - p) over the degrees of freedom. T^T T is the inverse of that Hessian, x with a 1 for the bias;
    or of its diagonal, T then a vector, where there are so many features that the rest would cost more than it saves.
    """
    N, D = x.shape
    K = p.shape[1]
    c = (p * (1 - p)).sum(1) / max(K - 1, 2)  # two classes have one logit, and twice its p (1 - p)
    c = np.broadcast_to(np.maximum(c, 1e-9) / N, N)  # where all are certain, rounding leaves nothing
    n = D + fit_intercept
    if D > min(N, 1000):
        return 1 / np.sqrt(np.append(np.einsum("n,nd,nd->d", c, x, x) + l2, c.sum()))[:n]
    H = np.diag(np.append(np.full(D, l2), 0.0))[:n, :n]
    for i in range(0, N, 1024):
        rows = np.column_stack([x[i : i + 1024], np.ones(len(x[i : i + 1024]))])[:, :n]
        rows *= np.sqrt(c[i : i + 1024, None])
        H += rows.T @ rows
    H.flat[:: n + 1] *= 1 + 1e-9  # repeated features and a vanishing penalty leave it positive definite
    return solve_triangular(np.linalg.cholesky(H), np.eye(n), lower=True)


def descend(
    w: np.ndarray, T: np.ndarray, x: np.ndarray, y: np.ndarray, l2: float, max_iter: int, tol: float
) -> tuple[np.ndarray, int, float]:
    """Return w after at most max_iter steps of L-BFGS in the coordinates T, their number, the gradient's largest part."""
    n = len(T)

    def at(u: np.ndarray) -> np.ndarray:
        v = w.copy()
        v[:, :n] += u.reshape(len(w), n) @ T if T.ndim == 2 else u.reshape(len(w), n) * T
        return v

    def objective(u: np.ndarray) -> tuple[float, np.ndarray]:
        loss, gradient = loss_and_gradient(at(u), x, y, l2)
        return loss, (gradient[:, :n] @ T.T if T.ndim == 2 else gradient[:, :n] * T).ravel()

    options = {"maxiter": max_iter, "maxfun": 20 * max_iter, "ftol": 1e-14, "gtol": tol}
    found = minimize(objective, np.zeros(len(w) * n), jac=True, method="L-BFGS-B", options=options)
    return at(found.x), found.nit, float(np.abs(found.jac).max())


class LogisticRegression(ClassifierMixin, BaseEstimator):
    """p(k | x) = softmax(W x + b)_k, of two classes p(1 | x) = sigmoid(w x + b): minimises |W|^2 / 2 - C sum_n log p(y_n).

    The loss is convex, so there is one minimum. tol is what the gradient's largest component may be in the end, in nats
    an example, in round coordinates: the loss is then within about tol^2 of the minimum, in whatever units x is.
    """

    takes = frozenset({"table", "images"})
    task = "classification"

    def __init__(
        self,
        C: Annotated[float, Field(gt=0)] = 1.0,
        *,
        tol: Annotated[float, Field(gt=0)] = 1e-4,
        fit_intercept: bool = True,
        max_iter: Count = 100,
    ):
        self.C = C
        self.tol = tol
        self.fit_intercept = fit_intercept
        self.max_iter = max_iter

    def fit(self, X: np.ndarray, y: np.ndarray) -> "LogisticRegression":
        """X: (N, D), y: (N,) of at least two classes. Warns where max_iter steps of L-BFGS are too few."""
        check_keywords(self)
        X, y = validate_data(self, X, y, dtype=np.float64)
        check_classification_targets(y)
        self.classes_, index = np.unique(y, return_inverse=True)
        if (n_classes := len(self.classes_)) < 2:
            raise ValueError(f"y: the one class {self.classes_[0]}, should be at least two classes")
        l2 = 1 / (self.C * len(X))
        w = np.zeros((1 if n_classes == 2 else n_classes, X.shape[1] + 1))
        p, self.n_iter_ = np.full((1, n_classes), 1 / n_classes), np.zeros(1, int)
        while True:
            T = round_coordinates(X, p, l2, self.fit_intercept)
            w, steps, slope = descend(w, T, X, index, l2, min(STEPS, self.max_iter - self.n_iter_[0]), self.tol)
            self.coef_, self.intercept_, self.n_iter_ = w[:, :-1], w[:, -1], self.n_iter_ + steps
            if slope <= self.tol or steps < STEPS:
                break
            p = self.predict_proba(X)
        if slope > self.tol and self.n_iter_[0] >= self.max_iter:
            warnings.warn(
                f"max_iter: after {self.max_iter} steps the gradient is still {slope:.3g}, above tol {self.tol:.3g}; "
                "more steps or a smaller C would help",
                ConvergenceWarning,
                stacklevel=2,
            )
        return self

    def decision_function(self, X: np.ndarray) -> np.ndarray:
        """Return the logits, (N, K), of two classes that of the second, (N,)."""
        check_is_fitted(self)
        X = validate_data(self, X, reset=False, dtype=np.float64)
        W, b = (self.coef_, self.intercept_) if len(self.coef_) > 1 else (self.coef_[0], self.intercept_[0])
        z = X @ W.T
        z += b
        return z

    def predict_proba(self, X: np.ndarray) -> np.ndarray:
        """Return the class probabilities, (N, K)."""
        z = self.decision_function(X)
        if z.ndim == 1:
            p = np.empty((2, len(z)))
            expit(z, out=p[1])
            np.subtract(1, p[1], out=p[0])
            return p.T
        z = np.asfortranarray(z)  # sums over classes go fast along columns
        z -= z.max(1, keepdims=True)
        np.exp(z, out=z)
        z /= z.sum(1, keepdims=True)
        return z

    def predict_log_proba(self, X: np.ndarray) -> np.ndarray:
        """Return their logarithms, (N, K), finite however sure the model is."""
        z = self.decision_function(X)
        return np.stack([log_expit(-z), log_expit(z)]).T if z.ndim == 1 else log_softmax(z, axis=1)

    def predict(self, X: np.ndarray) -> np.ndarray:
        """Return the most probable class, (N,)."""
        z = self.decision_function(X)
        return self.classes_[(z > 0).astype(int) if z.ndim == 1 else z.argmax(1)]
