"""A convolutional network that classifies images: convolution, pooling, fully connected.

LeCun et al., "Gradient-based learning applied to document recognition", 1998; batch normalisation: Ioffe
and Szegedy, 2015. What was tried and what it was worth stands in README.md.
"""

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from genai.core.config import Count, Fraction, Strict
from genai.core.dataset import Description


def shifted(x: Tensor, shift: int) -> Tensor:
    """Return each image of x (N, C, H, W) moved by up to `shift` pixels down or up and right or left; zeros come in."""
    n, _, h, w = x.shape
    dy, dx = torch.randint(0, 2 * shift + 1, (2, n, 1), device=x.device)
    rows = (dy + torch.arange(h, device=x.device))[:, :, None]
    columns = (dx + torch.arange(w, device=x.device))[:, None, :]
    images = torch.arange(n, device=x.device)[:, None, None]
    return F.pad(x, [shift] * 4)[images, :, rows, columns].permute(0, 3, 1, 2)


def flipped(x: Tensor) -> Tensor:
    """Return the images of x (N, C, H, W), each mirrored left to right or not, by a fair coin."""
    coin = torch.rand(len(x), device=x.device) < 0.5
    return torch.where(coin[:, None, None, None], x.flip(3), x)


class Convolution(nn.Linear):
    """A 3 x 3 convolution, zeros around the image, as the linear map of its windows that it is.

    Its weight is that map's matrix, (K, 9 C), a window's pixels in rows of channels: so Muon trains it, and it lies in
    memory as convolutions of `channels_last` images want it, twice as fast on a CPU. Batch normalisation brings the bias.
    """

    def __init__(self, channels: int, n_filters: int):
        super().__init__(9 * channels, n_filters, bias=False)

    def filters(self) -> Tensor:
        """Return the weight as filters, (K, C, 3, 3)."""
        return self.weight.view(self.out_features, 3, 3, -1).permute(0, 3, 1, 2)

    def forward(self, x: Tensor) -> Tensor:
        """x: (N, C, H, W) -> (N, K, H, W)."""
        return F.conv2d(x, self.filters(), padding=1)


class ConvNet(nn.Module):
    """Stages of two 3 x 3 convolutions, then 2 x 2 max-pooling; a fully connected layer; a linear head.

    Each convolution is followed by batch normalisation and ReLU. Images are used as they are, in [0, 1].
    """

    takes = frozenset({"images"})
    task = "classification"

    class Config(Strict):
        channels: Annotated[list[Count], Field(min_length=1)] = Field(
            description="of each stage; each halves height and width"
        )
        n_features: Count = Field(description="width of the fully connected layer before the head")
        patch: Count = Field(1, description="side of the patches that the first convolution takes as its pixels")
        shift: Annotated[int, Field(ge=0)] = Field(0, description="training images move by up to so many pixels")
        flip: bool = Field(False, description="half of the training images are mirrored; a prediction asks both sides")
        dropout: Fraction = 0.0
        label_smoothing: Fraction = Field(0.0, description="share of the target spread over all classes")

    def __init__(self, config: Config, description: Description):
        super().__init__()
        channels, height, width = description.shape
        n_stages, patch = len(config.channels), config.patch
        if height % patch or width % patch:
            raise ValueError(f"patch: {patch} should divide the images' {height} x {width}")
        if config.shift >= min(height, width):
            raise ValueError(f"shift: {config.shift} should be less than the images' {height} x {width}")
        channels, height, width = channels * patch**2, height // patch, width // patch
        if min(height, width) < 2**n_stages:
            right = min(height, width).bit_length() - 1
            raise ValueError(f"channels: {n_stages} stages should be at most {right} for images of {height} x {width}")
        self.shift, self.flip, self.label_smoothing = config.shift, config.flip, config.label_smoothing
        stages: list[nn.Module] = [nn.PixelUnshuffle(patch)] if patch > 1 else []
        for n in config.channels:
            for n_in in (channels, n):
                stages += [Convolution(n_in, n), nn.BatchNorm2d(n), nn.ReLU()]
            stages.append(nn.MaxPool2d(2))
            channels = n
        self.convolutions = nn.Sequential(*stages)
        n_pooled = channels * (height >> n_stages) * (width >> n_stages)
        self.fully_connected = nn.Sequential(nn.Flatten(), nn.Linear(n_pooled, config.n_features), nn.ReLU())
        self.dropout = nn.Dropout(config.dropout)
        self.head = nn.Linear(config.n_features, description.n_classes)

    def features(self, x: Tensor) -> Tensor:
        """Return what the head sees of x (N, C, H, W): (N, n_features), none negative."""
        return self.fully_connected(self.convolutions(x.contiguous(memory_format=torch.channels_last)))

    def forward(self, x: Tensor) -> Tensor:
        """x: (N, C, H, W) -> logits (N, K)."""
        return self.head(self.dropout(self.features(x)))

    def loss(self, batch: dict[str, Tensor]) -> Tensor:
        """Return the cross-entropy in nats; in training of shifted and mirrored images and smoothed labels."""
        x = batch["x"]
        if not self.training:
            return F.cross_entropy(self(x), batch["y"])
        if self.shift:
            x = shifted(x, self.shift)
        if self.flip:
            x = flipped(x)
        return F.cross_entropy(self(x), batch["y"], label_smoothing=self.label_smoothing)

    @torch.no_grad()
    def predict_proba(self, x: Tensor) -> Tensor:
        """Return the class probabilities, (N, K): of the mean of both sides' logits where training mirrored images."""
        logits = (self(x) + self(x.flip(3))) / 2 if self.flip else self(x)
        return logits.softmax(1)
