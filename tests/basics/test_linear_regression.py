"""Linear regression is held to scikit-learn's, to the conditions of its minimum, and gradient descent to both."""

import numpy as np
import pytest
import sklearn.linear_model
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.estimator_checks import check_estimator

from genai import model
from genai.basics.linear_regression import ElasticNet, Lasso, LinearRegression, Ridge, gradient_descent, triangle

ALL = [LinearRegression(), Ridge(), Lasso(), ElasticNet()]


def table(n=80, d=5, seed=0):
    """Return features of unlike units and means, and a target that is linear in them but for noise."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, d)) * 10.0 ** rng.uniform(-1, 1, d) + rng.normal(size=d) * 5
    return X, X @ rng.normal(size=d) + rng.normal(size=n)


def ill_conditioned(n=200, d=8, condition=1e5):
    """Return a table of that condition, and a target: the normal equations square the condition."""
    rng = np.random.default_rng(0)
    U = np.linalg.qr(rng.normal(size=(n, d)))[0]
    V = np.linalg.qr(rng.normal(size=(d, d)))[0]
    return U * np.geomspace(1, 1 / condition, d) @ V.T, rng.normal(size=n)


@pytest.mark.parametrize("estimator", ALL, ids=lambda e: type(e).__name__)
def test_is_an_estimator_as_scikit_learn_checks_it(estimator):
    check_estimator(estimator)


@pytest.mark.parametrize("fit_intercept", [True, False])
@pytest.mark.parametrize("shape", [(80, 5), (3000, 7), (40, 1), (12, 30)], ids=str)
def test_least_squares_and_ridge_are_scikit_learns(shape, fit_intercept):
    X, y = table(*shape)
    for ours, theirs in [
        (LinearRegression(fit_intercept=fit_intercept), sklearn.linear_model.LinearRegression),
        *((Ridge(alpha, fit_intercept=fit_intercept), sklearn.linear_model.Ridge) for alpha in (1e-3, 1.0, 50.0)),
    ]:
        expected = theirs(**ours.get_params()).fit(X, y)
        ours.fit(X, y)
        np.testing.assert_allclose(ours.coef_, expected.coef_, rtol=1e-6, atol=1e-9)
        np.testing.assert_allclose(ours.intercept_, expected.intercept_, rtol=1e-6, atol=1e-6)
        np.testing.assert_allclose(ours.predict(X), expected.predict(X), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("shape", [(3000, 7), (12, 30)], ids=str)
def test_several_targets_are_fitted_as_each_would_be_alone(shape):
    X, y = table(*shape)
    Y = np.column_stack([y, X[:, 0] ** 2, -y])
    for estimator in (LinearRegression(), Ridge(2.0)):
        together = estimator.fit(X, Y).predict(X)
        assert estimator.coef_.shape == (3, shape[1]) and estimator.intercept_.shape == (3,)
        for k in range(3):
            np.testing.assert_allclose(together[:, k], estimator.fit(X, Y[:, k]).predict(X), rtol=1e-8, atol=1e-8)


def test_an_ill_conditioned_table_costs_no_digits_that_qr_keeps():
    X, y = ill_conditioned()
    y = X @ np.arange(1.0, 9.0)
    np.testing.assert_allclose(LinearRegression().fit(X, y).coef_, np.arange(1.0, 9.0), rtol=1e-9)
    normal = np.linalg.solve(X.T @ X, X.T @ y)
    assert np.abs(normal - np.arange(1.0, 9.0)).max() > 1e-9  # what it would be without QR


def test_the_smallest_ridge_penalty_is_exact_where_the_normal_equations_are_not():
    X, y = ill_conditioned(condition=1e7)
    U, s, Vt = np.linalg.svd(X, full_matrices=False)
    alpha = 1e-15  # of the order of the smallest squared singular value
    expected = Vt.T @ (s / (s**2 + alpha) * (U.T @ y))
    np.testing.assert_allclose(Ridge(alpha, fit_intercept=False).fit(X, y).coef_, expected, rtol=1e-6)


@pytest.mark.parametrize("estimator", [LinearRegression(), Ridge(0.0), Ridge(1.0)], ids=str)
def test_units_five_orders_apart_cost_no_digits(estimator):
    rng = np.random.default_rng(0)
    X, w = rng.normal(size=(300, 7)) * np.geomspace(1e-3, 1e2, 7), np.geomspace(1e3, 1e-2, 7)
    y = X @ w
    centred = X - X.mean(0)
    U, s, Vt = np.linalg.svd(centred, full_matrices=False)
    alpha = getattr(estimator, "alpha", 0.0)
    expected = Vt.T @ (s / (s**2 + alpha) * (U.T @ (y - y.mean())))
    np.testing.assert_allclose(estimator.fit(X, y).coef_, expected, rtol=1e-8)


@pytest.mark.parametrize("n", [80, 6], ids=["tall", "wide"])
def test_of_all_minima_a_rank_deficient_table_gets_the_least(n):
    X, _ = table(n)
    X = np.column_stack([X, np.ones(n), X[:, 0], X[:, 1] - X[:, 2]])
    y = X @ np.arange(1.0, 9.0) + 4
    ours, theirs = LinearRegression().fit(X, y), sklearn.linear_model.LinearRegression().fit(X, y)
    np.testing.assert_allclose(ours.predict(X), y, rtol=1e-8)
    np.testing.assert_allclose(ours.coef_, theirs.coef_, rtol=1e-6, atol=1e-9)
    assert ours.coef_[5] == pytest.approx(0, abs=1e-12)
    assert ours.coef_[0] == pytest.approx(ours.coef_[6])  # twins share the weight equally
    np.testing.assert_allclose(Ridge(0.0).fit(X, y).coef_, ours.coef_, rtol=1e-6, atol=1e-9)


def test_least_squares_keeps_the_directions_above_tol_and_drops_the_others():
    X, y = ill_conditioned(condition=1e3)
    X -= X.mean(0)
    U, s, Vt = np.linalg.svd(X, full_matrices=False)
    ours = LinearRegression(tol=1e-2, fit_intercept=False).fit(X, y)
    kept = s > 1e-2 * s[0]
    assert 0 < kept.sum() < 8
    np.testing.assert_allclose(ours.coef_, Vt[kept].T @ (U[:, kept].T @ y / s[kept]), rtol=1e-6)


def test_the_triangle_of_parts_is_the_triangle_of_the_whole():
    X, y = table(5000, 6)
    means = (X.mean(0), y.mean(0, keepdims=True))
    R, z = triangle(X, y[:, None], means)
    np.testing.assert_allclose(R.T @ R, (X - means[0]).T @ (X - means[0]), rtol=1e-9)
    np.testing.assert_allclose(R.T @ z[:, 0], (X - means[0]).T @ (y - y.mean()), rtol=1e-7, atol=1e-6)


def test_the_gradient_of_the_penalized_loss_vanishes():
    X, y = table()
    ours = Ridge(3.0).fit(X, y)
    residual = ours.predict(X) - y
    np.testing.assert_allclose(X.T @ residual + 3.0 * ours.coef_, 0, atol=1e-8)
    assert residual.sum() == pytest.approx(0, abs=1e-9)


def test_gradient_descent_reaches_the_closed_form():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(200, 6))
    y = X @ rng.normal(size=6) + rng.normal(size=200)
    losses = [((y - X @ gradient_descent(X, y, n)) ** 2).sum() for n in range(8)]
    assert (np.diff(losses) < 0).all()
    expected = LinearRegression(fit_intercept=False).fit(X, y).coef_
    np.testing.assert_allclose(gradient_descent(X, y, 500), expected, rtol=1e-9)


def test_each_step_of_gradient_descent_shrinks_the_error_along_an_eigenvector_by_its_curvature():
    X, y = ill_conditioned(condition=10)
    _, s, Vt = np.linalg.svd(X, full_matrices=False)
    best = LinearRegression(fit_intercept=False).fit(X, y).coef_
    error = Vt @ (gradient_descent(X, y, 7) - best)
    np.testing.assert_allclose(error, (1 - (s / s[0]) ** 2) ** 7 * (Vt @ -best), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("l1_ratio", [1.0, 0.5, 0.05])
@pytest.mark.parametrize("shape", [(120, 8), (3000, 5), (50, 1), (40, 100)], ids=str)
def test_coordinate_descent_ends_where_scikit_learns_ends(shape, l1_ratio):
    X, y = table(*shape)
    X /= X.std(0)
    for alpha in (0.02, 0.5, 1e6):
        settings = {"alpha": alpha, "l1_ratio": l1_ratio, "tol": 1e-12, "max_iter": 100_000}
        ours, theirs = ElasticNet(**settings).fit(X, y), sklearn.linear_model.ElasticNet(**settings).fit(X, y)
        np.testing.assert_allclose(ours.coef_, theirs.coef_, rtol=1e-6, atol=1e-6)
        np.testing.assert_allclose(ours.intercept_, theirs.intercept_, rtol=1e-6, atol=1e-6)
        np.testing.assert_array_equal(ours.coef_ == 0, theirs.coef_ == 0)
    assert not ours.coef_.any()  # all are 0 where alpha is large


@pytest.mark.parametrize("shape", [(120, 8), (40, 100)], ids=["covariance updates", "residual updates"])
@pytest.mark.parametrize("l1_ratio", [1.0, 0.3])
def test_the_conditions_of_the_minimum_hold(shape, l1_ratio):
    X, y = table(*shape)
    X /= X.std(0)
    alpha = 0.1
    ours = ElasticNet(alpha, l1_ratio=l1_ratio, tol=1e-12, max_iter=100_000).fit(X, y)
    gradient = X.T @ (ours.predict(X) - y) / len(X) + alpha * (1 - l1_ratio) * ours.coef_
    used = ours.coef_ != 0
    assert used.any() and (shape[0] > shape[1] or not used.all())
    np.testing.assert_allclose(gradient[used], -alpha * l1_ratio * np.sign(ours.coef_[used]), atol=1e-6)
    assert (np.abs(gradient[~used]) <= alpha * l1_ratio * (1 + 1e-9)).all()


def test_the_lasso_is_empty_from_the_largest_correlation_on_and_not_before():
    X, y = table(120, 8)
    most = np.abs((X - X.mean(0)).T @ (y - y.mean())).max() / len(X)
    assert not Lasso(most * 1.000001).fit(X, y).coef_.any()
    assert (Lasso(most * 0.999).fit(X, y).coef_ != 0).sum() == 1


def test_ridge_is_least_squares_on_rows_that_want_each_coefficient_to_be_0():
    X, y = table()
    rows, targets = np.vstack([X, np.sqrt(7.0) * np.eye(5)]), np.append(y, np.zeros(5))
    extended = LinearRegression(fit_intercept=False).fit(rows, targets)
    np.testing.assert_allclose(Ridge(7.0, fit_intercept=False).fit(X, y).coef_, extended.coef_, rtol=1e-8)


def test_the_duality_gap_bounds_how_far_the_objective_is_from_its_minimum():
    X, y = table(300, 12)

    def objective(m):
        return ((y - m.predict(X)) ** 2).mean() / 2 + 0.05 * (
            m.l1_ratio * np.abs(m.coef_).sum() + (1 - m.l1_ratio) / 2 * (m.coef_**2).sum()
        )

    for l1_ratio in (1.0, 0.4):
        best = objective(ElasticNet(0.05, l1_ratio=l1_ratio, tol=1e-13, max_iter=100_000).fit(X, y))
        for tol in (1e-1, 1e-3, 1e-6):
            ours = ElasticNet(0.05, l1_ratio=l1_ratio, tol=tol).fit(X, y)
            assert objective(ours) - best <= ours.dual_gap_ + 1e-12
            assert ours.dual_gap_ <= tol * y.var()


def test_the_lasso_makes_the_same_sweeps_as_scikit_learns_on_a_tall_table():
    X, y = table(300, 12)
    ours, theirs = Lasso(0.05).fit(X, y), sklearn.linear_model.Lasso(0.05).fit(X, y)
    assert ours.n_iter_ == theirs.n_iter_ > 1
    assert ours.dual_gap_ == pytest.approx(theirs.dual_gap_, rel=1e-6)


def test_the_lasso_without_an_intercept_is_scikit_learns():
    X, y = table(300, 12)
    settings = {"alpha": 0.05, "fit_intercept": False, "tol": 1e-12, "max_iter": 100_000}
    ours, theirs = Lasso(**settings).fit(X, y), sklearn.linear_model.Lasso(**settings).fit(X, y)
    np.testing.assert_allclose(ours.coef_, theirs.coef_, rtol=1e-6)
    assert ours.intercept_ == 0


def test_too_few_sweeps_warn_with_what_is_left():
    X, y = table(300, 12)
    with pytest.warns(ConvergenceWarning, match="max_iter: 2 sweeps leave a duality gap of .*, above .*"):
        ours = Lasso(0.001, max_iter=2, tol=1e-10).fit(X, y)
    assert ours.n_iter_ == 2


def test_constant_and_repeated_features_and_a_constant_target_are_no_trouble():
    X, y = table(60, 4)
    X = np.column_stack([X, np.full(60, 3.0), np.zeros(60), X[:, 0]])
    for estimator in (Lasso(0.01, max_iter=10_000), ElasticNet(0.01, max_iter=10_000)):
        ours = estimator.fit(X, y)
        np.testing.assert_allclose(ours.coef_[4:6], 0, atol=1e-9)
        np.testing.assert_allclose(estimator.fit(X, np.full(60, 2.0)).predict(X), 2.0)


@pytest.mark.parametrize(
    "estimator, line",
    [
        (Ridge(-1.0), "Ridge.alpha: -1.0 "),
        (Lasso(0.0), "Lasso.alpha: 0.0 "),
        (ElasticNet(l1_ratio=1.5), "ElasticNet.l1_ratio: 1.5 "),
        (LinearRegression(tol=1.0), "LinearRegression.tol: 1.0 "),
        (Lasso(max_iter=0), "Lasso.max_iter: 0 "),
    ],
)
def test_a_wrong_keyword_is_one_line(estimator, line):
    with pytest.raises(ValueError, match=line) as error:
        estimator.fit(*table())
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("estimator", ALL, ids=lambda e: type(e).__name__)
def test_what_is_learned_is_arrays_that_another_instance_predicts_from(estimator):
    X, y = table()
    expected = estimator.fit(X, y).predict(X)
    fresh = type(estimator)()
    for name, array in model.state(estimator).items():
        assert array.dtype.kind in "fi"
        setattr(fresh, name, array)
    np.testing.assert_array_equal(fresh.predict(X), expected)


def test_memory_of_a_tall_table_is_bounded():
    import tracemalloc

    X, y = np.random.default_rng(0).normal(size=(200_000, 20)), np.zeros(200_000)
    y[::2] = 1
    for estimator in (LinearRegression(), Ridge(), Lasso(0.001), ElasticNet(0.001)):
        tracemalloc.start()
        estimator.fit(X, y)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < X.nbytes / 4  # columns of N are copied, the table is not
