"""Random forests: scikit-learn's quality within noise over seeds, and out-of-bag figures by hand."""

import numpy as np
import pytest
import sklearn.ensemble
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits, load_iris
from sklearn.utils.estimator_checks import check_estimator

from genai.basics.trees.decision_tree import DecisionTreeClassifier, DecisionTreeRegressor
from genai.basics.trees.random_forest import RandomForestClassifier, RandomForestRegressor, bootstrap_counts
from genai.model import state


def within_noise(ours, theirs):
    """The mean difference is below four of its standard errors and a fifth of a percent."""
    difference = np.subtract(ours, theirs)
    return abs(difference.mean()) < 4 * difference.std(ddof=1) / np.sqrt(len(difference)) + 0.002


@pytest.mark.parametrize(
    ("ours", "theirs", "load"),
    [
        (RandomForestClassifier, sklearn.ensemble.RandomForestClassifier, load_breast_cancer),
        (RandomForestClassifier, sklearn.ensemble.RandomForestClassifier, load_digits),
        (RandomForestRegressor, sklearn.ensemble.RandomForestRegressor, load_diabetes),
    ],
)
def test_scores_as_scikit_learns_over_seeds(ours, theirs, load):
    x, y = load(return_X_y=True)
    scores = []
    for seed in range(6):
        order = np.random.default_rng(seed).permutation(len(x))[:800]
        train, test = order[: len(order) // 2], order[len(order) // 2 :]
        pair = ours(30, random_state=seed), theirs(30, random_state=seed)
        scores.append([model.fit(x[train], y[train]).score(x[test], y[test]) for model in pair])
    assert within_noise(*np.transpose(scores)), scores


def test_importances_are_scikit_learns_up_to_noise():
    x, y = load_breast_cancer(return_X_y=True)
    ours = RandomForestClassifier(200, random_state=0).fit(x, y).feature_importances_
    theirs = sklearn.ensemble.RandomForestClassifier(200, random_state=0).fit(x, y).feature_importances_
    assert ours.sum() == pytest.approx(1)
    np.testing.assert_allclose(ours, theirs, atol=0.04)


@pytest.mark.parametrize("n_estimators", [1, 3])
def test_without_chance_every_tree_is_the_decision_tree(n_estimators):
    x, y = load_iris(return_X_y=True)
    forest = RandomForestClassifier(n_estimators, bootstrap=False, max_features=None).fit(x, y)
    tree = state(DecisionTreeClassifier().fit(x, y))
    n = len(tree["feature_"])
    for name, array in state(forest).items():
        if name in ("feature_", "threshold_", "value_", "impurity_", "n_node_samples_"):
            np.testing.assert_array_equal(array, np.concatenate([tree[name]] * n_estimators))
    np.testing.assert_array_equal(forest.offsets_, n * np.arange(n_estimators + 1))


def test_a_tree_that_counts_examples_is_the_tree_of_the_repeated_examples():
    x, y = load_diabetes(return_X_y=True)
    forest = RandomForestRegressor(1, max_features=None, max_depth=3, random_state=3).fit(x, y)
    counts = bootstrap_counts(len(x), 1, np.random.default_rng(3))[0]
    tree = DecisionTreeRegressor(max_depth=3).fit(np.repeat(x, counts, axis=0), np.repeat(y, counts))
    np.testing.assert_allclose(forest.predict(x), tree.predict(x))
    np.testing.assert_array_equal(forest.n_node_samples_, tree.n_node_samples_)


def test_a_bootstrap_sample_draws_n_of_n_and_leaves_out_a_share_of_one_over_e():
    counts = bootstrap_counts(1000, 200, np.random.default_rng(0))
    assert (counts.sum(1) == 1000).all()
    assert (counts == 0).mean() == pytest.approx(np.exp(-1), abs=0.003)


@pytest.mark.parametrize("model", [RandomForestClassifier, RandomForestRegressor])
def test_out_of_bag_is_what_the_trees_say_that_did_not_see_an_example(model):
    x, y = load_iris(return_X_y=True)
    forest = model(5, oob_score=True, random_state=0).fit(x, y)
    counts = bootstrap_counts(len(x), 5, np.random.default_rng(0))  # the first that the seed is used for
    said = [[] for _ in x]
    for t in range(5):
        for i in np.flatnonzero(counts[t] == 0):
            node = forest.offsets_[t]
            while forest.children_left_[node] != node:
                right = x[i, forest.feature_[node]] > forest.threshold_[node]
                node = forest.children_left_[node] + right
            said[i].append(forest.value_[node])
    known = np.array([bool(s) for s in said])
    assert 0 < (~known).sum() < 40
    mean = np.array([np.mean(s, axis=0) for s in said if s])
    found = forest.oob_decision_function_ if model is RandomForestClassifier else forest.oob_prediction_
    assert np.isnan(found[~known]).all()
    np.testing.assert_allclose(found[known], mean)
    if model is RandomForestClassifier:
        assert forest.oob_score_ == (mean.argmax(1) == y[known]).mean()
    else:
        assert forest.oob_score_ == pytest.approx(1 - np.mean((mean - y[known]) ** 2) / y[known].var())


def test_out_of_bag_foretells_the_score_on_test():
    x, y = load_digits(return_X_y=True)
    forest = RandomForestClassifier(100, oob_score=True, random_state=0).fit(x[:1200:2], y[:1200:2])
    assert forest.oob_score_ == pytest.approx(forest.score(x[1:1200:2], y[1:1200:2]), abs=0.03)


def test_out_of_bag_without_bootstrap_is_refused():
    with pytest.raises(ValueError, match="oob_score: True should be False"):
        RandomForestClassifier(bootstrap=False, oob_score=True).fit(np.eye(3), [0, 1, 1])


def test_the_seed_decides():
    x, y = load_iris(return_X_y=True)
    a, b, c = (RandomForestClassifier(5, random_state=s).fit(x, y).predict_proba(x) for s in (0, 0, 1))
    np.testing.assert_array_equal(a, b)
    assert not np.array_equal(a, c)


@pytest.mark.parametrize("model", [RandomForestClassifier(10), RandomForestRegressor(10)])
def test_is_an_estimator_as_scikit_learn_means_it(model):
    check_estimator(model)
