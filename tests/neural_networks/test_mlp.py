"""The MLP: its forward pass by hand, its gradient by finite differences, its shapes from the data."""

import math

import numpy as np
import pytest
import torch
from scipy.optimize import approx_fprime
from scipy.special import log_softmax
from torch.nn import functional as F
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from genai.core.dataset import Description
from genai.neural_networks.mlp import MLP, Periodic

IMAGES = Description(kind="images", shape=[1, 2, 2], classes=["a", "b", "c"])
NUMBERS = Description(kind="table", shape=[3])


def images(n=5):
    torch.manual_seed(1)
    return {"x": torch.rand(n, 1, 2, 2), "y": torch.arange(n) % 3}


def numbers(n=400):
    torch.manual_seed(1)
    x = torch.randn(n, 3)
    return {"x": x, "y": 150 + 20 * x[:, 0] + 10 * x[:, 1]}


def mlp(description, seed=0, **config):
    torch.manual_seed(seed)
    return MLP(MLP.Config(**config), description)


def test_forward_pass_and_loss_are_those_computed_by_hand():
    model, batch = mlp(IMAGES, widths=[4, 3]).eval(), images()
    w = [parameter.detach().numpy().astype(np.float64) for parameter in model.parameters()]
    h = batch["x"].numpy().reshape(5, 4)
    h = np.maximum(h @ w[0].T + w[1], 0)
    h = np.maximum(h @ w[2].T + w[3], 0)
    logits = h @ w[4].T + w[5]
    np.testing.assert_allclose(model(batch["x"])[:, 0].detach(), logits, atol=1e-6)
    np.testing.assert_allclose(model.predict_proba(batch["x"]), np.exp(log_softmax(logits, 1)), atol=1e-6)
    expected = -log_softmax(logits, 1)[np.arange(5), batch["y"]].mean()
    assert model.loss(batch).item() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    ("description", "batch", "config"),
    [
        (IMAGES, images(), {"label_smoothing": 0.1}),
        (NUMBERS, numbers(8), {}),
        (NUMBERS, numbers(8), {"frequencies": 2, "members": 3}),
        (IMAGES, images(), {"members": 2}),
    ],
)
def test_gradient_agrees_with_finite_differences(description, batch, config):
    model = mlp(description, widths=[4, 3], **config).double()
    batch = {key: value.double() if value.is_floating_point() else value for key, value in batch.items()}
    model.loss(batch)  # sets the running statistics of a regression
    model.eval()
    model.loss(batch).backward()
    gradient = torch.cat([parameter.grad.flatten() for parameter in model.parameters()])

    def loss(vector):
        vector_to_parameters(torch.from_numpy(vector), model.parameters())
        return model.loss(batch).item()

    numeric = approx_fprime(parameters_to_vector(model.parameters()).detach().numpy().copy(), loss, 1e-7)
    np.testing.assert_allclose(gradient, numeric, atol=1e-6)
    assert np.abs(numeric).max() > 0.01


def test_label_smoothing_bounds_the_training_loss_and_leaves_validation_alone():
    model, batch = mlp(IMAGES, widths=[3], label_smoothing=0.3), images(3)
    with torch.no_grad():  # logits 20 e_class + const: as sure as can be, of the wrong classes too
        model.head.weight.zero_()
        model.head.bias.copy_(torch.tensor([20.0, 0, 0]))
    batch["y"] = torch.zeros(3, dtype=torch.long)
    # 0.1 of the target on each of the two others, 20 nats each
    assert model.train().loss(batch).item() == pytest.approx(0.3 * 2 / 3 * 20, rel=1e-4)
    assert model.eval().loss(batch).item() == pytest.approx(0, abs=1e-6)


def test_dropout_acts_in_training_only():
    model, batch = mlp(IMAGES, widths=[64], dropout=0.5), images()
    torch.manual_seed(0)
    assert model.loss(batch) != model.loss(batch)
    model.eval()
    assert model.loss(batch) == model.loss(batch)


def test_the_target_is_standardised_by_the_statistics_of_the_batches_seen():
    model, batch = mlp(NUMBERS, widths=[8]), numbers()
    for x, y in zip(batch["x"].split(100), batch["y"].split(100), strict=True):
        model.loss({"x": x, "y": y})
    model.eval()
    mean = batch["y"].mean().item()
    sd = math.sqrt(np.mean([part.var().item() for part in batch["y"].split(100)]))
    with torch.no_grad():
        model.head.weight.zero_()
        model.head.bias.fill_(2.0)
    np.testing.assert_allclose(model.predict(batch["x"]), mean + 2 * sd, rtol=1e-5)
    expected = np.mean((2 - (batch["y"].numpy() - mean) / sd) ** 2)
    assert model.loss(batch).item() == pytest.approx(expected, rel=1e-4)


def test_learns_a_target_in_any_units():
    model, batch = mlp(NUMBERS, widths=[32]), numbers()
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    for _ in range(200):
        optimizer.zero_grad()
        model.loss(batch).backward()
        optimizer.step()
    residual = model.eval().predict(batch["x"]) - batch["y"]
    assert 1 - residual.var() / batch["y"].var() > 0.99


def test_label_smoothing_of_numbers_is_refused():
    with pytest.raises(ValueError, match=r"label_smoothing: 0\.1 should be 0"):
        mlp(NUMBERS, widths=[8], label_smoothing=0.1)


def test_members_are_networks_of_their_own_that_share_the_hidden_weights():
    """Member m alone is a network whose first weights are multiplied by its signs and whose head is its block."""
    model, batch = mlp(NUMBERS, widths=[6, 5], members=3).double().eval(), numbers(4)
    x = batch["x"].double().numpy()
    w = {name: parameter.detach().numpy() for name, parameter in model.named_parameters()}
    assert set(np.unique(w["signs"])) <= {-1.0, 1.0}
    for m in range(3):
        h = np.maximum(x @ (w["hidden.0.weight"] * w["signs"][m]).T + w["hidden.0.bias"], 0)
        h = np.maximum(h @ w["hidden.3.weight"].T + w["hidden.3.bias"], 0)
        expected = h @ w["head.weight"][m] + w["head.bias"][m]
        np.testing.assert_allclose(model(torch.from_numpy(x))[:, m, 0].detach(), expected, atol=1e-12)
    mean, sd = (statistic.numpy() for statistic in model.target_statistics())
    outputs = model(torch.from_numpy(x)).detach().numpy()
    np.testing.assert_allclose(model.predict(torch.from_numpy(x)), outputs.mean((1, 2)) * sd + mean, atol=1e-12)


def test_members_are_each_trained_on_their_own_error_and_judged_by_what_they_predict_together():
    model, batch = mlp(IMAGES, widths=[8], members=4), images()
    logits = model(batch["x"]).detach()
    alone = [F.cross_entropy(logits[:, m], batch["y"]).item() for m in range(4)]
    assert model.train().loss(batch).item() == pytest.approx(np.mean(alone), abs=1e-6)
    proba = logits.softmax(2).mean(1)
    np.testing.assert_allclose(model.predict_proba(batch["x"]), proba, atol=1e-6)
    together = F.nll_loss(proba.log(), batch["y"]).item()
    assert model.eval().loss(batch).item() == pytest.approx(together, abs=1e-6)
    assert together < np.mean(alone)  # Jensen: the mean of probabilities is never worse


def test_periodic_embedding_by_hand():
    torch.manual_seed(0)
    layer, x = Periodic(2, 3, 4, 0.5).double(), torch.randn(5, 2, dtype=torch.float64)
    c, a, b = (parameter.detach().numpy() for parameter in layer.parameters())
    expected = []
    for d in range(2):
        angle = 2 * np.pi * np.outer(x[:, d], c[d])
        waves = np.column_stack([np.sin(angle), np.cos(angle), x[:, d]])
        expected.append(np.maximum(waves @ a[d] + b[d], 0))
    np.testing.assert_allclose(layer(x).detach(), np.hstack(expected), atol=1e-12)


def test_waves_learn_what_changes_quickly_along_a_number():
    x = torch.linspace(-1.7, 1.7, 500)[:, None]
    batch = {"x": x, "y": torch.sin(20 * x[:, 0])}
    errors = {}
    for frequencies in (0, 8):
        torch.manual_seed(0)
        config = MLP.Config(widths=[64, 64], frequencies=frequencies, frequency_spread=2.0)
        model = MLP(config, Description(kind="table", shape=[1]))
        optimizer = torch.optim.Adam(model.parameters(), 0.003)
        for _ in range(300):
            optimizer.zero_grad()
            model.loss(batch).backward()
            optimizer.step()
        errors[frequencies] = (model.eval().predict(x) - batch["y"]).square().mean().item()
    assert errors[8] < 0.1 * errors[0]


def test_frequencies_of_images_are_refused():
    with pytest.raises(ValueError, match=r"frequencies: 4 should be 0: of images there are none"):
        mlp(IMAGES, widths=[8], frequencies=4)
