"""Muon: a step of the same size in every direction of a hidden matrix (Jordan et al., "Muon", 2024)."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

A, B, C = 3.4445, -4.7750, 2.0315  # Jordan et al.'s: singular values come near 1 quickly rather than closely
ITERATIONS = 5


class Muon(torch.optim.Optimizer):
    """Momentum whose steps are orthogonalised: of the averaged gradient U S V^T what is taken is U V^T.

        m <- momentum m + (1 - momentum) g,    u = momentum m + (1 - momentum) g    (Nesterov's look ahead)
        W <- (1 - lr weight_decay) W - lr sqrt(max(1, rows / columns)) orthogonalized(u)

    All matrices of one shape are orthogonalised together: in a transformer a few batched products, not dozens of small
    ones. bf16: they are computed in bfloat16, else in the precision of the weights.
    """

    def __init__(
        self, parameters: Iterable[nn.Parameter], lr: float, weight_decay: float, bf16: bool, momentum: float = 0.95
    ):
        super().__init__(parameters, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum})
        self.bf16 = bf16

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Move each matrix by its gradient."""
        for group in self.param_groups:
            shapes: dict[torch.Size, list[Any]] = {}
            for parameter in group["params"]:
                if not self.state[parameter]:
                    self.state[parameter]["average"] = torch.zeros_like(parameter)
                shapes.setdefault(parameter.shape, []).append(parameter)
            for (rows, columns), parameters in shapes.items():
                averages = [self.state[parameter]["average"] for parameter in parameters]
                gradients = [parameter.grad for parameter in parameters]
                torch._foreach_lerp_(averages, gradients, 1 - group["momentum"])
                ahead = torch.stack(torch._foreach_lerp(gradients, averages, group["momentum"]))
                steps = orthogonalized(ahead.bfloat16() if self.bf16 else ahead).to(ahead.dtype)
                torch._foreach_mul_(parameters, 1 - group["lr"] * group["weight_decay"])
                torch._foreach_sub_(parameters, steps.unbind(), alpha=group["lr"] * max(1, rows / columns) ** 0.5)


def orthogonalized(g: Tensor) -> Tensor:
    """Return U V^T, nearly, of matrices U S V^T, (N, rows, columns).

    Newton and Schulz's iteration X <- A X + B (X X^T) X + C (X X^T)^2 X from X = G / |G|: its polynomial takes every
    singular value that is not tiny to between 0.7 and 1.2.
    """
    wide = g if g.shape[1] <= g.shape[2] else g.mT
    x = wide / wide.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7)
    for _ in range(ITERATIONS):
        s = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(s, s, s, beta=B, alpha=C), x, beta=A)
    return x if g.shape[1] <= g.shape[2] else x.mT
