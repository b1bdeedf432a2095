"""The held-out loss of a velocity field, beside that of the best constant."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from genai.core.dataset import Description
from genai.diffusion.image import FlowMatching
from genai.model import Loaded
from genai.tasks.flow_matching import evaluate

IMAGES = Description(kind="images", shape=[1, 4, 4], classes=["a", "b"])


@pytest.fixture
def data():
    rng = np.random.default_rng(0)
    splits = {
        split: {"x": rng.random((n, 1, 4, 4), dtype=np.float32), "y": rng.integers(2, size=n)}
        for split, n in {"train": 300, "validation": 40, "test": 60}.items()
    }
    return SimpleNamespace(arrays=splits.__getitem__)


def loaded():
    torch.manual_seed(0)
    model = FlowMatching(FlowMatching.Config(channels=[4], n_embedding=8), IMAGES).eval()
    experiment = SimpleNamespace(train=SimpleNamespace(seed=0))
    return Loaded(model, "images", experiment, IMAGES, None)


def test_a_new_network_has_velocity_zero_and_the_loss_of_that(data):
    """E |x_1 - x_0|^2 = E x_1^2 + 1 for noise of variance 1; the constant does better by the square of the mean."""
    metrics, columns = evaluate(loaded(), data, "test")
    x = 2 * data.arrays("test")["x"] - 1
    assert metrics["loss"] == pytest.approx((x**2).mean() + 1, abs=4 * metrics["loss_se"])
    assert metrics["loss"] == pytest.approx(columns["score"].mean())
    mean = (2 * data.arrays("train")["x"].astype(float) - 1).mean(0)
    assert metrics["loss_constant"] == pytest.approx(((x - mean) ** 2).mean() + 1)


def test_the_same_model_has_the_same_loss_again(data):
    first, second = (evaluate(loaded(), data, "validation")[1]["score"] for _ in range(2))
    assert np.array_equal(first, second)
