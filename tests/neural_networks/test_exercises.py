"""Solutions of the exercises in genai/neural_networks/README.md, in their order."""

import numpy as np
import pytest
import torch
from scipy.optimize import approx_fprime

from genai.neural_networks.backpropagation import backward, forward, squared_error, unpacked

SIZES = np.array([3, 5, 1])
RNG = np.random.default_rng(0)
X = RNG.normal(size=(50, 3))
T = np.sin(X[:, :1]) + X[:, 1:2] * X[:, 2:]
N_WEIGHTS = 26


def descended(vector: np.ndarray, steps: int = 100) -> np.ndarray:
    """Return the weights after so many steps of gradient descent."""
    vector, gradient = vector.copy(), np.empty_like(vector)
    layers = unpacked(vector, SIZES)
    for _ in range(steps):
        hs = forward(X, layers)
        backward(hs, squared_error(hs[-1], T)[1], layers, unpacked(gradient, SIZES))
        vector -= 0.05 * gradient
    return vector


def test_1_from_zero_only_the_last_bias_moves_and_from_one_value_all_hidden_units_stay_equal():
    """h = 0 gives W_2 no gradient, W_2 = 0 gives W_1 none; equal units get equal gradients at every step."""
    (w1, b1), (w2, b2) = unpacked(descended(np.zeros(N_WEIGHTS)), SIZES)
    assert not w1.any() and not b1.any() and not w2.any()
    assert b2[0] == pytest.approx(T.mean() * (1 - 0.95**100))
    (w1, _), (w2, _) = unpacked(descended(np.full(N_WEIGHTS, 0.1)), SIZES)
    np.testing.assert_allclose(w1 - w1[:, :1], 0, atol=1e-12)
    np.testing.assert_allclose(w2 - w2[0], 0, atol=1e-12)
    assert np.abs(w1 - 0.1).max() > 0.01  # they do learn, all the same


def test_2_tanh_changes_a_line_of_each_pass():
    vector = RNG.normal(size=N_WEIGHTS)

    def loss(vector, gradient=None):
        (w1, b1), (w2, b2) = unpacked(vector, SIZES)
        h = np.tanh(X @ w1 + b1)  # forward: tanh for max(0, .)
        value, delta = squared_error(h @ w2 + b2, T)
        if gradient is not None:
            (dw1, db1), (dw2, db2) = unpacked(gradient, SIZES)
            dw2[:], db2[:] = h.T @ delta, delta.sum(0)
            delta = (delta @ w2.T) * (1 - h**2)  # backward: its derivative for [h > 0]
            dw1[:], db1[:] = X.T @ delta, delta.sum(0)
        return value

    gradient = np.empty(N_WEIGHTS)
    loss(vector, gradient)
    np.testing.assert_allclose(gradient, approx_fprime(vector, loss, 1e-7), atol=1e-5)


def test_3_two_linear_layers_are_one():
    w1, b1, w2, b2 = (RNG.normal(size=shape) for shape in ((3, 5), 5, (5, 2), 2))
    np.testing.assert_allclose((X @ w1 + b1) @ w2 + b2, X @ (w1 @ w2) + (b1 @ w2 + b2))


def test_4_dropout_of_a_linear_layer_is_a_penalty():
    """Every pattern of dropped inputs, weighed by its probability: the mean loss is that of least squares with the penalty."""
    p, w = 0.3, RNG.normal(size=3)
    y, mean = T[:, 0], 0.0
    for pattern in range(8):
        keep = np.array([pattern >> d & 1 for d in range(3)])
        probability = np.prod(np.where(keep, 1 - p, p))
        mean += probability * np.square(y - X @ (keep / (1 - p) * w)).sum()
    penalty = p / (1 - p) * (w**2 * np.square(X).sum(0)).sum()
    assert mean == pytest.approx(np.square(y - X @ w).sum() + penalty)


def test_5_momentum_walks_as_far_as_a_rate_of_eta_over_1_less_mu():
    """v = mu v - eta g has the fixed point v = -eta g / (1 - mu)."""
    rate, momentum, g, v = 0.01, 0.9, 3.0, 0.0
    for _ in range(300):
        v = momentum * v - rate * g
    assert v == pytest.approx(-rate / (1 - momentum) * g)


def test_6_a_first_step_of_adamw_is_the_rate_whatever_the_gradient_is():
    """m_1 / (1 - beta_1) = g and v_1 / (1 - beta_2) = g^2: the ratio is the sign. Noise alone would step as far,
    hence a warm-up, after which the averages tell noise, of both signs, from a direction."""
    w = torch.zeros(4, dtype=torch.float64, requires_grad=True)
    w.grad = torch.tensor([1e-3, -5.0, 1e4, -1.0], dtype=torch.float64)
    torch.optim.AdamW([w], lr=0.01).step()
    np.testing.assert_allclose(w.detach(), [-0.01, 0.01, -0.01, 0.01], rtol=1e-4)
