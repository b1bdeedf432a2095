"""The optimisers of a network's parameters, and the schedule of their learning rates.

What AdamW and Muon do with a gradient, and which is for what: genai/neural_networks/README.md; the tests write both out.
"""

from typing import TYPE_CHECKING

import torch
from torch import nn

from genai.training.gradient_descent.muon import Muon

if TYPE_CHECKING:
    from genai.training.gradient_descent.train import Config


def schedule(step: int, config: "Config") -> float:
    """Return the factor of the peak learning rates at a step: linear rise, constant, linear fall to zero."""
    warmup, decay = config.warmup * config.steps, config.decay * config.steps
    rise = (step + 1) / warmup if warmup else 1.0
    fall = (config.steps - step) / decay if decay else 1.0
    return min(rise, fall, 1.0)


def make_optimizers(model: nn.Module, config: "Config", bf16: bool) -> list[torch.optim.Optimizer]:
    """Return AdamW, and Muon for the hidden matrices where its rate is set, computing in bfloat16 with `bf16`.

    Embeddings and the `head` learn at `embedding_learning_rate`. Decay of weights is for matrices only.
    """
    rate, decay = config.learning_rate, config.weight_decay
    muon: list[nn.Parameter] = []
    adamw: dict[tuple[float, float], list[nn.Parameter]] = {}  # by rate and decay: a step costs by the group
    for module_name, module in model.named_modules():
        for parameter in module.parameters(recurse=False):
            if isinstance(module, nn.Embedding) or module_name.rpartition(".")[2] == "head":
                adamw.setdefault((config.embedding_learning_rate or rate, 0.0), []).append(parameter)
            elif config.muon_learning_rate is not None and isinstance(module, nn.Linear) and parameter.ndim == 2:
                muon.append(parameter)
            else:
                adamw.setdefault((rate, decay if parameter.ndim > 1 else 0.0), []).append(parameter)
    optimizers: list[torch.optim.Optimizer] = []
    if adamw:
        groups = [{"params": ps, "lr": lr, "weight_decay": weight_decay} for (lr, weight_decay), ps in adamw.items()]
        optimizers.append(torch.optim.AdamW(groups, betas=(0.9, 0.95), fused=True))
    if muon:
        assert config.muon_learning_rate is not None
        optimizers.append(Muon(muon, config.muon_learning_rate, decay, bf16))
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["peak"] = group["lr"]
    return optimizers


def set_rates(optimizers: list[torch.optim.Optimizer], factor: float) -> None:
    """Set each learning rate to its peak times the factor."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = group["peak"] * factor
