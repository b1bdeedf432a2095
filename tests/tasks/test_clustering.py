"""Clusters matched with classes, against the enumeration of all matchings."""

import itertools

import numpy as np
import pytest
from sklearn import metrics as sk

from genai.tasks.clustering import measure

RNG = np.random.default_rng(0)


def test_the_accuracy_is_the_best_of_all_matchings():
    y, clusters = RNG.integers(0, 4, 80), RNG.integers(0, 4, 80)
    figures, columns = measure(clusters, y)
    best = max(np.mean(np.array(match)[clusters] == y) for match in itertools.permutations(range(4)))
    assert figures["clustering_accuracy"] == pytest.approx(best) == pytest.approx(1 - columns["score"].mean())
    assert figures["nmi"] == pytest.approx(sk.normalized_mutual_info_score(y, clusters))


def test_more_clusters_than_classes_leave_some_unmatched():
    y = np.array([0, 0, 0, 1, 1, 1])
    figures, columns = measure(np.array([5, 5, 7, 9, 9, 9]), y)
    assert figures["clustering_accuracy"] == pytest.approx(5 / 6)
    assert columns["score"].tolist() == [0, 0, 1, 0, 0, 0]
