"""The support vector machine: exact on a few points, optimal by its KKT conditions, and scikit-learn's beside it."""

import warnings

import numpy as np
import pytest
import sklearn.svm
from sklearn.datasets import load_breast_cancer, load_digits
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import check_estimator

from genai.basics.svm import RBF, SVC, Linear, newton, rbf, solve_dual, squared_distances
from genai.model import state


def overlapping(n=600, features=5, classes=2, seed=0):
    """Four Gaussians a class, so that the margin is trespassed by some and the boundary is curved."""
    rng = np.random.default_rng(seed)
    group = rng.integers(0, 4 * classes, n)
    return rng.normal(size=(4 * classes, features))[group] + 0.7 * rng.normal(size=(n, features)), group % classes


def kernel_matrix(model, a, b):
    return a @ b.T if model.kernel == "linear" else rbf(a, b, model.gamma_)


def dual(model, fitted):
    """sum_s alpha_s - alpha.Q alpha / 2 of what was fitted to two classes, by the kernel of model."""
    beta, vectors = fitted.dual_coef_[0], fitted.support_vectors_
    return abs(beta).sum() - beta @ kernel_matrix(model, vectors, vectors) @ beta / 2


@pytest.mark.parametrize("kernel", ["linear", "rbf"])
@pytest.mark.parametrize("C", [0.1, 1.0, 100.0])
def test_dual_objective_and_support_are_scikit_learns(kernel, C):
    X, y = overlapping()
    ours = SVC(kernel=kernel, C=C, tol=1e-6).fit(X, y)
    theirs = sklearn.svm.SVC(kernel=kernel, C=C, tol=1e-6, gamma=ours.gamma_).fit(X, y)
    assert dual(ours, ours) == pytest.approx(dual(ours, theirs), rel=1e-7)
    np.testing.assert_array_equal(ours.support_, theirs.support_)
    np.testing.assert_array_equal(ours.n_support_, theirs.n_support_)
    np.testing.assert_allclose(ours.dual_coef_, theirs.dual_coef_, atol=1e-3 * C)
    atol = 1e-4 + 1e-5 * C  # libsvm rounds the kernel to single precision
    np.testing.assert_allclose(ours.intercept_, theirs.intercept_, atol=atol)
    np.testing.assert_allclose(ours.decision_function(X), theirs.decision_function(X), atol=atol)


@pytest.mark.parametrize("kernel", ["linear", "rbf"])
def test_the_karush_kuhn_tucker_conditions_hold_within_tol(kernel):
    X, y = overlapping()
    model = SVC(kernel=kernel, C=2.0, tol=1e-4).fit(X, y)
    alpha = np.zeros(len(X))
    alpha[model.support_] = abs(model.dual_coef_[0])
    margin = np.where(y == 1, 1, -1) * model.decision_function(X)
    assert (alpha >= 0).all() and (alpha <= 2.0).all()
    assert model.dual_coef_.sum() == pytest.approx(0, abs=1e-9)
    assert (margin[alpha == 0] >= 1 - 1e-4).all()  # outside of the margin: no support
    assert (margin[alpha == 2.0] <= 1 + 1e-4).all()  # trespassing: at the bound
    np.testing.assert_allclose(margin[(alpha > 0) & (alpha < 2.0)], 1, atol=1e-4)  # on it: between


def test_features_of_very_different_scale_leave_no_gap_between_primal_and_dual():
    X, y = load_breast_cancer(return_X_y=True)
    model = SVC(kernel="linear").fit(X, y)
    hinge = np.maximum(0, 1 - np.where(y == 1, 1, -1) * model.decision_function(X))
    assert (model.coef_**2).sum() / 2 + hinge.sum() == pytest.approx(dual(model, model), rel=1e-5)


def test_two_points_have_their_perpendicular_bisector():
    X, y = np.array([[0.0, 0], [3, 4]]), [0, 1]
    model = SVC(kernel="linear", C=10.0, tol=1e-9).fit(X, y)
    np.testing.assert_allclose(model.coef_, [[2 * 3 / 25, 2 * 4 / 25]])  # w = 2 (a - b) / |a - b|^2
    np.testing.assert_allclose(model.intercept_, [-1])
    np.testing.assert_allclose(model.dual_coef_, [[-2 / 25, 2 / 25]])
    np.testing.assert_allclose(model.decision_function(X), [-1, 1])


def test_of_three_points_on_a_line_the_nearer_two_decide_and_the_far_one_is_no_support():
    model = SVC(kernel="linear", C=10.0, tol=1e-9).fit([[-5.0], [0], [1]], [0, 0, 1])
    np.testing.assert_array_equal(model.support_, [1, 2])
    np.testing.assert_allclose(model.coef_, [[2.0]])
    np.testing.assert_allclose(model.intercept_, [-1.0])


def test_where_c_is_small_both_points_are_at_the_bound():
    model = SVC(kernel="linear", C=0.25, tol=1e-9).fit([[-1.0], [1]], [0, 1])
    np.testing.assert_allclose(model.dual_coef_, [[-0.25, 0.25]])  # alpha = min(C, 2 / |a - b|^2)
    np.testing.assert_allclose(model.coef_, [[0.5]])


def test_exclusive_or_by_the_rbf_kernel_has_equal_weights_in_closed_form():
    X, y = np.array([[0.0, 0], [1, 1], [0, 1], [1, 0]]), [0, 0, 1, 1]
    model = SVC(gamma=1.0, C=100.0, tol=1e-9).fit(X, y)
    alpha = 1 / (1 + np.exp(-2) - 2 * np.exp(-1))  # alpha (1 + K(diagonal) - 2 K(side)) = 1, by symmetry
    np.testing.assert_allclose(model.dual_coef_, [[-alpha, -alpha, alpha, alpha]], rtol=1e-6)
    np.testing.assert_allclose(model.intercept_, [0], atol=1e-9)


@pytest.mark.parametrize("kernel", ["linear", "rbf"])
def test_a_small_working_set_reaches_the_same_optimum_as_one_of_all(kernel):
    X, y = overlapping(900)
    settings = {"kernel": kernel, "C": 3.0, "tol": 1e-6}
    small, whole = SVC(**settings, cache_size=0.03).fit(X, y), SVC(**settings).fit(X, y)  # 62 variables of 900
    np.testing.assert_allclose(small.decision_function(X), whole.decision_function(X), atol=1e-4)
    np.testing.assert_array_equal(small.support_, whole.support_)


def test_newton_reaches_the_stationary_point_of_the_free_variables_where_the_box_is_wide():
    X, y = overlapping(12)
    sign = np.where(y == 1, 1.0, -1.0)
    k = rbf(X, X, 0.5)
    beta, g = np.zeros(12), sign.copy()
    assert newton(2 - 2 * k, g, beta, np.full(12, -99.0), np.full(12, 99.0)) == 1
    assert beta.sum() == pytest.approx(0, abs=1e-9)
    np.testing.assert_allclose(sign - k @ beta, (sign - k @ beta).mean(), atol=1e-5)  # the gradient along the plane
    np.testing.assert_allclose(np.diff(g), np.diff(sign - k @ beta), atol=1e-9)


def test_newton_stays_within_the_box_and_never_lowers_the_objective():
    X, y = overlapping(80)
    sign, k = np.where(y == 1, 1.0, -1.0), rbf(X, X, 0.5)
    beta, lower, upper = 0.05 * sign * (np.bincount(y)[1 - y] / 40), np.minimum(0, sign), np.maximum(0, sign)
    beta -= beta.mean()
    g, new = sign - k @ beta, beta.copy()
    assert newton(2 - 2 * k, g, new, lower, upper) >= 1
    assert (new >= lower).all() and (new <= upper).all() and new.sum() == pytest.approx(0, abs=1e-9)
    assert sign @ new - new @ k @ new / 2 > sign @ beta - beta @ k @ beta / 2
    np.testing.assert_allclose(g - (sign - k @ new), (g - (sign - k @ new)).mean(), atol=1e-9)


def test_both_kernels_give_distances_and_products_of_their_matrix():
    X = np.random.default_rng(0).normal(size=(30, 4)) + 100
    room = np.empty(900)
    for kernel, k in ((Linear(X, room), X @ X.T), (RBF(X, room, 0.3), rbf(X, X, 0.3))):
        expected = np.diag(k)[:, None] + np.diag(k) - 2 * k
        for chosen in (np.array([3, 7, 20]), np.arange(30)):
            change = np.resize([0.5, -0.7, 0.2], len(chosen))
            s = kernel.distances(chosen)
            np.testing.assert_allclose(s, expected[np.ix_(chosen, chosen)], atol=1e-9)
            np.testing.assert_allclose(kernel.product(chosen, change, s), k[:, chosen] @ change, atol=1e-9)


def test_distances_are_exact_far_from_the_origin():
    x = np.random.default_rng(0).normal(size=(20, 3)) + 1e6
    expected = ((x[:, None] - x) ** 2).sum(2)
    np.testing.assert_allclose(squared_distances(x, x), expected, atol=1e-12, rtol=1e-9)


@pytest.mark.parametrize("settings", [{}, {"kernel": "linear"}, {"C": 10.0, "gamma": "auto"}])
def test_digits_are_predicted_as_by_scikit_learn(settings):
    X, y = load_digits(return_X_y=True)
    ours, theirs = SVC(**settings).fit(X[::2], y[::2]), sklearn.svm.SVC(**settings).fit(X[::2], y[::2])
    np.testing.assert_array_equal(ours.predict(X), theirs.predict(X))
    ours.set_params(decision_function_shape="ovo"), theirs.set_params(decision_function_shape="ovo")
    np.testing.assert_allclose(ours.decision_function(X), theirs.decision_function(X), atol=5e-3)
    if settings == {"kernel": "linear"}:
        np.testing.assert_allclose(ours.coef_, theirs.coef_, atol=1e-3)


def test_the_votes_of_many_classes_are_counted_as_scikit_learn_counts_them():
    X, y = overlapping(400, classes=5)
    ours, theirs = SVC(tol=1e-8).fit(X, y), sklearn.svm.SVC(tol=1e-8).fit(X, y)
    np.testing.assert_allclose(ours.decision_function(X), theirs.decision_function(X), atol=1e-5)
    np.testing.assert_array_equal(ours.predict(X), theirs.predict(X))
    assert ours.dual_coef_.shape == theirs.dual_coef_.shape
    np.testing.assert_allclose(ours.dual_coef_, theirs.dual_coef_, atol=1e-4)
    np.testing.assert_allclose(ours.intercept_, theirs.intercept_, atol=1e-5)


def test_what_was_learned_is_arrays_that_a_fresh_instance_predicts_from():
    X, y = overlapping(200, classes=3)
    for settings in ({}, {"kernel": "linear"}):
        fitted, fresh = SVC(**settings).fit(X, y), SVC(**settings)
        for key, array in state(fitted).items():
            assert array.dtype != object
            setattr(fresh, key, array)
        np.testing.assert_array_equal(fresh.predict(X), fitted.predict(X))
        np.testing.assert_array_equal(fresh.decision_function(X), fitted.decision_function(X))


def test_repeated_and_contradicting_examples_are_borne():
    X, y = np.repeat([[0.0], [1.0]], 20, axis=0), np.tile([0, 1, 1, 1], 10)
    model = SVC(kernel="linear").fit(X, y)
    assert np.isfinite(model.decision_function(X)).all()
    assert (model.predict(X) == 1).all()


def test_a_grid_search_over_a_pipeline_chooses_what_scikit_learns_own_would():
    X, y = load_breast_cancer(return_X_y=True)
    grids = []
    for svc, prefix in ((SVC(), "svc"), (sklearn.svm.SVC(), "svc")):
        search = GridSearchCV(
            make_pipeline(StandardScaler(), svc), {f"{prefix}__C": [0.1, 10.0], f"{prefix}__gamma": [0.01, 0.3]}, cv=3
        )
        grids.append(search.fit(X[::2], y[::2]))
    assert grids[0].best_params_ == grids[1].best_params_
    np.testing.assert_allclose(grids[0].cv_results_["mean_test_score"], grids[1].cv_results_["mean_test_score"])


def test_max_iter_ends_it_with_a_warning_and_enough_does_not_warn():
    X, y = overlapping()
    with pytest.warns(ConvergenceWarning, match="max_iter: 10 steps"):
        assert SVC(max_iter=10).fit(X, y).n_iter_.max() <= 10
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        SVC(max_iter=100_000).fit(X, y)


def test_the_working_set_solver_says_how_many_steps_it_took_and_none_where_nothing_violates():
    X, y = overlapping(50)
    beta, _, steps = solve_dual(Linear(X, np.empty(2500)), np.where(y == 1, 1.0, -1.0), 1.0, 3.0, np.inf)
    assert steps == 0 and not beta.any()  # the gap of the start is 2


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"C": 0.0}, "C: 0.0"), ({"kernel": "poly"}, "kernel: 'poly'"), ({"gamma": -1.0}, "gamma")],
)
def test_a_keyword_out_of_range_is_named_in_one_line(settings, message):
    with pytest.raises(ValueError, match=message) as error:
        SVC(**settings).fit(*overlapping(20))
    assert "\n" not in str(error.value)


def test_one_class_is_refused_and_weights_of_features_need_the_linear_kernel():
    X, _ = overlapping(20)
    with pytest.raises(ValueError, match="at least 2 classes"):
        SVC().fit(X, np.zeros(20))
    assert not hasattr(SVC().fit(*overlapping(20)), "coef_")


@pytest.mark.parametrize("kernel", ["linear", "rbf"])
def test_it_is_an_estimator_as_scikit_learn_means_it(kernel):
    check_estimator(SVC(kernel=kernel), on_skip=None)
