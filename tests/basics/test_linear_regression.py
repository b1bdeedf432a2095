"""Ridge regression agrees with scikit-learn's, and its gradient vanishes where it stops."""

import numpy as np
import pytest
from sklearn.linear_model import Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from genai.basics.linear_regression import LinearRegression
from genai.core.dataset import Description


def problem():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(80, 5)) * [1, 10, 0.1, 1, 100] + [0, 5, 0, -3, 1000]
    return x, x @ [1, 0.2, 3, 0, 0.01] + rng.normal(size=80)


def fitted(x, y, l2):
    description = Description(kind="table", shape=[x.shape[1]])
    return LinearRegression(LinearRegression.Config(l2=l2), description).fit(x, y, seed=0)


@pytest.mark.parametrize("l2", [1e-8, 1.0, 50.0])
def test_predicts_what_scikit_learns_ridge_predicts(l2):
    x, y = problem()
    ridge = make_pipeline(StandardScaler(), Ridge(alpha=l2)).fit(x, y)
    np.testing.assert_allclose(fitted(x, y, l2).predict(x), ridge.predict(x), rtol=1e-9)


def test_the_gradient_of_the_penalized_loss_vanishes():
    x, y = problem()
    model, z = fitted(x, y, 3.0), (x - x.mean(0)) / x.std(0)
    residual = model.predict(x) - y
    np.testing.assert_allclose(z.T @ residual + 3.0 * model.coef_ * x.std(0), 0, atol=1e-9)
    assert residual.sum() == pytest.approx(0, abs=1e-9)


def test_units_do_not_matter():
    x, y = problem()
    scaled = x * [1000, 1, 0.01, 5, 1] + 7
    np.testing.assert_allclose(fitted(scaled, y, 10.0).predict(scaled), fitted(x, y, 10.0).predict(x), rtol=1e-9)


def test_without_penalty_a_plane_is_found_exactly_despite_constant_and_repeated_features():
    x, _ = problem()
    x = np.column_stack([x, np.ones(80), x[:, 0]])
    y = x @ np.arange(1.0, 8.0) + 4
    model = fitted(x, y, 0.0)
    np.testing.assert_allclose(model.predict(x), y, rtol=1e-9)
    assert model.coef_[5] == 0
    assert model.coef_[0] == pytest.approx(model.coef_[6])  # the least norm shares the weight equally
