"""Decision trees: splits and small trees held to enumeration, trees, importances and pruning to scikit-learn."""

import itertools

import numpy as np
import pytest
import sklearn.tree
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits, load_iris
from sklearn.utils.estimator_checks import check_estimator

from genai.basics.trees import decision_tree
from genai.basics.trees.decision_tree import DecisionTreeClassifier, DecisionTreeRegressor, midpoints, radix_argsort
from genai.model import state

PAIRS = [
    (DecisionTreeClassifier, sklearn.tree.DecisionTreeClassifier, "gini"),
    (DecisionTreeClassifier, sklearn.tree.DecisionTreeClassifier, "entropy"),
    (DecisionTreeRegressor, sklearn.tree.DecisionTreeRegressor, "squared_error"),
]


def impurity(y, criterion):
    if criterion == "squared_error":
        return np.mean((y - y.mean()) ** 2)
    p = np.bincount(y) / len(y)
    return 1 - (p**2).sum() if criterion == "gini" else -(p[p > 0] * np.log2(p[p > 0])).sum()


def cost(tree):
    """The mean over the training examples of their leaf's impurity."""
    leaf = tree.children_left_ == np.arange(len(tree.feature_))
    return (tree.n_node_samples_ * tree.impurity_)[leaf].sum() / tree.n_node_samples_[0]


def their_cost(tree):
    leaf = tree.tree_.children_left < 0
    return (tree.tree_.n_node_samples * tree.tree_.impurity)[leaf].sum() / tree.tree_.n_node_samples[0]


def problem(criterion, n=200, d=4, seed=0):
    """A table without ties, of values that scikit-learn's float32 holds exactly."""
    rng = np.random.default_rng(seed)
    x = np.array([rng.permutation(n) for _ in range(d)]).T / 8.0
    y = np.sin(x[:, 0]) + 0.1 * x[:, 1] + rng.normal(size=n)
    return x, y if criterion == "squared_error" else np.digitize(y, np.quantile(y, [0.4, 0.7]))


@pytest.mark.parametrize(("ours", "theirs", "criterion"), PAIRS)
@pytest.mark.parametrize("min_samples_leaf", [1, 3])
def test_the_first_split_is_the_best_of_all(ours, theirs, criterion, min_samples_leaf):
    for seed in range(10):
        rng = np.random.default_rng(seed)
        x = rng.integers(0, 6, (12, 3)).astype(float)  # with ties
        y = rng.normal(size=12) if criterion == "squared_error" else rng.integers(0, 3, 12)
        costs = []
        for d, t in itertools.product(range(3), np.arange(5) + 0.5):
            left, right = y[x[:, d] <= t], y[x[:, d] > t]
            if min(len(left), len(right)) >= min_samples_leaf:
                costs.append((len(left) * impurity(left, criterion) + len(right) * impurity(right, criterion)) / 12)
        tree = ours(criterion=criterion, max_depth=1, min_samples_leaf=min_samples_leaf).fit(x, y)
        assert cost(tree) == pytest.approx(min(costs), abs=1e-12)
        assert tree.impurity_[0] == pytest.approx(impurity(y, criterion))


def greedy(x, y, depth):
    """The tree's cost by the definition: each node tries every feature and every midpoint."""
    best, best_parts = np.inf, None
    if depth and len(np.unique(y)) > 1:
        for d in range(x.shape[1]):
            for t in np.unique(x[:, d])[:-1]:
                parts = x[:, d] <= t, x[:, d] > t
                if (value := sum(p.sum() * impurity(y[p], "squared_error") for p in parts)) < best:
                    best, best_parts = value, parts
    if best_parts is None:
        return len(y) * impurity(y, "squared_error")
    return sum(greedy(x[p], y[p], depth - 1) for p in best_parts)


def test_small_trees_are_those_of_the_definition():
    for seed in range(5):
        x, y = problem("squared_error", n=40, d=3, seed=seed)
        assert cost(DecisionTreeRegressor(max_depth=3).fit(x, y)) * 40 == pytest.approx(greedy(x, y, 3))


@pytest.mark.parametrize(("ours", "theirs", "criterion"), PAIRS)
def test_impurity_is_not_above_scikit_learns_at_any_depth(ours, theirs, criterion):
    x, y = problem(criterion)
    for depth in range(1, 6):
        ours_cost = cost(ours(criterion=criterion, max_depth=depth).fit(x, y))
        assert ours_cost <= their_cost(theirs(criterion=criterion, max_depth=depth).fit(x, y)) + 1e-12


@pytest.mark.parametrize("keywords", [{"max_depth": 3}, {"min_samples_leaf": 7}, {"min_samples_split": 30}])
def test_a_regression_tree_without_ties_is_scikit_learns(keywords):
    x, y = problem("squared_error")
    tree = DecisionTreeRegressor(**keywords).fit(x, y)
    theirs = sklearn.tree.DecisionTreeRegressor(**keywords).fit(x, y)
    new = np.random.default_rng(1).uniform(0, 25, (500, 4)).astype(np.float32)
    assert len(tree.feature_) == theirs.tree_.node_count
    np.testing.assert_allclose(tree.predict(new), theirs.predict(new), rtol=1e-12)
    np.testing.assert_allclose(tree.feature_importances_, theirs.feature_importances_, rtol=1e-9)


@pytest.mark.parametrize("criterion", ["gini", "entropy"])
def test_a_shallow_classification_tree_is_scikit_learns(criterion):
    x, y = problem(criterion, n=1000)
    tree = DecisionTreeClassifier(criterion=criterion, max_depth=4).fit(x, y)
    theirs = sklearn.tree.DecisionTreeClassifier(criterion=criterion, max_depth=4).fit(x, y)
    new = np.random.default_rng(1).uniform(0, 125, (500, 4)).astype(np.float32)
    np.testing.assert_allclose(tree.predict_proba(new), theirs.predict_proba(new), rtol=1e-12)
    np.testing.assert_allclose(tree.feature_importances_, theirs.feature_importances_, rtol=1e-9)


@pytest.mark.parametrize(("ours", "theirs", "criterion"), PAIRS)
def test_the_pruning_path_is_scikit_learns(ours, theirs, criterion):
    x, y = problem(criterion, n=400)
    keywords = {"criterion": criterion, "max_depth": 5, "min_samples_leaf": 5}
    path = ours(**keywords).cost_complexity_pruning_path(x, y)
    expected = theirs(**keywords).cost_complexity_pruning_path(x, y)
    np.testing.assert_allclose(path.ccp_alphas, expected.ccp_alphas, atol=1e-12)
    np.testing.assert_allclose(path.impurities, expected.impurities, atol=1e-12)
    for alpha in (path.ccp_alphas[1:] + path.ccp_alphas[:-1])[1::3] / 2:
        pruned = ours(**keywords, ccp_alpha=float(alpha)).fit(x, y)
        assert cost(pruned) == pytest.approx(path.impurities[path.ccp_alphas <= alpha][-1])
        np.testing.assert_allclose(pruned.predict(x), theirs(**keywords, ccp_alpha=alpha).fit(x, y).predict(x))


def test_of_all_subtrees_the_pruned_one_costs_least():
    x, y = problem("squared_error", n=40)
    tree = DecisionTreeRegressor(max_depth=3, min_samples_leaf=2).fit(x, y)
    own = tree.n_node_samples_ / 40 * tree.impurity_

    def subtrees(node):
        """Every way to cut below a node, as (sum of the leaves' costs, number of leaves)."""
        yield own[node], 1
        if (left := tree.children_left_[node]) != node:
            for a, b in itertools.product([*subtrees(left)], [*subtrees(left + 1)]):
                yield a[0] + b[0], a[1] + b[1]

    for alpha in (0.01, 0.05, 0.1, 0.3):
        pruned = DecisionTreeRegressor(max_depth=3, min_samples_leaf=2, ccp_alpha=alpha).fit(x, y)
        penalized = cost(pruned) + alpha * (len(pruned.feature_) + 1) / 2
        assert penalized == pytest.approx(min(c + alpha * leaves for c, leaves in subtrees(0)))


def test_accuracy_is_scikit_learns_on_held_out_digits():
    x, y = load_digits(return_X_y=True)
    score = DecisionTreeClassifier().fit(x[:1200], y[:1200]).score(x[1200:], y[1200:])
    theirs = [sklearn.tree.DecisionTreeClassifier(random_state=s).fit(x[:1200], y[:1200]) for s in range(5)]
    assert score == pytest.approx(np.mean([tree.score(x[1200:], y[1200:]) for tree in theirs]), abs=0.05)


def test_blocks_change_nothing(monkeypatch):
    x, y = load_iris(return_X_y=True)
    whole = state(DecisionTreeClassifier().fit(x, y))
    monkeypatch.setattr(decision_tree, "BLOCK", 16)
    for name, array in state(DecisionTreeClassifier().fit(x, y)).items():
        np.testing.assert_array_equal(array, whole[name])


def test_nodes_that_drew_only_constant_features_draw_again():
    rng = np.random.default_rng(0)
    x = np.zeros((50, 30))
    x[:, 7] = rng.normal(size=50)
    y = rng.integers(0, 2, 50)
    assert DecisionTreeClassifier(max_features=1, random_state=0).fit(x, y).score(x, y) == 1


def test_each_node_draws_its_features_evenly():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(4000, 6)), rng.integers(0, 2, 4000)
    tree = DecisionTreeClassifier(max_features=1, max_depth=9, random_state=0).fit(x, y)
    inner = tree.feature_[tree.children_left_ != np.arange(len(tree.feature_))]
    counts = np.bincount(inner, minlength=6)
    assert np.abs(counts - len(inner) / 6).max() < 4 * np.sqrt(len(inner) * 5 / 36)


def test_the_seed_decides_which_features_are_drawn():
    x, y = load_breast_cancer(return_X_y=True)
    a, b, c = (DecisionTreeClassifier(max_features="sqrt", random_state=s).fit(x, y).feature_ for s in (0, 0, 1))
    np.testing.assert_array_equal(a, b)
    assert not np.array_equal(a, c)


@pytest.mark.parametrize(("max_features", "expected"), [(None, 10), ("sqrt", 3), (4, 4), (0.5, 5), (1, 1), (1.0, 10)])
def test_max_features_as_scikit_learn_means_it(max_features, expected):
    assert decision_tree.share(max_features, 10) == expected


def test_the_cut_between_neighbouring_floats_tells_them_apart():
    low = np.array([1.0, -1.0, 5e-324, 1e308])
    high = np.nextafter(low, np.inf)
    middle = midpoints(low, high)
    assert ((low <= middle) & (middle < high)).all()


def test_radix_order_is_the_stable_order():
    key = np.random.default_rng(0).integers(0, 2**40, 1000) >> 25 << 20 | 5
    np.testing.assert_array_equal(radix_argsort(key), np.argsort(key, kind="stable"))


def test_targets_far_from_zero_or_tiny_are_split_as_others():
    x, y = load_diabetes(return_X_y=True)
    plain = DecisionTreeRegressor().fit(x, y)
    for scale, shift in ((1e-9, 0.0), (1.0, 1e9)):
        moved = DecisionTreeRegressor().fit(x, y * scale + shift)
        assert len(moved.feature_) == pytest.approx(len(plain.feature_), rel=0.01)  # ties are broken by rounding
        np.testing.assert_allclose(moved.predict(x), y * scale + shift, rtol=1e-12)


def test_a_keyword_out_of_range_is_one_line():
    with pytest.raises(ValueError, match=r"^DecisionTreeClassifier.max_depth: 0 should be greater than or equal to 1$"):
        DecisionTreeClassifier(max_depth=0).fit(np.eye(3), [0, 1, 1])


@pytest.mark.parametrize("model", [DecisionTreeClassifier(), DecisionTreeRegressor()])
def test_is_an_estimator_as_scikit_learn_means_it(model):
    check_estimator(model)
