"""Clustering of images by a network that never sees a label: neighbours, turned and moved a little, should agree.

The loss of Van Gansbeke et al., "SCAN: Learning to classify images without labels", ECCV, 2020, eq. (2), with the
neighbours of each batch found among its pixels; the idea of augmentation is that of Hu et al., "Learning discrete
representations via information maximizing self-augmented training", ICML, 2017.
"""

import math
from itertools import pairwise
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from genai.core.config import Count, Fraction, Strict
from genai.core.dataset import Description

NotNegative = Annotated[float, Field(ge=0)]


def moved(x: Tensor, rotation: float, shift: float, zoom: float) -> Tensor:
    """Return each image of x (N, C, H, W) turned, moved and scaled at random, by bilinear interpolation; zeros come in.

    rotation: largest angle, in degrees; shift: largest move along each axis, in pixels; zoom: largest change of
    size, as a share of it.
    """
    n, _, h, w = x.shape
    draws = torch.rand(n, 4, device=x.device) * 2 - 1
    angle, scale = draws[:, 0] * math.radians(rotation), 1 + draws[:, 1] * zoom
    dx, dy = draws[:, 2] * 2 * shift / w, draws[:, 3] * 2 * shift / h  # an image reaches from -1 to 1
    cos, sin = scale * angle.cos(), scale * angle.sin()
    # a turn in pixels; in units of width and height it needs the ratio of the two
    maps = torch.stack([cos, -sin * h / w, dx, sin * w / h, cos, dy], 1).view(n, 2, 3)
    return F.grid_sample(x, F.affine_grid(maps, list(x.shape), align_corners=False), align_corners=False)


def neighbors(x: Tensor, k: int) -> Tensor:
    """Return for each row of x (N, D) the number of one of its k nearest other rows, drawn at random, (N,)."""
    k = min(k, len(x) - 1)
    if k == 0:
        return torch.arange(len(x), device=x.device)
    distances = torch.cdist(x, x).fill_diagonal_(math.inf)
    nearest = distances.topk(k, largest=False).indices
    return nearest.gather(1, torch.randint(k, (len(x), 1), device=x.device))[:, 0]


def agreement_loss(p: Tensor, q: Tensor, balance: float) -> Tensor:
    """Return the mean of -log p_n . q_n, less `balance` times the entropy of the mean of p and q, in nats.

    p, q: (N, K) probabilities of the clusters of N pairs. The first term is least where both are sure and of one
    cluster, the second where all clusters are of one size: without it one cluster would hold everything.
    """
    mean = torch.cat([p, q]).mean(0)
    entropy = -torch.xlogy(mean, mean).sum()
    return -(p * q).sum(1).clamp(min=1e-8).log().mean() - balance * entropy


class NeighborClustering(nn.Module):
    """p(cluster | x) = softmax of an MLP with batch normalisation; `predict` answers the most probable one.

    It draws its neighbours from the batch: that should hold several examples of each cluster.
    """

    takes = frozenset({"images"})
    task = "clustering"

    class Config(Strict):
        n_clusters: Annotated[int, Field(ge=2)]
        widths: Annotated[list[Count], Field(min_length=1)] = Field(description="of the hidden layers")
        n_neighbors: Count = Field(description="of the nearest in the batch, one of which an image should agree with")
        balance: NotNegative = Field(description="weight of the entropy of the sizes of the clusters")
        rotation: NotNegative = Field(0.0, description="training images turn by up to so many degrees")
        shift: NotNegative = Field(0.0, description="and move by up to so many pixels")
        zoom: Fraction = Field(0.0, description="and change their size by up to this share")

    def __init__(self, config: Config, description: Description):
        super().__init__()
        self.config = config
        layers: list[nn.Module] = []
        for n_in, n_out in pairwise([torch.Size(description.shape).numel(), *config.widths]):
            layers += [nn.Linear(n_in, n_out, bias=False), nn.BatchNorm1d(n_out), nn.ReLU()]
        self.hidden = nn.Sequential(*layers)
        self.head = nn.Linear(config.widths[-1], config.n_clusters)

    def features(self, x: Tensor) -> Tensor:
        """Return the embedding that was learned, (N, widths[-1])."""
        return self.hidden(x.flatten(1))

    def forward(self, x: Tensor) -> Tensor:
        """x: (N, C, H, W) -> logits (N, n_clusters)."""
        return self.head(self.features(x))

    def loss(self, batch: dict[str, Tensor]) -> Tensor:
        """Return the loss of each image of the batch and a neighbour; in training both are moved. It reads no y."""
        x, config = batch["x"], self.config
        neighbor = x[neighbors(x.flatten(1), config.n_neighbors)]
        if self.training:
            x, neighbor = (moved(part, config.rotation, config.shift, config.zoom) for part in (x, neighbor))
        return agreement_loss(self(x).softmax(1), self(neighbor).softmax(1), config.balance)

    @torch.no_grad()
    def predict(self, x: Tensor) -> Tensor:
        """Return the number of the most probable cluster, (N,)."""
        return self(x).argmax(1)
