"""The multilayer perceptron: linear maps with ReLU between them, for classification and for regression.

Rumelhart, Hinton and Williams, "Learning representations by back-propagating errors", Nature, 1986; of tables,
Gorishniy, Rubachev and Babenko, "On embeddings for numerical features in tabular deep learning", NeurIPS, 2022, and
Gorishniy, Kotelnikov and Babenko, "TabM: advancing tabular deep learning with parameter-efficient ensembling", ICLR, 2025.
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

EMBEDDING = 16  # numbers that each number becomes, where it is embedded


class Periodic(nn.Module):
    """Each number x_d becomes ReLU(A_d [sin 2 pi c_d x_d, cos 2 pi c_d x_d, x_d] + b_d), its own A_d, b_d and c_d learned.

    A network of ReLUs is slow to learn what changes quickly along one number, as prices do along a latitude.
    """

    def __init__(self, n_features: int, frequencies: int, width: int, spread: float):
        super().__init__()
        bound = 1 / math.sqrt(2 * frequencies + 1)
        self.frequencies = nn.Parameter(torch.randn(n_features, frequencies) * spread)
        self.weight = nn.Parameter(torch.empty(n_features, 2 * frequencies + 1, width).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(n_features, width).uniform_(-bound, bound))

    def forward(self, x: Tensor) -> Tensor:
        """x: (N, D) -> (N, D * width)."""
        angles = 2 * math.pi * x[..., None] * self.frequencies
        waves = torch.cat([angles.sin(), angles.cos(), x[..., None]], -1)  # (N, D, 2 frequencies + 1)
        return (torch.einsum("ndf,dfw->ndw", waves, self.weight) + self.bias).relu().flatten(1)


class MLP(nn.Module):
    """h_i = dropout(relu(W_i h_{i-1} + b_i)), then a linear head: one logit per class, or the target.

    Inputs are used as they are, images in [0, 1] and numbers as they were prepared. For regression, the target is
    standardised with running means and variances over the training batches, which are buffers of the model.

    `members` networks share all hidden weights: member m sees h_0 * r_m, r_m learned from random signs, and has a head
    of its own. Each is trained on its own error; their mean predicts, as of an ensemble that costs one network's weights.
    """

    takes = frozenset({"table", "images"})

    class Config(Strict):
        widths: Annotated[list[Count], Field(min_length=1)] = Field(description="of the hidden layers")
        dropout: Fraction = 0.0
        label_smoothing: Fraction = Field(
            0.0, description="share of the target spread over all classes; classification only"
        )
        frequencies: Annotated[int, Field(ge=0)] = Field(
            0, description="sines and cosines of each number that the first layer sees instead of it; 0: none"
        )
        frequency_spread: Annotated[float, Field(gt=0)] = Field(
            1.0, description="standard deviation of the first frequencies, in periods a unit of the number"
        )
        members: Count = Field(1, description="networks that share the hidden weights; their mean predicts")

    def __init__(self, config: Config, description: Description):
        super().__init__()
        self.task = "classification" if description.classes else "regression"
        if self.task == "regression":
            if config.label_smoothing:
                raise ValueError(f"label_smoothing: {config.label_smoothing} should be 0: these data have no classes")
            # momentum=None: running statistics are the mean over all batches seen
            self.standardize_target = nn.BatchNorm1d(1, affine=False, momentum=None)
        n_features = torch.Size(description.shape).numel()
        self.embed: nn.Module = nn.Identity()
        if config.frequencies:
            if description.kind != "table":
                raise ValueError(f"frequencies: {config.frequencies} should be 0: of {description.kind} there are none")
            self.embed = Periodic(n_features, config.frequencies, EMBEDDING, config.frequency_spread)
            n_features *= EMBEDDING
        if config.members > 1:
            self.signs = nn.Parameter(torch.randint(2, (config.members, n_features)) * 2.0 - 1)
        layers: list[nn.Module] = []
        for n_in, n_out in pairwise([n_features, *config.widths]):
            layers += [nn.Linear(n_in, n_out), nn.ReLU(), nn.Dropout(config.dropout)]
        self.hidden = nn.Sequential(*layers)
        self.n_outputs = description.n_classes if self.task == "classification" else 1
        self.head = nn.Linear(config.widths[-1], config.members * self.n_outputs)
        self.members, self.label_smoothing = config.members, config.label_smoothing

    def members_features(self, x: Tensor) -> Tensor:
        """Return each member's last hidden layer, (N, M, widths[-1])."""
        h = self.embed(x.flatten(1))[:, None]
        if self.members > 1:
            h = h * self.signs
        return self.hidden(h.flatten(0, 1)).unflatten(0, (-1, self.members))

    def features(self, x: Tensor) -> Tensor:
        """Return the last hidden layer, mean over members, (N, widths[-1])."""
        return self.members_features(x).mean(1)

    def forward(self, x: Tensor) -> Tensor:
        """x: (N, ...) -> each member's logits (N, M, K), or standardised target (N, M, 1)."""
        h = self.members_features(x)
        if self.members == 1:
            return self.head(h)
        weight = self.head.weight.view(self.members, self.n_outputs, -1)  # a row of blocks, one of each member
        return torch.einsum("nmw,mkw->nmk", h, weight) + self.head.bias.view(self.members, -1)

    def loss(self, batch: dict[str, Tensor]) -> Tensor:
        """Return the cross-entropy in nats, or the squared error of the standardised target.

        In training the members' mean loss, otherwise the loss of what they predict together.
        """
        outputs, y = self(batch["x"]), batch["y"]
        if self.task == "classification":
            if not self.training:
                return F.nll_loss(self.mean_log_proba(outputs), y)
            y = y.repeat_interleave(self.members)
            return F.cross_entropy(outputs.flatten(0, 1), y, label_smoothing=self.label_smoothing)
        if self.training:
            self.standardize_target(y[:, None])  # for the running statistics
        else:
            outputs = outputs.mean(1, keepdim=True)
        mean, scale = self.target_statistics()
        return (outputs[:, :, 0] - (y[:, None] - mean) / scale).square().mean()

    def mean_log_proba(self, logits: Tensor) -> Tensor:
        """Return the logarithm of the members' mean probabilities, (N, K), for logits (N, M, K)."""
        return logits.log_softmax(2).logsumexp(1) - math.log(self.members)

    def target_statistics(self) -> tuple[Tensor, Tensor]:
        """Return mean and standard deviation of the target, as standardised in training."""
        norm = self.standardize_target
        assert norm.running_mean is not None and norm.running_var is not None
        return norm.running_mean, (norm.running_var + norm.eps).sqrt()

    @torch.no_grad()
    def predict(self, x: Tensor) -> Tensor:
        """Regression: return the target in its own units, (N,)."""
        assert self.task == "regression"
        mean, scale = self.target_statistics()
        return self(x).mean((1, 2)) * scale + mean

    @torch.no_grad()
    def predict_proba(self, x: Tensor) -> Tensor:
        """Classification: return the class probabilities, (N, K)."""
        assert self.task == "classification"
        return self(x).softmax(2).mean(1)
