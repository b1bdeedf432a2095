"""Fitting: a model with `fit` sees all training examples at once."""

import platform
from pathlib import Path
from typing import Any, Literal

import numpy as np

from genai.core.config import Count, Seed, Strict, UserError
from genai.core.dataset import Dataset


class Config(Strict):
    """How a model with `fit` is trained: nothing but its seed and its share of the machine."""

    method: Literal["fit"]
    seed: Seed
    threads: Count


STEPS = False

def check(cls: Any, where: str) -> None:
    if not hasattr(cls, "fit"):
        raise UserError(f"{where}: 'fit' should be 'gradient_descent'; it has no fit")

def seed(config: Config) -> None:
    pass

def environment(config: Config) -> dict[str, Any]:
    return {"python": platform.python_version(), "numpy": np.__version__, "threads": config.threads}


def train(model: Any, dataset: Dataset, config: Config, work: Path, fingerprint: str, previews: Any = None) -> Any:
    """Return the fitted model."""
    if dataset.description.kind == "text":
        return model.fit(dataset.tokens("train"), None, config.seed)
    arrays = dataset.arrays("train")
    return model.fit(arrays["x"], arrays["y"], config.seed)
