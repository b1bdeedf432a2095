"""The solutions of the exercises in genai/cnn/README.md."""

import numpy as np
import torch
from torch.nn import functional as F

from genai.cnn.layers import Convolution, FullyConnected, MaxPooling

RNG = np.random.default_rng(0)


def convolution(channels, n_filters, size=3, padding=1):
    return Convolution(RNG.normal(size=(n_filters, channels, size, size)), np.zeros(n_filters), padding=padding)


def test_1_a_convolution_is_a_fully_connected_layer_with_most_weights_zero_and_the_others_shared():
    layer, shape = convolution(2, 3), (2, 5, 4)
    units = np.eye(np.prod(shape)).reshape(-1, *shape)  # an image for each pixel, that pixel alone lit
    matrix = layer.forward(units).reshape(len(units), -1).T
    x = RNG.normal(size=(6, *shape))
    same = FullyConnected(matrix, np.zeros(len(matrix)))
    np.testing.assert_allclose(same.forward(x), layer.forward(x).reshape(6, -1), atol=1e-12)
    assert np.count_nonzero(matrix) < 0.4 * matrix.size
    assert len(np.unique(matrix[matrix != 0])) == layer.parameters["weight"].size


def test_2_the_gradient_of_the_image_is_a_convolution_too_with_turned_filters():
    layer, x, g = convolution(2, 3), RNG.normal(size=(4, 2, 6, 5)), RNG.normal(size=(4, 3, 6, 5))
    layer.forward(x)
    turned = layer.parameters["weight"][:, :, ::-1, ::-1].swapaxes(0, 1)
    back = Convolution(turned, np.zeros(2), padding=1)
    np.testing.assert_allclose(layer.backward(g), back.forward(g), atol=1e-12)


def test_3_two_convolutions_without_relu_are_one_of_five_by_five():
    first, second = convolution(1, 4, padding=0), convolution(4, 1, padding=0)
    unit = np.zeros((1, 1, 9, 9))
    unit[0, 0, 4, 4] = 1
    answer = second.forward(first.forward(unit))  # to one lit pixel: the filter, turned
    one = Convolution(answer[:, :, ::-1, ::-1], np.zeros(1))
    x = RNG.normal(size=(3, 1, 12, 10))
    np.testing.assert_allclose(one.forward(x), second.forward(first.forward(x)), atol=1e-10)


def test_4_a_convolution_moves_with_the_image_pooling_only_by_its_own_step():
    x = np.zeros((1, 1, 12, 12))
    x[:, :, 4:7, 4:7] = RNG.random((3, 3))
    layer, pool = convolution(1, 2), MaxPooling()

    def moved(h, by):
        return np.roll(h, by, axis=3)

    np.testing.assert_allclose(layer.forward(moved(x, 1)), moved(layer.forward(x), 1), atol=1e-12)
    np.testing.assert_array_equal(pool.forward(moved(x, 2)), moved(pool.forward(x), 1))
    assert not any(np.array_equal(pool.forward(moved(x, 1)), moved(pool.forward(x), by)) for by in (0, 1))


def test_5_label_smoothing_is_content_with_a_finite_margin():
    k, epsilon = 10, 0.1
    margin = np.log((k * (1 - epsilon) + epsilon) / epsilon)
    logits = torch.zeros(1, k, dtype=torch.float64)
    logits[0, 3] = margin
    logits.requires_grad_()
    F.cross_entropy(logits, torch.tensor([3]), label_smoothing=epsilon).backward()
    assert logits.grad is not None and logits.grad.abs().max() < 1e-12
    assert abs(logits.detach().softmax(1)[0, 3].item() - 0.91) < 1e-12
