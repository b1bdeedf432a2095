"""Samplers: how noise is walked to an image, one function for each algorithm; any of them over any process.

    process                                  what alpha, sigma and the network's answer mean (process.py)
    network(x (N, ...), t (N,)) -> (N, ...)  what it answers
    x (N, ...)                               noise
    noise() -> (N, ...)                      fresh noise, for samplers that add some

Each yields x after every step, the image last. What it needs beyond that are the keywords after the star, the same names
as in `ImageSampling`.
"""

import inspect
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from genai.diffusion.image.process import Network, Process

Noise = Callable[[], Tensor]


def euler(process: Process, network: Network, x: Tensor, noise: Noise, *, steps: int) -> Iterator[Tensor]:
    """Follow dx/dt = v(x, t) in equal straight steps; the error is of order 1 / steps, at an evaluation a step."""
    for i in range(steps):
        t = _time(x, i / steps)
        x = x + process.velocity(x, network(x, t), t) / steps
        yield x


def heun(process: Process, network: Network, x: Tensor, noise: Noise, *, steps: int) -> Iterator[Tensor]:
    """Follow dx/dt = v(x, t) by the mean of the slopes at both ends of a step; the error is of order 1 / steps^2.

    Two evaluations a step (Karras et al., 2022, arXiv 2206.00364, algorithm 1, without its final Euler step).
    """
    for i in range(steps):
        t, t_next = _time(x, i / steps), _time(x, (i + 1) / steps)
        v = process.velocity(x, network(x, t), t)
        end = x + v / steps
        x = x + (v + process.velocity(end, network(end, t_next), t_next)) / (2 * steps)
        yield x


def ddim(process: Process, network: Network, x: Tensor, noise: Noise, *, steps: int, eta: float) -> Iterator[Tensor]:
    """Guess image and noise, and mix them anew with less noise, a part of it fresh.

    Song, Meng and Ermon, "Denoising diffusion implicit models", 2021, arXiv 2010.02502, eq. 12 and 16: from t to s

        x_s = alpha_s x + sqrt(sigma_s^2 - tau^2) e + tau z,    tau^2 = eta^2 sigma_s^2 (1 - (alpha_t sigma_s / (alpha_s sigma_t))^2)

    eta 0: nothing is fresh, and x decides the image; eta 1: the ancestral sampling of DDPM. An evaluation a step.
    """
    for i in range(steps):
        t, s = _time(x, i / steps), _time(x, (i + 1) / steps)
        image, old = process.parts(x, network(x, t), t)
        (alpha_t, sigma_t), (alpha_s, sigma_s) = ((v[0].item() for v in process.path(time)) for time in (t, s))
        forgotten = max(0.0, 1 - (alpha_t * sigma_s / (alpha_s * sigma_t)) ** 2)
        fresh = eta * sigma_s * forgotten**0.5
        x = alpha_s * image + (sigma_s**2 - fresh**2) ** 0.5 * old
        if fresh > 0:
            x = x + fresh * noise()
        yield x


SAMPLERS: dict[str, Callable[..., Iterator[Tensor]]] = {"euler": euler, "heun": heun, "ddim": ddim}


def keywords(sampler: str) -> list[str]:
    """Return the names of the numbers that a sampler reads."""
    return [p.name for p in inspect.signature(SAMPLERS[sampler]).parameters.values() if p.kind is p.KEYWORD_ONLY]


def _time(x: Tensor, t: float) -> Tensor:
    return torch.full((len(x),), t, dtype=x.dtype, device=x.device)
