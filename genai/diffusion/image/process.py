"""The processes: how an image becomes noise, and what a network is asked on the way. They own the loss.

In both, time runs from noise (t = 0) to an image (t = 1), and a point on the way lies between the two:

    x_t = alpha_t x + sigma_t e      x an image, pixels in [-1, 1]; e ~ N(0, I)

The network f is given x_t and t and asked for a combination of the two, by least squares:

    L = E |f(x_t, t) - (a_t x + b_t e)|^2

so that at its best it is the conditional expectation E[a_t x + b_t e | x_t]. A process is these four functions of time and
the distribution of t in training; whoever knows the answer knows image, noise and velocity (`Process.parts`).
"""

import inspect
import math
from collections.abc import Callable
from typing import ClassVar, Literal

import torch
from torch import Tensor

Network = Callable[[Tensor, Tensor], Tensor]  # x_t (N, ...), t (N,) -> (N, ...)
Pair = tuple[Tensor, Tensor]


class Process:
    """What the processes have in common, once alpha, sigma, a and b are known."""

    def path(self, t: Tensor) -> Pair:
        """Return alpha_t and sigma_t."""
        raise NotImplementedError

    def rates(self, t: Tensor) -> Pair:
        """Return the derivatives of alpha_t and sigma_t."""
        raise NotImplementedError

    def asked(self, t: Tensor) -> Pair:
        """Return a_t and b_t."""
        raise NotImplementedError

    def times(self, u: Tensor) -> Tensor:
        """Return the time at quantile u in (0, 1) of those that it is trained at."""
        raise NotImplementedError

    def time_of(self, ratio: Tensor) -> Tensor:
        """Return the time at which alpha_t / sigma_t is `ratio`: where processes meet, whatever their clocks."""
        raise NotImplementedError

    def mixed(self, x: Tensor, e: Tensor, t: Tensor) -> Tensor:
        """Return x_t of images x (N, ...) and noise e (N, ...) at times t (N,)."""
        alpha, sigma = _like(x, self.path(t))
        return alpha * x + sigma * e

    def errors(self, network: Network, x: Tensor, e: Tensor, t: Tensor) -> Tensor:
        """Return |f(x_t, t) - (a_t x + b_t e)|^2 of each image, the mean over its pixels, (N,)."""
        a, b = _like(x, self.asked(t))
        return (network(self.mixed(x, e, t), t) - (a * x + b * e)).float().square().flatten(1).mean(1)

    def loss(self, network: Network, x: Tensor) -> Tensor:
        """Return the loss on images x (N, ...), each with a noise and a time of its own."""
        u = torch.rand(len(x), device=x.device).clamp(1e-6, 1 - 1e-6)
        return self.errors(network, x, torch.randn_like(x), self.times(u)).mean()

    def parts(self, x_t: Tensor, answer: Tensor, t: Tensor) -> Pair:
        """Return the image and the noise that an answer a x + b e amounts to: two linear equations, solved.

        x_t, answer: (N, ...), t: (N,).
        """
        (alpha, sigma), (a, b) = _like(x_t, self.path(t)), _like(x_t, self.asked(t))
        determinant = alpha * b - sigma * a
        return (b * x_t - sigma * answer) / determinant, (alpha * answer - a * x_t) / determinant

    def velocity(self, x_t: Tensor, answer: Tensor, t: Tensor) -> Tensor:
        """Return dx_t / dt = alpha'_t x + sigma'_t e, the field whose flow carries noise to images."""
        (image, noise), (alpha, sigma) = self.parts(x_t, answer, t), _like(x_t, self.rates(t))
        return alpha * image + sigma * noise


class FlowMatching(Process):
    """Straight lines, and the question for their direction: alpha = t, sigma = 1 - t, v = x - e.

    Lipman et al., "Flow matching for generative modeling", 2023, arXiv 2210.02747, eq. 23 with sigma_min = 0; Liu et al.,
    "Flow straight and fast", 2023, arXiv 2209.03003. Times are logit-normal, t = sigmoid(time_std z): the middle of the
    path, where most is to be learned, is seen more often (Esser et al., 2024, arXiv 2403.03206, eq. 19).
    """

    def __init__(self, *, time_std: float):
        self.time_std = time_std

    def path(self, t: Tensor) -> Pair:
        return t, 1 - t

    def rates(self, t: Tensor) -> Pair:
        return torch.ones_like(t), -torch.ones_like(t)

    def asked(self, t: Tensor) -> Pair:
        return torch.ones_like(t), -torch.ones_like(t)

    def times(self, u: Tensor) -> Tensor:
        return torch.sigmoid(self.time_std * torch.special.ndtri(u))

    def time_of(self, ratio: Tensor) -> Tensor:
        return ratio / (1 + ratio)


class DDPM(Process):
    """An arc on which the variance is kept, and the question for the noise, or for v = alpha e - sigma x.

    Ho, Jain and Abbeel, "Denoising diffusion probabilistic models", 2020, arXiv 2006.11239, eq. 14 (alpha^2 is their
    alpha bar), in continuous time, evenly drawn. The schedule is the cosine of Nichol and Dhariwal, 2021, arXiv
    2102.09672, eq. 17: alpha = cos(theta), sigma = sin(theta), theta falling evenly. It ends just before alpha = 0, where
    no noise would tell its image. v: Salimans and Ho, 2022, arXiv 2202.00512, appendix D: pi / 2 times it is the arc's
    own velocity, backwards.
    """

    LAST: ClassVar[float] = math.acos(0.0063)  # theta at t = 0; Ho et al. end at alpha bar = 4e-5

    def __init__(self, *, prediction: Literal["epsilon", "v"]):
        self.prediction = prediction

    def path(self, t: Tensor) -> Pair:
        theta = self.LAST * (1 - t)
        return theta.cos(), theta.sin()

    def rates(self, t: Tensor) -> Pair:
        alpha, sigma = self.path(t)
        return self.LAST * sigma, -self.LAST * alpha

    def asked(self, t: Tensor) -> Pair:
        alpha, sigma = self.path(t)
        return (torch.zeros_like(t), torch.ones_like(t)) if self.prediction == "epsilon" else (-sigma, alpha)

    def times(self, u: Tensor) -> Tensor:
        return u

    def time_of(self, ratio: Tensor) -> Tensor:
        return 1 - torch.atan(1 / ratio) / self.LAST


PROCESSES: dict[str, type[Process]] = {"flow_matching": FlowMatching, "ddpm": DDPM}


def keywords(process: str) -> list[str]:
    """Return the names of the numbers that a process reads."""
    return [p for p in inspect.signature(PROCESSES[process]).parameters]


def _like(x: Tensor, pair: Pair) -> Pair:
    """Return a pair of numbers a row (N,) in the shape that multiplies x (N, ...)."""
    first, second = (value.view(-1, *[1] * (x.ndim - 1)) for value in pair)
    return first, second
