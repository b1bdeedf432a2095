"""Backpropagation by hand: a multilayer perceptron in NumPy, forward and backward written out, no autograd.

Rumelhart, Hinton and Williams, "Learning representations by back-propagating errors", Nature, 1986.
Symbols: x (N, D) examples, h_i (N, n_i) the layers with h_0 = x, W_i (n_{i-1}, n_i), b_i (n_i,), and
delta_i = dL/da_i (N, n_i), where a_i = h_{i-1} W_i + b_i is what layer i is before its ReLU.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Self

import numpy as np
from scipy.special import log_softmax, softmax
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from genai.core.config import Count, Fraction, Rate, Seed, check_keywords

DIVERGED = 1e9  # a loss; a network that knows nothing has log K or 1/2
Layers = list[tuple[np.ndarray, np.ndarray]]  # W_i and b_i of each layer


def unpacked(vector: np.ndarray, sizes: np.ndarray) -> Layers:
    """Return W_i and b_i as views of one vector of all weights; sizes: n_0, ..., n_L."""
    layers, start = [], 0
    for n_in, n_out in pairwise(sizes):
        middle, end = start + n_in * n_out, start + (n_in + 1) * n_out
        layers.append((vector[start:middle].reshape(n_in, n_out), vector[middle:end]))
        start = end
    return layers


def initialize(layers: Layers, rng: np.random.Generator) -> None:
    """Draw W_i uniformly with variance 2 / (n_{i-1} + n_i) (Glorot and Bengio, 2010, eq. 16), and set b_i to 0."""
    for w, b in layers:
        bound = np.sqrt(6 / sum(w.shape))
        w[:] = rng.uniform(-bound, bound, w.shape)
        b[:] = 0


def forward(x: np.ndarray, layers: Layers) -> list[np.ndarray]:
    """Return h_0 = x, h_i = max(0, h_{i-1} W_i + b_i), and last the output a_L, which has no ReLU."""
    hs = [x]
    for w, b in layers[:-1]:
        hs.append(np.maximum(hs[-1] @ w + b, 0))
    w, b = layers[-1]
    return [*hs, hs[-1] @ w + b]


def backward(hs: list[np.ndarray], delta: np.ndarray, layers: Layers, gradients: Layers) -> None:
    """Write dL/dW_i and dL/db_i into `gradients`, from the last layer to the first.

    hs: what `forward` returned; delta: dL/da_L, (N, n_L). Each layer needs its input, kept from the
    forward pass, and the delta of the layer after it: that is the chain rule, and all of it.
    """
    for i in reversed(range(len(layers))):
        gradients[i][0][:] = hs[i].T @ delta
        gradients[i][1][:] = delta.sum(0)
        if i > 0:
            delta = (delta @ layers[i][0].T) * (hs[i] > 0)  # the ReLU lets through where it was positive


def cross_entropy(a: np.ndarray, t: np.ndarray) -> tuple[float, np.ndarray]:
    """Return the mean of -sum_k t_k log softmax(a)_k in nats, and its derivative by a; t: (N, K) one-hot."""
    return -(t * log_softmax(a, axis=1)).sum() / len(a), (softmax(a, axis=1) - t) / len(a)


def squared_error(a: np.ndarray, t: np.ndarray) -> tuple[float, np.ndarray]:
    """Return the mean of |a - t|^2 / 2, and its derivative by a; t: (N, K)."""
    return ((a - t) ** 2).sum() / 2 / len(a), (a - t) / len(a)


class NeuralNetwork(BaseEstimator):
    """What classifier and regressor share: standardised features, and stochastic gradient descent with momentum.

    weights_: (P,) all W_i and b_i, one after the other; layer_sizes_: (L + 1,) n_0, ..., n_L;
    loss_curve_: (max_iter,) the mean loss of each epoch's batches.
    """

    criterion: Any  # (a, t) -> the loss and its derivative by a

    def __init__(
        self,
        hidden_layer_sizes: Sequence[Count] = (100,),
        *,
        learning_rate_init: Rate = 0.001,
        momentum: Fraction = 0.9,
        batch_size: Count = 32,
        max_iter: Count = 200,
        random_state: Seed | None = None,
    ):
        self.hidden_layer_sizes = hidden_layer_sizes
        self.learning_rate_init = learning_rate_init
        self.momentum = momentum
        self.batch_size = batch_size
        self.max_iter = max_iter
        self.random_state = random_state

    def _descend(self, x: np.ndarray, t: np.ndarray) -> None:
        self.mean_, self.scale_ = x.mean(0), x.std(0)
        self.scale_[self.scale_ == 0] = 1  # a pixel that is always black
        x = (x - self.mean_) / self.scale_
        self.layer_sizes_ = np.array([x.shape[1], *self.hidden_layer_sizes, t.shape[1]])
        self.weights_ = np.empty(((self.layer_sizes_[:-1] + 1) * self.layer_sizes_[1:]).sum())
        gradient, velocity = np.empty_like(self.weights_), np.zeros_like(self.weights_)
        layers, gradients = unpacked(self.weights_, self.layer_sizes_), unpacked(gradient, self.layer_sizes_)
        rng = np.random.default_rng(self.random_state)
        initialize(layers, rng)
        losses = np.zeros(self.max_iter)
        for epoch in range(self.max_iter):
            order = rng.permutation(len(x))
            for start in range(0, len(x), self.batch_size):
                batch = order[start : start + self.batch_size]
                hs = forward(x[batch], layers)
                value, delta = self.criterion(hs[-1], t[batch])
                if not value < DIVERGED:
                    rate = self.learning_rate_init
                    raise ValueError(f"learning_rate_init: {rate} should be less: the loss grows without bound")
                backward(hs, delta, layers, gradients)
                velocity = self.momentum * velocity - self.learning_rate_init * gradient
                self.weights_ += velocity  # the layers are views of it
                losses[epoch] += value * len(batch) / len(x)
        self.loss_curve_, self.n_iter_ = losses, self.max_iter

    def _output(self, X: np.ndarray) -> np.ndarray:
        check_is_fitted(self)
        x = (validate_data(self, X, reset=False, dtype=np.float64) - self.mean_) / self.scale_
        return forward(x, unpacked(self.weights_, self.layer_sizes_))[-1]


class NeuralNetworkClassifier(ClassifierMixin, NeuralNetwork):
    """p(y = k | x) = softmax(a_L)_k, trained by cross-entropy."""

    takes = frozenset({"table", "images"})
    task = "classification"
    criterion = staticmethod(cross_entropy)

    def fit(self, X: np.ndarray, y: np.ndarray) -> Self:
        """X: (N, D), y: (N,) classes. Raises ValueError where the loss grows without bound."""
        check_keywords(self)
        X, y = validate_data(self, X, y, dtype=np.float64)
        check_classification_targets(y)
        self.classes_, index = np.unique(y, return_inverse=True)
        self._descend(X, np.eye(len(self.classes_))[index])
        return self

    def predict_proba(self, X: np.ndarray) -> np.ndarray:
        """Return the class probabilities, (N, K)."""
        return softmax(self._output(X), axis=1)

    def predict(self, X: np.ndarray) -> np.ndarray:
        """Return the most probable class, (N,)."""
        index = self._output(X).argmax(1)
        return self.classes_[index]


class NeuralNetworkRegressor(RegressorMixin, NeuralNetwork):
    """y = a_L in units of the target's standard deviation, trained by squared error."""

    takes = frozenset({"table", "images"})
    task = "regression"
    criterion = staticmethod(squared_error)

    def fit(self, X: np.ndarray, y: np.ndarray) -> Self:
        """X: (N, D), y: (N,). Raises ValueError where the loss grows without bound."""
        check_keywords(self)
        X, y = validate_data(self, X, y, y_numeric=True, dtype=np.float64)
        self.target_mean_, self.target_scale_ = y.mean(), y.std() or 1.0
        self._descend(X, (y - self.target_mean_)[:, None] / self.target_scale_)
        return self

    def predict(self, X: np.ndarray) -> np.ndarray:
        """Return the target in its own units, (N,)."""
        return self._output(X)[:, 0] * self.target_scale_ + self.target_mean_
