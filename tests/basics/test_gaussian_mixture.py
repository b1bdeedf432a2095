"""EM for Gaussian mixtures, against scikit-learn, SciPy's density and what EM promises."""

import numpy as np
import pytest
import sklearn.mixture
from scipy.stats import multivariate_normal
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.estimator_checks import check_estimator

from genai.basics.gaussian_mixture import GaussianMixture, Mixture, em_step, precision_factors

KINDS = ["full", "diag"]


def data(n=600, seed=0):
    """Three overlapping, correlated groups."""
    rng = np.random.default_rng(seed)
    shapes = rng.normal(size=(3, 4, 4))
    return np.concatenate([rng.normal(size=(n // 3, 4)) @ a + 2 * rng.normal(size=4) for a in shapes])


def start(x, kind, k=3):
    precisions = np.stack([np.eye(4)] * k) if kind == "full" else np.ones((k, 4))
    return {"weights_init": np.full(k, 1 / k), "means_init": x[:: len(x) // k][:k], "precisions_init": precisions}


@pytest.mark.parametrize("kind", KINDS)
def test_from_the_same_start_all_parameters_are_scikit_learns(kind):
    x = data()
    same = {"covariance_type": kind, "tol": 1e-9, "max_iter": 500, **start(x, kind)}
    ours, theirs = GaussianMixture(3, **same).fit(x), sklearn.mixture.GaussianMixture(3, **same).fit(x)
    for name in ("weights_", "means_", "covariances_", "precisions_cholesky_", "lower_bound_"):
        np.testing.assert_allclose(getattr(ours, name), getattr(theirs, name), rtol=1e-6, atol=1e-6)
    assert (ours.n_iter_, ours.converged_) == (theirs.n_iter_, True)
    np.testing.assert_allclose(ours.predict_proba(x), theirs.predict_proba(x), atol=1e-5)
    np.testing.assert_array_equal(ours.predict(x), theirs.predict(x))
    assert ours.bic(x) == pytest.approx(theirs.bic(x)) and ours.aic(x) == pytest.approx(theirs.aic(x))


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("offset", [0, 1000])
@pytest.mark.parametrize("steps", [1, 2, 15])
def test_each_step_is_scikit_learns(kind, offset, steps):
    x = data() + offset
    same = {"covariance_type": kind, "tol": 0.0, "max_iter": steps, **start(x, kind)}
    ours, theirs = GaussianMixture(3, **same).fit(x), sklearn.mixture.GaussianMixture(3, **same).fit(x)
    for name in ("weights_", "means_", "covariances_", "lower_bound_"):
        np.testing.assert_allclose(getattr(ours, name), getattr(theirs, name), rtol=1e-6, atol=1e-9)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("init", ["kmeans", "random"])
def test_the_likelihoods_that_it_keeps_never_fall(kind, init):
    x = np.random.default_rng(1).gamma(2.0, size=(300, 4))
    found = GaussianMixture(4, covariance_type=kind, init_params=init, tol=0, max_iter=60, random_state=0).fit(x)
    assert len(found.lower_bounds_) == found.n_iter_ and found.lower_bounds_[-1] == found.lower_bound_
    assert np.diff(found.lower_bounds_).min() > -1e-9 and np.ptp(found.lower_bounds_) > 0


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", range(3))
def test_no_step_lowers_the_likelihood(kind, seed):
    x = data(seed=seed)
    shape = (4, 4) if kind == "full" else (4,)
    covariances = np.broadcast_to(9 * np.eye(4) if kind == "full" else 9.0, (5, *shape))
    mixture = Mixture(np.full(5, 0.2), x[::120], covariances)
    bounds = []
    for _ in range(200):
        bound, mixture = em_step(x, mixture, kind, 0.0)
        bounds.append(bound)
    assert np.diff(bounds).min() > -1e-12 and bounds[-1] > bounds[0] + 0.1


@pytest.mark.parametrize("kind", KINDS)
def test_the_density_is_scipys(kind):
    x = data()
    model = GaussianMixture(3, covariance_type=kind, random_state=0).fit(x)
    covariances = model.covariances_ if kind == "full" else [np.diag(c) for c in model.covariances_]
    parts = [
        w * multivariate_normal(m, c).pdf(x) for w, m, c in zip(model.weights_, model.means_, covariances, strict=True)
    ]
    np.testing.assert_allclose(model.score_samples(x), np.log(np.sum(parts, 0)), rtol=1e-10)
    np.testing.assert_allclose(model.predict_proba(x), (parts / np.sum(parts, 0)).T, atol=1e-12)
    assert model.score(x) == pytest.approx(model.score_samples(x).mean())


def test_the_density_of_what_is_very_unlikely_is_no_minus_infinity():
    model = GaussianMixture(2, random_state=0).fit(data())
    far = np.full((1, 4), 1e6)
    assert np.isfinite(model.score_samples(far)).all()
    assert model.predict_proba(far).sum() == pytest.approx(1)


@pytest.mark.parametrize("kind", KINDS)
def test_a_mixture_known_by_its_samples_is_recovered(kind):
    rng = np.random.default_rng(0)
    n, means, weights = 40_000, np.array([[-4.0, 0, 100], [4, 1, 100], [0, 8, 103]]), np.array([0.5, 0.3, 0.2])
    roots = np.array([np.diag([1, 0.5, 2]), np.diag([2, 1, 1]), np.diag([1, 1, 0.3])])
    if kind == "full":
        roots[:, 1, 0] = [0.6, -0.8, 0.3]
    label = rng.choice(3, n, p=weights)
    x = means[label] + np.einsum("nij,nj->ni", roots[label], rng.normal(size=(n, 3)))
    model = GaussianMixture(3, covariance_type=kind, tol=1e-6, random_state=0).fit(x)
    order = np.abs(model.means_[:, None] - means).sum(2).argmin(0)
    np.testing.assert_allclose(model.weights_[order], weights, atol=0.01)  # 4 standard errors
    np.testing.assert_allclose(model.means_[order], means, atol=0.1)
    expected = roots @ roots.transpose(0, 2, 1)
    found = model.covariances_ if kind == "full" else np.stack([np.diag(c) for c in model.covariances_])
    np.testing.assert_allclose(found[order], expected, atol=0.2)


@pytest.mark.parametrize("kind", KINDS)
def test_samples_have_the_moments_of_the_mixture(kind):
    model = GaussianMixture(3, covariance_type=kind, random_state=0).fit(data())
    x, label = model.sample(200_000)
    np.testing.assert_allclose(np.bincount(label) / len(x), model.weights_, atol=0.005)
    covariances = model.covariances_ if kind == "full" else np.stack([np.diag(c) for c in model.covariances_])
    mean = model.weights_ @ model.means_
    np.testing.assert_allclose(x.mean(0), mean, atol=0.05)
    spread = model.means_ - mean
    between = (model.weights_[:, None] * spread).T @ spread  # law of total covariance
    expected = np.einsum("k,kij->ij", model.weights_, covariances) + between
    np.testing.assert_allclose(np.cov(x.T), expected, atol=0.02 * np.abs(expected).max())


def test_one_component_is_the_closed_form():
    x = data()
    model = GaussianMixture(1, reg_covar=0.0).fit(x)
    np.testing.assert_allclose(model.means_[0], x.mean(0), rtol=1e-12)
    np.testing.assert_allclose(model.covariances_[0], np.cov(x.T, bias=True), rtol=1e-10)


@pytest.mark.parametrize("kind", KINDS)
def test_factors_multiply_to_the_inverse(kind):
    model = GaussianMixture(2, covariance_type=kind, random_state=0).fit(data())
    for factor, covariance in zip(precision_factors(model.covariances_), model.covariances_, strict=True):
        if kind == "full":
            np.testing.assert_allclose(factor @ factor.T @ covariance, np.eye(4), atol=1e-10)
            assert np.allclose(factor, np.triu(factor))
        else:
            np.testing.assert_allclose(factor**2 * covariance, 1)


@pytest.mark.parametrize("kind", KINDS)
def test_data_far_from_zero_lose_no_digits(kind):
    x = np.round(data() * 2**10) / 2**10
    near, far = (GaussianMixture(3, covariance_type=kind, random_state=0).fit(x + c) for c in (0, 2.0**30))
    np.testing.assert_allclose(near.covariances_, far.covariances_, rtol=1e-4)


def test_random_responsibilities_and_several_runs_end_no_lower():
    x = data()
    one, many = (GaussianMixture(3, init_params="random", n_init=n, random_state=0).fit(x) for n in (1, 5))
    assert many.lower_bound_ >= one.lower_bound_


def test_the_first_guess_is_as_good_as_scikit_learns():
    from sklearn.datasets import load_iris

    x = load_iris().data
    theirs = sklearn.mixture.GaussianMixture(3, random_state=0).fit(x)
    assert GaussianMixture(3, random_state=0).fit(x).score(x) == pytest.approx(theirs.score(x), abs=1e-3)


def test_what_is_wrong_is_said_in_one_line():
    x = data(30)
    with pytest.raises(ValueError, match="n_components: 31 should be at most n_samples=30"):
        GaussianMixture(31).fit(x)
    with pytest.raises(ValueError, match=r"means_init: its shape \(1, 4\) should be \(2, 4\)"):
        GaussianMixture(2, means_init=x[:1]).fit(x)
    with pytest.raises(ValueError, match=r"weights_init: \[-1.0, 2.0\] should be numbers of at least 0, of sum 1"):
        GaussianMixture(2, weights_init=[-1.0, 2.0]).fit(x)
    for kind, precisions in (("full", np.stack([-np.eye(4)] * 2)), ("diag", np.zeros((2, 4)))):
        with pytest.raises(ValueError, match="precisions_init: all should be positive definite, one is not"):
            GaussianMixture(2, covariance_type=kind, precisions_init=precisions).fit(x)
    with pytest.raises(ValueError, match="reg_covar: 0.0 leaves a covariance singular, it should be greater"):
        GaussianMixture(1, reg_covar=0.0).fit(x[:3])
    with pytest.raises(ValueError, match="GaussianMixture.covariance_type: 'tied' should be 'full' or 'diag'"):
        GaussianMixture(2, covariance_type="tied").fit(x)
    with pytest.warns(ConvergenceWarning, match="max_iter: 1 step"):
        GaussianMixture(2, max_iter=1).fit(x)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("kind", KINDS)
def test_scikit_learns_own_checks_pass(kind):
    check_estimator(GaussianMixture(covariance_type=kind))
