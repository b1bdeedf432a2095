"""The samplers of image diffusion: where they come out, how fast, and what noise has to do with it."""

import numpy as np
import pytest
import torch

from genai.diffusion.image.process import DDPM, FlowMatching
from genai.diffusion.image.samplers import ddim, euler, heun
from tests.diffusion.image.test_process import MEAN, SD, best

FLOW, ARC, NOISE = FlowMatching(time_std=1.0), DDPM(prediction="v"), DDPM(prediction="epsilon")
X = torch.linspace(-3, 3, 13, dtype=torch.float64)[:, None]


def carried(process, x):
    """Return where the flow carries x: from one Gaussian to the next, quantiles are kept."""
    alpha, sigma = process.path(torch.zeros((), dtype=torch.float64))
    return MEAN + SD * (x - alpha * MEAN) / (alpha**2 * SD**2 + sigma**2).sqrt()


def last(sampler, process, x, network=None, noise=None, **numbers):
    return [*sampler(process, network or best(process), x, noise, **numbers)][-1]


@pytest.mark.parametrize(
    ("sampler", "process", "order"),
    [(euler, FLOW, 1), (euler, ARC, 1), (heun, FLOW, 2), (heun, ARC, 2), (heun, NOISE, 2)],
)
def test_the_gaussian_is_reached_with_an_error_of_the_order_of_the_method(sampler, process, order):
    errors = [(last(sampler, process, X, steps=n) - carried(process, X)).abs().max().item() for n in (40, 80, 160, 320)]
    np.testing.assert_allclose(np.log2(np.array(errors[:-1]) / errors[1:]), order, atol=0.15)
    assert errors[-1] < {1: 0.01, 2: 1e-3}[order]


@pytest.mark.parametrize("process", [FLOW, ARC, NOISE])
def test_ddim_without_fresh_noise_follows_the_same_flow_with_order_one(process):
    errors = [
        (last(ddim, process, X, steps=n, eta=0.0) - carried(process, X)).abs().max().item() for n in (40, 80, 160, 320)
    ]
    np.testing.assert_allclose(np.log2(np.array(errors[:-1]) / errors[1:]), 1, atol=0.2)
    assert errors[-1] < 0.01


def test_on_straight_lines_ddim_is_euler():
    network = lambda x, t: torch.sin(3 * x) + t[:, None] ** 2 * x
    for by_euler, by_ddim in zip(
        euler(FLOW, network, X, None, steps=7), ddim(FLOW, network, X, None, steps=7, eta=0.0), strict=True
    ):
        torch.testing.assert_close(by_euler, by_ddim)


def test_heun_agrees_with_an_independent_integrator():
    from scipy.integrate import solve_ivp

    x = torch.tensor([[-1.0], [0.3], [2.0]], dtype=torch.float64)
    found = last(heun, FLOW, x, lambda x, t: torch.sin(3 * x) + t[:, None] ** 2 * x, steps=200)
    for start, end in zip(x, found, strict=True):
        exact = solve_ivp(lambda t, x: np.sin(3 * x) + t**2 * x, (0, 1), start.numpy(), rtol=1e-10, atol=1e-12).y[:, -1]
        np.testing.assert_allclose(end, exact, atol=2e-4)


@pytest.mark.parametrize("process", [FLOW, ARC])
@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_whatever_part_of_the_noise_is_fresh_mean_and_variance_are_those_of_the_images(process, eta):
    generator = torch.Generator().manual_seed(0)
    fresh = lambda: torch.randn(50_000, 1, generator=generator, dtype=torch.float64)
    x = last(ddim, process, fresh(), noise=fresh, steps=150, eta=eta)
    assert x.mean().item() == pytest.approx(MEAN, abs=0.02)
    assert x.std().item() == pytest.approx(SD, rel=0.03)


def test_with_eta_one_a_step_is_the_ancestral_sampling_of_ddpm():
    """Ho et al., 2020, algorithm 2: its mean of x_s, with the posterior variance beta tilde (eq. 7)."""
    steps, e = 20, torch.full((1, 1), 0.7, dtype=torch.float64)
    network, x = best(NOISE), X
    bar = lambda i: NOISE.path(torch.full((1,), i / steps, dtype=torch.float64))[0].item() ** 2
    for i, state in enumerate(ddim(NOISE, network, X, lambda: e.expand_as(X), steps=steps, eta=1.0)):
        t = torch.full((len(X),), i / steps, dtype=torch.float64)
        alpha = bar(i) / bar(i + 1)
        mean = (x - (1 - alpha) / (1 - bar(i)) ** 0.5 * network(x, t)) / alpha**0.5
        x = mean + ((1 - bar(i + 1)) / (1 - bar(i)) * (1 - alpha)) ** 0.5 * e
        torch.testing.assert_close(state, x, rtol=1e-6, atol=1e-6)


def test_noise_is_asked_for_only_where_some_is_fresh():
    calls = []
    noise = lambda: calls.append(1) or torch.zeros_like(X)
    first, again = (last(ddim, ARC, X, noise=noise, steps=5, eta=0.0) for _ in range(2))
    assert torch.equal(first, again) and not calls
    last(ddim, ARC, X, noise=noise, steps=5, eta=1.0)
    assert len(calls) == 4  # the last step goes to the image itself
