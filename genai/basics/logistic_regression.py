"""Multinomial logistic regression with an L2 penalty: softmax of a linear map, fitted by L-BFGS.

Bishop, "Pattern Recognition and Machine Learning", section 4.3.4.
"""

from typing import Annotated

import numpy as np
from pydantic import Field
from scipy.optimize import minimize
from scipy.special import log_softmax, softmax
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from genai.core.config import Count, check_keywords


def loss_and_gradient(w: np.ndarray, x: np.ndarray, t: np.ndarray, l2: float) -> tuple[float, np.ndarray]:
    """Return the mean cross-entropy plus l2/2 |W|^2, and its gradient; the last row of W, the bias, is free.

    w: (D + 1, K), x: (N, D + 1) with a last column of ones, t: (N, K) one-hot.
    Bishop (4.108), (4.109).
    """
    log_p = log_softmax(x @ w, axis=1)
    penalized = np.vstack([w[:-1], np.zeros_like(w[-1:])])
    loss = -(t * log_p).sum() / len(x) + l2 / 2 * (penalized**2).sum()
    gradient = x.T @ (np.exp(log_p) - t) / len(x) + l2 * penalized
    return loss, gradient


class LogisticRegression(ClassifierMixin, BaseEstimator):
    """p(y = k | x) = softmax(x W + b)_k, of greatest likelihood under the penalty; the loss is convex."""

    takes = frozenset({"table", "images"})
    task = "classification"

    def __init__(self, C: Annotated[float, Field(gt=0)] = 1.0, *, max_iter: Count = 1000):
        self.C = C
        self.max_iter = max_iter

    def fit(self, X: np.ndarray, y: np.ndarray) -> "LogisticRegression":
        """X: (N, D), y: (N,) classes."""
        check_keywords(self)
        X, y = validate_data(self, X, y, dtype=np.float64)
        check_classification_targets(y)
        self.classes_, index = np.unique(y, return_inverse=True)
        x = np.column_stack([X, np.ones(len(X))])
        t = np.eye(len(self.classes_))[index]
        shape = (x.shape[1], len(self.classes_))

        def objective(w: np.ndarray) -> tuple[float, np.ndarray]:
            loss, gradient = loss_and_gradient(w.reshape(shape), x, t, 1 / (self.C * len(x)))
            return loss, gradient.ravel()

        options = {"maxiter": self.max_iter, "maxfun": 2 * self.max_iter, "ftol": 1e-12, "gtol": 1e-6}
        found = minimize(objective, np.zeros(shape).ravel(), jac=True, method="L-BFGS-B", options=options)
        w = found.x.reshape(shape)
        self.coef_, self.intercept_ = w[:-1].T, w[-1]  # (K, D), (K,)
        return self

    def predict_proba(self, X: np.ndarray) -> np.ndarray:
        """Return the class probabilities, (N, K)."""
        check_is_fitted(self)
        X = validate_data(self, X, reset=False)
        return softmax(X @ self.coef_.T + self.intercept_, axis=1)

    def predict(self, X: np.ndarray) -> np.ndarray:
        """Return the most probable class, (N,)."""
        return self.classes_[self.predict_proba(X).argmax(1)]
