"""Flow matching: how well a velocity field is known, on images that it was not trained on."""

from pathlib import Path
from typing import Any

import numpy as np

from genai.core.dataset import Dataset
from genai.figures import HALF, PALETTE, Tables, new, save
from genai.model import Loaded

RANKED_BY = ("loss",)
HIGHER_IS_BETTER = False
TIMES = 20


def evaluate(loaded: Loaded, dataset: Dataset, split: str) -> tuple[dict[str, float], dict[str, np.ndarray]]:
    """Return the loss on a split, and that of each image as its score; noises and times are the same every time.

    Beside it the least loss of a constant.
    """
    import torch

    arrays = dataset.arrays(split)
    generator = torch.Generator().manual_seed(loaded.experiment.train.seed)
    with torch.no_grad():
        losses = loaded.model.losses(torch.from_numpy(arrays["x"]), torch.from_numpy(arrays["y"]), generator)
    losses = losses.double().numpy()
    metrics = {
        "loss": float(losses.mean()),
        "loss_se": float(losses.std(ddof=1) / np.sqrt(len(losses))),
        "loss_constant": constant_loss(dataset, arrays["x"]),
        "examples": len(losses),
    }
    return metrics, {"score": losses}


def constant_loss(dataset: Dataset, x: np.ndarray) -> float:
    """Return the loss on images x (N, C, H, W) of the constant that is best on the training images.

    The velocity x_1 - x_0 has the mean of the images as its mean, and their variance plus that of the noise, 1, as its
    variance (per pixel, pixels in [-1, 1]).
    """
    train = 2 * dataset.arrays("train")["x"].astype(np.float64) - 1
    return float(((2 * x - 1 - train.mean(0)) ** 2).mean() + 1)


def figures(loaded: Loaded, dataset: Dataset, columns: dict[str, np.ndarray], folder: Path) -> Tables:
    """Draw the loss on test over the time t, from noise (0) to image (1), beside that of the best constant."""
    arrays = dataset.arrays("test")
    times = (np.arange(TIMES) + 0.5) / TIMES
    losses = np.array([losses_at(loaded, arrays["x"], arrays["y"], t) for t in times])  # (TIMES, N)
    mean, error = losses.mean(1), 1.96 * losses.std(1, ddof=1) / np.sqrt(losses.shape[1])
    figure, ax = new(HALF * 0.8, width=HALF)
    ax.axhline(
        constant_loss(dataset, arrays["x"]), color=PALETTE[7], linestyle="--", linewidth=1, label="best constant"
    )
    ax.plot(times, mean, "o-", color=PALETTE[0], markersize=4, label="this model, 95 % interval")
    ax.fill_between(times, mean - error, mean + error, color=PALETTE[0], alpha=0.2, linewidth=0)
    ax.set(title=f"{loaded.name}: loss on test by time", xlabel="t: noise at 0, image at 1", xlim=(0, 1))
    ax.set(ylabel="squared error of the velocity, per pixel", ylim=(0, None))
    ax.grid(alpha=0.3)
    ax.legend(fontsize=8)
    save(figure, folder / "loss_by_time.png")
    return {
        "loss_by_time": [("time", "loss"), *((f"{t:.3f}", f"{loss:.6g}") for t, loss in zip(times, mean, strict=True))]
    }


def losses_at(loaded: Loaded, x: np.ndarray, y: np.ndarray, t: float) -> np.ndarray:
    """Return |v(x_t, t, y) - (x_1 - x_0)|^2 per pixel at x_t = (1 - t) x_0 + t x_1, for one noise x_0 an image, (N,)."""
    import torch

    x_1 = 2 * torch.from_numpy(x) - 1
    x_0 = torch.randn(x_1.shape, generator=torch.Generator().manual_seed(loaded.experiment.train.seed))
    with torch.no_grad():
        v = loaded.model.velocity((1 - t) * x_0 + t * x_1, torch.full((len(x),), t), torch.from_numpy(y))
    return (v - x_1 + x_0).double().square().flatten(1).mean(1).numpy()


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
