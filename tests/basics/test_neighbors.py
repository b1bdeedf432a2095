"""Nearest neighbours: scikit-learn's, to the last one, and by sorting all distances where some are equal."""

import tracemalloc

import numpy as np
import pytest
import sklearn.neighbors
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import check_estimator

from genai.basics import neighbors
from genai.basics.neighbors import KNeighborsClassifier, KNeighborsRegressor, by_comparison, by_tree

SEARCHES = (by_comparison, by_tree)


def gaussian(n, features, seed=0):
    return np.random.default_rng(seed).normal(size=(n, features))


def by_sorting(queries, examples, k):
    """The definition: all distances, equal ones in the order of the examples."""
    squares = ((queries[:, None] - examples) ** 2).sum(2)
    numbers = np.argsort(squares, axis=1, kind="stable")[:, :k]
    return np.sqrt(np.take_along_axis(squares, numbers, 1)), numbers


# No two distances are equal here, in which case scikit-learn leaves open which is taken.
@pytest.mark.parametrize("search", SEARCHES)
@pytest.mark.parametrize("features", [1, 3, 10, 40])
@pytest.mark.parametrize("k", [1, 5, 60])
def test_neighbours_are_scikit_learns(search, features, k):
    queries, examples = gaussian(300, features, 1), gaussian(5000, features)
    distances, numbers = sklearn.neighbors.NearestNeighbors(n_neighbors=k).fit(examples).kneighbors(queries)
    ours = search(queries, examples, k)
    np.testing.assert_array_equal(ours[1], numbers)
    np.testing.assert_allclose(ours[0], distances, rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("search", SEARCHES)
@pytest.mark.parametrize("k", [1, 4, 30])
def test_of_equally_near_examples_the_first_are_taken(search, k):
    rng = np.random.default_rng(0)
    queries, examples = (rng.integers(0, 4, size=(n, 3)).astype(float) for n in (150, 900))  # 64 places: many twins
    for ours, expected in zip(search(queries, examples, k), by_sorting(queries, examples, k), strict=True):
        np.testing.assert_array_equal(ours, expected)


@pytest.mark.parametrize("search", SEARCHES)
def test_all_examples_may_be_asked_for_and_all_may_be_the_same(search):
    queries, examples = gaussian(120, 3), np.ones((40, 3))
    np.testing.assert_array_equal(search(queries, examples, 40)[1], np.tile(np.arange(40), (120, 1)))
    np.testing.assert_array_equal(search(queries, examples, 7)[1], np.tile(np.arange(7), (120, 1)))
    examples = gaussian(40, 3, 5)
    np.testing.assert_array_equal(search(queries, examples, 40)[1], by_sorting(queries, examples, 40)[1])


@pytest.mark.parametrize(
    ("offset", "spread"), [(1e6, 1e-2), (0.0, 1e-25), (0.0, 1e25), (-3e8, 1.0)], ids=["far", "tiny", "huge", "farther"]
)
def test_rounding_in_the_products_misorders_nothing(offset, spread):
    queries, examples = gaussian(200, 20, 1) * spread + offset, gaussian(3000, 20) * spread + offset
    distances, numbers = by_comparison(queries, examples, 5)
    expected = by_sorting(queries, examples, 5)
    np.testing.assert_array_equal(numbers, expected[1])
    np.testing.assert_allclose(distances, expected[0], rtol=1e-12)


def test_clusters_far_apart_for_their_size_are_told_apart_inside():
    """Single precision cannot: their squared distances are 1e-10 of the squares that cancel."""
    rng = np.random.default_rng(0)
    centers = 1000 * rng.normal(size=(5, 12))
    examples, queries = (centers[rng.integers(0, 5, n)] + 1e-2 * rng.normal(size=(n, 12)) for n in (2000, 100))
    np.testing.assert_array_equal(by_comparison(queries, examples, 6)[1], by_sorting(queries, examples, 6)[1])


def test_outliers_among_examples_and_queries_cost_no_neighbour():
    examples, queries = gaussian(5000, 15), gaussian(100, 15, 1)
    examples[[7, 4500]] *= 1e9
    queries[3] *= 1e9
    np.testing.assert_array_equal(by_comparison(queries, examples, 5)[1], by_sorting(queries, examples, 5)[1])


def test_neighbours_do_not_depend_on_how_many_are_compared_at_a_time(monkeypatch):
    queries, examples = gaussian(300, 6, 1).round(1), gaussian(5000, 6).round(1)
    expected = [search(queries, examples, 9) for search in SEARCHES]
    for ours, theirs in zip(*expected, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    monkeypatch.setattr(neighbors, "QUERIES", 7)
    monkeypatch.setattr(neighbors, "EXAMPLES", 333)
    monkeypatch.setattr(neighbors, "VALUES", 50)
    for search, (distances, numbers) in zip(SEARCHES, expected, strict=True):
        again = search(queries, examples, 9)
        np.testing.assert_array_equal(again[0], distances)
        np.testing.assert_array_equal(again[1], numbers)


def test_memory_is_bounded():
    queries, examples = gaussian(4000, 12, 1), gaussian(40_000, 12)
    tracemalloc.start()
    by_comparison(queries, examples, 5)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 30e6 < 4000 * 40_000 * 8 / 40  # all the distances would be 1.28 GB


@pytest.mark.parametrize("weights", ["uniform", "distance"])
@pytest.mark.parametrize("k", [1, 5, 8])
@pytest.mark.parametrize("load", [load_digits, load_breast_cancer])
def test_classes_and_their_shares_are_scikit_learns(load, weights, k):
    X, y = load(return_X_y=True)
    X = X + 1e-3 * gaussian(*X.shape)  # pixels are whole numbers: without this, distances are equal
    ours = KNeighborsClassifier(k, weights=weights).fit(X[::2], y[::2])
    theirs = sklearn.neighbors.KNeighborsClassifier(k, weights=weights).fit(X[::2], y[::2])
    # scikit-learn's distance of an example from itself is a rounding error, ours 0
    np.testing.assert_allclose(ours.predict_proba(X), theirs.predict_proba(X), atol=1e-5)
    np.testing.assert_array_equal(ours.predict(X), theirs.predict(X))
    assert ours.score(X, y) == theirs.score(X, y)


@pytest.mark.parametrize("weights", ["uniform", "distance"])
def test_means_are_scikit_learns(weights):
    X, y = load_diabetes(return_X_y=True)
    X = X + 1e-6 * gaussian(*X.shape)
    ours = KNeighborsRegressor(weights=weights).fit(X[::2], y[::2])
    theirs = sklearn.neighbors.KNeighborsRegressor(weights=weights).fit(X[::2], y[::2])
    np.testing.assert_allclose(ours.predict(X), theirs.predict(X), rtol=1e-9)
    assert ours.score(X, y) == pytest.approx(theirs.score(X, y))


def test_an_example_that_is_met_exactly_decides_alone_and_its_twins_share():
    X, y = np.array([[0.0], [0], [0], [1], [2]]), ["b", "b", "a", "a", "a"]
    shares = KNeighborsClassifier(5, weights="distance").fit(X, y).predict_proba([[0.0], [0.5]])
    np.testing.assert_allclose(shares, [[1 / 3, 2 / 3], [(2 + 2 + 2 / 3) / (8 + 2 / 3), 4 / (8 + 2 / 3)]])


def test_a_grid_search_over_a_pipeline_scores_as_with_scikit_learns():
    X, y = load_breast_cancer(return_X_y=True)
    grid = {"knn__n_neighbors": [1, 9], "knn__weights": ["uniform", "distance"]}
    scores = []
    for module in (neighbors, sklearn.neighbors):
        pipeline = make_pipeline(StandardScaler(), module.KNeighborsClassifier())
        pipeline.steps[-1] = ("knn", pipeline.steps[-1][1])
        scores.append(GridSearchCV(pipeline, grid, cv=3).fit(X, y).cv_results_["mean_test_score"])
    np.testing.assert_allclose(*scores)


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"n_neighbors": 0}, "n_neighbors: 0"), ({"weights": "best"}, "weights: 'best'")],
)
def test_a_keyword_out_of_range_is_named_in_one_line(settings, message):
    with pytest.raises(ValueError, match=message) as error:
        KNeighborsClassifier(**settings).fit(gaussian(20, 2), np.arange(20) % 2)
    assert "\n" not in str(error.value)


def test_more_neighbours_than_examples_are_refused():
    with pytest.raises(ValueError, match="n_neighbors: 5 should be at most 3"):
        KNeighborsRegressor().fit(gaussian(3, 2), np.arange(3)).predict(gaussian(1, 2))


@pytest.mark.parametrize("weights", ["uniform", "distance"])
@pytest.mark.parametrize("cls", [KNeighborsClassifier, KNeighborsRegressor])
def test_it_is_an_estimator_as_scikit_learn_means_it(cls, weights):
    check_estimator(cls(weights=weights), on_skip=None)
