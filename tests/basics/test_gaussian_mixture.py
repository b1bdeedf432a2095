"""EM against scikit-learn's from the same start, the density against SciPy's, and the likelihood, which never falls."""

import warnings

import numpy as np
import pytest
import sklearn.mixture
from scipy.stats import multivariate_normal
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.estimator_checks import check_estimator

from genai.basics import GaussianMixture
from genai.model import state

TYPES = ["full", "diag"]
WEIGHTS, MEANS = np.array([0.5, 0.3, 0.2]), np.array([[0.0, 0.0], [6.0, 1.0], [-3.0, 7.0]])
COVARIANCES = np.array([[[1.0, 0.5], [0.5, 2.0]], [[0.5, -0.2], [-0.2, 1.0]], [[2.0, 0.0], [0.0, 0.3]]])


def draw(n, seed=0, offset=0.0):
    rng = np.random.default_rng(seed)
    k = rng.choice(3, n, p=WEIGHTS)
    x = np.stack([rng.multivariate_normal(MEANS[i], COVARIANCES[i]) for i in k])
    return x + offset


@pytest.mark.parametrize("kind", TYPES)
def test_it_is_an_estimator_as_scikit_learn_means_it(kind):
    check_estimator(GaussianMixture(2, covariance_type=kind, random_state=0))


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("offset", [0.0, 1000.0])
def test_from_the_same_start_each_step_is_scikit_learns(kind, offset):
    x = draw(400, offset=offset)
    start = {
        "weights_init": np.full(3, 1 / 3),
        "means_init": x[:3],
        "precisions_init": np.stack([np.eye(2)] * 3) if kind == "full" else np.ones((3, 2)),
    }
    for steps in (1, 2, 15):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            theirs = sklearn.mixture.GaussianMixture(3, covariance_type=kind, tol=0, max_iter=steps, **start).fit(x)
            ours = GaussianMixture(3, covariance_type=kind, tol=0, max_iter=steps, **start).fit(x)
        for name in ("weights_", "means_", "covariances_", "precisions_cholesky_"):
            np.testing.assert_allclose(getattr(ours, name), getattr(theirs, name), rtol=1e-6, atol=1e-9)
        assert ours.lower_bound_ == pytest.approx(theirs.lower_bound_, rel=1e-9)
        np.testing.assert_allclose(ours.predict_proba(x), theirs.predict_proba(x), atol=1e-6)
        assert (ours.bic(x), ours.aic(x)) == pytest.approx((theirs.bic(x), theirs.aic(x)))


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("init", ["kmeans", "random"])
def test_the_likelihood_never_falls(kind, init):
    x = np.random.default_rng(1).gamma(2.0, size=(300, 4))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        found = GaussianMixture(4, covariance_type=kind, init_params=init, tol=0, max_iter=60, random_state=0).fit(x)
    assert (np.diff(found.lower_bounds_) > -1e-9).all() and found.lower_bounds_[-1] > found.lower_bounds_[0]


@pytest.mark.parametrize("kind", TYPES)
def test_the_density_is_the_sum_of_its_gaussians(kind):
    x = draw(300)
    found = GaussianMixture(3, covariance_type=kind, random_state=0).fit(x)
    covariances = found.covariances_ if kind == "full" else [np.diag(c) for c in found.covariances_]
    p = sum(
        w * multivariate_normal(m, c).pdf(x) for w, m, c in zip(found.weights_, found.means_, covariances, strict=True)
    )
    np.testing.assert_allclose(found.score_samples(x), np.log(p), rtol=1e-9)


def test_a_known_mixture_is_found_again():
    x = draw(6000)
    found = GaussianMixture(3, n_init=3, random_state=0).fit(x)
    order = [np.abs(found.means_ - mean).sum(1).argmin() for mean in MEANS]
    np.testing.assert_allclose(found.weights_[order], WEIGHTS, atol=0.03)
    np.testing.assert_allclose(found.means_[order], MEANS, atol=0.12)
    np.testing.assert_allclose(found.covariances_[order], COVARIANCES, atol=0.2)
    assert found.converged_


@pytest.mark.parametrize("kind", TYPES)
def test_what_it_draws_has_its_moments(kind):
    found = GaussianMixture(3, covariance_type=kind, random_state=0).fit(draw(500))
    x, components = found.sample(40_000)
    for k in range(3):
        of = x[components == k]
        assert len(of) / len(x) == pytest.approx(found.weights_[k], abs=0.01)
        np.testing.assert_allclose(of.mean(0), found.means_[k], atol=0.06)
        covariance = found.covariances_[k] if kind == "full" else np.diag(found.covariances_[k])
        np.testing.assert_allclose(np.cov(of.T), covariance, atol=0.12)


def test_a_component_on_one_point_is_told_and_reg_covar_mends_it():
    x = np.zeros((10, 2))
    with pytest.raises(ValueError, match=r"reg_covar: 0.0 leaves a singular covariance; raise it"):
        GaussianMixture(1, reg_covar=0.0).fit(x)
    GaussianMixture(1).fit(x)


def test_a_start_that_does_not_converge_is_told():
    with pytest.warns(ConvergenceWarning, match="max_iter=2 steps did not converge; raise it or tol"):
        GaussianMixture(3, max_iter=2, tol=0, random_state=0).fit(draw(100))


def test_what_it_learned_is_arrays():
    x = draw(60)
    ours = GaussianMixture(2, random_state=0).fit(x)
    other = GaussianMixture(2)
    for name, value in state(ours).items():
        setattr(other, name, value)
    np.testing.assert_array_equal(other.predict_proba(x), ours.predict_proba(x))
