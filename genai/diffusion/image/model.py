"""Image diffusion: a process over a network, sampled for a class with classifier-free guidance.

Ho and Salimans, "Classifier-free diffusion guidance", 2022, arXiv 2207.12598 (CFG).
"""

from collections.abc import Iterator
from typing import Annotated, Any, Literal

import torch
from pydantic import Field, ValidationInfo, field_validator
from torch import Tensor, nn

from genai.core.config import Count, Fraction, Seed, Strict
from genai.core.dataset import Description
from genai.diffusion.image import process, samplers
from genai.diffusion.image.network import UNet

BATCH = 250  # images at a time; no result depends on which others are in the batch
RATIOS = torch.exp(torch.linspace(-3.5, 3.5, 8))  # of image to noise, alpha / sigma, at which denoising is measured
PREVIEWED = 10  # classes shown while it trains


class ImageSampling(Strict):
    """How images are drawn."""

    sampler: Literal["euler", "heun", "ddim"] = "heun"
    steps: Annotated[int, Field(ge=1, le=1000)] = Field(
        description="from noise to image; an evaluation of the network each, of heun two"
    )
    eta: Annotated[
        float,
        Field(ge=0, le=1, description="ddim: share of the noise that is fresh at each step; 1: DDPM's own sampler"),
    ] = 0.0
    guidance: Annotated[float, Field(ge=0, le=20, description="1: as learned; more: more typical of its class")] = 1.0
    seed: Seed

    @field_validator("eta")
    @classmethod
    def _is_read(cls, value: float, info: ValidationInfo) -> float:
        """Refuse a number that is given and would change nothing."""
        name, sampler = str(info.field_name), info.data.get("sampler")
        if sampler and value != cls.model_fields[name].default and name not in samplers.keywords(sampler):
            reads = " and ".join(samplers.keywords(sampler))
            raise ValueError(f"{value} should be left out: the sampler {sampler} reads {reads}")
        return value

    @classmethod
    def of_sampler(cls, numbers: dict[str, Any]) -> dict[str, Any]:
        """Return the numbers without those that only samplers other than the one they name read."""
        reads = samplers.keywords(numbers.get("sampler", cls.model_fields["sampler"].default))
        others = {key for sampler in samplers.SAMPLERS for key in samplers.keywords(sampler)}.difference(reads)
        return {key: value for key, value in numbers.items() if key not in others}


class ImageDiffusion(nn.Module):
    """Draws images of a class. Pixels are in [0, 1] outside, in [-1, 1] inside, where noise is standard normal."""

    takes = frozenset({"images"})
    task = "image_diffusion"
    generates = "image_generation"
    Sampling = ImageSampling
    ratios = RATIOS

    class Config(Strict):
        process: Literal["flow_matching", "ddpm"]
        time_std: Annotated[float, Field(gt=0)] = Field(
            1.0, description="flow_matching: standard deviation of logit(t) in training"
        )
        prediction: Literal["epsilon", "v"] = Field("v", description="ddpm: what the network is asked for")
        channels: Annotated[list[Count], Field(min_length=1)] = Field(
            description="of each level of the U-Net, finest first"
        )
        patch: Count = Field(1, description="side of the squares of pixels that the network sees as one")
        n_embedding: Annotated[int, Field(ge=4)] = Field(description="width of the embedding of time and class")
        class_dropout: Fraction = Field(
            0.0, description="share of the training images without class; guidance needs some"
        )

        @field_validator("time_std", "prediction")
        @classmethod
        def _is_read(cls, value: Any, info: ValidationInfo) -> Any:
            """Refuse a number that is given and would change nothing."""
            name, chosen = str(info.field_name), info.data.get("process")
            if chosen and value != cls.model_fields[name].default and name not in process.keywords(chosen):
                raise ValueError(
                    f"{value!r} should be left out: {chosen} reads {' and '.join(process.keywords(chosen))}"
                )
            return value

    def __init__(self, config: Config, description: Description):
        super().__init__()
        n_channels, height, width = description.shape
        factor = config.patch * 2 ** (len(config.channels) - 1)
        if height % factor or width % factor:
            raise ValueError(
                f"channels: {len(config.channels)} levels need images divisible by {factor}, not {height} x {width}"
            )
        self.shape, self.n_classes = (n_channels, height, width), description.n_classes
        self.class_dropout = config.class_dropout
        numbers = {name: getattr(config, name) for name in process.keywords(config.process)}
        self.process = process.PROCESSES[config.process](**numbers)
        self.network = UNet(n_channels, self.n_classes, config.channels, config.n_embedding, config.patch)

    def loss(self, batch: dict[str, Tensor]) -> Tensor:
        """Return the process's loss on a batch of images and their classes; in training some classes are dropped."""
        x, y = 2 * batch["x"] - 1, batch["y"]
        if self.training:
            y = y.where(torch.rand(len(y), device=y.device) >= self.class_dropout, self.n_classes)
        return self.process.loss(lambda x_t, t: self.network(x_t, t, y), x)

    def guided(self, x_t: Tensor, t: Tensor, y: Tensor, guidance: float) -> Tensor:
        """Return f(x_t, t, unknown) + guidance (f(x_t, t, y) - f(x_t, t, unknown)) (CFG eq. 6, 1 + w = guidance)."""
        known = self.network(x_t, t, y)
        if guidance == 1:
            return known
        unknown = self.network(x_t, t, torch.full_like(y, self.n_classes))
        return unknown + guidance * (known - unknown)

    @torch.no_grad()
    def walk(self, noise: Tensor, labels: Tensor, sampling: ImageSampling, seeds: list[int]) -> Iterator[Tensor]:
        """Yield noise (N, C, H, W) and what it becomes at each step, an image of each class in labels (N,) at last.

        In [0, 1], what lies beyond cut off. seeds: an image's own, for noise that its sampler adds.
        """
        numbers = {name: getattr(sampling, name) for name in samplers.keywords(sampling.sampler)}
        own = [torch.Generator().manual_seed(seed) for seed in seeds]
        x = noise.to(labels.device)
        walk = samplers.SAMPLERS[sampling.sampler](
            self.process,
            lambda x_t, t: self.guided(x_t, t, labels, sampling.guidance),
            x,
            lambda: torch.stack([torch.randn(self.shape, generator=one) for one in own]).to(labels.device),
            **numbers,
        )
        for state in (x, *walk):
            yield ((state + 1) / 2).clamp(0, 1)

    def sample(self, labels: Tensor, sampling: ImageSampling, generator: torch.Generator) -> Tensor:
        """Return an image of each class in labels (N,), (N, C, H, W) in [0, 1], from noise by `generator`."""
        noise = torch.randn((len(labels), *self.shape), generator=generator, device=generator.device)
        seeds = torch.randint(2**31, (len(labels),), generator=generator, device=generator.device)
        parts = zip(noise.split(BATCH), labels.split(BATCH), seeds.split(BATCH), strict=True)
        return torch.cat([[*self.walk(x, y, sampling, own.tolist())][-1] for x, y, own in parts])

    def preview(self, generator: torch.Generator) -> Tensor:
        """Return an image of each of the first classes, drawn in few steps, (N, C, H, W) in [0, 1]."""
        labels = torch.arange(min(self.n_classes, PREVIEWED), device=self.network.frequencies.device)
        return self.sample(labels, ImageSampling(steps=4, seed=0), generator)

    def denoising_errors(self, x: Tensor, y: Tensor, generator: torch.Generator) -> Tensor:
        """Return |x - E[x | x_t]|^2 per pixel, in [-1, 1], of images x (N, C, H, W) of classes y (N,), (N, RATIOS).

        A noise for each image at each ratio of image to noise, whatever the process calls that time. The generator (on
        the CPU) is asked image by image, so that an error does not depend on which images come together.
        """
        parts = zip(x.split(BATCH), y.split(BATCH), strict=True)
        return torch.cat([self._denoising_errors(*part, generator) for part in parts])

    @torch.no_grad()
    def _denoising_errors(self, x: Tensor, y: Tensor, generator: torch.Generator) -> Tensor:
        noise = torch.stack([torch.randn(len(RATIOS), *self.shape, generator=generator) for _ in x], 1).to(x.device)
        x, columns = 2 * x - 1, []
        for ratio, e in zip(RATIOS, noise, strict=True):
            t = self.process.time_of(ratio).expand(len(x)).to(x.device)
            x_t = self.process.mixed(x, e, t)
            image, _ = self.process.parts(x_t, self.network(x_t, t, y), t)
            columns.append((image - x).double().square().flatten(1).mean(1))
        return torch.stack(columns, 1)
