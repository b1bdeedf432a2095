"""The layers by hand: equal to torch's forward and backward; a network of them learns."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from genai.cnn.layers import Convolution, FullyConnected, MaxPooling, ReLU, cross_entropy, fold, step, unfold

RNG = np.random.default_rng(0)


def compare(layer, reference, x):
    """Hold output, gradient of the input and of the parameters to autograd's of `reference(x, **parameters)`."""
    leaf = torch.tensor(x, requires_grad=True)
    parameters = {name: torch.tensor(p, requires_grad=True) for name, p in layer.parameters.items()}
    expected, found = reference(leaf, **parameters), layer.forward(x)
    np.testing.assert_allclose(found, expected.detach(), atol=1e-12)
    g = RNG.normal(size=found.shape)
    expected.backward(torch.tensor(g))
    np.testing.assert_allclose(layer.backward(g), leaf.grad, atol=1e-12)
    assert layer.gradients.keys() == parameters.keys()
    for name, gradient in layer.gradients.items():
        np.testing.assert_allclose(gradient, parameters[name].grad, atol=1e-12)


@pytest.mark.parametrize("shape", [(2, 1, 8, 8), (3, 4, 7, 5)])
@pytest.mark.parametrize(
    ("size", "stride", "padding"), [(3, 1, 1), (3, 1, 0), (1, 1, 0), (2, 2, 0), (3, 2, 1), (5, 3, 2)]
)
def test_convolution_is_torchs_forward_and_backward(shape, size, stride, padding):
    layer = Convolution(RNG.normal(size=(6, shape[1], size, size)), RNG.normal(size=6), stride, padding)
    compare(layer, lambda x, weight, bias: F.conv2d(x, weight, bias, stride, padding), RNG.normal(size=shape))


@pytest.mark.parametrize(("shape", "size"), [((2, 3, 8, 8), 2), ((2, 3, 7, 9), 2), ((1, 2, 9, 9), 3)])
def test_max_pooling_is_torchs_forward_and_backward(shape, size):
    compare(MaxPooling(size), lambda x: F.max_pool2d(x, size), RNG.normal(size=shape))


def test_max_pooling_gives_a_tie_to_the_first_as_torch_does():
    compare(MaxPooling(), lambda x: F.max_pool2d(x, 2), RNG.integers(0, 2, size=(4, 3, 8, 8)).astype(float))


def test_fully_connected_is_torchs_forward_and_backward():
    layer = FullyConnected(RNG.normal(size=(5, 3 * 4 * 2)), RNG.normal(size=5))
    compare(layer, lambda x, weight, bias: F.linear(x.flatten(1), weight, bias), RNG.normal(size=(7, 3, 4, 2)))


def test_relu_is_torchs_forward_and_backward():
    compare(ReLU(), F.relu, RNG.normal(size=(3, 2, 4, 4)))


def test_cross_entropy_and_its_gradient_are_torchs_also_of_large_logits():
    logits, y = 300 * RNG.normal(size=(6, 4)), RNG.integers(4, size=6)
    leaf = torch.tensor(logits, requires_grad=True)
    expected = F.cross_entropy(leaf, torch.tensor(y))
    expected.backward()
    loss, g = cross_entropy(logits, y)
    assert loss == pytest.approx(expected.item(), rel=1e-12)
    np.testing.assert_allclose(g, leaf.grad, atol=1e-12)


@pytest.mark.parametrize(("stride", "padding"), [(1, 1), (2, 0), (3, 2)])
def test_fold_is_the_transpose_of_unfold(stride, padding):
    """<unfold x, r> = <x, fold r> for all x and r."""
    x = RNG.normal(size=(2, 3, 8, 7))
    rows = unfold(x, 3, stride, padding)
    r = RNG.normal(size=rows.shape)
    assert (rows * r).sum() == pytest.approx((x * fold(r, x.shape, 3, stride, padding)).sum(), rel=1e-12)


def test_unfold_is_torchs():
    x = RNG.normal(size=(2, 3, 8, 7))
    expected = F.unfold(torch.tensor(x), 3, stride=2, padding=1).transpose(1, 2)
    np.testing.assert_array_equal(unfold(x, 3, 2, 1).reshape(2, -1, 27), expected)


def small_network(seed):
    rng = np.random.default_rng(seed)

    def drawn(*shape):  # He et al., 2015: variance 2 over the inputs
        return rng.normal(size=shape) * np.sqrt(2 / np.prod(shape[1:]))

    convolution = Convolution(drawn(8, 1, 3, 3), np.zeros(8), padding=1)
    return [convolution, ReLU(), MaxPooling(), FullyConnected(drawn(10, 8 * 4 * 4), np.zeros(10))]


def test_the_gradient_of_a_whole_network_is_that_of_finite_differences():
    layers, x, y = small_network(1), RNG.random((5, 1, 8, 8)), RNG.integers(10, size=5)

    def loss():
        h = x
        for layer in layers:
            h = layer.forward(h)
        return cross_entropy(h, y)[0]

    step(layers, x, y, learning_rate=0.0)
    for layer in layers:
        for name, parameter in layer.parameters.items():
            flat, gradient = parameter.reshape(-1), layer.gradients[name].reshape(-1)
            for i in RNG.integers(flat.size, size=5):
                before = flat[i]
                values = []
                for h in (1e-6, -1e-6):
                    flat[i] = before + h
                    values.append(loss())
                flat[i] = before
                assert gradient[i] == pytest.approx((values[0] - values[1]) / 2e-6, abs=1e-7)


def test_a_network_by_hand_reads_digits():
    from sklearn.datasets import load_digits

    digits, rng = load_digits(), np.random.default_rng(0)
    order = rng.permutation(len(digits.target))
    x, y, train = digits.images[order, None] / 16, digits.target[order], 1400
    layers = small_network(0)
    for _ in range(250):
        batch = rng.integers(train, size=64)
        step(layers, x[batch], y[batch], learning_rate=0.3)
    h = x[train:]
    for layer in layers:
        h = layer.forward(h)
    assert (h.argmax(1) == y[train:]).mean() > 0.93
