"""Accuracy and log loss against scikit-learn, the calibration error against its definition, and what is drawn of them."""

from types import SimpleNamespace

import numpy as np
import pytest
from sklearn import metrics as sk

from genai.core.dataset import Description
from genai.model import Loaded
from genai.tasks.classification import (
    BINS,
    answer,
    calibration,
    calibration_error,
    constant_log_loss,
    evaluate,
    figures,
    measure,
)

RNG = np.random.default_rng(0)


def test_the_figures_are_scikit_learns_and_the_scores_are_log_losses():
    y = RNG.integers(0, 4, 60)
    p = RNG.dirichlet(np.ones(4), 60)
    figures, columns = measure(p, y)
    assert figures["accuracy"] == pytest.approx(sk.accuracy_score(y, p.argmax(1)))
    assert figures["log_loss"] == pytest.approx(sk.log_loss(y, p, labels=range(4)))
    assert figures["log_loss"] == pytest.approx(columns["score"].mean())
    assert figures["accuracy_se"] == pytest.approx(np.std(p.argmax(1) == y) / np.sqrt(60))
    assert np.mean(columns["label"] == columns["prediction"]) == figures["accuracy"]


def test_a_class_that_was_given_no_probability_has_a_finite_score():
    _, columns = measure(np.array([[1.0, 0.0]]), np.array([1]))
    assert columns["score"] == pytest.approx(-np.log(1e-12))


def test_the_calibration_error_is_that_of_the_definition():
    confidence, right = RNG.uniform(0.2, 1, 400), RNG.random(400) < 0.7
    expected = 0.0
    for b in range(BINS):
        inside = (confidence >= b / BINS) & ((confidence < (b + 1) / BINS) | (b == BINS - 1))
        if inside.any():
            expected += inside.sum() / 400 * abs(right[inside].mean() - confidence[inside].mean())
    bins = calibration(confidence, right)
    assert calibration_error(bins) == pytest.approx(expected) and bins[:, 2].sum() == 400


def test_who_is_as_sure_as_right_has_no_calibration_error_and_who_is_certain_falls_into_the_last_bin():
    confidence = np.repeat([0.25, 0.75, 1.0], 4)
    right = np.array([1, 0, 0, 0, 1, 1, 1, 0, 1, 1, 1, 1], bool)
    bins = calibration(confidence, right)
    assert calibration_error(bins) == pytest.approx(0)
    assert bins.tolist() == [[0.25, 0.25, 4], [0.75, 0.75, 4], [1.0, 1.0, 4]]
    assert calibration_error(calibration(np.ones(4), np.array([1, 1, 1, 0], bool))) == pytest.approx(0.25)


class Nearest:
    """The class of the nearest of two points, with or without a probability of it."""

    def __init__(self, n_classes):
        self.n_classes = n_classes

    def predict(self, x):
        return (x.reshape(len(x), -1)[:, 0] > 0.5).astype(int)


class Sure(Nearest):
    def predict_proba(self, x):
        return np.eye(self.n_classes)[self.predict(x)] * 0.9 + 0.1 / self.n_classes


def dataset(description, n=60):
    x = RNG.random((n, *description.shape), dtype=np.float32)
    arrays = {"x": x, "y": RNG.integers(description.n_classes, size=n)}
    return SimpleNamespace(description=description, arrays=lambda split: arrays)


IMAGES = Description(kind="images", shape=[1, 3, 3], classes=["a, b", 'c "d"'])
TABLE = Description(kind="table", shape=[4], classes=["yes", "no"])
MANY = Description(kind="table", shape=[3], classes=[str(i) for i in range(40)])
LINE = Description(kind="table", shape=[1], classes=["yes", "no"])


@pytest.mark.parametrize("model", [Nearest, Sure])
@pytest.mark.parametrize("description", [IMAGES, TABLE, MANY, LINE])
def test_each_kind_of_data_and_model_has_the_figures_that_it_can_have(tmp_path, model, description):
    loaded = Loaded(model(description.n_classes), "m", None, description, None)
    data = dataset(description)
    metrics, columns = evaluate(loaded, data, "test")
    tables = figures(loaded, data, columns, tmp_path)
    expected = {"confusion.png", "most_wrong.png"} | ({"calibration.png"} if model is Sure else set())
    expected |= set() if description in (MANY, LINE) else {"decision_regions.png"}
    assert {path.name for path in tmp_path.iterdir()} == expected
    assert ("log_loss" in metrics) == ("calibration_error" in metrics) == (model is Sure)
    assert tables.keys() == ({"confusion", "calibration"} if model is Sure else {"confusion"})
    names, *pairs = tables["confusion"]
    assert names == ("label", "prediction") and {label for label, _ in pairs} <= set(description.classes)
    assert np.mean([label == prediction for label, prediction in pairs]) == pytest.approx(metrics["accuracy"])
    if model is Sure:
        assert sum(n for *_, n in tables["calibration"][1:]) == metrics["examples"]


def test_without_probabilities_a_score_is_the_log_loss_of_the_best_constant_confidence():
    right = np.arange(6000) % 10 > 0  # nine tenths
    scores = constant_log_loss(right, 4)
    for share in (0.85, 0.89, 0.9, 0.91, 0.95):
        p = np.where(right, share, (1 - share) / 3)
        assert scores.mean() < -np.log(p).mean() + 1e-4
    assert np.isfinite(constant_log_loss(np.ones(3, bool), 2)).all()
    assert np.isfinite(constant_log_loss(np.zeros(3, bool), 2)).all()
    data = dataset(TABLE)
    _, columns = evaluate(Loaded(Nearest(2), "m", None, TABLE, None), data, "test")
    assert columns["score"].tolist() == constant_log_loss(columns["prediction"] == columns["label"], 2).tolist()


@pytest.mark.parametrize("model", [Nearest, Sure])
def test_served_a_class_has_a_probability_or_where_there_is_none_the_prediction_has_1(model):
    x = dataset(IMAGES).arrays("test")["x"]
    found = answer(Loaded(model(2), "m", None, IMAGES, None), None, x, {})
    assert [*found] == IMAGES.classes and found.sum(axis=1).to_numpy() == pytest.approx(1)
    assert found.to_numpy().argmax(1).tolist() == model(2).predict(x).tolist()


def test_without_probabilities_only_the_wrong_are_shown_as_most_wrong(tmp_path):
    loaded, data = Loaded(Nearest(2), "m", None, TABLE, None), dataset(TABLE)
    data.arrays("test")["y"] = loaded.model.predict(data.arrays("test")["x"])
    _, columns = evaluate(loaded, data, "test")
    figures(loaded, data, columns, tmp_path)
    assert not (tmp_path / "most_wrong.png").exists()
