"""PCA against scikit-learn's up to sign, and by what makes it one: the plane that reconstructs best."""

import numpy as np
import pytest
import sklearn.decomposition
from sklearn.datasets import load_digits
from sklearn.pipeline import make_pipeline
from sklearn.utils.estimator_checks import check_estimator

from genai.basics import PCA, KMeans
from genai.model import state

SHAPES = [(400, 6), (30, 20), (8, 20)]


def data(shape, offset=50.0):
    rng = np.random.default_rng(0)
    return rng.normal(size=shape) @ rng.normal(size=(shape[1], shape[1])) + offset


@pytest.mark.parametrize("estimator", [PCA(), PCA(1, whiten=True)])
def test_it_is_an_estimator_as_scikit_learn_means_it(estimator):
    check_estimator(estimator)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("whiten", [False, True])
@pytest.mark.parametrize("n_components", [None, 3, 0.9])
def test_it_is_scikit_learns_up_to_sign(shape, whiten, n_components):
    x = data(shape)
    if shape[0] <= shape[1] and n_components is None and whiten:
        pytest.skip("the last direction has no variance to divide by")
    ours = PCA(n_components, whiten=whiten).fit(x)
    theirs = sklearn.decomposition.PCA(n_components, whiten=whiten, svd_solver="full").fit(x)
    assert ours.n_components_ == theirs.n_components_
    for name in ("explained_variance_", "explained_variance_ratio_", "singular_values_", "mean_", "noise_variance_"):
        np.testing.assert_allclose(getattr(ours, name), getattr(theirs, name), rtol=1e-7, atol=1e-9)
    kept = ours.explained_variance_ > 1e-9
    sign = np.sign((ours.components_ * theirs.components_).sum(1))
    np.testing.assert_allclose(ours.components_[kept], (sign[:, None] * theirs.components_)[kept], atol=1e-7)
    np.testing.assert_allclose(ours.transform(x)[:, kept], (sign * theirs.transform(x))[:, kept], atol=1e-6)
    np.testing.assert_allclose(
        ours.inverse_transform(ours.transform(x)), theirs.inverse_transform(theirs.transform(x)), atol=1e-6
    )


@pytest.mark.parametrize("shape", SHAPES)
def test_with_all_components_the_data_come_back(shape):
    x = data(shape)
    for whiten in (False, shape[0] > shape[1]):
        found = PCA(whiten=whiten).fit(x)
        np.testing.assert_allclose(found.inverse_transform(found.transform(x)), x, atol=1e-8)


def test_no_other_plane_reconstructs_with_less_error_and_the_error_is_the_variance_left_out():
    x = data((200, 5))
    found = PCA(2).fit(x)
    error = ((x - found.inverse_transform(found.transform(x))) ** 2).sum()
    assert error == pytest.approx(3 * found.noise_variance_ * (len(x) - 1))
    rng = np.random.default_rng(1)
    for _ in range(100):
        plane = np.linalg.qr(rng.normal(size=(5, 2)) + 3 * found.components_.T)[0]
        z = x - x.mean(0)
        assert ((z - z @ plane @ plane.T) ** 2).sum() > error


def test_whitened_coordinates_have_unit_covariance():
    np.testing.assert_allclose(np.cov(PCA(4, whiten=True).fit_transform(data((300, 6))).T), np.eye(4), atol=1e-9)


def test_both_ways_agree_on_the_same_data():
    x = load_digits().data  # 1797 x 64: by the covariance
    tall, svd = PCA(10).fit(x), np.linalg.svd(x - x.mean(0), full_matrices=False)
    np.testing.assert_allclose(tall.singular_values_, svd[1][:10], rtol=1e-10)
    np.testing.assert_allclose(np.abs((tall.components_ * svd[2][:10]).sum(1)), 1, rtol=1e-9)


def test_too_many_components_are_one_line():
    with pytest.raises(ValueError, match=r"n_components=7 should be at most 6, min\(N, D\) of X \(400, 6\)"):
        PCA(7).fit(data((400, 6)))
    with pytest.raises(ValueError, match="PCA.n_components: 1.5 should be a valid integer"):
        PCA(1.5).fit(data((400, 6)))


def test_it_stands_in_a_pipeline_and_what_it_learned_is_arrays():
    x = data((60, 6))
    pipeline = make_pipeline(PCA(2), KMeans(3, random_state=0)).fit(x)
    assert pipeline.predict(x).shape == (60,)
    ours = PCA(2, whiten=True).fit(x)
    other = PCA(2, whiten=True)
    for name, value in state(ours).items():
        setattr(other, name, value)
    np.testing.assert_array_equal(other.transform(x), ours.transform(x))
