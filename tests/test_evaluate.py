"""The figures against scikit-learn, SciPy, closed forms and brute force."""

import itertools

import numpy as np
import pytest
from scipy.linalg import sqrtm
from sklearn import metrics as sk

from genai.evaluate import classification, clustering, distinct, frechet_distance, regression

RNG = np.random.default_rng(0)


def test_regression_is_scikit_learns_and_scores_are_squared_errors():
    y, prediction = RNG.normal(size=(2, 50))
    figures, scores = regression(prediction, y)
    assert figures["r2"] == pytest.approx(sk.r2_score(y, prediction))
    assert figures["rmse"] ** 2 == pytest.approx(sk.mean_squared_error(y, prediction)) == pytest.approx(scores.mean())


def test_classification_is_scikit_learns_and_scores_are_log_losses():
    y = RNG.integers(0, 4, 60)
    p = RNG.dirichlet(np.ones(4), 60)
    figures, scores = classification(p, y)
    assert figures["accuracy"] == pytest.approx(sk.accuracy_score(y, p.argmax(1)))
    assert figures["log_loss"] == pytest.approx(sk.log_loss(y, p, labels=range(4))) == pytest.approx(scores.mean())
    assert figures["accuracy_se"] == pytest.approx(np.std(p.argmax(1) == y) / np.sqrt(60))


def test_clustering_accuracy_is_the_best_of_all_matchings():
    y, clusters = RNG.integers(0, 4, 80), RNG.integers(0, 4, 80)
    figures, scores = clustering(clusters, y)
    best = max(np.mean(np.array(match)[clusters] == y) for match in itertools.permutations(range(4)))
    assert figures["clustering_accuracy"] == pytest.approx(best) == pytest.approx(1 - scores.mean())
    assert figures["nmi"] == pytest.approx(sk.normalized_mutual_info_score(y, clusters))


def test_more_clusters_than_classes_leave_some_unmatched():
    y = np.array([0, 0, 0, 1, 1, 1])
    figures, scores = clustering(np.array([5, 5, 7, 9, 9, 9]), y)
    assert figures["clustering_accuracy"] == pytest.approx(5 / 6)
    assert scores.tolist() == [0, 0, 1, 0, 0, 0]


def test_frechet_distance_is_the_textbook_formula_and_zero_to_itself():
    a, b = RNG.normal(size=(200, 5)), RNG.normal(1, 2, size=(150, 5)) @ RNG.normal(size=(5, 5))
    c_a, c_b = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    expected = ((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(c_a + c_b - 2 * sqrtm(c_a @ c_b).real)
    assert frechet_distance(a, b) == pytest.approx(expected)
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-9)


def test_frechet_distance_of_a_shift_is_its_squared_length_though_a_feature_is_constant():
    a = np.column_stack([RNG.normal(size=100), np.zeros(100)])
    assert frechet_distance(a, a + [3.0, 4.0]) == pytest.approx(25)


def test_distinct_2_counts_bigrams_within_texts():
    assert distinct(["a b a b", "c"], 2) == pytest.approx(2 / 3)
    assert distinct(["a"], 2) == 0
