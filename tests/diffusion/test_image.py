"""Flow matching of images: the loss, the sampler and the guidance held to Gaussians, where all is known in closed form."""

import math

import numpy as np
import pytest
import torch

from genai.core.config import UserError, validate
from genai.core.dataset import Description
from genai.diffusion.image import FlowMatching, flow_matching_loss, heun

MEAN, SD = 1.5, 0.5  # of the Gaussian that stands for the images


def exact_velocity(x, t):
    """E[x_1 - x_0 | x_t = x] of x_0 ~ N(0, 1), x_1 ~ N(MEAN, SD^2), by the covariances of jointly Gaussian variables."""
    t = t.view(-1, *[1] * (x.ndim - 1))
    variance = (1 - t) ** 2 + t**2 * SD**2
    covariance = t * SD**2 - (1 - t)
    return MEAN + covariance / variance * (x - t * MEAN)


def description(*shape, n_classes=3):
    return Description(kind="images", shape=list(shape), classes=[str(c) for c in range(n_classes)])


def flow(shape=(1, 8, 8), seed=0, **config):
    torch.manual_seed(seed)
    model = FlowMatching(FlowMatching.Config(**{"channels": [8, 8], "n_embedding": 8} | config), description(*shape))
    for parameter in model.parameters():  # past its start, at which the velocity is 0
        torch.nn.init.normal_(parameter, std=0.2)
    return model


def sampling(**values):
    return FlowMatching.Sampling(**{"steps": 2, "guidance": 1.0, "seed": 0} | values)


def test_heun_carries_noise_to_the_gaussian_with_an_error_of_order_two():
    x_0 = torch.linspace(-3, 3, 13, dtype=torch.float64)[:, None]
    # the flow of one Gaussian to another keeps quantiles: x_1 = MEAN + SD x_0
    errors = [(heun(exact_velocity, x_0, steps) - (MEAN + SD * x_0)).abs().max().item() for steps in (20, 40, 80, 160)]
    orders = np.log2(np.array(errors[:-1]) / errors[1:])
    np.testing.assert_allclose(orders, 2, atol=0.15)
    assert errors[-1] < 1e-3


def test_heun_agrees_with_an_independent_integrator():
    from scipy.integrate import solve_ivp

    def velocity(x, t):
        return torch.sin(3 * x) + t[:, None] ** 2 * x

    x_0 = torch.tensor([[-1.0], [0.3], [2.0]], dtype=torch.float64)
    found = heun(velocity, x_0, 200)
    for start, end in zip(x_0, found, strict=True):
        exact = solve_ivp(lambda t, x: np.sin(3 * x) + t**2 * x, (0, 1), start.numpy(), rtol=1e-10, atol=1e-12).y[:, -1]
        np.testing.assert_allclose(end, exact, atol=2e-4)


def test_the_loss_is_least_at_the_conditional_expectation():
    x_1 = MEAN + SD * torch.randn(200_000, 1, generator=torch.Generator().manual_seed(0))

    def loss(velocity):
        torch.manual_seed(1)  # the same noise and times for all
        return flow_matching_loss(velocity, x_1, time_std=1.0).item()

    least = loss(exact_velocity)
    bends = [
        lambda x, t: torch.ones_like(x),
        lambda x, t: x,
        lambda x, t: t[:, None] * x,
        lambda x, t: torch.sin(4 * x),
        lambda x, t: torch.cos(6 * t)[:, None].expand_as(x),
    ]
    for bend in bends:
        up, down = (loss(lambda x, t, e=e, b=bend: exact_velocity(x, t) + e * b(x, t)) for e in (0.1, -0.1))
        assert least < min(up, down)
        assert (up - down) / 0.2 == pytest.approx(0, abs=0.02)  # the derivative in every direction vanishes


def test_the_least_loss_is_the_conditional_variance():
    x_1 = MEAN + SD * torch.randn(400_000, 1, generator=torch.Generator().manual_seed(0))
    torch.manual_seed(1)
    found = flow_matching_loss(exact_velocity, x_1, time_std=1.0).item()
    z = np.linspace(-8, 8, 4001)
    t = 1 / (1 + np.exp(-z))
    variance = 1 + SD**2 - (t * SD**2 - (1 - t)) ** 2 / ((1 - t) ** 2 + t**2 * SD**2)
    density = np.exp(-(z**2) / 2) / math.sqrt(2 * math.pi)
    assert found == pytest.approx(np.trapezoid(variance * density, z), rel=0.01)


def gaussian_flow(n_classes=3):
    """A model of one pixel whose velocity is the exact one of N(MEAN, SD^2) inside."""
    model = FlowMatching(FlowMatching.Config(channels=[1], n_embedding=4), description(1, 1, 1, n_classes=n_classes))
    model.velocity.forward = lambda x, t, y: exact_velocity(x, t)
    return model.eval()


def least_loss(x):
    """E|v(x_t, t) - (x - x_0)|^2 for one image x under the exact velocity, by quadrature over t and x_0.

    v - (x - x_0) is linear in both: with d = x - MEAN and k = covariance / variance, (k t - 1) d + (1 + k (1 - t)) x_0.
    """
    z = np.linspace(-8, 8, 4001)
    t = 1 / (1 + np.exp(-z))
    k = (t * SD**2 - (1 - t)) / ((1 - t) ** 2 + t**2 * SD**2)
    density = np.exp(-(z**2) / 2) / math.sqrt(2 * math.pi)
    return np.trapezoid((((k * t - 1) * (x - MEAN)) ** 2 + (1 + k * (1 - t)) ** 2) * density, z)


@pytest.mark.parametrize("x", [MEAN, MEAN + 2 * SD, 0.0])
def test_the_loss_of_an_image_is_its_expectation(x):
    images = torch.full((4000, 1, 1, 1), (x + 1) / 2)
    losses = gaussian_flow().losses(images, torch.zeros(4000, dtype=torch.long), torch.Generator().manual_seed(0))
    error = losses.std().item() / len(losses) ** 0.5
    assert losses.dtype == torch.float64
    assert abs(losses.mean().item() - least_loss(x)) < 4 * error < 0.1 * least_loss(x)


def test_the_losses_of_images_have_the_mean_of_the_training_loss():
    model = flow().eval()
    x, y = torch.rand(3, 1, 8, 8), torch.arange(3)
    with torch.no_grad():
        training = torch.stack([model.loss({"x": x, "y": y}) for _ in range(600)])
        generators = [torch.Generator().manual_seed(seed) for seed in range(60)]
        found = torch.stack([model.losses(x, y, generator).mean() for generator in generators])
    error = (training.var() / len(training) + found.var() / len(found)).sqrt().item()
    assert abs(training.mean().item() - found.mean().item()) < 4 * error < 0.1 * training.mean().item()


def test_times_spread_evenly_leave_less_noise_than_times_drawn_singly():
    images, y = torch.full((2000, 1, 1, 1), (MEAN + 1) / 2), torch.zeros(2000, dtype=torch.long)
    model, generator = gaussian_flow(), torch.Generator().manual_seed(0)

    def wrong_by_the_time(x, t, y):  # the right answer plus t, so that the loss is t^2 whatever the noise
        t = t.view(-1, 1, 1, 1)
        return MEAN - (x - t * MEAN) / (1 - t) + t

    model.velocity.forward = wrong_by_the_time
    losses = model.losses(images, y, generator)
    t = torch.sigmoid(torch.randn(2000, 8, generator=generator))
    single = t.square().mean(1)
    assert losses.mean().item() == pytest.approx(single.mean().item(), abs=0.01)
    assert losses.std() < 0.5 * single.std()


def test_the_loss_of_an_image_does_not_depend_on_which_come_with_it(monkeypatch):
    model, x, y = flow().eval(), torch.rand(5, 1, 8, 8), torch.tensor([0, 1, 2, 0, 1])
    with torch.no_grad():
        together = model.losses(x, y, torch.Generator().manual_seed(0))
        one = torch.Generator().manual_seed(0)
        alone = [model.losses(x[i : i + 1], y[i : i + 1], one) for i in range(5)]
        monkeypatch.setattr("genai.diffusion.image.BATCH", 2)
        torch.testing.assert_close(together, model.losses(x, y, torch.Generator().manual_seed(0)))
        other = model.losses(x, (y + 1) % 3, torch.Generator().manual_seed(0))
    torch.testing.assert_close(together, torch.cat(alone), rtol=1e-5, atol=1e-6)
    assert (together - other).abs().min() > 1e-4, "the class counts"


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 32, 32), (1, 28, 28)])
def test_takes_its_shape_from_the_data_and_draws_in_the_unit_range(shape):
    model = flow(shape)
    x = torch.rand(5, *shape)
    model.loss({"x": x, "y": torch.arange(5) % 3}).backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in model.parameters())
    made = model.eval().sample(torch.tensor([0, 1, 2]), sampling(), torch.Generator().manual_seed(0))
    assert made.shape == (3, *shape)
    assert made.min() >= 0 and made.max() <= 1


def test_images_are_scaled_to_plus_minus_one_and_back():
    # with velocity 0 the loss of images that are all 1 is E|1 - x_0|^2 = 2, of grey ones 1; samples are the noise
    model = flow().eval()
    for parameter in model.velocity.last.parameters():
        torch.nn.init.zeros_(parameter)
    y = torch.zeros(500, dtype=torch.long)
    for grey, expected in ((1.0, 2), (0.5, 1), (0.0, 2)):
        torch.manual_seed(0)
        assert model.loss({"x": torch.full((500, 1, 8, 8), grey), "y": y}).item() == pytest.approx(expected, abs=0.05)
    made = model.sample(y[:4], sampling(), torch.Generator().manual_seed(7))
    noise = torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(7))
    torch.testing.assert_close(made, (noise / 2 + 0.5).clamp(0, 1))


def test_guidance_extrapolates_from_the_unknown_class():
    model = flow().eval()
    x, t, y = torch.randn(4, 1, 8, 8), torch.rand(4), torch.tensor([0, 1, 2, 0])
    unknown, known = model.velocity(x, t, torch.full((4,), 3)), model.velocity(x, t, y)
    assert not torch.allclose(unknown, known)
    for guidance, expected in ((0.0, unknown), (1.0, known), (2.5, unknown + 2.5 * (known - unknown))):
        torch.testing.assert_close(model.guided_velocity(x, t, y, guidance), expected)


def test_classes_are_dropped_in_training_only_and_as_often_as_configured():
    model = flow(class_dropout=0.25)
    seen = []
    model.velocity.forward = lambda x, t, y: seen.append(y) or torch.zeros_like(x)
    batch = {"x": torch.rand(4000, 1, 8, 8), "y": torch.arange(4000) % 3}
    torch.manual_seed(0)
    model.train().loss(batch)
    model.eval().loss(batch)
    dropped = seen[0] == 3
    assert dropped.float().mean().item() == pytest.approx(0.25, abs=0.03)
    assert torch.equal(seen[0][~dropped], batch["y"][~dropped])
    assert torch.equal(seen[1], batch["y"])


def test_the_seed_alone_decides_the_images_whatever_the_batch(monkeypatch):
    model, labels = flow().eval(), torch.arange(7) % 3
    draw = lambda seed: model.sample(labels, sampling(), torch.Generator().manual_seed(seed))
    torch.manual_seed(5)
    first = draw(1)
    torch.manual_seed(6)
    assert torch.equal(first, draw(1))
    assert not torch.equal(first, draw(2))
    monkeypatch.setattr("genai.diffusion.image.BATCH", 2)
    torch.testing.assert_close(first, draw(1))


def test_a_preview_is_an_image_of_each_class_as_sample_draws_it():
    model = flow().eval()
    shown = model.preview(torch.Generator().manual_seed(3))
    assert shown.shape == (3, 1, 8, 8)
    expected = model.sample(torch.arange(3), sampling(steps=4), torch.Generator().manual_seed(3))
    assert torch.equal(shown, expected)


def test_numbers_of_a_request_are_bounded():
    for values, line in [
        ({"steps": 10**7}, "sample.steps: 10000000 should be less than or equal to 1000"),
        ({"steps": 0}, "sample.steps: 0 should be greater than or equal to 1"),
        ({"guidance": 1e9}, "sample.guidance: 1000000000.0 should be less than or equal to 20"),
        ({"per_class": 3}, "sample.per_class: unknown key"),
    ]:
        with pytest.raises(UserError, match=line):
            validate(FlowMatching.Sampling, {"steps": 2, "seed": 0} | values, "sample")


def test_learns_to_draw_what_a_class_looks_like():
    torch.manual_seed(0)
    model = FlowMatching(FlowMatching.Config(channels=[8], n_embedding=16), description(1, 4, 4, n_classes=2))
    x = torch.zeros(2, 1, 4, 4)
    x[0, :, :2], x[1, :, :, :2] = 1, 1  # upper half, left half
    y = torch.arange(64) % 2
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    for _ in range(200):
        optimizer.zero_grad()
        model.loss({"x": x[y], "y": y}).backward()
        optimizer.step()
    made = model.eval().sample(y, sampling(steps=5), torch.Generator().manual_seed(0))
    distance = (made[:, None] - x[None]).flatten(2).norm(dim=2)
    assert (distance.argmin(1) == y).all()
    assert distance.min(1).values.mean() < 1


def test_images_that_cannot_be_halved_are_refused():
    with pytest.raises(ValueError, match="channels: 3 levels need images divisible by 4, not 6 x 8"):
        flow((1, 6, 8), channels=[8, 8, 8])
