"""The multilayer perceptron: linear maps with ReLU between them, for classification and for regression.

Rumelhart, Hinton and Williams, "Learning representations by back-propagating errors", Nature, 1986.
"""

from itertools import pairwise
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from genai.core.config import Count, Fraction, Strict
from genai.core.dataset import Description


class MLP(nn.Module):
    """h_i = dropout(relu(W_i h_{i-1} + b_i)), then a linear head: one logit per class, or the target.

    Images are used as they are, in [0, 1]. For regression, features and target are standardised with running
    means and variances over the training batches, which are buffers of the model.
    """

    takes = frozenset({"table", "images"})

    class Config(Strict):
        widths: Annotated[list[Count], Field(min_length=1)] = Field(description="of the hidden layers")
        dropout: Fraction = 0.0
        label_smoothing: Fraction = Field(
            0.0, description="share of the target spread over all classes; classification only"
        )

    def __init__(self, config: Config, description: Description):
        super().__init__()
        self.task = "classification" if description.classes else "regression"
        if self.task == "regression" and config.label_smoothing:
            raise ValueError(f"label_smoothing: {config.label_smoothing} should be 0: these data have no classes")
        n_features = torch.Size(description.shape).numel()
        if self.task == "regression":
            # momentum=None: running statistics are the mean over all batches seen
            self.standardize: nn.Module = nn.BatchNorm1d(n_features, affine=False, momentum=None)
            self.standardize_target = nn.BatchNorm1d(1, affine=False, momentum=None)
        else:
            self.standardize = nn.Identity()
        layers: list[nn.Module] = []
        for n_in, n_out in pairwise([n_features, *config.widths]):
            layers += [nn.Linear(n_in, n_out), nn.ReLU(), nn.Dropout(config.dropout)]
        self.hidden = nn.Sequential(*layers)
        self.head = nn.Linear(config.widths[-1], description.n_classes if self.task == "classification" else 1)
        self.label_smoothing = config.label_smoothing

    def features(self, x: Tensor) -> Tensor:
        """Return the last hidden layer, (N, widths[-1])."""
        return self.hidden(self.standardize(x.flatten(1)))

    def forward(self, x: Tensor) -> Tensor:
        """x: (N, ...) -> (N, K) logits, or (N, 1) standardised target."""
        return self.head(self.features(x))

    def loss(self, batch: dict[str, Tensor]) -> Tensor:
        """Return the cross-entropy in nats, or the squared error of the standardised target."""
        output, y = self(batch["x"]), batch["y"]
        if self.task == "classification":
            return F.cross_entropy(output, y, label_smoothing=self.label_smoothing if self.training else 0.0)
        if self.training:
            self.standardize_target(y[:, None])  # for the running statistics
        mean, scale = self.target_statistics()
        return F.mse_loss(output[:, 0], (y - mean) / scale)

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
        return self(x)[:, 0] * scale + mean

    @torch.no_grad()
    def predict_proba(self, x: Tensor) -> Tensor:
        """Classification: return the class probabilities, (N, K)."""
        assert self.task == "classification"
        return self(x).softmax(1)
