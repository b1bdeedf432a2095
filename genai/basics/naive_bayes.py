"""Naive Bayes: each class a distribution of features that are independent of each other given the class.

Bishop, "Pattern Recognition and Machine Learning", section 4.2; Manning, Raghavan and Schütze, "Introduction to
Information Retrieval" (IIR), chapter 13, for counts.
"""

from collections.abc import Iterator
from typing import Annotated, Any

import numpy as np
from pydantic import Field
from scipy.sparse import csr_array
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, check_non_negative, validate_data

from genai.core.config import check_keywords

Probability = Annotated[float, Field(ge=0, le=1)]


def counted(y: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the classes, that of each example as an index, and how many of each: np.unique's, in an eighth of its time."""
    classes = np.unique(y)
    index = classes.searchsorted(y)
    return classes, index, np.bincount(index)


def class_sums(x: np.ndarray, index: np.ndarray, n_classes: int) -> np.ndarray:
    """Return the sum of the rows of each class, (K, D); x: (N, D), index: (N,) from 0."""
    onehot = csr_array((np.ones(len(x)), index, np.arange(len(x) + 1)), shape=(len(x), n_classes))
    return onehot.T @ x


def parts(X: np.ndarray) -> Iterator[slice]:
    """Yield slices of as many rows as fit in the cache, so that no second table is ever held."""
    step = max(64, 2**17 // X.shape[1])
    return (slice(i, i + step) for i in range(0, len(X), step))


class NaiveBayes(ClassifierMixin, BaseEstimator):
    """What the two share, Bayes' rule: p(k | x) = p(k) p(x | k) / sum_j p(j) p(x | j)."""

    classes_: np.ndarray

    def joint_log_likelihood(self, X: np.ndarray) -> np.ndarray:
        """Return log p(k) p(x | k), (N, K)."""
        raise NotImplementedError

    def predict_log_proba(self, X: np.ndarray) -> np.ndarray:
        """Return the logarithms of the class probabilities, (N, K)."""
        joint = np.asfortranarray(self.joint_log_likelihood(X))  # sums over classes go fast along columns
        joint -= joint.max(1, keepdims=True)  # the exponentials below then neither overflow nor all vanish
        return joint - np.log(np.exp(joint).sum(1, keepdims=True))

    def predict_proba(self, X: np.ndarray) -> np.ndarray:
        """Return the class probabilities, (N, K)."""
        return np.exp(self.predict_log_proba(X))

    def predict(self, X: np.ndarray) -> np.ndarray:
        """Return the most probable class, (N,)."""
        k = self.joint_log_likelihood(X).argmax(1)
        return self.classes_[k]


class GaussianNB(NaiveBayes):
    """Each feature is normal within each class: p(x | k) = prod_d N(x_d; theta_kd, var_kd)."""

    takes = frozenset({"table", "images"})
    task = "classification"

    def __init__(self, *, priors: list[Probability] | None = None, var_smoothing: Annotated[float, Field(ge=0)] = 1e-9):
        self.priors = priors
        self.var_smoothing = var_smoothing

    def fit(self, X: np.ndarray, y: np.ndarray) -> "GaussianNB":
        """X: (N, D), y: (N,) classes. Every variance grows by var_smoothing times the largest one of a feature.

        Raises ValueError where a feature's variance in a class is then still 0, or where priors are not K with sum 1.
        """
        check_keywords(self)
        X, y = validate_data(self, X, y, dtype=np.float64)
        check_classification_targets(y)
        self.classes_, index, n = counted(y)
        K = len(n)
        self.class_count_ = n.astype(np.float64)
        self.class_prior_ = self.class_count_ / len(y) if self.priors is None else np.array(self.priors)
        if len(self.class_prior_) != K or abs(self.class_prior_.sum() - 1) > 1e-8:
            raise ValueError(f"priors: {self.priors}, should be {K} numbers, one a class, of sum 1")
        self.theta_ = class_sums(X, index, K) / n[:, None]
        # a second pass, for the mean of the squares less the square of the mean would cancel
        squares = np.zeros(self.theta_.shape)
        for i in parts(X):
            squares += class_sums((X[i] - self.theta_[index[i]]) ** 2, index[i], K)
        between = n @ (self.theta_ - n @ self.theta_ / len(y)) ** 2
        self.epsilon_ = self.var_smoothing * ((squares.sum(0) + between) / len(y)).max()
        self.var_ = squares / n[:, None] + self.epsilon_
        if not self.var_.all():
            k, d = np.argwhere(self.var_ == 0)[0]
            raise ValueError(
                f"var_smoothing: {self.var_smoothing} leaves feature {d} of class {self.classes_[k]} no variance, "
                "as where there is but 1 sample"
            )
        return self

    def joint_log_likelihood(self, X: np.ndarray) -> np.ndarray:
        """Return log p(k) + sum_d log N(x_d; theta_kd, var_kd), (N, K)."""
        check_is_fitted(self)
        X = validate_data(self, X, reset=False, dtype=np.float64)
        joint = np.empty((len(self.classes_), len(X)))
        for i in parts(X):
            for k, (theta, var) in enumerate(zip(self.theta_, self.var_, strict=True)):
                d = X[i] - theta
                d *= d
                joint[k, i] = d @ (-0.5 / var)
        with np.errstate(divide="ignore"):  # a prior may be 0
            joint += (np.log(self.class_prior_) - 0.5 * np.log(2 * np.pi * self.var_).sum(1))[:, None]
        return joint.T


class MultinomialNB(NaiveBayes):
    """The features are counts, of words say, drawn one by one: p(x | k) ~ prod_d theta_kd^x_d. IIR (13.2).

    theta_kd is the feature's share of all counts in the class, with alpha added to each: none is then impossible.
    """

    takes = frozenset({"table", "images"})
    task = "classification"

    def __init__(self, *, alpha: Annotated[float, Field(gt=0)] = 1.0):
        self.alpha = alpha

    def fit(self, X: np.ndarray, y: np.ndarray) -> "MultinomialNB":
        """X: (N, D) of numbers of at least 0, y: (N,) classes. IIR (13.5), (13.7)."""
        check_keywords(self)
        X, y = validate_data(self, X, y, dtype=np.float64)
        check_classification_targets(y)
        check_non_negative(X, "MultinomialNB")
        self.classes_, index, n = counted(y)
        self.class_count_ = n.astype(np.float64)
        self.class_log_prior_ = np.log(n / len(y))
        self.feature_count_ = class_sums(X, index, len(n))
        smoothed = self.feature_count_ + self.alpha
        self.feature_log_prob_ = np.log(smoothed / smoothed.sum(1, keepdims=True))
        return self

    def joint_log_likelihood(self, X: np.ndarray) -> np.ndarray:
        """Return log p(k) + sum_d x_d log theta_kd, (N, K), less what is the same for every class."""
        check_is_fitted(self)
        X = validate_data(self, X, reset=False, dtype=np.float64)
        joint = X @ self.feature_log_prob_.T
        joint += self.class_log_prior_
        return joint

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.positive_only = True
        tags.classifier_tags.poor_score = True  # scikit-learn's checks feed it blobs, which are no counts
        return tags
