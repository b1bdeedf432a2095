"""The optimisers in use, each held to its update rule written out in NumPy, and the average of the weights."""

import numpy as np
import torch
from torch import nn

from genai.training.gradient_descent.muon import Muon
from genai.training.gradient_descent.optimizers import make_optimizers, set_rates
from genai.training.gradient_descent.train import Config

NUMBERS = {"method": "gradient_descent", "seed": 0, "threads": 1, "steps": 10, "batch_size": 1, "learning_rate": 0.02}


class Network(nn.Module):
    def __init__(self):
        super().__init__()
        self.hidden = nn.Linear(5, 3)
        self.head = nn.Linear(3, 2)


def steps(parameter_of, n=6, bf16=False, **changes):
    """Return the weights of a parameter before and after each of n steps on drawn gradients, and those gradients."""
    torch.manual_seed(0)
    model = Network().double()
    optimizers = make_optimizers(model, Config(**(NUMBERS | changes)), bf16)
    set_rates(optimizers, 0.5)  # as the schedule would: the rate is half the peak
    weights, gradients = [parameter_of(model).detach().numpy().copy()], []
    for _ in range(n):
        for parameter in model.parameters():
            parameter.grad = torch.randn_like(parameter)
        gradients.append(parameter_of(model).grad.numpy().copy())
        for optimizer in optimizers:
            optimizer.step()
        weights.append(parameter_of(model).detach().numpy().copy())
    return weights, gradients


def adamw(w, gradients, rate, decay, beta1=0.9, beta2=0.95):
    """Loshchilov and Hutter, "Decoupled weight decay regularization", 2019, algorithm 2."""
    m, v = np.zeros_like(w), np.zeros_like(w)
    for t, g in enumerate(gradients, 1):
        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * g**2
        w = w - rate * (m / (1 - beta1**t) / (np.sqrt(v / (1 - beta2**t)) + 1e-8) + decay * w)
    return w


def orthogonalized(g, steps=5):
    """Return g with its singular values brought near 1: five steps of Newton and Schulz, as Jordan et al. tuned them."""
    a, b, c = 3.4445, -4.7750, 2.0315
    x = g / max(np.linalg.norm(g), 1e-7)
    x = x if len(x) <= x.shape[1] else x.T
    for _ in range(steps):
        s = x @ x.T
        x = a * x + (b * s + c * s @ s) @ x
    return x if len(g) <= g.shape[1] else x.T


def muon(w, gradients, rate, decay, momentum=0.95):
    """Jordan et al., "Muon: an optimizer for hidden layers in neural networks", 2024; Nesterov's momentum."""
    average = np.zeros_like(w)
    for g in gradients:
        average = momentum * average + (1 - momentum) * g
        update = orthogonalized((1 - momentum) * g + momentum * average)
        w = w - rate * decay * w - rate * np.sqrt(max(1, len(w) / w.shape[1])) * update
    return w


def test_adamw_is_its_update_rule_and_decays_matrices_alone():
    weights, gradients = steps(lambda model: model.hidden.weight, weight_decay=0.1)
    np.testing.assert_allclose(weights[-1], adamw(weights[0], gradients, 0.01, 0.1), atol=1e-9)
    weights, gradients = steps(lambda model: model.hidden.bias, weight_decay=0.1)
    np.testing.assert_allclose(weights[-1], adamw(weights[0], gradients, 0.01, 0.0), atol=1e-9)


def test_the_head_has_its_own_rate_and_no_decay():
    weights, gradients = steps(lambda model: model.head.weight, weight_decay=0.1, embedding_learning_rate=0.2)
    np.testing.assert_allclose(weights[-1], adamw(weights[0], gradients, 0.1, 0.0), atol=1e-9)


def test_muon_is_its_update_rule():
    weights, gradients = steps(lambda model: model.hidden.weight, muon_learning_rate=0.04, weight_decay=0.1)
    expected = muon(weights[0], gradients, 0.02, 0.1)
    np.testing.assert_allclose(weights[-1], expected, atol=1e-12)
    assert np.abs(weights[-1] - weights[0]).max() > 0.03
    weights, _ = steps(lambda model: model.hidden.weight, bf16=True, muon_learning_rate=0.04, weight_decay=0.1)
    difference = np.abs(weights[-1] - expected).max()
    assert 0 < difference < 0.02 * np.abs(expected - weights[0]).max() + 1e-3  # a relative error of 2^-8 each


def test_muon_takes_matrices_of_a_shape_together_and_each_as_if_alone():
    torch.manual_seed(0)
    matrices = [nn.Parameter(torch.randn(shape)) for shape in ((4, 6), (6, 4), (4, 6), (5, 5))]
    alone = [nn.Parameter(matrix.detach().clone()) for matrix in matrices]
    for one, other in zip(matrices, alone, strict=True):
        one.grad = torch.randn_like(one)
        other.grad = one.grad.clone()
    together = Muon(matrices, 0.1, 0.1, bf16=False)
    apart = [Muon([matrix], 0.1, 0.1, bf16=False) for matrix in alone]
    for _ in range(2):
        for optimizer in [together, *apart]:
            optimizer.step()
    for one, other in zip(matrices, alone, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


def test_newton_and_schulz_bring_singular_values_near_one_and_keep_the_directions():
    g = np.random.default_rng(0).normal(size=(30, 20))
    u, _, v = np.linalg.svd(g, full_matrices=False)
    inner = u.T @ orthogonalized(g) @ v.T
    assert np.abs(inner - np.diag(np.diag(inner))).max() < 1e-9
    assert 0.6 < np.diag(inner).min() and np.diag(inner).max() < 1.3


def test_steps_of_adamw_do_not_know_the_scale_of_the_gradient():
    """The first step is the rate in every weight, whatever the loss's units."""
    weights, gradients = steps(lambda model: model.hidden.bias, n=1)
    np.testing.assert_allclose(weights[1] - weights[0], -0.01 * np.sign(gradients[0]), rtol=1e-6)
