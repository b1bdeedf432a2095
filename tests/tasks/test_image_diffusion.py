"""The held-out denoising error, beside that of the mean image."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from genai.core.dataset import Description
from genai.diffusion.image.model import RATIOS, ImageDiffusion
from genai.model import Loaded
from genai.tasks.image_diffusion import answer, errors_of, evaluate, figures

IMAGES = Description(kind="images", shape=[1, 4, 4], classes=["a", "b"])


@pytest.fixture
def data():
    rng = np.random.default_rng(0)
    splits = {
        split: {"x": rng.random((n, 1, 4, 4), dtype=np.float32), "y": rng.integers(2, size=n)}
        for split, n in {"train": 300, "validation": 40, "test": 60}.items()
    }
    return SimpleNamespace(arrays=splits.__getitem__)


def loaded(process="flow_matching"):
    torch.manual_seed(0)
    config = ImageDiffusion.Config(process=process, channels=[4], n_embedding=8)
    model = ImageDiffusion(config, IMAGES).eval()
    experiment = SimpleNamespace(train=SimpleNamespace(seed=0))
    return Loaded(model, "images", experiment, IMAGES, None)


def test_a_network_that_answers_with_the_mean_image_has_the_error_of_that(data):
    mean = (2 * data.arrays("train")["x"].astype(float) - 1).mean(0)
    for process in ("flow_matching", "ddpm"):
        model = loaded(process)

        def says(x_t, t, y, process=model.model.process):
            (alpha, sigma), (a, b) = ((v.view(-1, 1, 1, 1) for v in f(t)) for f in (process.path, process.asked))
            return a * torch.from_numpy(mean) + b * (x_t - alpha * torch.from_numpy(mean)) / sigma

        model.model.network.forward = says
        metrics, columns = evaluate(model, data, "test")
        assert metrics["denoising_error"] == pytest.approx(metrics["denoising_error_constant"], rel=1e-4)
        assert metrics["denoising_error"] == pytest.approx(columns["score"].mean())
        x = 2 * data.arrays("test")["x"] - 1
        assert metrics["denoising_error_constant"] == pytest.approx(((x - mean) ** 2).mean())
        assert metrics["examples"] == 60


def test_the_same_model_has_the_same_error_again(data):
    first, second = (evaluate(loaded(), data, "validation")[1]["score"] for _ in range(2))
    assert np.array_equal(first, second)


def test_the_error_is_drawn_over_the_ratio_of_image_to_noise(data, tmp_path):
    model = loaded()
    rows = figures(model, data, evaluate(model, data, "test")[1], tmp_path)["denoising_error"]
    assert rows[0] == ("ratio", "error")
    np.testing.assert_allclose([float(ratio) for ratio, _ in rows[1:]], RATIOS, rtol=1e-3)
    np.testing.assert_allclose(
        [float(error) for _, error in rows[1:]], errors_of(model, data.arrays("test")).mean(0), rtol=1e-5
    )
    assert [path.name for path in tmp_path.iterdir()] == ["denoising_error.png"]


def test_served_it_tells_the_error_of_each_image_of_unknown_class(data):
    model, x = loaded(), data.arrays("test")["x"][:5]
    told = answer(model, None, x, {})["denoising_error"]
    expected = errors_of(model, {"x": x, "y": np.full(5, 2)}).mean(1)
    np.testing.assert_allclose(told, expected)
