"""The processes of image diffusion held to Gaussians, where the answers are known in closed form, and to each other."""

import math

import numpy as np
import pytest
import torch

from genai.diffusion.image.process import DDPM, FlowMatching

MEAN, SD = 1.5, 0.5  # of the Gaussian that stands for the images
PROCESSES = {
    "flow_matching": FlowMatching(time_std=1.0),
    "epsilon": DDPM(prediction="epsilon"),
    "v": DDPM(prediction="v"),
}


def best(process):
    """Return E[a x + b e | x_t] of x ~ N(MEAN, SD^2), e ~ N(0, 1), by the covariances of jointly Gaussian variables."""

    def answer(x_t, t):
        (alpha, sigma), (a, b) = (
            (v.view(-1, *[1] * (x_t.ndim - 1)) for v in f(t)) for f in (process.path, process.asked)
        )
        gain = (a * alpha * SD**2 + b * sigma) / (alpha**2 * SD**2 + sigma**2)
        return a * MEAN + gain * (x_t - alpha * MEAN)

    return answer


def double(*values):
    return torch.tensor(values, dtype=torch.float64)


@pytest.fixture(params=PROCESSES)
def process(request):
    return PROCESSES[request.param]


def test_the_loss_is_least_at_the_conditional_expectation(process):
    x = MEAN + SD * torch.randn(200_000, 1, generator=torch.Generator().manual_seed(0))

    def loss(network):
        torch.manual_seed(1)  # the same noise and times for all
        return process.loss(network, x).item()

    exact, least = best(process), loss(best(process))
    for bend in (lambda x, t: torch.ones_like(x), lambda x, t: t[:, None] * x, lambda x, t: torch.sin(4 * x)):
        up, down = (loss(lambda x, t, e=e, b=bend: exact(x, t) + e * b(x, t)) for e in (0.1, -0.1))
        assert least < min(up, down)
        assert (up - down) / 0.2 == pytest.approx(0, abs=0.02)  # the derivative in every direction vanishes


def test_the_least_loss_is_the_conditional_variance(process):
    x = MEAN + SD * torch.randn(400_000, 1, generator=torch.Generator().manual_seed(0))
    torch.manual_seed(1)
    found = process.loss(best(process), x).item()
    t = process.times((torch.arange(20_000, dtype=torch.float64) + 0.5) / 20_000)
    (alpha, sigma), (a, b) = process.path(t), process.asked(t)
    covariance = a * alpha * SD**2 + b * sigma
    variance = a**2 * SD**2 + b**2 - covariance**2 / (alpha**2 * SD**2 + sigma**2)
    assert found == pytest.approx(variance.mean().item(), rel=0.01)


def test_an_answer_is_image_noise_and_velocity_in_other_words(process):
    rng = torch.Generator().manual_seed(0)
    x, e = torch.randn(2, 50, 3, generator=rng, dtype=torch.float64)
    t = torch.linspace(0.01, 0.99, 50, dtype=torch.float64)
    a, b = (v[:, None] for v in process.asked(t))
    x_t, answer = process.mixed(x, e, t), a * x + b * e
    image, noise = process.parts(x_t, answer, t)
    torch.testing.assert_close(image, x, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(noise, e, rtol=1e-9, atol=1e-9)
    h = 1e-6  # the velocity is that of a point which keeps its image and its noise
    moved = (process.mixed(x, e, t + h) - process.mixed(x, e, t - h)) / (2 * h)
    torch.testing.assert_close(process.velocity(x_t, answer, t), moved, rtol=1e-7, atol=1e-7)


def test_what_the_textbooks_write_of_epsilon_image_and_v():
    rng = torch.Generator().manual_seed(0)
    x, e = torch.randn(2, 20, 1, generator=rng, dtype=torch.float64)
    t = torch.linspace(0.05, 0.95, 20, dtype=torch.float64)
    arc, bar = PROCESSES["v"], (PROCESSES["v"].path(t)[0] ** 2)[:, None]
    x_t = bar.sqrt() * x + (1 - bar).sqrt() * e
    torch.testing.assert_close(arc.mixed(x, e, t), x_t)
    image, _ = PROCESSES["epsilon"].parts(x_t, e, t)
    torch.testing.assert_close(image, (x_t - (1 - bar).sqrt() * e) / bar.sqrt())  # Ho et al., eq. 15
    v = bar.sqrt() * e - (1 - bar).sqrt() * x  # Salimans and Ho, appendix D
    image, noise = arc.parts(x_t, v, t)
    torch.testing.assert_close(image, bar.sqrt() * x_t - (1 - bar).sqrt() * v)
    torch.testing.assert_close(noise, (1 - bar).sqrt() * x_t + bar.sqrt() * v)
    torch.testing.assert_close(arc.velocity(x_t, v, t), -arc.LAST * v)
    flow = PROCESSES["flow_matching"]
    torch.testing.assert_close(flow.velocity(flow.mixed(x, e, t), x - e, t), x - e)


def test_the_best_answers_of_two_processes_say_the_same_of_the_same_picture():
    """At the same ratio of image to noise x_t is the same but for its scale, and so is what can be known of the image."""
    for ratio in (0.05, 0.7, 1.0, 6.0):
        found = []
        for process in PROCESSES.values():
            t = process.time_of(double(ratio))
            alpha, sigma = process.path(t)
            assert (alpha / sigma).item() == pytest.approx(ratio)
            x_t = alpha * MEAN + sigma * double(0.8).view(1, 1)
            found.append(process.parts(x_t, best(process)(x_t, t[None]), t[None])[0].item())
        np.testing.assert_allclose(found, found[0])


def test_noise_is_at_the_beginning_and_an_image_at_the_end(process):
    begin, end = (torch.stack(process.path(double(t))).flatten() for t in (0.0, 1.0))
    torch.testing.assert_close(begin, double(0, 1), rtol=0, atol=0.0064)
    torch.testing.assert_close(end, double(1, 0))
    u = torch.rand(100_000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    t = process.times(u)
    assert 0 < t.min() and t.max() < 1
    if isinstance(process, FlowMatching):
        assert torch.logit(t).std().item() == pytest.approx(1, abs=0.02)
        assert torch.logit(FlowMatching(time_std=0.5).times(u)).std().item() == pytest.approx(0.5, abs=0.01)
    else:
        alpha, sigma = process.path(t)
        torch.testing.assert_close(alpha**2 + sigma**2, torch.ones_like(t))
        cosine = torch.cos(math.pi / 2 * (1 - t))  # Nichol and Dhariwal, without their offset
        torch.testing.assert_close(alpha, cosine, rtol=0, atol=0.007)
