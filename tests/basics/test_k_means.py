"""k-means: the seeds, the steps and the inertia are held to enumeration and to scikit-learn."""

import itertools

import numpy as np
import pytest
import sklearn.cluster
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.estimator_checks import check_estimator

from genai.basics import k_means
from genai.basics.k_means import KMeans, first_least, k_means_plus_plus, relative_distances, squared_norms

RNG = np.random.default_rng(0)


def inertia(x, labels):
    return sum(((x[labels == k] - x[labels == k].mean(0)) ** 2).sum() for k in np.unique(labels))


def seeds(x, n_clusters, rng):
    return k_means_plus_plus(x, squared_norms(x, x.mean(0)), x.mean(0), n_clusters, rng)


@pytest.mark.parametrize("k", [4, 40])
@pytest.mark.parametrize("far", [0.0, 1e7])
def test_distances_are_euclidean_far_from_zero_too(k, far):
    x, centers, origin = RNG.normal(size=(60, 3)) + far, RNG.normal(size=(k, 3)) + far, np.full(3, far)
    found = relative_distances(x, centers - origin, origin) + squared_norms(x, origin)
    np.testing.assert_allclose(found, np.linalg.norm(x - centers[:, None], axis=2) ** 2, atol=1e-14 * max(far, 100))


@pytest.mark.parametrize("k", [1, 3, 255, 256, 300])
def test_of_equal_distances_the_first_is_the_least(k):
    distances = RNG.integers(0, max(k // 3, 2), (k, 500)).astype(float)
    labels, least = first_least(distances)
    np.testing.assert_array_equal(labels, distances.argmin(0))
    np.testing.assert_array_equal(least, distances.min(0))


def test_finds_the_best_of_all_partitions_of_a_few_points():
    x = np.random.default_rng(2).normal(size=(9, 2))
    best = min(inertia(x, np.array(labels)) for labels in itertools.product(range(3), repeat=9))
    found = KMeans(3, n_init=20, random_state=0).fit(x)
    assert found.inertia_ == pytest.approx(best) == pytest.approx(inertia(x, found.predict(x)))


@pytest.mark.parametrize("margins_from", [0, np.inf])
@pytest.mark.parametrize("spread", [0, 1, 3])
@pytest.mark.parametrize("tol", [0.0, 1e-3])
@pytest.mark.parametrize("max_iter", [1, 5, 300])
def test_from_the_same_centers_it_ends_where_scikit_learn_ends(margins_from, spread, tol, max_iter, monkeypatch):
    monkeypatch.setattr(k_means, "MANY", margins_from)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(3000, 4)) + spread * rng.normal(size=(12, 4))[rng.integers(0, 12, 3000)]
    same = {"init": x[:12], "n_init": 1, "tol": tol, "max_iter": max_iter}
    ours, theirs = KMeans(12, **same).fit(x), sklearn.cluster.KMeans(12, algorithm="lloyd", **same).fit(x)
    np.testing.assert_allclose(ours.cluster_centers_, theirs.cluster_centers_, rtol=1e-9)
    np.testing.assert_array_equal(ours.labels_, theirs.labels_)
    assert ours.inertia_ == pytest.approx(theirs.inertia_) and ours.n_iter_ == theirs.n_iter_
    np.testing.assert_array_equal(ours.predict(x), ours.labels_)
    np.testing.assert_allclose(ours.transform(x), theirs.transform(x), rtol=1e-6, atol=1e-6)
    assert ours.score(x) == pytest.approx(theirs.score(x)) == pytest.approx(-ours.inertia_)


def test_parts_do_not_change_the_result(monkeypatch):
    x = RNG.normal(size=(2000, 5))
    monkeypatch.setattr(k_means, "MANY", 0)
    whole = KMeans(7, random_state=0).fit(x)
    monkeypatch.setattr(k_means, "parts", lambda n, width: (slice(i, min(i + 17, n)) for i in range(0, n, 17)))
    cut = KMeans(7, random_state=0).fit(x)
    np.testing.assert_allclose(cut.cluster_centers_, whole.cluster_centers_, rtol=1e-12)
    np.testing.assert_array_equal(cut.labels_, whole.labels_)


def test_each_center_is_the_mean_of_its_cluster_and_each_point_with_the_nearest():
    x = load_digits().data
    found = KMeans(10, tol=0.0, random_state=0).fit(x)
    means = np.stack([x[found.labels_ == k].mean(0) for k in range(10)])
    np.testing.assert_allclose(found.cluster_centers_, means, atol=1e-12)
    distances = np.linalg.norm(x[:, None] - found.cluster_centers_, axis=2)
    np.testing.assert_array_equal(found.labels_, distances.argmin(1))


def test_inertia_on_digits_is_not_above_scikit_learns():
    x = load_digits().data
    theirs = sklearn.cluster.KMeans(10, n_init=10, random_state=0).fit(x)
    assert KMeans(10, n_init=10, random_state=0).fit(x).inertia_ <= theirs.inertia_ * 1.001


def test_the_seed_decides_and_labels_do_not():
    x = RNG.normal(size=(100, 2))
    one, same, other = (
        KMeans(7, random_state=seed).fit(x, y).cluster_centers_
        for y, seed in ((None, 0), (np.arange(100), 0), (None, 1))
    )
    np.testing.assert_array_equal(one, same)
    assert not np.array_equal(one, other)


def test_an_empty_cluster_takes_over_the_farthest_point():
    x = np.array([[0.0], [1.0], [2.0], [10.0]])
    found = KMeans(3, init=[[1.0], [100.0], [200.0]]).fit(x)
    assert len(np.unique(found.cluster_centers_)) == 3
    assert found.inertia_ == pytest.approx(0.5)


def test_empty_clusters_end_where_scikit_learns_do():
    x = RNG.normal(size=(400, 3))
    init = np.concatenate([x[:4], [[50.0, 0, 0], [0, 60, 0]]])
    ours, theirs = (cls(6, init=init, n_init=1, tol=0).fit(x) for cls in (KMeans, sklearn.cluster.KMeans))
    assert ours.inertia_ == pytest.approx(theirs.inertia_)


@pytest.mark.parametrize("margins_from", [0, np.inf])
def test_data_far_from_zero_lose_no_digits(margins_from, monkeypatch):
    monkeypatch.setattr(k_means, "MANY", margins_from)
    x = np.round(RNG.normal(size=(500, 3)) * 2**10) / 2**10
    near, far = (KMeans(5, init=x[:5] + c).fit(x + c) for c in (0, 2.0**30))
    np.testing.assert_array_equal(near.labels_, far.labels_)
    assert near.inertia_ == pytest.approx(far.inertia_, rel=1e-6)


def test_second_seed_is_the_best_of_two_draws_in_proportion_to_the_squared_distance():
    x = np.array([[0.0], [1.0], [3.0]])
    rng = np.random.default_rng(0)
    pairs = np.array([seeds(x, 2, rng) for _ in range(6000)])
    assert (pairs[:, 0] == 0).mean() == pytest.approx(1 / 3, abs=0.025)  # 4 standard errors
    second = pairs[pairs[:, 0] == 0, 1]
    assert set(second) == {1, 2}
    assert (second == 1).mean() == pytest.approx(1 / 10**2, abs=0.01)  # both draws, for 1 leaves 4, 2 leaves 1


def test_seeds_are_distinct_rows():
    x = np.repeat(np.arange(9.0), 3)[:, None]
    assert len(np.unique(x[seeds(x, 9, RNG)])) == 9


def test_seeding_beats_random_rows():
    x = RNG.normal(size=(2000, 2)) + 20 * RNG.normal(size=(15, 2))[RNG.integers(0, 15, 2000)]
    found = {
        init: np.mean([KMeans(15, init=init, n_init=1, random_state=s).fit(x).inertia_ for s in range(10)])
        for init in ("k-means++", "random")
    }
    assert found["k-means++"] < found["random"] / 1.5


def test_more_clusters_than_distinct_examples_are_warned_of():
    x = np.array([[0.0, 1], [0, 1], [0, 1], [1, 1]])
    with pytest.warns(ConvergenceWarning, match="n_clusters: 3 should be at most 2"):
        found = KMeans(3, random_state=0).fit(x)
    assert found.inertia_ == 0 and np.isfinite(found.cluster_centers_).all() and found.n_iter_ < 5


def test_what_is_wrong_is_said_in_one_line():
    x = RNG.normal(size=(5, 2))
    with pytest.raises(ValueError, match="n_clusters: 6 should be at most n_samples=5"):
        KMeans(6).fit(x)
    with pytest.raises(ValueError, match=r"init: centers of shape \(3, 2\) should be \(2, 2\)"):
        KMeans(2, init=x[:3]).fit(x)
    with pytest.raises(ValueError, match=r"KMeans.init: 'k-mean' should be 'k-means\+\+' or 'random'"):
        KMeans(2, init="k-mean").fit(x)
    with pytest.raises(ValueError, match="KMeans.n_clusters: 0 should be greater than or equal to 1"):
        KMeans(0).fit(x)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_scikit_learns_own_checks_pass():
    check_estimator(KMeans())
