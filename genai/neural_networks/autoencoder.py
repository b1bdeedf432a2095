"""An autoencoder: a network that is asked for its own input through a narrow layer, which becomes an embedding.

Hinton and Salakhutdinov, "Reducing the dimensionality of data with neural networks", Science, 2006.
"""

from itertools import pairwise

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from genai.core.config import Count, Strict
from genai.core.dataset import Description


def perceptron(sizes: list[int]) -> nn.Sequential:
    """Return linear maps between layers of these sizes, with ReLU between them and not at the end."""
    layers: list[nn.Module] = []
    for n_in, n_out in pairwise(sizes):
        layers += [nn.Linear(n_in, n_out), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


class Autoencoder(nn.Module):
    """z = encoder(x), x' = decoder(z), |x - x'|^2 small; without hidden layers, z spans the principal components.

    It has no task of its own: the embedding is for others to cluster (bench/clustering.py) or to draw.
    """

    class Config(Strict):
        widths: list[Count] = Field(description="of the encoder's hidden layers; the decoder has them in reverse")
        embedding: Count = Field(description="numbers that are left of an example")

    def __init__(self, config: Config, description: Description):
        super().__init__()
        sizes = [torch.Size(description.shape).numel(), *config.widths, config.embedding]
        self.encoder, self.decoder = perceptron(sizes), perceptron(sizes[::-1])

    def features(self, x: Tensor) -> Tensor:
        """Return the embedding of x (N, ...), (N, embedding)."""
        return self.encoder(x.flatten(1))

    def loss(self, batch: dict[str, Tensor]) -> Tensor:
        """Return the mean squared error of a pixel or column. It reads no y."""
        x = batch["x"].flatten(1)
        return F.mse_loss(self.decoder(self.encoder(x)), x)
