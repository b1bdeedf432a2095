"""Accuracy and log loss against scikit-learn."""

import numpy as np
import pytest
from sklearn import metrics as sk

from genai.tasks.classification import measure

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
