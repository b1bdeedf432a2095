"""Multinomial logistic regression with an L2 penalty: softmax of a linear map, fitted by L-BFGS.

Bishop, "Pattern Recognition and Machine Learning", section 4.3.4.
"""

from typing import Annotated

import numpy as np
from pydantic import Field
from scipy.optimize import minimize
from scipy.special import log_softmax, softmax

from genai.core.config import Count, Strict, UserError
from genai.core.dataset import Description


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


class LogisticRegression:
    """p(y = k | x) = softmax(x W + b)_k, of greatest likelihood under the penalty; the loss is convex."""

    takes = frozenset({"images"})
    task = "classification"

    class Config(Strict):
        l2: Annotated[float, Field(gt=0)] = Field(description="penalty on the squared weights, per example")
        max_iterations: Count = 1000

    def __init__(self, config: Config, description: Description):
        self.config, self.n_classes = config, description.n_classes

    def fit(self, x: np.ndarray, y: np.ndarray, seed: int) -> "LogisticRegression":
        """x: (N, ...) flattened to (N, D), y: (N,) int. Raises UserError where max_iterations do not suffice."""
        x = np.column_stack([x.reshape(len(x), -1).astype(np.float64), np.ones(len(x))])
        t = np.eye(self.n_classes)[y]
        shape = (x.shape[1], self.n_classes)

        def objective(w: np.ndarray) -> tuple[float, np.ndarray]:
            loss, gradient = loss_and_gradient(w.reshape(shape), x, t, self.config.l2)
            return loss, gradient.ravel()

        options = {
            "maxiter": self.config.max_iterations,
            "maxfun": 2 * self.config.max_iterations,
            "ftol": 1e-12,
            "gtol": 1e-6,
        }
        found = minimize(objective, np.zeros(shape).ravel(), jac=True, method="L-BFGS-B", options=options)
        if not found.success:
            raise UserError(
                f"logistic regression: max_iterations {self.config.max_iterations}: not converged; raise it or l2"
            )
        w = found.x.reshape(shape)
        self.coef_, self.intercept_ = w[:-1].T, w[-1]  # (K, D), (K,)
        return self

    def predict_proba(self, x: np.ndarray) -> np.ndarray:
        return softmax(x.reshape(len(x), -1) @ self.coef_.T + self.intercept_, axis=1)
