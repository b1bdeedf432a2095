"""The model of image diffusion: what it makes of its process, network and sampler, and what of them it lets through."""

import pytest
import torch

from genai.core.config import UserError, validate
from genai.core.dataset import Description
from genai.diffusion.image.model import RATIOS, ImageDiffusion


def description(*shape, n_classes=3):
    return Description(kind="images", shape=list(shape), classes=[str(c) for c in range(n_classes)])


def config(**values):
    return {"process": "flow_matching", "channels": [8, 8], "n_embedding": 8} | values


def diffusion(shape=(1, 8, 8), seed=0, **values):
    torch.manual_seed(seed)
    model = ImageDiffusion(ImageDiffusion.Config(**config(**values)), description(*shape))
    for parameter in model.parameters():  # past its start, at which the answer is 0
        torch.nn.init.normal_(parameter, std=0.2)
    return model


def sampling(**values):
    return ImageDiffusion.Sampling(**{"steps": 2, "guidance": 1.0, "seed": 0} | values)


@pytest.mark.parametrize(
    "values", [{"process": "flow_matching"}, {"process": "ddpm"}, {"process": "ddpm", "prediction": "epsilon"}]
)
def test_who_knows_the_image_has_no_denoising_error_and_who_answers_zero_that_of_his_process(values):
    model, x, y = diffusion(**values).eval(), torch.rand(40, 1, 8, 8), torch.zeros(40, dtype=torch.long)
    inside = 2 * x - 1

    def knows(x_t, t, y):
        (alpha, sigma), (a, b) = (
            (v.view(-1, 1, 1, 1) for v in f(t)) for f in (model.process.path, model.process.asked)
        )
        return a * inside + b * (x_t - alpha * inside) / sigma

    model.network.forward = knows
    errors = model.denoising_errors(x, y, torch.Generator().manual_seed(0))
    assert errors.shape == (40, len(RATIOS)) and errors.dtype == torch.float64
    assert errors.max() < 1e-6
    if values["process"] == "flow_matching":  # with velocity 0 the image is taken to be x_t
        model.network.forward = lambda x_t, t, y: torch.zeros_like(x_t)
        found = model.denoising_errors(x, y, torch.Generator().manual_seed(0)).mean(0)
        t = (RATIOS / (1 + RATIOS)).double()
        expected = (1 - t) ** 2 * (inside.double().square().mean() + 1)
        torch.testing.assert_close(found, expected, rtol=0.1, atol=0)


def test_the_denoising_error_of_an_image_does_not_depend_on_which_come_with_it(monkeypatch):
    model, x, y = diffusion().eval(), torch.rand(5, 1, 8, 8), torch.tensor([0, 1, 2, 0, 1])
    together = model.denoising_errors(x, y, torch.Generator().manual_seed(0))
    one = torch.Generator().manual_seed(0)
    alone = [model.denoising_errors(x[i : i + 1], y[i : i + 1], one) for i in range(5)]
    monkeypatch.setattr("genai.diffusion.image.model.BATCH", 2)
    torch.testing.assert_close(together, model.denoising_errors(x, y, torch.Generator().manual_seed(0)))
    torch.testing.assert_close(together, torch.cat(alone), rtol=1e-5, atol=1e-6)
    other = model.denoising_errors(x, (y + 1) % 3, torch.Generator().manual_seed(0))
    assert (together - other).abs().mean(1).min() > 1e-4, "the class counts"


@pytest.mark.parametrize(
    ("shape", "values"),
    [
        ((1, 8, 8), {}),
        ((3, 32, 32), {"process": "ddpm"}),
        ((1, 28, 28), {"patch": 2}),
        ((3, 8, 12), {"patch": 4, "channels": [8]}),
    ],
)
def test_takes_its_shape_from_the_data_and_draws_in_the_unit_range(shape, values):
    model = diffusion(shape, **values)
    x = torch.rand(5, *shape)
    model.loss({"x": x, "y": torch.arange(5) % 3}).backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in model.parameters())
    made = model.eval().sample(torch.tensor([0, 1, 2]), sampling(), torch.Generator().manual_seed(0))
    assert made.shape == (3, *shape)
    assert made.min() >= 0 and made.max() <= 1


def test_images_are_scaled_to_plus_minus_one_and_back():
    # with velocity 0 the loss of images that are all 1 is E|1 - x_0|^2 = 2, of grey ones 1; samples are the noise
    model = diffusion().eval()
    for parameter in model.network.head.parameters():
        torch.nn.init.zeros_(parameter)
    y = torch.zeros(500, dtype=torch.long)
    for grey, expected in ((1.0, 2), (0.5, 1), (0.0, 2)):
        torch.manual_seed(0)
        assert model.loss({"x": torch.full((500, 1, 8, 8), grey), "y": y}).item() == pytest.approx(expected, abs=0.05)
    made = model.sample(y[:4], sampling(), torch.Generator().manual_seed(7))
    noise = torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(7))
    torch.testing.assert_close(made, (noise / 2 + 0.5).clamp(0, 1))


def test_guidance_extrapolates_from_the_unknown_class():
    model = diffusion().eval()
    x, t, y = torch.randn(4, 1, 8, 8), torch.rand(4), torch.tensor([0, 1, 2, 0])
    unknown, known = model.network(x, t, torch.full((4,), 3)), model.network(x, t, y)
    assert not torch.allclose(unknown, known)
    for guidance, expected in ((0.0, unknown), (1.0, known), (2.5, unknown + 2.5 * (known - unknown))):
        torch.testing.assert_close(model.guided(x, t, y, guidance), expected)


def test_classes_are_dropped_in_training_only_and_as_often_as_configured():
    model = diffusion(class_dropout=0.25)
    seen = []
    model.network.forward = lambda x, t, y: seen.append(y) or torch.zeros_like(x)
    batch = {"x": torch.rand(4000, 1, 8, 8), "y": torch.arange(4000) % 3}
    torch.manual_seed(0)
    model.train().loss(batch)
    model.eval().loss(batch)
    dropped = seen[0] == 3
    assert dropped.float().mean().item() == pytest.approx(0.25, abs=0.03)
    assert torch.equal(seen[0][~dropped], batch["y"][~dropped])
    assert torch.equal(seen[1], batch["y"])


@pytest.mark.parametrize("numbers", [{}, {"sampler": "ddim", "eta": 1.0, "steps": 3}])
def test_the_seed_alone_decides_the_images_whatever_the_batch(monkeypatch, numbers):
    model, labels = diffusion().eval(), torch.arange(7) % 3
    draw = lambda seed: model.sample(labels, sampling(**numbers), torch.Generator().manual_seed(seed))
    torch.manual_seed(5)
    first = draw(1)
    torch.manual_seed(6)
    assert torch.equal(first, draw(1))
    assert not torch.equal(first, draw(2))
    monkeypatch.setattr("genai.diffusion.image.model.BATCH", 2)
    torch.testing.assert_close(first, draw(1))


def test_a_preview_is_an_image_of_each_class_as_sample_draws_it():
    model = diffusion().eval()
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
        ({"eta": 0.5}, "sample.eta: 0.5 should be left out: the sampler heun reads steps"),
        ({"sampler": "euler", "eta": 0.5}, "sample.eta: 0.5 should be left out: the sampler euler reads steps"),
        ({"sampler": "dpm"}, "sample.sampler: 'dpm' should be 'euler', 'heun' or 'ddim'"),
    ]:
        with pytest.raises(UserError, match=line):
            validate(ImageDiffusion.Sampling, {"steps": 2, "seed": 0} | values, "sample")


@pytest.mark.parametrize(("process", "sampler"), [("flow_matching", "heun"), ("ddpm", "ddim")])
def test_learns_to_draw_what_a_class_looks_like(process, sampler):
    torch.manual_seed(0)
    model = ImageDiffusion(
        ImageDiffusion.Config(process=process, channels=[8], n_embedding=16), description(1, 4, 4, n_classes=2)
    )
    x = torch.zeros(2, 1, 4, 4)
    x[0, :, :2], x[1, :, :, :2] = 1, 1  # upper half, left half
    y = torch.arange(64) % 2
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    for _ in range(120):
        optimizer.zero_grad()
        model.loss({"x": x[y], "y": y}).backward()
        optimizer.step()
    made = model.eval().sample(y, sampling(steps=5, sampler=sampler), torch.Generator().manual_seed(0))
    distance = (made[:, None] - x[None]).flatten(2).norm(dim=2)
    assert (distance.argmin(1) == y).all()
    assert distance.min(1).values.mean() < 1


def test_numbers_that_nothing_reads_are_refused():
    for values, line in [
        ({"process": "ddpm", "time_std": 0.5}, "config.time_std: 0.5 should be left out: ddpm reads prediction"),
        ({"prediction": "epsilon"}, "config.prediction: 'epsilon' should be left out: flow_matching reads time_std"),
        ({"process": "score"}, "config.process: 'score' should be 'flow_matching' or 'ddpm'"),
    ]:
        with pytest.raises(UserError, match=line):
            validate(ImageDiffusion.Config, config(**values), "config")


def test_of_a_section_only_what_another_sampler_reads_is_kept():
    numbers = {"sampler": "euler", "steps": 3, "eta": 1.0, "guidance": 2.0, "seed": 1}
    assert ImageDiffusion.Sampling.of_sampler(numbers) == {"sampler": "euler", "steps": 3, "guidance": 2.0, "seed": 1}
    assert ImageDiffusion.Sampling.of_sampler(numbers | {"sampler": "ddim"}) == numbers | {"sampler": "ddim"}


@pytest.mark.parametrize("process", ["flow_matching", "ddpm"])
def test_a_walk_leads_from_the_noise_to_what_sample_draws(process):
    model, labels = diffusion(process=process).eval(), torch.tensor([0, 1, 2])
    numbers = sampling(steps=4, sampler="ddim", eta=0.7)
    made = model.sample(labels, numbers, torch.Generator().manual_seed(3))
    generator = torch.Generator().manual_seed(3)
    noise = torch.randn(3, 1, 8, 8, generator=generator)
    seeds = torch.randint(2**31, (3,), generator=generator).tolist()
    states = [*model.walk(noise, labels, numbers, seeds)]
    assert len(states) == 5
    torch.testing.assert_close(states[0], (noise / 2 + 0.5).clamp(0, 1))
    assert torch.equal(states[-1], made)


def test_images_that_cannot_be_halved_are_refused():
    with pytest.raises(ValueError, match="channels: 3 levels need images divisible by 4, not 6 x 8"):
        diffusion((1, 6, 8), channels=[8, 8, 8])
