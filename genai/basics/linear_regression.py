"""Linear regression by least squares with an L2 penalty (ridge regression), in closed form.

Hastie, Tibshirani and Friedman, "The Elements of Statistical Learning", 2nd edition, section 3.4.1.
"""

from typing import Annotated

import numpy as np
from pydantic import Field

from genai.core.config import Strict
from genai.core.dataset import Description


class LinearRegression:
    """y = x w + b, with w and b minimising |y - Z w' - b|^2 + l2 |w'|^2, where Z are the standardised features.

    The penalty is on w', the weights of the standardised features, so that units do not matter; b is free.
    """

    takes = frozenset({"table"})
    task = "regression"

    class Config(Strict):
        l2: Annotated[float, Field(ge=0)] = Field(description="penalty on the squared weights of standardised features")

    def __init__(self, config: Config, description: Description):
        self.l2 = config.l2

    def fit(self, x: np.ndarray, y: np.ndarray, seed: int) -> "LinearRegression":
        """x: (N, D), y: (N,). A feature that never varies gets weight 0."""
        x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
        mean, scale = x.mean(0), x.std(0)
        scale[scale == 0] = 1
        z, residual = (x - mean) / scale, y - y.mean()
        # ESL (3.44) as least squares on rows appended to Z: as exact as QR, and of least norm where l2 = 0 leaves w open
        rows = np.vstack([z, np.sqrt(self.l2) * np.eye(x.shape[1])])
        w = np.linalg.lstsq(rows, np.concatenate([residual, np.zeros(x.shape[1])]))[0]
        self.coef_ = w / scale
        self.intercept_ = y.mean() - mean @ self.coef_
        return self

    def predict(self, x: np.ndarray) -> np.ndarray:
        return x @ self.coef_ + self.intercept_
