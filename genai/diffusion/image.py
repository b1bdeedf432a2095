"""Image diffusion by flow matching: a network learns the velocity that carries noise to images.

Lipman et al., "Flow Matching for Generative Modeling", 2023, arXiv 2210.02747 (FM below), with the straight
paths of Liu et al., "Flow Straight and Fast", 2023, arXiv 2209.03003: x_t = (1 - t) x_0 + t x_1 from noise x_0
at t = 0 to an image x_1 at t = 1. Classifier-free guidance: Ho and Salimans, 2022, arXiv 2207.12598 (CFG).
"""

import math
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from genai.core.config import Count, Fraction, Seed, Strict
from genai.core.dataset import Description

BATCH = 250  # images at a time; no result depends on which others are in the batch
DRAWS = 8  # noises and times of an image in losses
PREVIEWED = 10  # classes shown while it trains


def flow_matching_loss(velocity: Callable[[Tensor, Tensor], Tensor], x_1: Tensor, time_std: float) -> Tensor:
    """Return the mean of |v(x_t, t) - (x_1 - x_0)|^2 per pixel (FM eq. 23 with sigma_min = 0).

    Over all functions v its minimum is at E[x_1 - x_0 | x_t], the velocity of the flow (FM theorem 2).
    velocity: x_t (N, ...), t (N,) -> (N, ...). Times are logit-normal, t = sigmoid(time_std z): the middle
    of the path, where the most is to be learned, is seen more often (Esser et al., 2024, arXiv 2403.03206, eq. 19).
    """
    x_0 = torch.randn_like(x_1)
    t = torch.sigmoid(time_std * torch.randn(len(x_1), device=x_1.device))
    return squared_error(velocity, x_0, x_1, t, "mean")


def squared_error(
    velocity: Callable[[Tensor, Tensor], Tensor], x_0: Tensor, x_1: Tensor, t: Tensor, reduction: str
) -> Tensor:
    """Return |v(x_t, t) - (x_1 - x_0)|^2 on the straight paths from x_0 to x_1 (N, ...) at times t (N,)."""
    s = t.view(-1, *[1] * (x_1.ndim - 1))
    return F.mse_loss(velocity((1 - s) * x_0 + s * x_1, t), x_1 - x_0, reduction=reduction)


def heun(velocity: Callable[[Tensor, Tensor], Tensor], x: Tensor, steps: int) -> Tensor:
    """Return x(1) of dx/dt = v(x, t), x(0) = x, by Heun's method in equal steps; its error is of order steps^-2.

    Two evaluations a step (Karras et al., 2022, arXiv 2206.00364, algorithm 1, without its final Euler step).
    """
    n = len(x)
    for i in range(steps):
        t, t_next = (torch.full((n,), j / steps, dtype=x.dtype, device=x.device) for j in (i, i + 1))
        v = velocity(x, t)
        v_next = velocity(x + v / steps, t_next)
        x = x + (v + v_next) / (2 * steps)
    return x


class ResidualBlock(nn.Module):
    """x + conv(silu(norm(conv(silu(norm(x)))))), the second norm scaled and shifted by the embedding of t and class."""

    def __init__(self, n_in: int, n_out: int, n_embedding: int):
        super().__init__()
        self.norm_1 = nn.GroupNorm(math.gcd(n_in, 8), n_in)
        self.conv_1 = nn.Conv2d(n_in, n_out, 3, padding=1)
        self.modulation = nn.Linear(n_embedding, 2 * n_out)
        self.norm_2 = nn.GroupNorm(math.gcd(n_out, 8), n_out)
        self.conv_2 = nn.Conv2d(n_out, n_out, 3, padding=1)
        nn.init.zeros_(self.conv_2.weight)  # each block begins as the identity
        self.skip = nn.Conv2d(n_in, n_out, 1) if n_in != n_out else nn.Identity()

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """x: (N, n_in, H, W), embedding: (N, n_embedding) -> (N, n_out, H, W)."""
        h = self.conv_1(F.silu(self.norm_1(x)))
        scale, shift = self.modulation(embedding)[:, :, None, None].chunk(2, 1)
        return self.skip(x) + self.conv_2(F.silu(self.norm_2(h) * (1 + scale) + shift))


class UNet(nn.Module):
    """The velocity of images x_t (N, C, H, W) at times t (N,) for classes y (N,); class n_classes means: unknown.

    Ronneberger et al., 2015: a residual block at each resolution on the way down and on the way up, where it
    also sees what its counterpart saw. Each level halves height and width.
    """

    frequencies: Tensor

    def __init__(self, n_image_channels: int, n_classes: int, channels: list[int], n_embedding: int):
        super().__init__()
        self.register_buffer(
            "frequencies", torch.exp(torch.linspace(0, math.log(100), n_embedding // 2)), persistent=False
        )
        self.time = nn.Linear(n_embedding // 2 * 2, n_embedding)
        self.label = nn.Embedding(n_classes + 1, n_embedding)
        self.first = nn.Conv2d(n_image_channels, channels[0], 3, padding=1)
        self.down = nn.ModuleList(
            ResidualBlock(n_in, n_out, n_embedding) for n_in, n_out in pairwise([channels[0], *channels])
        )
        self.middle = ResidualBlock(channels[-1], channels[-1], n_embedding)
        self.up = nn.ModuleList(
            ResidualBlock(2 * n_in, n_out, n_embedding) for n_out, n_in in pairwise([channels[0], *channels])
        )
        self.norm = nn.GroupNorm(math.gcd(channels[0], 8), channels[0])
        self.last = nn.Conv2d(channels[0], n_image_channels, 3, padding=1)
        nn.init.zeros_(self.last.weight)  # begins at velocity 0

    def forward(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        angles = t[:, None] * self.frequencies
        embedding = F.silu(self.time(torch.cat([angles.sin(), angles.cos()], 1)) + self.label(y))
        h = self.first(x)
        seen = []
        for level, block in enumerate(self.down):
            h = block(F.avg_pool2d(h, 2) if level else h, embedding)
            seen.append(h)
        h = self.middle(h, embedding)
        for level, block in reversed(list(enumerate(self.up))):
            h = block(torch.cat([h, seen[level]], 1), embedding)
            h = F.interpolate(h, scale_factor=2.0) if level else h
        return self.last(F.silu(self.norm(h)))


class ImageSampling(Strict):
    """How images are drawn."""

    steps: Annotated[int, Field(ge=1, le=1000)] = Field(
        description="of Heun's method, two evaluations of the network each"
    )
    guidance: Annotated[float, Field(ge=0, le=20, description="1: as learned; more: more typical of its class")] = 1.0
    seed: Seed


class FlowMatching(nn.Module):
    """Draws images of a class. Pixels are in [0, 1] outside, in [-1, 1] inside, where noise is standard normal."""

    takes = frozenset({"images"})
    task = "flow_matching"
    generates = "image_generation"
    Sampling = ImageSampling

    class Config(Strict):
        channels: Annotated[list[Count], Field(min_length=1)] = Field(
            description="of each level of the U-Net, finest first"
        )
        n_embedding: Annotated[int, Field(ge=4)] = Field(description="width of the embedding of time and class")
        time_std: Annotated[float, Field(gt=0)] = Field(1.0, description="standard deviation of logit(t) in training")
        class_dropout: Fraction = Field(
            0.0, description="share of the training images without class; guidance needs some"
        )

    def __init__(self, config: Config, description: Description):
        super().__init__()
        n_channels, height, width = description.shape
        factor = 2 ** (len(config.channels) - 1)
        if height % factor or width % factor:
            raise ValueError(
                f"channels: {len(config.channels)} levels need images divisible by {factor}, not {height} x {width}"
            )
        self.shape, self.n_classes = (n_channels, height, width), description.n_classes
        self.time_std, self.class_dropout = config.time_std, config.class_dropout
        self.velocity = UNet(n_channels, self.n_classes, config.channels, config.n_embedding)

    def loss(self, batch: dict[str, Tensor]) -> Tensor:
        """Return the flow matching loss of a batch of images and their classes; in training some classes are dropped."""
        x_1, y = 2 * batch["x"] - 1, batch["y"]
        if self.training:
            y = y.where(torch.rand(len(y), device=y.device) >= self.class_dropout, self.n_classes)
        return flow_matching_loss(lambda x, t: self.velocity(x, t, y), x_1, self.time_std)

    def losses(self, x: Tensor, y: Tensor, generator: torch.Generator) -> Tensor:
        """Return the flow matching loss of each image of x (N, C, H, W) for its class y (N,), (N,) float64.

        The mean over DRAWS noises and times, the times spread evenly over their quantiles. The generator (on the
        CPU) is asked image by image, so that a loss does not depend on which images come together.
        """
        return torch.cat([self._losses(*part, generator) for part in zip(x.split(BATCH), y.split(BATCH), strict=True)])

    def _losses(self, x: Tensor, y: Tensor, generator: torch.Generator) -> Tensor:
        draws = [(torch.randn(DRAWS, *self.shape, generator=generator), torch.rand((), generator=generator)) for _ in x]
        noise = torch.stack([x_0 for x_0, _ in draws], 1).to(x.device)  # (DRAWS, N, C, H, W)
        u = torch.stack([u for _, u in draws]).to(x.device)
        total = torch.zeros(len(x), dtype=torch.float64, device=x.device)
        for i, x_0 in enumerate(noise):
            t = torch.sigmoid(self.time_std * torch.special.ndtri((i + u) / DRAWS))
            errors = squared_error(lambda x_t, t: self.velocity(x_t, t, y), x_0, 2 * x - 1, t, "none")
            total += errors.double().flatten(1).mean(1) / DRAWS
        return total

    def guided_velocity(self, x: Tensor, t: Tensor, y: Tensor, guidance: float) -> Tensor:
        """Return v(x, t, unknown) + guidance (v(x, t, y) - v(x, t, unknown)) (CFG eq. 6, with 1 + w = guidance)."""
        v = self.velocity(x, t, y)
        if guidance == 1:
            return v
        unknown = self.velocity(x, t, torch.full_like(y, self.n_classes))
        return unknown + guidance * (v - unknown)

    @torch.no_grad()
    def sample(self, labels: Tensor, sampling: ImageSampling, generator: torch.Generator) -> Tensor:
        """Return an image of each class in labels (N,), (N, C, H, W) in [0, 1], from noise by `generator`."""
        noise = torch.randn((len(labels), *self.shape), generator=generator, device=generator.device).to(labels.device)
        parts = [
            heun(partial(self.guided_velocity, y=y, guidance=sampling.guidance), x, sampling.steps)
            for x, y in zip(noise.split(BATCH), labels.split(BATCH), strict=True)
        ]
        return ((torch.cat(parts) + 1) / 2).clamp(0, 1)

    def preview(self, generator: torch.Generator) -> Tensor:
        """Return an image of each of the first classes, drawn in few steps, (N, C, H, W) in [0, 1]."""
        labels = torch.arange(min(self.n_classes, PREVIEWED), device=self.velocity.frequencies.device)
        return self.sample(labels, ImageSampling(steps=4, seed=0), generator)
