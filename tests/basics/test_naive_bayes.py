"""Naive Bayes is held to scikit-learn's, to the definition by densities, and to counting by hand."""

import numpy as np
import pytest
import sklearn.naive_bayes
from scipy.stats import norm
from sklearn.utils.estimator_checks import check_estimator

from genai.basics.naive_bayes import GaussianNB, MultinomialNB


def table(n=300, d=6, n_classes=4):
    """Return features of unlike units and means, and classes of unlike frequencies."""
    rng = np.random.default_rng(0)
    y = rng.choice(n_classes, n, p=np.arange(1, n_classes + 1) / np.arange(1, n_classes + 1).sum())
    X = rng.normal(size=(n, d)) * rng.uniform(0.5, 2, (n_classes, d))[y] + rng.normal(size=(n_classes, d))[y]
    return X * np.geomspace(0.01, 100, d) + np.linspace(0, 1000, d), y * 3 + 1


def counts():
    X, y = table()
    return np.random.default_rng(1).poisson(np.exp(np.sin(X)) + (y[:, None] + np.arange(6)) % 5), y


@pytest.mark.parametrize("estimator", [GaussianNB(), MultinomialNB()], ids=lambda e: type(e).__name__)
def test_is_an_estimator_as_scikit_learn_checks_it(estimator):
    check_estimator(estimator)


@pytest.mark.parametrize(
    "settings", [{}, {"var_smoothing": 0.0}, {"var_smoothing": 0.1}, {"priors": [0.1, 0.2, 0.3, 0.4]}], ids=str
)
def test_gaussian_is_scikit_learns(settings):
    X, y = table()
    ours, theirs = GaussianNB(**settings).fit(X, y), sklearn.naive_bayes.GaussianNB(**settings).fit(X, y)
    for name in ("classes_", "class_count_", "class_prior_", "theta_", "var_", "epsilon_"):
        np.testing.assert_allclose(getattr(ours, name), getattr(theirs, name), rtol=1e-9, err_msg=name)
    np.testing.assert_allclose(ours.predict_log_proba(X), theirs.predict_log_proba(X), rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(ours.predict_proba(X), theirs.predict_proba(X), rtol=1e-9, atol=1e-12)
    np.testing.assert_array_equal(ours.predict(X), theirs.predict(X))


@pytest.mark.parametrize("alpha", [1e-3, 1.0, 20.0])
def test_multinomial_is_scikit_learns(alpha):
    X, y = counts()
    ours, theirs = MultinomialNB(alpha=alpha).fit(X, y), sklearn.naive_bayes.MultinomialNB(alpha=alpha).fit(X, y)
    for name in ("classes_", "class_count_", "feature_count_", "class_log_prior_", "feature_log_prob_"):
        np.testing.assert_allclose(getattr(ours, name), getattr(theirs, name), rtol=1e-9, err_msg=name)
    np.testing.assert_allclose(ours.predict_log_proba(X), theirs.predict_log_proba(X), rtol=1e-9, atol=1e-9)
    np.testing.assert_array_equal(ours.predict(X), theirs.predict(X))


def test_gaussian_is_bayes_rule_on_normal_densities():
    X, y = table(60, 2, 2)
    ours = GaussianNB(var_smoothing=0.0).fit(X, y)
    classes = [X[y == c] for c in ours.classes_]
    joint = [len(c) / len(y) * norm.pdf(X, c.mean(0), c.std(0)).prod(1) for c in classes]
    np.testing.assert_allclose(ours.predict_proba(X)[:, 1], joint[1] / (joint[0] + joint[1]), rtol=1e-9)


def test_gaussian_classes_of_equal_variances_have_log_odds_that_are_linear():
    X, y = table(300, 3, 2)
    ours = GaussianNB().fit(X, y)
    ours.var_ = np.tile(ours.var_.mean(0), (2, 1))  # as linear discriminant analysis has it, its covariance diagonal
    log_p = ours.predict_log_proba(X)
    w = (ours.theta_[1] - ours.theta_[0]) / ours.var_[0]
    b = np.log(ours.class_prior_[1] / ours.class_prior_[0]) - w @ ours.theta_.mean(0)
    np.testing.assert_allclose(log_p[:, 1] - log_p[:, 0], X @ w + b, rtol=1e-9, atol=1e-9)


def test_the_variance_is_exact_where_the_mean_is_a_million_deviations():
    X, y = table(400, 3, 2)
    shifted = (X - X.mean(0)) / X.std(0) + 1e6
    ours = GaussianNB(var_smoothing=0.0).fit(shifted, y)
    np.testing.assert_allclose(ours.var_, [shifted[y == c].var(0) for c in ours.classes_], rtol=1e-9)


def test_multinomial_counts_words_and_adds_alpha_to_each():
    # two words in two classes, counted by hand
    ours = MultinomialNB(alpha=1.0).fit([[3, 0], [1, 1], [0, 2]], ["spam", "spam", "ham"])
    np.testing.assert_allclose(np.exp(ours.feature_log_prob_), [[1 / 4, 3 / 4], [5 / 7, 2 / 7]])
    joint = np.array([1 / 3 * (3 / 4), 2 / 3 * (2 / 7)])
    np.testing.assert_allclose(ours.predict_proba([[0, 1]])[0], joint / joint.sum())
    assert ours.predict([[0, 1]]) == "ham"


def test_probabilities_are_finite_however_far_the_example():
    X, y = table()
    p = GaussianNB().fit(X, y).predict_proba(X * 1e3)
    np.testing.assert_allclose(p.sum(1), 1)


def test_a_class_of_prior_0_is_never_predicted():
    X, y = table()
    p = GaussianNB(priors=[0.0, 0.5, 0.25, 0.25]).fit(X, y).predict_proba(X)
    assert (p[:, 0] == 0).all() and np.isfinite(p).all()


def test_a_table_of_many_parts_is_the_small_one_repeated():
    X, y = table()
    for one, x, many in (
        (GaussianNB(), X, GaussianNB()),
        (MultinomialNB(alpha=1.0), counts()[0], MultinomialNB(alpha=200.0)),  # of 200 times the counts
    ):
        expected = one.fit(x, y).predict_proba(x)
        found = many.fit(np.tile(x, (200, 1)), np.tile(y, 200)).predict_proba(np.tile(x, (200, 1)))
        np.testing.assert_allclose(found, np.tile(expected, (200, 1)), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    "estimator, line",
    [
        (GaussianNB(var_smoothing=-1.0), "GaussianNB.var_smoothing: -1.0 "),
        (GaussianNB(priors=[0.5, 0.5]), r"priors: \[0.5, 0.5\], should be 4 numbers, one a class, of sum 1"),
        (GaussianNB(priors=[0.5, 0.5, 0.5, 0.5]), "of sum 1"),
        (MultinomialNB(alpha=0.0), "MultinomialNB.alpha: 0.0 "),
    ],
)
def test_a_wrong_keyword_is_one_line(estimator, line):
    X, y = counts()
    with pytest.raises(ValueError, match=line) as error:
        estimator.fit(X, y)
    assert "\n" not in str(error.value)


def test_a_feature_without_variance_is_named_where_nothing_smooths_it():
    X, y = table()
    X[y == 7, 2] = 5.0
    with pytest.raises(ValueError, match="var_smoothing: 0.0 leaves feature 2 of class 7 no variance"):
        GaussianNB(var_smoothing=0.0).fit(X, y)
    assert GaussianNB().fit(X, y).score(X, y) > 0.5


def test_negative_counts_are_refused():
    X, y = counts()
    X[3, 2] = -1
    with pytest.raises(ValueError, match="Negative values in data passed to MultinomialNB"):
        MultinomialNB().fit(X, y)
