"""Backpropagation by hand, held to torch's autograd, to finite differences and to scikit-learn's networks."""

import warnings
from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy.optimize import approx_fprime
from sklearn.datasets import load_diabetes, load_digits
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import GridSearchCV, train_test_split
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.utils.estimator_checks import check_estimator
from torch.nn import functional as F

from genai import model as models
from genai.commands.check import check
from genai.core.config import ROOT, Params, load
from genai.core.dataset import Description
from genai.neural_networks.backpropagation import (
    NeuralNetworkClassifier,
    NeuralNetworkRegressor,
    backward,
    cross_entropy,
    forward,
    initialize,
    squared_error,
    unpacked,
)

SIZES = np.array([5, 7, 6, 3])
LOSSES = [(cross_entropy, np.eye(3)[[0, 1, 2, 1]]), (squared_error, np.random.default_rng(1).normal(size=(4, 3)))]


def network(sizes=SIZES, seed=0):
    """Return a vector of weights, biases among them, and examples."""
    rng = np.random.default_rng(seed)
    vector = np.empty(sum((n + 1) * m for n, m in pairwise(sizes)))
    initialize(unpacked(vector, sizes), rng)
    return vector + 0.1 * rng.normal(size=vector.size), rng.normal(size=(4, sizes[0]))


def gradient_by_hand(vector, x, t, loss):
    layers, gradient = unpacked(vector, SIZES), np.full_like(vector, np.nan)
    hs = forward(x, layers)
    backward(hs, loss(hs[-1], t)[1], layers, unpacked(gradient, SIZES))
    return gradient


@pytest.mark.parametrize(("loss", "t"), LOSSES)
def test_gradient_is_that_of_autograd(loss, t):
    vector, x = network()
    w = torch.tensor(vector, requires_grad=True)
    h, start = torch.tensor(x), 0
    for i, (n_in, n_out) in enumerate(pairwise(SIZES)):
        weight, bias = w[start : start + n_in * n_out].view(n_in, n_out), w[start + n_in * n_out :][:n_out]
        h = h @ weight + bias
        h = h.relu() if i < 2 else h
        start += (n_in + 1) * n_out
    target = torch.tensor(t)
    value = F.cross_entropy(h, target) if loss is cross_entropy else (h - target).square().sum() / 2 / len(x)
    value.backward()
    assert value.item() == pytest.approx(loss(forward(x, unpacked(vector, SIZES))[-1], t)[0], rel=1e-12)
    np.testing.assert_allclose(gradient_by_hand(vector, x, t, loss), w.grad, atol=1e-14)
    assert w.grad.abs().max() > 0.01


@pytest.mark.parametrize(("loss", "t"), LOSSES)
def test_gradient_is_that_of_finite_differences(loss, t):
    vector, x = network()
    numeric = approx_fprime(vector, lambda v: loss(forward(x, unpacked(v, SIZES))[-1], t)[0], 1e-7)
    np.testing.assert_allclose(gradient_by_hand(vector, x, t, loss), numeric, atol=1e-6)


@pytest.mark.parametrize("loss", [cross_entropy, squared_error])
def test_derivative_of_the_loss_is_prediction_minus_truth(loss):
    a, t = np.random.default_rng(0).normal(size=(1, 4)), np.eye(4)[[2]]
    prediction = torch.tensor(a).softmax(1).numpy() if loss is cross_entropy else a
    np.testing.assert_allclose(loss(a, t)[1], prediction - t, atol=1e-15)


def test_first_weights_have_the_variance_of_glorot_and_keep_that_of_a_deep_linear_network():
    sizes = np.full(6, 400)
    vector = np.empty(5 * 401 * 400)
    layers = unpacked(vector, sizes)
    initialize(layers, np.random.default_rng(0))
    h = np.random.default_rng(1).normal(size=(100, 400))
    for w, b in layers:
        assert w.var() == pytest.approx(2 / 800, rel=0.02) and not b.any()
        h = h @ w
    assert h.var() == pytest.approx(1, rel=0.1)


def standardized(x):
    return (x - x.mean(0)) / x.std(0)


def sgd_of_scikit_learn(estimator, x, y, layers, steps):
    """Take the steps from these weights: it draws its own, so that a first step makes them, and then they are set."""
    classes = {"classes": np.unique(y)} if isinstance(estimator, MLPClassifier) else {}
    estimator.partial_fit(x, y, **classes)
    for (w, b), coef, intercept in zip(layers, estimator.coefs_, estimator.intercepts_, strict=True):
        coef[:], intercept[:] = w, b
    for velocity in estimator._optimizer.velocities:
        velocity[:] = 0
    for _ in range(steps):
        estimator.partial_fit(x, y, **classes)
    return estimator


@pytest.mark.parametrize(
    ("ours", "theirs"), [(NeuralNetworkClassifier, MLPClassifier), (NeuralNetworkRegressor, MLPRegressor)]
)
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_full_batches_from_the_same_weights_give_scikit_learns_weights(ours, theirs, momentum):
    rng = np.random.default_rng(0)
    x = standardized(rng.normal(size=(60, 5)))
    y = np.arange(60) % 3 if ours is NeuralNetworkClassifier else standardized(x[:, 0] ** 2 + x[:, 1])
    keywords = {"hidden_layer_sizes": (8, 6), "learning_rate_init": 0.1, "momentum": momentum, "batch_size": 60}
    found = ours(max_iter=20, random_state=0, **keywords).fit(x, y)
    first = np.empty_like(found.weights_)
    initialize(unpacked(first, found.layer_sizes_), np.random.default_rng(0))
    estimator = theirs(solver="sgd", nesterovs_momentum=False, alpha=0, shuffle=False, **keywords)
    expected = sgd_of_scikit_learn(estimator, x, y, unpacked(first, found.layer_sizes_), steps=20)
    for (w, b), coef, intercept in zip(
        unpacked(found.weights_, found.layer_sizes_), expected.coefs_, expected.intercepts_, strict=True
    ):
        np.testing.assert_allclose(w, coef, atol=1e-10)
        np.testing.assert_allclose(b, intercept, atol=1e-10)
    assert np.abs(found.weights_ - first).max() > 0.1


def scores(ours, theirs, x, y, seeds=3, **keywords):
    """Return the scores of both on a held-out quarter, (2, seeds), inputs and target standardised for theirs."""
    x, test_x, y, test_y = train_test_split(x, y, random_state=0)
    mean, scale = x.mean(0), np.where(x.std(0) == 0, 1, x.std(0))
    middle, unit = (y.mean(), y.std()) if theirs is MLPRegressor else (0, 1)
    result = np.empty((2, seeds))
    options = {"solver": "sgd", "nesterovs_momentum": False, "alpha": 0, "n_iter_no_change": 10**6}
    for seed in range(seeds):
        result[0, seed] = ours(random_state=seed, **keywords).fit(x, y).score(test_x, test_y)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            fitted = theirs(random_state=seed, **options, **keywords).fit((x - mean) / scale, (y - middle) / unit)
        result[1, seed] = fitted.score((test_x - mean) / scale, (test_y - middle) / unit)
    return result


def test_digits_are_read_as_well_as_by_scikit_learns_network():
    digits = load_digits()
    keywords = {"hidden_layer_sizes": (64,), "learning_rate_init": 0.005, "batch_size": 32, "max_iter": 40}
    ours, theirs = scores(NeuralNetworkClassifier, MLPClassifier, digits.data, digits.target, **keywords)
    assert ours.mean() > 0.965
    assert ours.mean() == pytest.approx(theirs.mean(), abs=0.01)  # 450 images: a standard error of 0.008


def test_diabetes_is_predicted_as_well_as_by_scikit_learns_network():
    x, y = load_diabetes(return_X_y=True, scaled=False)
    keywords = {"hidden_layer_sizes": (16,), "learning_rate_init": 0.0005, "batch_size": 32, "max_iter": 40}
    ours, theirs = scores(NeuralNetworkRegressor, MLPRegressor, x, y, seeds=5, **keywords)
    assert ours.mean() > 0.2  # the mean has 0
    assert ours.mean() == pytest.approx(theirs.mean(), abs=0.06)  # a seed moves it by about 0.04


@pytest.mark.parametrize("cls", [NeuralNetworkClassifier, NeuralNetworkRegressor])
def test_scikit_learn_accepts_it_as_an_estimator(cls):
    check_estimator(cls())  # no exception


@pytest.mark.parametrize("cls", [NeuralNetworkClassifier, NeuralNetworkRegressor])
def test_arrays_and_keywords_are_all_that_it_learned(cls):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(40, 3)), np.arange(40) % 2
    fitted = cls((4, 3), max_iter=3, random_state=0).fit(x, y)
    fresh = cls((4, 3), max_iter=3)
    for key, array in models.state(fitted).items():
        assert array.dtype.kind in "if"
        setattr(fresh, key, array)
    method = "predict_proba" if cls is NeuralNetworkClassifier else "predict"
    np.testing.assert_array_equal(getattr(fresh, method)(x), getattr(fitted, method)(x))


def test_the_seed_decides():
    x, y = np.random.default_rng(0).normal(size=(40, 3)), np.arange(40) % 2
    one, same, other = (NeuralNetworkClassifier(max_iter=2, random_state=s).fit(x, y).weights_ for s in (0, 0, 1))
    np.testing.assert_array_equal(one, same)
    assert not np.array_equal(one, other)


def test_a_grid_search_sets_its_keywords():
    x, y = load_digits(return_X_y=True)
    grid = {"learning_rate_init": [1e-5, 0.1], "hidden_layer_sizes": [(16,)]}
    search = GridSearchCV(NeuralNetworkClassifier(max_iter=5, random_state=0), grid, cv=2).fit(x[:400], y[:400])
    assert search.best_params_["learning_rate_init"] == 0.1


def test_params_yaml_builds_it_from_the_same_keywords():
    experiment = {
        "data": "digits", "task": "classification", "code": "genai/neural_networks/backpropagation.py",
        "model": "NeuralNetworkClassifier", "config": {"hidden_layer_sizes": [8, 4], "max_iter": 2},
        "train": {"method": "fit", "seed": 0, "threads": 1},
    }  # fmt: skip
    params = Params(datasets=load(ROOT / "params.yaml").datasets, experiments={"network": experiment}, generators={})
    check(params)
    model = models.build(
        "network", params.experiments["network"], Description(kind="table", shape=[3], classes=["a", "b"])
    )
    x, y = np.random.default_rng(0).normal(size=(40, 3)), np.arange(40) % 2
    assert model.fit(x, y).layer_sizes_.tolist() == [3, 8, 4, 2]
    assert model.random_state == 0


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"hidden_layer_sizes": (0,)}, r"NeuralNetworkRegressor.hidden_layer_sizes.0: 0 should be greater than"),
        ({"learning_rate_init": 10.0}, r"learning_rate_init: 10.0 should be less: the loss grows without bound"),
    ],
)
def test_a_wrong_keyword_is_one_line(keywords, message):
    x = np.random.default_rng(0).normal(size=(200, 3))
    with pytest.raises(ValueError, match=message), warnings.catch_warnings():
        warnings.simplefilter("error")
        NeuralNetworkRegressor(random_state=0, **keywords).fit(x, x[:, 0])
