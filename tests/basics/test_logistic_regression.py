"""Logistic regression: its gradient is the loss's, its optimum scikit-learn's, whatever the units of the features."""

import warnings

import numpy as np
import pytest
import sklearn.linear_model
from scipy.optimize import approx_fprime
from scipy.special import log_softmax
from sklearn.datasets import load_breast_cancer, load_digits
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.estimator_checks import check_estimator

from genai.basics.logistic_regression import (
    LogisticRegression,
    loss_and_gradient,
    round_coordinates,
    sigmoid_loss,
    softmax_loss,
)


def problem(n_classes, n=120, d=4):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(n, d))
    logits = X @ rng.normal(size=(d, n_classes)) * 2 + rng.normal(size=n_classes)
    return X, (logits + rng.gumbel(size=logits.shape)).argmax(1)


def objective(m, X, y):
    """Return what scikit-learn's documentation says is minimised."""
    log_p = m.predict_log_proba(X)[np.arange(len(y)), np.searchsorted(m.classes_, y)]
    return (m.coef_**2).sum() / 2 - m.C * log_p.sum()


def test_is_an_estimator_as_scikit_learn_checks_it():
    check_estimator(LogisticRegression())


@pytest.mark.parametrize("n_logits", [1, 3])
def test_gradient_agrees_with_finite_differences(n_logits):
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(700, 4)), rng.integers(0, max(n_logits, 2), 700)
    w = rng.normal(size=(n_logits, 5))
    numeric = approx_fprime(w.ravel(), lambda v: loss_and_gradient(v.reshape(-1, 5), x, y, 0.3)[0], 1e-7)
    np.testing.assert_allclose(loss_and_gradient(w, x, y, 0.3)[1].ravel(), numeric, atol=1e-6)


def test_the_loss_is_the_same_however_many_parts_the_rows_come_in():
    rng = np.random.default_rng(1)
    x, y, w = rng.normal(size=(900, 512)) / 20, rng.integers(0, 3, 900), rng.normal(size=(3, 513))  # four parts
    log_p = log_softmax(x @ w[:, :-1].T + w[:, -1], axis=1)
    expected = -log_p[np.arange(900), y].mean() + 0.15 * (w[:, :-1] ** 2).sum()
    assert loss_and_gradient(w, x, y, 0.3)[0] == pytest.approx(expected, rel=1e-12)


def test_the_sigmoid_is_the_softmax_of_two_classes_one_of_which_has_logit_0():
    z, y = np.array([[-3.0, 0.0, 0.2, 40.0]]), np.array([0, 1, 0, 1])
    loss, gradient = sigmoid_loss(z, y)
    expected, both = softmax_loss(np.vstack([np.zeros(4), z]), y)
    assert loss == pytest.approx(expected, rel=1e-12)
    np.testing.assert_allclose(gradient[0], both[1], rtol=1e-12, atol=1e-15)


def test_the_loss_of_enormous_logits_is_finite():
    z, y = np.array([[-1e4, 1e4, -1e4, 1e4]]), np.array([0, 1, 1, 0])
    loss, gradient = sigmoid_loss(z, y)
    assert loss == pytest.approx(2e4)
    np.testing.assert_allclose(gradient, [[0, 0, -1, 1]])
    assert softmax_loss(np.vstack([np.zeros(4), z]), y)[0] == pytest.approx(2e4)


@pytest.mark.parametrize("fit_intercept", [True, False])
@pytest.mark.parametrize("n_classes", [2, 3, 5])
@pytest.mark.parametrize("C", [1e-3, 1.0, 100.0])
def test_coefficients_and_probabilities_are_scikit_learns(n_classes, C, fit_intercept):
    X, y = problem(n_classes)
    settings = {"C": C, "tol": 1e-9, "max_iter": 10_000, "fit_intercept": fit_intercept}
    ours, theirs = LogisticRegression(**settings).fit(X, y), sklearn.linear_model.LogisticRegression(**settings)
    theirs.fit(X, y)
    assert ours.coef_.shape == theirs.coef_.shape and ours.intercept_.shape == theirs.intercept_.shape
    np.testing.assert_allclose(ours.coef_, theirs.coef_, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(ours.intercept_, theirs.intercept_, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(ours.predict_proba(X), theirs.predict_proba(X), atol=1e-5)
    np.testing.assert_allclose(ours.decision_function(X), theirs.decision_function(X), rtol=1e-3, atol=1e-4)
    assert objective(ours, X, y) <= objective(theirs, X, y) * (1 + 1e-9)


@pytest.mark.parametrize("n_classes", [2, 3])
def test_the_gradient_vanishes_at_the_optimum(n_classes):
    X, y = problem(n_classes)
    ours = LogisticRegression(tol=1e-8).fit(X, y)
    w = np.column_stack([ours.coef_, ours.intercept_])
    np.testing.assert_allclose(loss_and_gradient(w, X, y, 1 / len(X))[1], 0, atol=1e-7)
    p = ours.predict_proba(X)
    np.testing.assert_allclose(p.sum(1), 1)
    np.testing.assert_allclose(p.mean(0), np.bincount(y) / len(y), atol=1e-7)  # the bias is not penalised


def test_more_features_than_examples_are_fitted_as_scikit_learn_fits_them():
    X, y = problem(3, n=40, d=200)
    settings = {"C": 0.5, "tol": 1e-9, "max_iter": 10_000}
    ours, theirs = LogisticRegression(**settings).fit(X, y), sklearn.linear_model.LogisticRegression(**settings)
    np.testing.assert_allclose(ours.coef_, theirs.fit(X, y).coef_, atol=1e-5)


def test_in_round_coordinates_the_curvature_is_the_identity():
    X, y = problem(2, n=300)
    w = np.zeros((1, 5))
    T = round_coordinates(X, np.full((1, 2), 0.5), 0.1, fit_intercept=True)

    def gradient(u):
        return loss_and_gradient(w + u @ T, X, y, 0.1)[1] @ T.T

    hessian = np.vstack([(gradient(e[None]) - gradient(-e[None])) / 2e-5 for e in np.eye(5) * 1e-5])
    np.testing.assert_allclose(hessian, np.eye(5), atol=1e-6)


def test_raw_units_need_few_steps_and_end_where_standardised_features_would_take_scikit_learn():
    X, y = load_breast_cancer(return_X_y=True)  # features from 0.001 to 4,000
    ours = LogisticRegression().fit(X, y)
    assert ours.n_iter_[0] < 40
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        theirs = sklearn.linear_model.LogisticRegression(solver="newton-cholesky", tol=1e-10).fit(X, y)
    assert objective(ours, X, y) <= objective(theirs, X, y) * (1 + 1e-6)


def test_digits_converge_within_the_default_number_of_steps_to_no_higher_a_loss():
    X, y = load_digits(return_X_y=True)  # with constant features
    ours = LogisticRegression(C=10.0).fit(X, y)
    assert ours.n_iter_[0] < 100
    theirs = sklearn.linear_model.LogisticRegression(C=10.0, max_iter=5000).fit(X, y)
    assert objective(ours, X, y) <= objective(theirs, X, y)
    assert ours.score(X, y) == 1


def test_without_a_penalty_to_speak_of_repeated_features_share_the_weight():
    X, y = problem(2)
    ours = LogisticRegression(C=1e6, tol=1e-8).fit(np.column_stack([X, X[:, 0]]), y)
    once = LogisticRegression(C=1e6, tol=1e-8).fit(X, y)
    np.testing.assert_allclose(ours.coef_[0, [0, 4]], once.coef_[0, 0] / 2, rtol=1e-4)


def test_classes_may_be_words_and_certainty_keeps_its_logarithm():
    X, y = problem(2)
    words = np.array(["no", "yes"])[y]
    ours = LogisticRegression().fit(X, words)
    assert set(ours.predict(X)) == {"no", "yes"}
    np.testing.assert_array_equal(ours.predict(X), ours.classes_[ours.predict_proba(X).argmax(1)])
    far = ours.predict_log_proba(1e4 * X)
    assert np.isfinite(far).all() and far.min() < -1000


def test_too_few_steps_warn_and_say_so():
    with pytest.warns(ConvergenceWarning, match="max_iter: after 2 steps the gradient is still .*, above tol 0.0001"):
        ours = LogisticRegression(C=1e6, max_iter=2).fit(*problem(3))
    assert ours.n_iter_ == [2]


@pytest.mark.parametrize("keyword, value", [("C", 0.0), ("tol", 0.0), ("max_iter", 0), ("fit_intercept", "no")])
def test_a_wrong_keyword_is_one_line(keyword, value):
    with pytest.raises(ValueError, match=rf"LogisticRegression.{keyword}: {value!r} ") as error:
        LogisticRegression(**{keyword: value}).fit(*problem(2))
    assert "\n" not in str(error.value)


def test_one_class_is_refused():
    with pytest.raises(ValueError, match="y: the one class 1, should be at least two classes"):
        LogisticRegression().fit(np.eye(3), [1, 1, 1])
