"""Clusters matched with classes, against the enumeration of all matchings."""

import itertools
from types import SimpleNamespace

import numpy as np
import pytest
from sklearn import metrics as sk

from genai.core.dataset import Description
from genai.tasks.clustering import figures, match, measure

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


def test_the_match_is_one_to_one_and_the_best():
    assert match(np.array([5, 5, 7, 9, 9]), np.array([0, 0, 0, 1, 1])) == {5: 0, 9: 1}


@pytest.mark.parametrize("n_clusters", [1, 3, 30])
def test_fewer_and_more_clusters_than_classes_are_drawn(tmp_path, n_clusters):
    x, y = RNG.random((60, 1, 2, 2), dtype=np.float32), RNG.integers(0, 3, 60)
    _, columns = measure(RNG.integers(0, n_clusters, 60), y)
    description = Description(kind="images", shape=[1, 2, 2], classes=["x", "y", "never"])
    data = SimpleNamespace(description=description, arrays=lambda split: {"x": x, "y": y})
    rows = figures(SimpleNamespace(name="m"), data, columns, tmp_path)["contingency"]
    assert rows[0] == ("class", "cluster") and len(rows) == 1 + len(columns["cluster"])
    assert {path.name for path in tmp_path.iterdir()} == {"contingency.png", "cluster_map.png"}
