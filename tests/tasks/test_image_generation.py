"""Distances between sets of images against their definitions, and grading from drawn samples to figures."""

from itertools import combinations
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.linalg import sqrtm

from genai.cnn.classifier import ConvNet
from genai.core.config import Experiment, UserError
from genai.core.dataset import Description, write_arrays
from genai.diffusion.image.model import ImageDiffusion
from genai.model import Loaded
from genai.tasks import image_generation
from genai.tasks.image_generation import (
    FRAMES,
    Memorization,
    classifier,
    coverage,
    crossed_error,
    density,
    error,
    frechet_distance,
    grade,
    kernel_distance,
    kernel_distance_error,
    neighborhoods,
    show,
    slerp,
)  # fmt: skip

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


def test_the_error_of_a_mean_is_that_of_the_textbook():
    x, rng = RNG.normal(size=400), np.random.default_rng(0)
    assert error(np.mean, rng, x) == pytest.approx(x.std() / 20, rel=0.15)


def test_density_and_coverage_are_their_definitions():
    theirs, ours = RNG.normal(size=(12, 2)), RNG.normal(0.3, 1.5, size=(9, 2))
    apart = lambda a, b: float(np.linalg.norm(a - b))
    radius = [sorted(apart(x, other) for other in theirs)[5] for x in theirs]  # the first is itself
    balls = [[apart(x, y) <= r for y in ours] for x, r in zip(theirs, radius, strict=True)]
    inside = neighborhoods(ours, theirs)
    assert inside.tolist() == balls
    assert density(inside) == pytest.approx(sum(map(sum, balls)) / (5 * 9))
    assert coverage(inside) == pytest.approx(np.mean([any(ball) for ball in balls]))
    assert 0 < crossed_error(coverage, np.random.default_rng(0), inside) < 0.5


def test_as_many_samples_of_the_same_distribution_have_density_one_and_the_coverage_of_real_images():
    tables = [neighborhoods(*RNG.normal(size=(2, 60, 3))) for _ in range(150)]
    densities, coverages = ([f(table) for table in tables] for f in (density, coverage))
    assert np.mean(densities) == pytest.approx(1, abs=0.03)
    # Naeem et al., appendix: that none of N is nearer than the fifth of N - 1 others
    expected = 1 - np.prod([(60 - 1 - i) / (120 - 1 - i) for i in range(5)])
    assert np.mean(coverages) == pytest.approx(expected, abs=0.005)


def test_the_share_memorised_is_the_mean_over_all_choices_of_as_many_training_images():
    ours, train, held = RNG.normal(size=(6, 2)), RNG.normal(size=(7, 2)), RNG.normal(size=(3, 2))
    nearest = lambda x, among: min(np.linalg.norm(x - other) for other in among)
    wins = [nearest(x, chosen) < nearest(x, held) for x in ours for chosen in combinations(train, 3)]
    assert Memorization(ours, train, held).share() == pytest.approx(np.mean(wins))


def test_half_of_what_is_new_is_nearer_to_training_and_all_of_what_was_copied():
    draw = lambda n: RNG.normal(size=(n, 3))
    found = [Memorization(draw(50), draw(120), draw(40)).share() for _ in range(60)]
    assert np.mean(found) == pytest.approx(0.5, abs=0.02)
    train = draw(100)
    copied = Memorization(train + 1e-6, train, draw(100))
    assert copied.share() == pytest.approx(1)
    errors = [Memorization(draw(50), draw(120), draw(40)).error(np.random.default_rng(i)) for i in range(5)]
    assert np.mean(errors) == pytest.approx(np.std(found), rel=0.4)


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
    return SimpleNamespace(arrays=splits.__getitem__, description=SimpleNamespace(classes=["left", "right"]))


class NearestMean:
    """Learns the mean image of each class."""

    def __init__(self, judge, x, y):
        self.means = np.stack([x[y == k].reshape(-1, x[0].size).mean(0) for k in (0, 1)])

    def apply(self, method, x):
        return -np.square(x.reshape(len(x), 1, -1) - self.means).sum(2)


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(image_generation, "classifier", NearestMean)


def graded(tmp_path, samples, real, judge):
    write_arrays(tmp_path / "samples.safetensors", samples)
    return grade(SimpleNamespace(name="g"), judge, real, None, tmp_path)


def test_perfect_samples_are_at_the_floor_and_noise_at_the_ceiling(tmp_path, real, quick):
    perfect = graded(tmp_path, halves(60, np.random.default_rng(2)), real, Judge())["test"]
    assert perfect["label_accuracy"] == perfect["label_accuracy_real"] == 1
    assert abs(perfect["kernel_distance"]) < 3 * perfect["kernel_distance_se"]
    assert abs(perfect["kernel_distance"]) < 0.1 * perfect["kernel_ceiling"]
    assert perfect["frechet"] < 3 * perfect["frechet_floor"] < 0.5 * perfect["frechet_ceiling"]
    assert (perfect["images"], perfect["images_real"], perfect["frechet_images"]) == (60, 40, 40)
    assert perfect["classification_accuracy"] == perfect["classification_accuracy_real"] == 1
    assert perfect["density"] == pytest.approx(1, abs=0.3) and perfect["coverage"] > 0.85
    assert perfect["memorization"] == pytest.approx(0.5, abs=0.15)
    assert (tmp_path / "neighbors.png").exists()
    noise = {"x": np.random.default_rng(3).random((60, 1, 4, 4), dtype=np.float32), "y": np.arange(60) % 2}
    worst = graded(tmp_path, noise, real, Judge())["test"]
    assert 0.2 < worst["label_accuracy"] < 0.8
    assert worst["kernel_distance"] == pytest.approx(worst["kernel_ceiling"], rel=0.3)
    assert worst["coverage"] < 0.5 * perfect["coverage"]


def test_one_perfect_image_a_class_has_every_label_right_and_a_distance(tmp_path, real, quick):
    samples = halves(60, np.random.default_rng(2))
    samples["x"] = samples["x"][np.arange(60) % 2]
    collapsed = graded(tmp_path, samples, real, Judge())["test"]
    assert collapsed["label_accuracy"] == 1
    assert collapsed["frechet"] > 3 * collapsed["frechet_floor"]
    assert collapsed["coverage"] < 0.5 * collapsed["coverage_floor"]


def test_copies_of_training_images_are_found_out(tmp_path, real, quick):
    copies = {key: value[:60] for key, value in real.arrays("train").items()}
    found = graded(tmp_path, copies, real, Judge())["test"]
    # of 90 training images as many as the 40 held out, so that a copy's original is seldom among them
    assert found["memorization"] == pytest.approx(found["memorization_ceiling"], abs=0.03)
    assert found["memorization"] == pytest.approx(0.5 + 0.5 * 40 / 90, abs=0.08)


def test_a_network_like_the_judge_learns_from_samples_alone_what_is_in_them(monkeypatch):
    monkeypatch.setattr(image_generation, "RATE", 0.02)  # the images are few, and easy
    section = {
        "data": "halves", "task": "classification", "code": "genai/cnn/classifier.py", "model": "ConvNet",
        "config": {"channels": [4], "n_features": 8}, "train": {"method": "gradient_descent", "seed": 0, "threads": 1},
    }  # fmt: skip
    description = Description(kind="images", shape=[1, 4, 4], classes=["left", "right"])
    judge = Loaded(
        ConvNet(ConvNet.Config(**section["config"]), description), "cnn", Experiment(**section), description, None
    )
    before = {key: value.clone() for key, value in judge.model.state_dict().items()}
    train, test = halves(64, np.random.default_rng(0)), halves(100, np.random.default_rng(1))
    right = lambda y: (classifier(judge, train["x"], y).apply("predict_proba", test["x"]).argmax(1) == test["y"]).mean()
    assert right(train["y"]) > 0.95 and right(1 - train["y"]) < 0.05
    assert right(train["y"]) == right(train["y"])
    assert all(torch.equal(value, before[key]) for key, value in judge.model.state_dict().items()), (
        "the judge is as it was"
    )


def test_between_two_noises_lies_noise():
    a, b = RNG.normal(size=(2, 3, 1, 30, 30)).astype(np.float32)
    np.testing.assert_allclose(slerp(a, b, 0.0), a, atol=1e-6)
    np.testing.assert_allclose(slerp(a, b, 1.0), b, atol=1e-6)
    assert slerp(a, b, 0.5).std() == pytest.approx(1, abs=0.05) and ((a + b) / 2).std() < 0.75
    quarter = [np.array([[1.0, 0.0]]), np.array([[0.0, 1.0]])]
    np.testing.assert_allclose(slerp(*quarter, 1 / 3), [[np.cos(np.pi / 6), np.sin(np.pi / 6)]])


def test_what_is_shown_comes_from_noise_and_moves(tmp_path):
    description = Description(kind="images", shape=[1, 4, 4], classes=["left", "right"])
    model = ImageDiffusion(
        ImageDiffusion.Config(process="flow_matching", channels=[4], n_embedding=8), description
    ).eval()
    loaded = Loaded(model, "g", None, description, None)
    show(loaded, ImageDiffusion.Sampling(steps=3, seed=0), {"per_class": 5}, tmp_path)
    names = {"grid", "trajectories", "guidance", "interpolations", "denoising"}
    assert {path.name for path in tmp_path.iterdir()} == {f"{name}.png" for name in names}
    with Image.open(tmp_path / "denoising.png") as moving:
        still = np.asarray(moving)
        assert moving.is_animated and moving.n_frames == FRAMES + 2  # where nothing moves, noise, steps
        moving.seek(moving.n_frames - 1)
        assert np.array_equal(still, np.asarray(moving.convert("L")))
        assert moving.info["duration"] > 1000


def test_another_judge_gives_other_figures_of_the_same_samples(tmp_path, real, quick):
    samples = halves(60, np.random.default_rng(2))
    right, swapped = (graded(tmp_path, samples, real, Judge(swapped)) for swapped in (False, True))
    assert right["validation"]["label_accuracy"] == 1 and swapped["validation"]["label_accuracy"] == 0


def test_an_image_model_takes_no_prompt(tmp_path):
    loaded = SimpleNamespace(description=SimpleNamespace(classes=["cat", "dog"]), name="g")
    with pytest.raises(UserError, match="prompt: an image model takes none; its classes are cat, dog"):
        image_generation.generate(loaded, None, "a cat", tmp_path / "x.png")
