"""Distances between sets of images against their definitions, and grading from drawn samples to figures."""

from types import SimpleNamespace

import numpy as np
import pytest
from scipy.linalg import sqrtm

from genai.core.config import UserError
from genai.core.dataset import write_arrays
from genai.tasks import image_generation
from genai.tasks.image_generation import frechet_distance, grade, kernel_distance, kernel_distance_error

RNG = np.random.default_rng(0)


def test_frechet_distance_is_the_textbook_formula_and_zero_to_itself():
    a, b = RNG.normal(size=(200, 5)), RNG.normal(1, 2, size=(150, 5)) @ RNG.normal(size=(5, 5))
    c_a, c_b = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    expected = ((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(c_a + c_b - 2 * sqrtm(c_a @ c_b).real)
    assert frechet_distance(a, b) == pytest.approx(expected)
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-9)


def test_frechet_distance_of_a_shift_is_its_squared_length_though_a_feature_is_constant():
    a = np.column_stack([RNG.normal(size=100), np.zeros(100)])
    assert frechet_distance(a, a + [3.0, 4.0]) == pytest.approx(25)


def test_kernel_distance_is_its_definition_pair_by_pair():
    a, b = RNG.normal(size=(7, 3)), RNG.normal(1, 1, size=(5, 3))
    k = lambda x, y: (x @ y / 3 + 1) ** 3
    expected = np.mean([k(a[i], a[j]) for i in range(7) for j in range(7) if i != j])
    expected += np.mean([k(b[i], b[j]) for i in range(5) for j in range(5) if i != j])
    expected -= 2 * np.mean([k(x, y) for x in a for y in b])
    assert kernel_distance(a, b) == pytest.approx(expected)


def test_kernel_distance_of_equal_distributions_is_zero_on_average_whatever_the_numbers():
    for n in (10, 40):
        values = [kernel_distance(RNG.normal(size=(n, 4)), RNG.normal(size=(25, 4))) for _ in range(400)]
        assert abs(np.mean(values)) < 3 * np.std(values) / 20
    frechet = [np.mean([frechet_distance(*RNG.normal(size=(2, n, 4))) for _ in range(50)]) for n in (10, 40)]
    assert frechet[0] > 2 * frechet[1] > 0  # which is why its images are equally many


def test_the_error_of_the_kernel_distance_is_its_spread_over_new_draws():
    draw = lambda: (RNG.normal(size=(80, 3)), RNG.normal(0.5, 1.3, size=(60, 3)))
    spread = np.std([kernel_distance(*draw()) for _ in range(300)])
    errors = [kernel_distance_error(*draw(), np.random.default_rng(i)) for i in range(20)]
    assert np.mean(errors) == pytest.approx(spread, rel=0.2)


class Judge:
    """Sees the mean of each half of an image; the class is the brighter half, in doubt the first."""

    def __init__(self, swapped: bool = False):
        self.swapped = swapped

    def features(self, x):
        halves = np.stack([x[..., :2].mean((1, 2, 3)), x[..., 2:].mean((1, 2, 3))], 1)
        return halves[:, ::-1] if self.swapped else halves

    def predict_proba(self, x):
        return np.eye(2)[self.features(x).argmax(1)]

    def apply(self, method, x):
        return getattr(self, method)(x)


def halves(n, rng):
    """Return images of 4 x 4 whose class is the half that is bright, and the classes."""
    y = np.arange(n) % 2
    x = np.zeros((n, 1, 4, 4), np.float32) + rng.uniform(0, 0.1, size=(n, 1, 4, 4))
    brightness = rng.uniform(0.2, 0.9, size=(n, 1, 1, 1))
    x[..., :2] += brightness * (y == 0)[:, None, None, None]
    x[..., 2:] += brightness * (y == 1)[:, None, None, None]
    x = x.astype(np.float32)
    return {"x": x, "y": y}


@pytest.fixture
def real():
    rng = np.random.default_rng(1)
    splits = {"train": halves(90, rng), "validation": halves(30, rng), "test": halves(40, rng)}
    return SimpleNamespace(arrays=splits.__getitem__)


def graded(tmp_path, samples, real, judge):
    write_arrays(tmp_path / "samples.safetensors", samples)
    return grade(SimpleNamespace(name="g"), judge, real, None, tmp_path)


def test_perfect_samples_are_at_the_floor_and_noise_at_the_ceiling(tmp_path, real):
    perfect = graded(tmp_path, halves(60, np.random.default_rng(2)), real, Judge())["test"]
    assert perfect["label_accuracy"] == perfect["label_accuracy_real"] == 1
    assert abs(perfect["kernel_distance"]) < 3 * perfect["kernel_distance_se"]
    assert abs(perfect["kernel_distance"]) < 0.1 * perfect["kernel_ceiling"]
    assert perfect["frechet"] < 3 * perfect["frechet_floor"] < 0.5 * perfect["frechet_ceiling"]
    assert (perfect["images"], perfect["images_real"], perfect["frechet_images"]) == (60, 40, 40)
    noise = {"x": np.random.default_rng(3).random((60, 1, 4, 4), dtype=np.float32), "y": np.arange(60) % 2}
    worst = graded(tmp_path, noise, real, Judge())["test"]
    assert 0.2 < worst["label_accuracy"] < 0.8
    assert worst["kernel_distance"] == pytest.approx(worst["kernel_ceiling"], rel=0.3)


def test_one_perfect_image_a_class_has_every_label_right_and_a_distance(tmp_path, real):
    samples = halves(60, np.random.default_rng(2))
    samples["x"] = samples["x"][np.arange(60) % 2]
    collapsed = graded(tmp_path, samples, real, Judge())["test"]
    assert collapsed["label_accuracy"] == 1
    assert collapsed["frechet"] > 3 * collapsed["frechet_floor"]


def test_another_judge_gives_other_figures_of_the_same_samples(tmp_path, real):
    samples = halves(60, np.random.default_rng(2))
    right, swapped = (graded(tmp_path, samples, real, Judge(swapped)) for swapped in (False, True))
    assert right["validation"]["label_accuracy"] == 1 and swapped["validation"]["label_accuracy"] == 0


def test_an_image_model_takes_no_prompt(tmp_path):
    loaded = SimpleNamespace(description=SimpleNamespace(classes=["cat", "dog"]), name="g")
    with pytest.raises(UserError, match="prompt: an image model takes none; its classes are cat, dog"):
        image_generation.generate(loaded, None, "a cat", tmp_path / "x.png")
