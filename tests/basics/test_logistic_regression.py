"""Multinomial logistic regression: its gradient is the loss's, its optimum scikit-learn's."""

import numpy as np
import pytest
from scipy.optimize import approx_fprime

from genai.basics.logistic_regression import LogisticRegression, loss_and_gradient
from genai.core.config import UserError
from genai.core.dataset import Description


def problem(n=120):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(n, 1, 2, 2))
    logits = x.reshape(n, 4) @ rng.normal(size=(4, 3)) * 2 + [0, 1, -1]
    return x, (logits + rng.gumbel(size=logits.shape)).argmax(1)


def model(**config):
    return LogisticRegression(
        LogisticRegression.Config(**config), Description(kind="images", shape=[1, 2, 2], classes=["a", "b", "c"])
    )


def test_gradient_agrees_with_finite_differences():
    rng = np.random.default_rng(1)
    x, t = np.column_stack([rng.normal(size=(7, 4)), np.ones(7)]), np.eye(3)[rng.integers(0, 3, 7)]
    w = rng.normal(size=(5, 3))
    numeric = approx_fprime(w.ravel(), lambda v: loss_and_gradient(v.reshape(5, 3), x, t, 0.3)[0], 1e-7)
    np.testing.assert_allclose(loss_and_gradient(w, x, t, 0.3)[1].ravel(), numeric, atol=1e-6)


@pytest.mark.parametrize("l2", [1e-3, 0.1])
def test_probabilities_agree_with_scikit_learn(l2):
    import sklearn.linear_model

    x, y = problem()
    theirs = sklearn.linear_model.LogisticRegression(C=1 / (l2 * len(x)), tol=1e-10, max_iter=10_000)
    expected = theirs.fit(x.reshape(len(x), -1), y).predict_proba(x.reshape(len(x), -1))
    found = model(l2=l2).fit(x, y, seed=0).predict_proba(x)
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_the_unpenalized_bias_makes_mean_probabilities_the_class_frequencies():
    x, y = problem()
    p = model(l2=0.1).fit(x, y, seed=0).predict_proba(x)
    np.testing.assert_allclose(p.sum(1), 1)
    np.testing.assert_allclose(p.mean(0), np.bincount(y) / len(y), atol=1e-5)


def test_too_few_iterations_are_an_error_that_says_so():
    with pytest.raises(UserError, match="max_iterations 2: not converged"):
        model(l2=1e-6, max_iterations=2).fit(*problem(), seed=0)
