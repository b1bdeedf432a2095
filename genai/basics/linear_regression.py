"""Linear regression by least squares, and with an L2 penalty (ridge regression), in closed form.

Hastie, Tibshirani and Friedman, "The Elements of Statistical Learning", 2nd edition, section 3.4.1.
"""

from typing import Annotated

import numpy as np
from pydantic import Field
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.utils.validation import check_is_fitted, validate_data

from genai.core.config import check_keywords


class Ridge(RegressorMixin, BaseEstimator):
    """y = X w + b, with w and b minimising |y - X w - b|^2 + alpha |w|^2."""

    takes = frozenset({"table", "images"})
    task = "regression"

    def __init__(self, alpha: Annotated[float, Field(ge=0)] = 1.0):
        self.alpha = alpha

    def fit(self, X: np.ndarray, y: np.ndarray) -> "Ridge":
        """X: (N, D), y: (N,)."""
        check_keywords(self)
        X, y = validate_data(self, X, y, y_numeric=True, dtype=np.float64)
        mean = X.mean(0)
        # ESL (3.44) as least squares on rows appended to X: as exact as QR
        rows = np.vstack([X - mean, np.sqrt(self.alpha) * np.eye(X.shape[1])])
        self.coef_ = np.linalg.lstsq(rows, np.concatenate([y - y.mean(), np.zeros(X.shape[1])]))[0]
        self.intercept_ = y.mean() - mean @ self.coef_
        return self

    def predict(self, X: np.ndarray) -> np.ndarray:
        """Return X w + b, (N,)."""
        check_is_fitted(self)
        return validate_data(self, X, reset=False) @ self.coef_ + self.intercept_
