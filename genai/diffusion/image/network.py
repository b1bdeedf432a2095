"""The network: a U-Net that answers what a process asks of noisy images, knowing their time and class.

Ronneberger, Fischer and Brox, "U-Net: convolutional networks for biomedical image segmentation", 2015; in this use, Ho, Jain
and Abbeel, 2020, appendix B.
"""

import math
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Convolution(nn.Linear):
    """A 3 x 3 convolution, zeros around the image, as the linear map of its windows that it is.

    Its weight is that map's matrix, (K, 9 C): so Muon trains it, and it lies in memory as convolutions of `channels_last`
    images want it.
    """

    def __init__(self, channels: int, n_filters: int):
        super().__init__(9 * channels, n_filters)

    def forward(self, x: Tensor) -> Tensor:
        """x: (N, C, H, W) -> (N, K, H, W)."""
        filters = self.weight.view(self.out_features, 3, 3, -1).permute(0, 3, 1, 2)
        return F.conv2d(x, filters, self.bias, padding=1)


class ResidualBlock(nn.Module):
    """x + conv(silu(norm(conv(silu(norm(x)))))), the second norm scaled and shifted by the embedding of t and class."""

    def __init__(self, n_in: int, n_out: int, n_embedding: int):
        super().__init__()
        self.norm_1 = nn.GroupNorm(math.gcd(n_in, 8), n_in)
        self.conv_1 = Convolution(n_in, n_out)
        self.modulation = nn.Linear(n_embedding, 2 * n_out)
        self.norm_2 = nn.GroupNorm(math.gcd(n_out, 8), n_out)
        self.conv_2 = Convolution(n_out, n_out)
        nn.init.zeros_(self.conv_2.weight)  # each block begins as the identity
        self.skip = nn.Conv2d(n_in, n_out, 1) if n_in != n_out else nn.Identity()

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """x: (N, n_in, H, W), embedding: (N, n_embedding) -> (N, n_out, H, W)."""
        h = self.conv_1(F.silu(self.norm_1(x)))
        scale, shift = self.modulation(embedding)[:, :, None, None].chunk(2, 1)
        return self.skip(x) + self.conv_2(F.silu(self.norm_2(h) * (1 + scale) + shift))


class UNet(nn.Module):
    """The answer for images x_t (N, C, H, W) at times t (N,) of classes y (N,); class n_classes means: unknown.

    A residual block at each resolution on the way down and on the way up, where it also sees what its counterpart saw.
    Each level halves height and width; the finest sees squares of patch x patch pixels as the channels of one.
    """

    frequencies: Tensor

    def __init__(self, n_image_channels: int, n_classes: int, channels: list[int], n_embedding: int, patch: int):
        super().__init__()
        self.patch = patch
        self.register_buffer(
            "frequencies", torch.exp(torch.linspace(0, math.log(100), n_embedding // 2)), persistent=False
        )
        self.time = nn.Linear(n_embedding // 2 * 2, n_embedding)
        self.label = nn.Embedding(n_classes + 1, n_embedding)
        self.first = Convolution(n_image_channels * patch**2, channels[0])
        self.down = nn.ModuleList(
            ResidualBlock(n_in, n_out, n_embedding) for n_in, n_out in pairwise([channels[0], *channels])
        )
        self.middle = ResidualBlock(channels[-1], channels[-1], n_embedding)
        self.up = nn.ModuleList(
            ResidualBlock(2 * n_in, n_out, n_embedding) for n_out, n_in in pairwise([channels[0], *channels])
        )
        self.norm = nn.GroupNorm(math.gcd(channels[0], 8), channels[0])
        self.head = Convolution(channels[0], n_image_channels * patch**2)
        nn.init.zeros_(self.head.weight)  # begins with the answer 0

    def forward(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        angles = t[:, None] * self.frequencies
        embedding = F.silu(self.time(torch.cat([angles.sin(), angles.cos()], 1)) + self.label(y))
        h = self.first(F.pixel_unshuffle(x, self.patch).contiguous(memory_format=torch.channels_last))
        seen = []
        for level, block in enumerate(self.down):
            h = block(F.avg_pool2d(h, 2) if level else h, embedding)
            seen.append(h)
        h = self.middle(h, embedding)
        for level, block in reversed(list(enumerate(self.up))):
            h = block(torch.cat([h, seen[level]], 1), embedding)
            h = F.interpolate(h, scale_factor=2.0) if level else h
        return F.pixel_shuffle(self.head(F.silu(self.norm(h))), self.patch)
