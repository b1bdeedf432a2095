"""k-means against scikit-learn from the same start, against all partitions of nine points, and against plain Lloyd."""

import itertools

import numpy as np
import pytest
import sklearn.cluster
from sklearn.datasets import load_digits, make_blobs
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.estimator_checks import check_estimator

from genai.basics import KMeans
from genai.basics.k_means import k_means_plus_plus, lloyd, squared_distances
from genai.model import state


def inertia(x, labels):
    return sum(((x[labels == c] - x[labels == c].mean(0)) ** 2).sum() for c in np.unique(labels))


def test_it_is_an_estimator_as_scikit_learn_means_it():
    check_estimator(KMeans(n_clusters=3, random_state=0))


def test_of_nine_points_no_partition_is_better():
    x = np.random.default_rng(0).normal(size=(9, 2))
    partitions = (np.array(labels) for labels in itertools.product(range(3), repeat=9))
    best = min(inertia(x, labels) for labels in partitions if len(np.unique(labels)) == 3)
    found = KMeans(3, n_init=50, random_state=0).fit(x)
    assert found.inertia_ == pytest.approx(best) and inertia(x, found.labels_) == pytest.approx(best)


@pytest.mark.parametrize("seed", range(3))
def test_from_the_same_start_it_ends_where_scikit_learn_does(seed):
    x, _ = make_blobs(3000, 6, centers=12, cluster_std=3.0, random_state=seed)
    x += 100  # far from the origin
    theirs = sklearn.cluster.KMeans(10, init=x[:10], n_init=1, tol=0, algorithm="lloyd").fit(x)
    ours = KMeans(10, init=x[:10], tol=0).fit(x)
    np.testing.assert_allclose(ours.cluster_centers_, theirs.cluster_centers_, rtol=1e-9)
    np.testing.assert_array_equal(ours.labels_, theirs.labels_)
    assert ours.inertia_ == pytest.approx(theirs.inertia_, rel=1e-9)
    np.testing.assert_array_equal(ours.predict(x), theirs.predict(x))
    np.testing.assert_allclose(ours.transform(x), theirs.transform(x), atol=1e-6)
    assert ours.score(x) == pytest.approx(theirs.score(x))


def test_the_bounds_leave_nothing_out():
    """Every step is that of Lloyd's algorithm without bounds."""
    x = np.random.default_rng(0).normal(size=(500, 3))
    centers = x[:8]
    for steps in range(1, 15):
        bounded, _, _ = lloyd(x, x[:8], steps)
        labels = squared_distances(x, centers).argmin(1)
        centers = np.stack([x[labels == k].mean(0) for k in range(8)])
        np.testing.assert_allclose(bounded, centers, atol=1e-12)


def test_on_digits_it_is_as_good_as_scikit_learns_within_noise():
    x = load_digits().data
    ours = [KMeans(10, n_init=4, random_state=seed).fit(x).inertia_ for seed in range(5)]
    theirs = [sklearn.cluster.KMeans(10, n_init=4, random_state=seed).fit(x).inertia_ for seed in range(5)]
    assert abs(np.mean(ours) - np.mean(theirs)) < 0.002 * np.mean(theirs)


def test_the_seeds_of_k_means_plus_plus_lie_far_apart():
    x = np.repeat(np.eye(5) * 100, 20, axis=0) + np.random.default_rng(0).normal(size=(100, 5))
    for seed in range(10):
        seeds = k_means_plus_plus(x, 5, np.random.default_rng(seed))
        assert sorted(seeds.argmax(1)) == [0, 1, 2, 3, 4]


def test_an_empty_cluster_takes_the_farthest_point():
    x = np.array([[0.0], [1.0], [2.0], [10.0]])
    centers, labels, _ = lloyd(x, np.array([[1.0], [1.0], [500.0]]), 10)
    assert len(np.unique(labels)) == 3
    assert inertia(x, labels) == pytest.approx(0.5)
    np.testing.assert_allclose(np.sort(centers[:, 0])[-1], 10)


def test_fewer_distinct_examples_than_clusters_are_told():
    x = np.array([[0.0, 1], [0, 1], [1, 1], [1, 1]])
    with pytest.warns(ConvergenceWarning, match="found 2 clusters: fewer examples are distinct"):
        assert KMeans(3, random_state=0).fit(x).inertia_ == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ({"n_clusters": 0}, "KMeans.n_clusters: 0 should be greater than or equal to 1"),
        ({"n_clusters": 9}, "n_samples=4 should be >= n_clusters=9"),
        ({"n_clusters": 2, "init": "k-mean"}, "init: 'k-mean' should be 'k-means.., 'random' or an array"),
        ({"n_clusters": 2, "init": np.zeros((3, 2))}, r"init: centers of shape \(3, 2\) should be \(2, 2\)"),
    ],
)
def test_a_wrong_keyword_is_one_line(numbers, message):
    with pytest.raises(ValueError, match=message):
        KMeans(**numbers).fit(np.arange(8.0).reshape(4, 2))


def test_what_it_learned_is_arrays():
    x = np.random.default_rng(0).normal(size=(50, 4))
    ours = KMeans(3, random_state=0).fit(x)
    other = KMeans(3)
    for name, value in state(ours).items():
        setattr(other, name, value)
    np.testing.assert_array_equal(other.predict(x), ours.predict(x))
