"""Image diffusion: how well noisy images are denoised that the network was not trained on.

The losses of two processes are in different units. What their networks know of the image is not: at the same ratio of image
to noise, x_t is the same picture but for its scale, and the error of the image that they make out in it compares.
"""

from pathlib import Path
from typing import Any

import numpy as np

from genai.core.dataset import Dataset
from genai.figures import HALF, PALETTE, Tables, new, save
from genai.model import Loaded

RANKED_BY = ("denoising_error",)
HIGHER_IS_BETTER = False


def evaluate(loaded: Loaded, dataset: Dataset, split: str) -> tuple[dict[str, float], dict[str, np.ndarray]]:
    """Return the mean squared error of the denoised images of a split, and that of each image as its score.

    Over ratios of image to noise, evenly spaced in their logarithm, per pixel in [-1, 1]; the noises are the same every
    time. Beside it the error of who answers with the mean of the training images, whatever is asked.
    """
    errors = errors_of(loaded, dataset.arrays(split)).mean(1)
    metrics = {
        "denoising_error": float(errors.mean()),
        "denoising_error_se": float(errors.std(ddof=1) / np.sqrt(len(errors))),
        "denoising_error_constant": constant_error(dataset, dataset.arrays(split)["x"]),
        "examples": len(errors),
    }
    return metrics, {"score": errors}


def errors_of(loaded: Loaded, arrays: dict[str, np.ndarray]) -> np.ndarray:
    """Return the squared error of each image at each ratio of image to noise, (N, R) float64."""
    import torch

    generator = torch.Generator().manual_seed(loaded.experiment.train.seed)
    x, y = torch.from_numpy(arrays["x"]), torch.from_numpy(arrays["y"])
    return loaded.model.denoising_errors(x, y, generator).numpy()


def constant_error(dataset: Dataset, x: np.ndarray) -> float:
    """Return the error on images x (N, C, H, W) of the mean of the training images, pixels in [-1, 1]."""
    train = 2 * dataset.arrays("train")["x"].astype(np.float64) - 1
    return float(((2 * x - 1 - train.mean(0)) ** 2).mean())


def figures(loaded: Loaded, dataset: Dataset, columns: dict[str, np.ndarray], folder: Path) -> Tables:
    """Draw the error on test over the ratio of image to noise, beside that of the mean image."""
    arrays = dataset.arrays("test")
    errors = errors_of(loaded, arrays)
    mean, error = errors.mean(0), 1.96 * errors.std(0, ddof=1) / np.sqrt(len(errors))
    ratios = loaded.model.ratios.numpy()
    figure, ax = new(HALF * 0.8, width=HALF)
    ax.axhline(
        constant_error(dataset, arrays["x"]), color=PALETTE[7], linestyle="--", linewidth=1, label="the mean image"
    )
    ax.plot(ratios, mean, "o-", color=PALETTE[0], markersize=4, label="this model, 95 % interval")
    ax.fill_between(ratios, mean - error, mean + error, color=PALETTE[0], alpha=0.2, linewidth=0)
    ax.set(title=f"{loaded.name}: what is left of the noise on test", xscale="log", yscale="log")
    ax.set(xlabel="image : noise", ylabel="squared error of the image, per pixel")
    ax.grid(alpha=0.3)
    ax.legend(fontsize=8)
    save(figure, folder / "denoising_error.png")
    rows = ((f"{ratio:.4g}", f"{value:.6g}") for ratio, value in zip(ratios, mean, strict=True))
    return {"denoising_error": [("ratio", "error"), *rows]}


def signature(description: dict[str, Any], sampling: dict[str, Any]) -> dict[str, Any]:
    """Return what a served model takes and answers; one that is a generator is served as that."""
    inputs = ("tensor", "float32", (-1, *description["shape"]))
    return {"inputs": inputs, "outputs": ("columns", {"denoising_error": "double"}), "example": None}


def answer(loaded: Loaded, directory: Path, data: Any, sampling: dict[str, Any]) -> Any:
    """Return the denoising error of each image of data (N, C, H, W), its class unknown."""
    import pandas as pd

    x = np.asarray(data, dtype=np.float32)
    y = np.full(len(x), loaded.description.n_classes)
    return pd.DataFrame({"denoising_error": errors_of(loaded, {"x": x, "y": y}).mean(1)})
