"""Principal components, against scikit-learn and the identities that define them."""

import numpy as np
import pytest
import sklearn.decomposition
from scipy.stats import multivariate_normal
from sklearn.utils.estimator_checks import check_estimator

from genai.basics.pca import PCA, scatter

SOLVERS = ["full", "covariance_eigh"]


def data(n=300, d=8):
    rng = np.random.default_rng(0)
    return rng.normal(size=(n, d)) @ rng.normal(size=(d, d)) + 10 * rng.normal(size=d)


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("shape", [(300, 8), (20, 30), (30, 30)])
@pytest.mark.parametrize("n_components", [None, 3, 0.9])
@pytest.mark.parametrize("whiten", [False, True])
def test_everything_learned_is_scikit_learns_up_to_sign(solver, shape, n_components, whiten):
    if solver == "covariance_eigh" and whiten and n_components is None and shape[0] <= shape[1]:
        pytest.skip("the last direction has no variance: what whitening makes of it is rounding")
    x = data(*shape)
    ours = PCA(n_components, svd_solver=solver, whiten=whiten).fit(x)
    theirs = sklearn.decomposition.PCA(n_components, svd_solver="full", whiten=whiten).fit(x)
    for name in ("mean_", "explained_variance_", "explained_variance_ratio_", "noise_variance_", "n_components_"):
        np.testing.assert_allclose(getattr(ours, name), getattr(theirs, name), rtol=1e-8, atol=1e-12)
    np.testing.assert_allclose(ours.singular_values_, theirs.singular_values_, rtol=1e-8, atol=1e-5)
    varying = theirs.singular_values_ > 1e-6
    cosines = np.abs((ours.components_ * theirs.components_).sum(1))[varying]
    np.testing.assert_allclose(cosines, 1, rtol=1e-9)
    z = theirs.transform(x)[:, varying]
    np.testing.assert_allclose(np.abs(ours.transform(x)[:, varying]), np.abs(z), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("whiten", [False, True])
def test_all_components_reconstruct_the_data(solver, whiten):
    x = data()
    model = PCA(svd_solver=solver, whiten=whiten).fit(x)
    np.testing.assert_allclose(model.inverse_transform(model.transform(x)), x, rtol=1e-10)


@pytest.mark.parametrize("solver", SOLVERS)
def test_the_error_of_k_components_is_the_sum_of_the_other_squared_singular_values(solver):
    x = data()
    s = np.linalg.svd(x - x.mean(0), compute_uv=False)
    for k in range(1, 8):  # Eckart and Young, 1936: no matrix of rank k is nearer
        model = PCA(k, svd_solver=solver).fit(x)
        error = ((x - model.inverse_transform(model.transform(x))) ** 2).sum()
        assert error == pytest.approx((s[k:] ** 2).sum(), rel=1e-9)
        assert model.noise_variance_ == pytest.approx((s[k:] ** 2).mean() / (len(x) - 1))


@pytest.mark.parametrize("solver", SOLVERS)
def test_whitened_data_have_unit_covariance(solver):
    x = data()
    z = PCA(5, whiten=True, svd_solver=solver).fit_transform(x)
    np.testing.assert_allclose(np.cov(z.T), np.eye(5), atol=1e-10)


@pytest.mark.parametrize("solver", SOLVERS)
def test_components_are_orthonormal_and_their_greatest_entry_is_positive(solver):
    v = PCA(svd_solver=solver).fit(data()).components_
    np.testing.assert_allclose(v @ v.T, np.eye(8), atol=1e-12)
    assert (v[np.arange(8), np.abs(v).argmax(1)] > 0).all()


@pytest.mark.parametrize("solver", SOLVERS)
def test_a_share_takes_the_fewest_components_that_exceed_it(solver):
    x = data()
    cumulated = PCA(svd_solver=solver).fit(x).explained_variance_ratio_.cumsum()
    for share in (0.01, 0.5, 0.9, 0.999):
        k = PCA(share, svd_solver=solver).fit(x).n_components_
        assert cumulated[k - 1] > share and (k == 1 or cumulated[k - 2] <= share)


@pytest.mark.parametrize("solver", SOLVERS)
def test_data_far_from_zero_lose_no_digits(solver):
    x = np.round(data() * 2**10) / 2**10
    near, far = (PCA(svd_solver=solver).fit(x + c) for c in (0, 2.0**30))
    np.testing.assert_allclose(near.explained_variance_, far.explained_variance_, rtol=1e-6)


def test_the_scatter_of_parts_is_the_scatter_of_all():
    x = np.concatenate([data(200_000, 3), 1000 + data(70_001, 3)])
    mean, total = scatter(x)
    np.testing.assert_allclose(mean, x.mean(0), rtol=1e-12)
    np.testing.assert_allclose(total, (x - x.mean(0)).T @ (x - x.mean(0)), rtol=1e-10)


@pytest.mark.parametrize("n_components", [3, None])
def test_the_density_is_that_of_the_gaussian_with_the_models_covariance(n_components):
    x = data()
    model = PCA(n_components).fit(x)
    k, noise = model.n_components_, model.noise_variance_
    v = model.components_
    covariance = v.T @ np.diag(model.explained_variance_ - noise) @ v + noise * np.eye(8)
    expected = multivariate_normal(model.mean_, covariance).logpdf(x)
    np.testing.assert_allclose(model.score_samples(x), expected, rtol=1e-9)
    assert model.score(x) == pytest.approx(sklearn.decomposition.PCA(n_components and k).fit(x).score(x))


def test_what_is_wrong_is_said_in_one_line():
    with pytest.raises(ValueError, match=r"n_components: 9 should be at most 8, min\(n_samples, n_features\)"):
        PCA(9).fit(data())
    with pytest.raises(ValueError, match="there is no density"):
        PCA(2).fit(data()[:, [0, 1, 1]]).score_samples(data()[:, [0, 1, 1]])
    with pytest.raises(ValueError, match="PCA.n_components: 1.5 should be a valid integer"):
        PCA(1.5).fit(data())
    with pytest.raises(ValueError, match="PCA.svd_solver"):
        PCA(svd_solver="random").fit(data())


@pytest.mark.parametrize("solver", ["auto", *SOLVERS])
def test_scikit_learns_own_checks_pass(solver):
    check_estimator(PCA(svd_solver=solver))
