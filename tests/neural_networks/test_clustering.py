"""Clustering without labels: the movement, the neighbours and the loss by hand, and that digits fall into their classes."""

import math

import numpy as np
import pytest
import torch
from scipy import ndimage
from sklearn.datasets import load_digits
from sklearn.neighbors import NearestNeighbors

from genai.core.dataset import Description
from genai.neural_networks.clustering import NeighborClustering, agreement_loss, moved, neighbors
from genai.tasks.clustering import measure
from genai.training.gradient_descent.train import Config, descend

DIGITS = Description(kind="images", shape=[1, 8, 8], classes=[str(digit) for digit in range(10)])
NUMBERS = {"n_clusters": 10, "widths": [256], "n_neighbors": 3, "balance": 2.0}


def build(**changes):
    torch.manual_seed(0)
    return NeighborClustering(NeighborClustering.Config(**(NUMBERS | changes)), DIGITS)


def test_images_that_may_not_move_stay_as_they_are():
    x = torch.rand(5, 3, 6, 8)
    torch.testing.assert_close(moved(x, 0, 0, 0), x)


@pytest.mark.parametrize(("name", "value"), [("rotation", 90), ("shift", 2), ("zoom", 0.5)])
def test_an_image_moves_as_scipy_moves_it(name, value, monkeypatch):
    x = torch.zeros(1, 1, 9, 13)
    x[0, 0, 3, 4], x[0, 0, 5, 7], x[0, 0, 4, 6] = 1.0, 0.5, 0.25
    monkeypatch.setattr(torch, "rand", torch.ones)  # the end of each range: + value
    found = moved(x, **{"rotation": 0, "shift": 0, "zoom": 0, name: value})[0, 0].numpy()
    angle, scale, shift = (math.radians(value) if name == "rotation" else 0), 1, 0
    scale, shift = (1.5 if name == "zoom" else 1), (2 if name == "shift" else 0)
    c, s = scale * math.cos(angle), scale * math.sin(angle)
    # scipy too asks where an output pixel comes from; its axes are (row, column)
    matrix, middle = np.array([[c, s], [-s, c]]), np.array([4, 6])
    expected = ndimage.affine_transform(x[0, 0].numpy(), matrix, middle - matrix @ middle + shift, order=1)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert found.sum() > 0


def test_neighbours_are_among_the_nearest_and_each_of_them_is_drawn():
    x = np.random.default_rng(0).normal(size=(30, 4)).astype(np.float32)
    nearest = NearestNeighbors(n_neighbors=3).fit(x).kneighbors(return_distance=False)
    drawn = np.array([neighbors(torch.from_numpy(x), 3).numpy() for _ in range(100)])
    for i in range(30):
        assert set(drawn[:, i]) == set(nearest[i])
    assert neighbors(torch.zeros(1, 4), 3).tolist() == [0]  # alone in its batch


def test_loss_by_hand():
    p, q = torch.tensor([[0.9, 0.1], [0.2, 0.8]]), torch.tensor([[0.6, 0.4], [0.5, 0.5]])
    mean = 2.2 / 4
    entropy = -mean * math.log(mean) - (1 - mean) * math.log(1 - mean)
    expected = -(math.log(0.9 * 0.6 + 0.1 * 0.4) + math.log(0.2 * 0.5 + 0.8 * 0.5)) / 2 - 3 * entropy
    assert agreement_loss(p, q, 3.0).item() == pytest.approx(expected, abs=1e-6)


def test_loss_is_least_where_pairs_are_sure_agree_and_fill_the_clusters_evenly():
    sure = torch.eye(4).repeat(5, 1)
    least = agreement_loss(sure, sure, 2.0).item()
    assert least == pytest.approx(-2 * math.log(4), abs=1e-6)
    generator = torch.Generator().manual_seed(0)
    for _ in range(100):
        p, q = (torch.randn(20, 4, generator=generator).mul(3).softmax(1) for _ in range(2))
        assert agreement_loss(p, q, 2.0) > least
    one = torch.eye(4)[[0] * 20]
    assert agreement_loss(one, one, 2.0) == pytest.approx(0, abs=1e-6) and least < 0


def test_validation_moves_nothing_and_labels_are_never_read():
    model, batch = build(rotation=30.0, shift=2.0, n_neighbors=1).eval(), {"x": torch.rand(40, 1, 8, 8)}
    assert model.loss(batch) == model.loss(batch)
    model.train()
    assert model.loss(batch) != model.loss(batch)


def test_digits_fall_into_their_classes_as_no_partition_of_pixels_does(tmp_path):
    digits = load_digits()
    x = digits.images[:, None].astype(np.float32) / 16
    rows = {"x": x[:1400]}
    numbers = {"method": "gradient_descent", "seed": 0, "threads": 1, "steps": 300, "batch_size": 512}
    model = build(rotation=15.0, shift=1.0, zoom=0.1)
    descend(model, rows, {"x": x[1400:]}, Config(**numbers, learning_rate=0.01), tmp_path, "")
    metrics, _ = measure(model.predict(torch.from_numpy(x[1400:])).numpy(), digits.target[1400:])
    assert metrics["clustering_accuracy"] > 0.8  # k-means: 0.79 of all
    assert model.features(torch.from_numpy(x[:3])).shape == (3, 256)
