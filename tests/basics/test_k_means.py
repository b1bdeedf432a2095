"""k-means: the seeds, the steps and the inertia are held to enumeration and to scikit-learn."""

import itertools

import numpy as np
import pytest

from genai.basics.k_means import KMeans, k_means_plus_plus, lloyd, squared_distances
from genai.core.config import UserError
from genai.core.dataset import Description


def model(**config):
    return KMeans(KMeans.Config(**config), Description(kind="images", shape=[1, 1, 2], classes=["a", "b"]))


def inertia(x, labels):
    return sum(((x[labels == k] - x[labels == k].mean(0)) ** 2).sum() for k in np.unique(labels))


def test_distances_are_euclidean():
    rng = np.random.default_rng(0)
    x, centers = rng.normal(size=(6, 3)), rng.normal(size=(4, 3))
    expected = np.linalg.norm(x[:, None] - centers, axis=2) ** 2
    np.testing.assert_allclose(squared_distances(x, centers), expected, atol=1e-12)


def test_finds_the_best_of_all_partitions_of_a_few_points():
    x = np.random.default_rng(2).normal(size=(9, 1, 1, 2))
    points = x.reshape(9, 2)
    best = min(inertia(points, np.array(labels)) for labels in itertools.product(range(3), repeat=9))
    found = model(n_clusters=3, n_init=20).fit(x, None, seed=0)
    assert found.inertia_ == pytest.approx(best)
    assert inertia(points, found.predict(x)) == pytest.approx(best)


def test_lloyd_from_the_same_centers_ends_where_scikit_learn_ends():
    import sklearn.cluster

    x = np.random.default_rng(0).normal(size=(300, 4))
    centers, value = lloyd(x, x[:6], 300)
    theirs = sklearn.cluster.KMeans(6, init=x[:6], n_init=1, tol=0, algorithm="lloyd").fit(x)
    np.testing.assert_allclose(centers, theirs.cluster_centers_, rtol=1e-9)
    assert value == pytest.approx(theirs.inertia_)


def test_inertia_on_digits_is_not_above_scikit_learns():
    import sklearn.cluster
    from sklearn.datasets import load_digits

    x = load_digits().data
    theirs = sklearn.cluster.KMeans(10, n_init=10, random_state=0).fit(x)
    found = model(n_clusters=10, n_init=10).fit(x, None, seed=0)
    assert found.inertia_ <= theirs.inertia_ * 1.001


def test_the_seed_decides_and_labels_do_not():
    x = np.random.default_rng(0).normal(size=(100, 1, 1, 2))
    one, same, other = (
        model(n_clusters=7, n_init=1).fit(x, y, seed).cluster_centers_
        for y, seed in ((None, 0), (np.arange(100), 0), (None, 1))
    )
    np.testing.assert_array_equal(one, same)
    assert not np.array_equal(one, other)


def test_an_empty_cluster_takes_over_the_farthest_point():
    x = np.array([[0.0], [1.0], [2.0], [10.0]])
    centers, value = lloyd(x, np.array([[1.0], [100.0], [200.0]]), 300)
    assert len(np.unique(centers)) == 3
    assert value == pytest.approx(0.5)


def test_second_seed_is_drawn_in_proportion_to_the_squared_distance():
    x = np.array([[0.0], [1.0], [3.0]])
    rng = np.random.default_rng(0)
    pairs = np.array([k_means_plus_plus(x, 2, rng)[:, 0] for _ in range(6000)])
    second = pairs[pairs[:, 0] == 0, 1]
    assert (second == 3).mean() == pytest.approx(9 / 10, abs=0.03)  # 4 standard errors


def test_more_clusters_than_distinct_examples_are_refused():
    with pytest.raises(UserError, match="n_clusters 3: should be at most 2"):
        model(n_clusters=3, n_init=1).fit(np.array([[0.0, 1], [0, 1], [1, 1]]), None, 0)
