"""Histogram boosting: the first trees by hand, splits by enumeration, scikit-learn's quality within noise over seeds."""

import numpy as np
import pytest
import sklearn.ensemble
from scipy.optimize import approx_fprime
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits, load_iris
from sklearn.utils.estimator_checks import check_estimator

from genai.basics.trees import gradient_boosting
from genai.basics.trees.gradient_boosting import (
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    Rules,
    baseline,
    bin_features,
    derivatives,
    grow,
    histogram,
    mean_loss,
    whole,
)
from genai.model import state

BOTH = [HistGradientBoostingClassifier, HistGradientBoostingRegressor]


def within_noise(ours, theirs):
    """The mean difference is below four of its standard errors and half a percent."""
    difference = np.subtract(ours, theirs)
    return abs(difference.mean()) < 4 * difference.std(ddof=1) / np.sqrt(len(difference)) + 0.005


def problem(n=1500, missing=0.0, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 6))
    y = np.sin(2 * x[:, 0]) + x[:, 1] * x[:, 2] + 0.3 * rng.normal(size=n)
    x[rng.random(x.shape) < missing] = np.nan
    return x, y


@pytest.mark.parametrize("n_classes", [0, 2, 3])
def test_derivatives_are_those_of_the_loss(n_classes):
    rng = np.random.default_rng(0)
    raw = rng.normal(size=(5, 3 if n_classes == 3 else 1))
    y = rng.integers(0, n_classes, 5) if n_classes else rng.normal(size=5)
    gradient, hessian = derivatives(raw, y, n_classes)

    def total(flat):
        return mean_loss(flat.reshape(raw.shape), y, n_classes) * len(y)

    np.testing.assert_allclose(gradient.ravel(), approx_fprime(raw.ravel(), total, 1e-7), atol=1e-6)
    step = 1e-5 * np.eye(raw.size)
    second = [
        (derivatives((raw.ravel() + s).reshape(raw.shape), y, n_classes)[0].ravel() @ (s > 0) - gradient.ravel()[i])
        for i, s in enumerate(step)
    ]
    expected = np.ones(raw.size) if hessian is None else hessian.ravel()
    np.testing.assert_allclose(np.array(second) / 1e-5, expected, atol=1e-4)


@pytest.mark.parametrize("n_classes", [0, 2, 3])
def test_no_constant_is_better_than_the_baseline(n_classes):
    rng = np.random.default_rng(0)
    y = (
        rng.choice(n_classes, 50, p=[0.6, 0.3, 0.1][:n_classes] if n_classes == 3 else None)
        if n_classes
        else rng.normal(size=50)
    )
    raw = np.tile(baseline(y, n_classes), (50, 1))
    np.testing.assert_allclose(derivatives(raw, y, n_classes)[0].sum(0), 0, atol=1e-10)


def test_few_distinct_values_get_a_bin_each_and_missing_ones_their_own():
    x = np.array([[3.0], [1.0], [np.nan], [1.0], [7.0]])
    bins = bin_features(x, 255, np.random.default_rng(0))
    assert bins.codes.ravel().tolist() == [1, 0, 3, 0, 2]
    assert bins.edge[:2].tolist() == [2.0, 5.0]
    assert bins.missing.tolist() == [3, 3, 3, 3]


def test_many_values_fill_the_bins_evenly():
    x = np.random.default_rng(0).normal(size=(5000, 3))
    bins = bin_features(x, 50, np.random.default_rng(0))
    counts = np.bincount(bins.codes.ravel(), minlength=150)
    assert counts.min() >= 98 and counts.max() <= 102
    np.testing.assert_array_equal(bins.codes, bins.columns.T + bins.first)
    inside = (x <= bins.edge[bins.codes]) & (x > np.where(bins.columns.T > 0, bins.edge[bins.codes - 1], -np.inf))
    assert inside.all()


@pytest.mark.parametrize("chunk", [8, 2**18])
def test_a_histogram_holds_the_sums_of_each_bin(monkeypatch, chunk):
    monkeypatch.setattr(gradient_boosting, "CHUNK", chunk)
    x, y = problem(100, missing=0.1)
    bins = bin_features(x, 10, np.random.default_rng(0))
    rows = np.random.default_rng(1).choice(100, 60, replace=False)
    stats = np.stack([y, np.ones(100)], axis=1)
    expected = np.zeros((2, len(bins.edge)))
    for i in rows:
        for code in bins.codes[i]:
            expected[:, code] += stats[i]
    np.testing.assert_allclose(histogram(bins, rows, stats), expected, atol=1e-12)


def test_statistics_in_whole_numbers_are_near_and_their_sums_exact():
    stats = np.random.default_rng(0).normal(size=(1000, 3)) * [1e-6, 1.0, 1e9]
    values, units = whole(stats)
    assert (np.abs(values * units - stats) < 1e-12 * np.abs(stats).max(0)).all()
    exact = [sum(map(int, column)) for column in values.T]
    assert values.sum(0).tolist() == values[::-1].cumsum(0)[-1].tolist() == exact
    assert all(sum(abs(int(value)) for value in column) < 2**53 for column in values.T)
    assert not whole(np.zeros((5, 1)))[0].any()


@pytest.mark.parametrize("missing", [0.0, 0.2])
@pytest.mark.parametrize("l2", [0.0, 3.0])
def test_the_split_of_the_root_gains_most_of_all(missing, l2):
    for seed in range(5):
        x, y = problem(80, missing, seed)
        bins = bin_features(x, 12, np.random.default_rng(0))
        h = np.random.default_rng(seed).uniform(0.1, 0.25, 80)
        split = grow(bins, np.stack([y, np.ones(80), h], axis=1), Rules(2, None, 5, l2)).split

        def score(rows, y=y, h=h):
            return y[rows].sum() ** 2 / (h[rows].sum() + l2)

        gains = {}
        for d in range(6):
            edges = bins.edge[bins.feature == d]
            for missing_left in (False, True):
                for edge in edges:
                    left = (x[:, d] <= edge) | (np.isnan(x[:, d]) & missing_left)
                    if 5 <= left.sum() <= 75:
                        gains[d, edge, missing_left] = score(left) + score(~left) - score(left | ~left)
        best = max(gains.values())
        assert split.gain == pytest.approx(best)
        assert gains[bins.feature[split.bin], bins.edge[split.bin], split.missing_left] == pytest.approx(best)


def test_the_first_two_trees_by_hand():
    """Two leaves a tree and 8 examples: each tree is the split of least squares of the residuals, shrunk."""
    x = np.arange(8.0)[:, None]
    y = np.array([0.0, 0, 0, 4, 4, 4, 4, 8])
    keywords = {"max_leaf_nodes": 2, "min_samples_leaf": 1, "learning_rate": 0.5, "early_stopping": False}
    model = HistGradientBoostingRegressor(max_iter=2, **keywords).fit(x, y)
    # mean 3; x <= 2: residual -3; others: (1 + 1 + 1 + 1 + 5) / 5 = 1.8; half of each
    # residuals then: -1.5 three times, 0.1 four times, 4.1: the last alone, or the first three; the last gains more
    first = np.where(x[:, 0] <= 2, 1.5, 3.9)
    left, right = (y - first)[:7].mean(), (y - first)[7]
    np.testing.assert_allclose(model.threshold_[[0, 3]], [2.5, 6.5])
    np.testing.assert_allclose(model.predict(x), first + 0.5 * np.where(x[:, 0] <= 6, left, right))


@pytest.mark.parametrize("l2", [0.0, 5.0])
def test_a_first_tree_for_two_classes_takes_newton_steps(l2):
    x, y = load_breast_cancer(return_X_y=True)
    keywords = {"max_iter": 1, "max_leaf_nodes": 8, "early_stopping": False, "l2_regularization": l2}
    model = HistGradientBoostingClassifier(**keywords).fit(x, y)
    p0 = y.mean()
    step = np.log(model.predict_proba(x)[:, 1] / model.predict_proba(x)[:, 0]) - np.log(p0 / (1 - p0))
    assert 4 < len(np.unique(step.round(9))) <= 8  # pure leaves may agree
    for value in np.unique(step.round(9)):
        leaf = step.round(9) == value
        newton = (y[leaf] - p0).sum() / (leaf.sum() * p0 * (1 - p0) + l2)
        assert value == pytest.approx(0.1 * newton, abs=1e-6)


@pytest.mark.parametrize(
    "keywords",
    [{"max_iter": 1}, {"max_iter": 20}, {"max_iter": 5, "l2_regularization": 10.0}, {"max_iter": 5, "max_depth": 3}],
)
def test_on_a_table_of_few_values_the_prediction_is_scikit_learns(keywords):
    """Where each value has a bin of its own both have the same bins, and without ties the same trees."""
    rng = np.random.default_rng(0)
    x = rng.integers(0, 50, (2000, 4)).astype(float)
    y = x[:, 0] * x[:, 1] + x[:, 2] + rng.normal(size=2000)
    ours = HistGradientBoostingRegressor(early_stopping=False, **keywords).fit(x, y)
    theirs = sklearn.ensemble.HistGradientBoostingRegressor(early_stopping=False, **keywords).fit(x, y)
    np.testing.assert_allclose(ours.predict(x), theirs.predict(x), rtol=1e-4, atol=1e-2)


def test_missing_values_at_training_are_routed_as_scikit_learn_routes_them():
    rng = np.random.default_rng(0)
    x = rng.integers(0, 50, (2000, 4)).astype(float)
    y = x[:, 0] * 10 + x[:, 1] + rng.normal(size=2000)
    x[rng.random(x.shape) < 0.2] = np.nan
    keywords = {"early_stopping": False, "max_iter": 10}
    ours = HistGradientBoostingRegressor(**keywords).fit(x, y)
    theirs = sklearn.ensemble.HistGradientBoostingRegressor(**keywords).fit(x, y)
    np.testing.assert_allclose(ours.predict(x), theirs.predict(x), rtol=1e-4, atol=1e-2)


@pytest.mark.parametrize(
    ("ours", "theirs", "load"),
    [
        (HistGradientBoostingClassifier, sklearn.ensemble.HistGradientBoostingClassifier, load_breast_cancer),
        (HistGradientBoostingClassifier, sklearn.ensemble.HistGradientBoostingClassifier, load_iris),
        (HistGradientBoostingRegressor, sklearn.ensemble.HistGradientBoostingRegressor, load_diabetes),
        (
            HistGradientBoostingRegressor,
            sklearn.ensemble.HistGradientBoostingRegressor,
            lambda return_X_y: problem(1000),
        ),
        (
            HistGradientBoostingRegressor,
            sklearn.ensemble.HistGradientBoostingRegressor,
            lambda return_X_y: problem(1000, missing=0.1),
        ),
    ],
)
def test_scores_as_scikit_learns_over_seeds(ours, theirs, load):
    x, y = load(return_X_y=True)
    scores = []
    for seed in range(4):
        order = np.random.default_rng(seed).permutation(len(x))
        train, test = order[: len(order) // 2], order[len(order) // 2 :]
        pair = ours(max_iter=25, random_state=seed), theirs(max_iter=25, random_state=seed)
        scores.append([model.fit(x[train], y[train]).score(x[test], y[test]) for model in pair])
    assert within_noise(*np.transpose(scores)), scores


@pytest.mark.parametrize("load", [load_breast_cancer, load_iris, load_diabetes])
def test_the_training_loss_falls_with_every_iteration(load):
    x, y = load(return_X_y=True)
    model = (HistGradientBoostingRegressor if load is load_diabetes else HistGradientBoostingClassifier)(max_iter=30)
    model.fit(x, y)
    assert len(model.train_score_) == 31 and model.n_iter_ == 30
    assert (np.diff(model.train_score_) > 0).all()
    if load is load_diabetes:
        assert model.train_score_[-1] == pytest.approx(-np.mean((model.predict(x) - y) ** 2) / 2)
    else:
        assert model.train_score_[-1] == pytest.approx(np.log(model.predict_proba(x)[np.arange(len(y)), y]).mean())


def test_early_stopping_stops_where_ten_iterations_bring_nothing():
    x, y = problem(2000)
    model = HistGradientBoostingRegressor(max_iter=500, learning_rate=0.3, early_stopping=True, random_state=0)
    scores = model.fit(x, y).validation_score_
    assert 10 < model.n_iter_ < 500
    assert len(scores) == len(model.train_score_) == model.n_iter_ + 1
    assert len(model.offsets_) == model.n_iter_ + 1
    assert scores[-10:].max() <= scores[-11] + 1e-7
    for n in range(11, len(scores)):  # and not before
        assert scores[:n][-10:].max() > scores[n - 11] + 1e-7


def test_early_stopping_is_for_more_than_ten_thousand_rows():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(10_001, 1))
    keywords = {"max_iter": 3, "max_leaf_nodes": 2}
    assert len(HistGradientBoostingRegressor(**keywords).fit(x, x[:, 0]).validation_score_) == 4
    assert len(HistGradientBoostingRegressor(**keywords).fit(x[1:], x[1:, 0]).validation_score_) == 0


def test_validation_scores_are_those_of_the_rows_held_out():
    x, y = problem(600, missing=0.2)
    keywords = {"early_stopping": True, "validation_fraction": 0.5, "random_state": 0, "max_iter": 15}
    model = HistGradientBoostingRegressor(n_iter_no_change=50, **keywords).fit(x, y)
    loss = (model.predict(x) - y) ** 2 / 2
    assert -(model.train_score_[-1] + model.validation_score_[-1]) == pytest.approx(2 * loss.mean())


def test_a_missing_value_goes_where_it_helps():
    """Missing means large in the one column, small in the other."""
    rng = np.random.default_rng(0)
    x = rng.uniform(0, 1, (1000, 2))
    y = (x[:, 0] > 0.7).astype(int)
    for d, absent in enumerate((y == 1, y == 0)):
        holed = x.copy()
        holed[:, d] = np.where(absent & (rng.random(1000) < 0.5), np.nan, x[:, 0])
        model = HistGradientBoostingClassifier(max_iter=20).fit(holed, y)
        assert model.predict([[np.nan, 0.5] if d == 0 else [0.5, np.nan]])[0] == (1 if d == 0 else 0)


def test_that_a_value_is_missing_can_be_all_that_matters():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(500, 1))
    x[::3] = np.nan
    y = np.isnan(x[:, 0]).astype(int)
    model = HistGradientBoostingClassifier(max_iter=50).fit(x, y)
    assert (model.predict(x) == y).all()
    assert model.predict([[1e300], [np.nan], [-1e300]]).tolist() == [0, 1, 0]


def test_values_first_missing_at_prediction_go_where_more_examples_went():
    x = np.arange(100.0)[:, None]
    y = (x[:, 0] >= 30).astype(float)
    keywords = {"max_iter": 1, "max_leaf_nodes": 2, "min_samples_leaf": 5}
    model = HistGradientBoostingRegressor(**keywords).fit(x, y)
    assert model.predict([[np.nan]]) == model.predict([[99.0]])
    model.fit(-x, y)
    assert model.predict([[np.nan]]) == model.predict([[-99.0]])


def test_a_tree_has_as_many_leaves_as_allowed_and_no_small_one():
    x, y = problem()
    model = HistGradientBoostingRegressor(max_iter=3, max_leaf_nodes=9, min_samples_leaf=50).fit(x, y)
    assert np.diff(model.offsets_).tolist() == [17, 17, 17]
    _, counts = np.unique(model.predict(x), return_counts=True)
    assert len(HistGradientBoostingRegressor(max_iter=1, max_depth=2).fit(x, y).value_) == 7
    one = HistGradientBoostingRegressor(max_iter=1, max_leaf_nodes=9, min_samples_leaf=50).fit(x, y)
    _, counts = np.unique(one.predict(x), return_counts=True)
    assert len(counts) == 9 and counts.min() >= 50


def test_deep_trees_lose_no_precision():
    """Sums by subtraction and by cumulative sums stay those of the rows."""
    x, y = problem(3000)
    bins = bin_features(x, 255, np.random.default_rng(0))
    stats = np.stack([y, np.ones(3000), np.full(3000, 0.25)], axis=1)
    nodes = [grow(bins, stats, Rules(None, None, 2, 0.0))]
    for node in nodes:
        nodes.extend(node.children)
        np.testing.assert_allclose(node.total, stats[node.rows].sum(0), atol=1e-9)
    assert len(nodes) > 1000


@pytest.mark.parametrize("model", BOTH)
@pytest.mark.parametrize("missing", [False, True])
def test_predicts_from_saved_arrays(model, missing):
    x, y = load_iris(return_X_y=True)
    if missing:
        x[::7, 2] = np.nan
    fitted = model(max_iter=5).fit(x, y)
    fresh = model()
    for name, array in state(fitted).items():
        assert array.dtype.kind in "ifb"
        setattr(fresh, name, array)
    np.testing.assert_array_equal(fresh.predict(x), fitted.predict(x))


def test_digits_are_learned():
    x, y = load_digits(return_X_y=True)
    model = HistGradientBoostingClassifier(max_iter=20, max_leaf_nodes=8).fit(x[:600], y[:600])
    theirs = sklearn.ensemble.HistGradientBoostingClassifier(max_iter=20, max_leaf_nodes=8).fit(x[:600], y[:600])
    assert model.score(x[600:], y[600:]) == pytest.approx(theirs.score(x[600:], y[600:]), abs=0.02)


def test_one_class_is_refused():
    with pytest.raises(ValueError, match="it holds 1 class: 1"):
        HistGradientBoostingClassifier().fit(np.eye(3), [1, 1, 1])


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.SkipTestWarning")
@pytest.mark.parametrize("model", BOTH)
def test_is_an_estimator_as_scikit_learn_means_it(model):
    check_estimator(model(max_iter=10))
