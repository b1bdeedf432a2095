"""The baselines that any learned model has to beat: the mean, and the class frequencies."""

import numpy as np

from genai.core.config import Strict
from genai.core.dataset import Description


class Mean:
    """Predicts the mean of the training targets: of all constants the one with the least squared error; its R2 is 0."""

    takes = frozenset({"table"})
    task = "regression"

    class Config(Strict):
        pass

    def __init__(self, config: Config, description: Description):
        pass

    def fit(self, x: np.ndarray, y: np.ndarray, seed: int) -> "Mean":
        self.mean_ = y.mean(dtype=np.float64)
        return self

    def predict(self, x: np.ndarray) -> np.ndarray:
        return np.full(len(x), self.mean_)


class MajorityClass:
    """Predicts the most frequent class; its probabilities are the class frequencies.

    Of all constant predictions these have the highest accuracy and the lowest log loss, the entropy of the labels.
    """

    takes = frozenset({"images"})
    task = "classification"

    class Config(Strict):
        pass

    def __init__(self, config: Config, description: Description):
        self.n_classes = description.n_classes

    def fit(self, x: np.ndarray, y: np.ndarray, seed: int) -> "MajorityClass":
        self.frequencies_ = np.bincount(y, minlength=self.n_classes) / len(y)
        return self

    def predict_proba(self, x: np.ndarray) -> np.ndarray:
        return np.tile(self.frequencies_, (len(x), 1))
