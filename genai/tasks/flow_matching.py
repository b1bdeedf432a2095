"""Flow matching: how well a velocity field is known, on images that it was not trained on."""

from pathlib import Path
from typing import Any

import numpy as np

from genai.core.dataset import Dataset
from genai.model import Loaded

RANKED_BY = ("loss",)
HIGHER_IS_BETTER = False


def evaluate(loaded: Loaded, dataset: Dataset, split: str) -> tuple[dict[str, float], dict[str, np.ndarray]]:
    """Return the loss on a split, and that of each image as its score; noises and times are the same every time.

    Beside it the least loss of a constant: the velocity x_1 - x_0 has the mean of the images as its mean, and
    their variance plus that of the noise, 1, as its variance (per pixel, pixels in [-1, 1]).
    """
    import torch

    arrays = dataset.arrays(split)
    generator = torch.Generator().manual_seed(loaded.experiment.train.seed)
    with torch.no_grad():
        losses = loaded.model.losses(torch.from_numpy(arrays["x"]), torch.from_numpy(arrays["y"]), generator)
    losses = losses.double().numpy()
    train = 2 * dataset.arrays("train")["x"].astype(np.float64) - 1
    constant = ((2 * arrays["x"] - 1 - train.mean(0)) ** 2).mean() + 1
    metrics = {
        "loss": float(losses.mean()),
        "loss_se": float(losses.std(ddof=1) / np.sqrt(len(losses))),
        "loss_constant": float(constant),
        "examples": len(losses),
    }
    return metrics, {"score": losses}


def signature(description: dict[str, Any], sampling: dict[str, Any]) -> dict[str, Any]:
    """Return what a served model takes and answers; one that is a generator is served as that."""
    inputs = ("tensor", "float32", (-1, *description["shape"]))
    return {"inputs": inputs, "outputs": ("columns", {"loss": "double"}), "example": None}


def answer(loaded: Loaded, directory: Path, data: Any, sampling: dict[str, Any]) -> Any:
    """Return the loss of each image of data (N, C, H, W), its class unknown."""
    import pandas as pd
    import torch

    x = torch.from_numpy(np.asarray(data, dtype=np.float32))
    y = torch.full((len(x),), loaded.description.n_classes)
    with torch.no_grad():
        return pd.DataFrame({"loss": loaded.model.losses(x, y, torch.Generator().manual_seed(0)).double().numpy()})
