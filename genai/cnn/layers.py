"""Convolution, max-pooling and fully connected layers by hand, in NumPy: read this first.

A layer answers `forward(x)`. Its `backward(g)` takes g = dL/d(output), keeps dL/d(each of its parameters) in
`gradients` and returns dL/dx for the layer below: Rumelhart, Hinton and Williams, 1986. A convolution is one matrix
product of its filters with all windows of the image: Chellapilla, Puri and Simard, "High performance convolutional
neural networks for document processing", 2006. Shapes: N images, C channels in, K channels out, filters of S x S.
"""

from typing import Protocol

import numpy as np


class Layer(Protocol):
    """What stands in a network."""

    parameters: dict[str, np.ndarray]
    gradients: dict[str, np.ndarray]

    def forward(self, x: np.ndarray) -> np.ndarray: ...

    def backward(self, g: np.ndarray) -> np.ndarray: ...


def unfold(x: np.ndarray, size: int, stride: int = 1, padding: int = 0) -> np.ndarray:
    """Return the windows of x (N, C, H, W), a row of numbers for each place: (N, H', W', C S S).

    Zeros stand around the image, `padding` of them on each side; H' = (H + 2 padding - S) // stride + 1.
    """
    x = np.pad(x, ((0, 0), (0, 0), (padding, padding), (padding, padding)))
    windows = np.lib.stride_tricks.sliding_window_view(x, (size, size), axis=(2, 3))[:, :, ::stride, ::stride]
    n, _, height, width = windows.shape[:4]
    return windows.transpose(0, 2, 3, 1, 4, 5).reshape(n, height, width, -1)


def fold(rows: np.ndarray, shape: tuple[int, ...], size: int, stride: int = 1, padding: int = 0) -> np.ndarray:
    """Add each row of `unfold` back where it came from: (N, H', W', C S S) -> x of `shape` (N, C, H, W).

    It is the transpose of `unfold`: a pixel that stood in nine windows gets the sum of nine numbers.
    """
    n, channels, h, w = shape
    height, width = rows.shape[1:3]
    windows = rows.reshape(n, height, width, channels, size, size).transpose(0, 3, 4, 5, 1, 2)
    x = np.zeros((n, channels, h + 2 * padding, w + 2 * padding), rows.dtype)
    for a in range(size):
        for b in range(size):
            x[:, :, a : a + stride * height : stride, b : b + stride * width : stride] += windows[:, :, a, b]
    return x[:, :, padding : padding + h, padding : padding + w]


class Convolution:
    """y[n,k,i,j] = b[k] + sum over c, p, q of w[k,c,p,q] x[n, c, stride i + p - padding, stride j + q - padding]."""

    def __init__(self, weight: np.ndarray, bias: np.ndarray, stride: int = 1, padding: int = 0):
        """weight: (K, C, S, S), bias: (K,)."""
        self.parameters = {"weight": weight, "bias": bias}
        self.gradients: dict[str, np.ndarray] = {}
        self.window = (weight.shape[2], stride, padding)

    def forward(self, x: np.ndarray) -> np.ndarray:
        """x: (N, C, H, W) -> (N, K, H', W')."""
        weight, bias = self.parameters["weight"], self.parameters["bias"]
        self.shape, self.rows = x.shape, unfold(x, *self.window)
        y = self.rows @ weight.reshape(len(weight), -1).T + bias  # (N, H', W', K)
        return y.transpose(0, 3, 1, 2)

    def backward(self, g: np.ndarray) -> np.ndarray:
        """g: (N, K, H', W') -> dL/dx (N, C, H, W)."""
        weight = self.parameters["weight"]
        g = g.transpose(0, 2, 3, 1)
        flat, rows = g.reshape(-1, len(weight)), self.rows.reshape(-1, self.rows.shape[-1])
        self.gradients = {"weight": (flat.T @ rows).reshape(weight.shape), "bias": flat.sum(0)}
        return fold(g @ weight.reshape(len(weight), -1), self.shape, *self.window)


class MaxPooling:
    """The largest of each S x S block, side by side; rows and columns that fill no block are left out."""

    def __init__(self, size: int = 2):
        self.parameters: dict[str, np.ndarray] = {}
        self.gradients: dict[str, np.ndarray] = {}
        self.size = size

    def forward(self, x: np.ndarray) -> np.ndarray:
        """x: (N, C, H, W) -> (N, C, H // S, W // S)."""
        n, c, h, w = self.shape = x.shape
        one_channel = x.reshape(n * c, 1, h, w)
        blocks = unfold(one_channel, self.size, stride=self.size)  # (N C, H', W', S S)
        self.winner = blocks.argmax(-1, keepdims=True)
        return np.take_along_axis(blocks, self.winner, -1).reshape(n, c, *blocks.shape[1:3])

    def backward(self, g: np.ndarray) -> np.ndarray:
        """g: (N, C, H', W') -> dL/dx: all of g for the winner of a block, nothing for the others."""
        n, c, h, w = self.shape
        blocks = np.zeros((*self.winner.shape[:-1], self.size**2), g.dtype)
        np.put_along_axis(blocks, self.winner, g.reshape(self.winner.shape), -1)
        return fold(blocks, (n * c, 1, h, w), self.size, stride=self.size).reshape(n, c, h, w)


class FullyConnected:
    """y = W x + b of each example, its image written as one row of numbers."""

    def __init__(self, weight: np.ndarray, bias: np.ndarray):
        """weight: (K, D), bias: (K,)."""
        self.parameters = {"weight": weight, "bias": bias}
        self.gradients: dict[str, np.ndarray] = {}

    def forward(self, x: np.ndarray) -> np.ndarray:
        """x: (N, ...) of D numbers each -> (N, K)."""
        self.shape, self.rows = x.shape, x.reshape(len(x), -1)
        return self.rows @ self.parameters["weight"].T + self.parameters["bias"]

    def backward(self, g: np.ndarray) -> np.ndarray:
        """g: (N, K) -> dL/dx (N, ...)."""
        self.gradients = {"weight": g.T @ self.rows, "bias": g.sum(0)}
        return (g @ self.parameters["weight"]).reshape(self.shape)


class ReLU:
    """max(0, x)."""

    def __init__(self) -> None:
        self.parameters: dict[str, np.ndarray] = {}
        self.gradients: dict[str, np.ndarray] = {}

    def forward(self, x: np.ndarray) -> np.ndarray:
        self.positive = x > 0
        return x * self.positive

    def backward(self, g: np.ndarray) -> np.ndarray:
        return g * self.positive


def cross_entropy(logits: np.ndarray, y: np.ndarray) -> tuple[float, np.ndarray]:
    """Return the mean of -log softmax(logits)[y] in nats and dL/d(logits); logits: (N, K), y: (N,) int."""
    shifted = logits - logits.max(1, keepdims=True)
    log_p = shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
    of_class = np.arange(len(y)), y
    g = np.exp(log_p)
    g[of_class] -= 1
    return float(-log_p[of_class].mean()), g / len(y)


def step(layers: list[Layer], x: np.ndarray, y: np.ndarray, learning_rate: float) -> float:
    """Do one step of gradient descent, in place, and return the loss before it."""
    for layer in layers:
        x = layer.forward(x)
    loss, g = cross_entropy(x, y)
    for layer in reversed(layers):
        g = layer.backward(g)
        for name, gradient in layer.gradients.items():
            layer.parameters[name] -= learning_rate * gradient
    return loss
