"""The baselines that any learned model has to beat: the mean, and the class frequencies."""

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.utils import Tags
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data


class Baseline(BaseEstimator):
    """What both share: they look at no feature, so that any may be missing."""

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        return tags


class Mean(RegressorMixin, Baseline):
    """Predicts the mean of the training targets: of all constants the one with the least squared error; its R2 is 0."""

    takes = frozenset({"table", "images"})
    task = "regression"

    def fit(self, X: np.ndarray, y: np.ndarray) -> "Mean":
        """X: (N, D), of which nothing is used; y: (N,)."""
        X, y = validate_data(self, X, y, y_numeric=True, ensure_all_finite="allow-nan")
        self.mean_ = y.mean(dtype=np.float64)
        return self

    def predict(self, X: np.ndarray) -> np.ndarray:
        """Return the mean, (N,)."""
        check_is_fitted(self)
        X = validate_data(self, X, reset=False, ensure_all_finite="allow-nan")
        return np.full(len(X), self.mean_)


class MajorityClass(ClassifierMixin, Baseline):
    """Predicts the most frequent class; its probabilities are the class frequencies.

    Of all constant predictions these have the highest accuracy and the lowest log loss, the entropy of the labels.
    """

    takes = frozenset({"table", "images"})
    task = "classification"

    def fit(self, X: np.ndarray, y: np.ndarray) -> "MajorityClass":
        """X: (N, D), of which nothing is used; y: (N,) classes."""
        X, y = validate_data(self, X, y, ensure_all_finite="allow-nan")
        check_classification_targets(y)
        self.classes_, counts = np.unique(y, return_counts=True)
        self.class_prior_ = counts / len(y)
        return self

    def predict_proba(self, X: np.ndarray) -> np.ndarray:
        """Return the class frequencies for each example, (N, K)."""
        check_is_fitted(self)
        X = validate_data(self, X, reset=False, ensure_all_finite="allow-nan")
        return np.tile(self.class_prior_, (len(X), 1))

    def predict(self, X: np.ndarray) -> np.ndarray:
        """Return the most frequent class for each example, (N,)."""
        most = self.predict_proba(X).argmax(1)
        return self.classes_[most]
