"""The autoencoder: without hidden layers it is held to principal components, with them it does better."""

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA

from genai.core.dataset import Description
from genai.neural_networks.autoencoder import Autoencoder
from genai.training.gradient_descent.train import Config, descend

DIGITS = Description(kind="images", shape=[1, 8, 8], classes=[str(digit) for digit in range(10)])


def trained(widths, work, **changes):
    x = load_digits().images[:, None].astype(np.float32) / 16
    numbers = {"method": "gradient_descent", "seed": 0, "threads": 1, "steps": 1000, "batch_size": 256}
    torch.manual_seed(0)
    model = Autoencoder(Autoencoder.Config(widths=widths, embedding=5), DIGITS)
    config = Config(**(numbers | {"learning_rate": 0.01, "validate_every": 1000} | changes))
    return descend(model, {"x": x}, {"x": x}, config, work, ""), torch.from_numpy(x)


def least_error():
    x = load_digits().data / 16
    pca = PCA(5).fit(x)
    return ((x - pca.inverse_transform(pca.transform(x))) ** 2).mean()


def test_a_linear_autoencoder_finds_the_principal_subspace(tmp_path):
    model, x = trained([], tmp_path, steps=2000, batch_size=1797)
    error = model.loss({"x": x}).item()
    assert error == pytest.approx(least_error(), rel=1e-4) and error > 0.9999 * least_error()
    z = model.features(x).detach().numpy()
    assert z.shape == (len(x), 5)
    # the components are a linear map of the embedding
    components = PCA(5).fit_transform(x.flatten(1).numpy())
    z = np.column_stack([z, np.ones(len(z))])
    assert np.square(components - z @ np.linalg.lstsq(z, components)[0]).sum() < 0.01 * np.square(components).sum()


def test_a_hidden_layer_makes_more_of_as_few_numbers(tmp_path):
    model, x = trained([128], tmp_path, learning_rate=0.003)
    assert model.loss({"x": x}).item() < 0.8 * least_error()
