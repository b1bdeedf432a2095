"""The held-out loss of a velocity field, beside that of the best constant."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from genai.core.dataset import Description
from genai.diffusion.image import FlowMatching
from genai.model import Loaded
from genai.tasks.flow_matching import evaluate, figures, losses_at

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


def test_at_each_time_the_loss_of_velocity_zero_is_the_same_and_a_straight_way_has_none(data):
    arrays, model = data.arrays("test"), loaded()
    still = [losses_at(model, arrays["x"], arrays["y"], t) for t in (0.0, 0.5, 1.0)]
    assert np.array_equal(still[0], still[1]) and np.array_equal(still[0], still[2])
    x_1 = 2 * torch.from_numpy(arrays["x"]) - 1
    assert still[0].mean() == pytest.approx(float((x_1**2).mean()) + 1, abs=4 * still[0].std() / np.sqrt(60))
    knows = SimpleNamespace(
        velocity=lambda x, t, y: (x_1 - x) / (1 - t[0])
    )  # the image that the noise is on its way to
    knowing = SimpleNamespace(model=knows, experiment=model.experiment)
    assert losses_at(knowing, arrays["x"], arrays["y"], 0.3) == pytest.approx(0, abs=1e-8)


def test_the_loss_by_time_is_drawn(data, tmp_path):
    model = loaded()
    rows = figures(model, data, evaluate(model, data, "test")[1], tmp_path)["loss_by_time"]
    assert rows[0] == ("time", "loss") and [float(t) for t, _ in rows[1:]] == sorted(float(t) for t, _ in rows[1:])
    assert [path.name for path in tmp_path.iterdir()] == ["loss_by_time.png"]
