"""Language modelling: how many bits a character of text takes under a model."""

import math
from pathlib import Path
from typing import Any

import numpy as np

from genai.core.config import UserError
from genai.core.dataset import Dataset, load_tokenizer
from genai.figures import PALETTE, Tables, new, save
from genai.model import Loaded

RANKED_BY = ("bpc", "nelbo_bpc")  # the second is a bound on the first
HIGHER_IS_BETTER = False
STRETCH = 500  # characters whose bits are one score
RESAMPLES = 1000


def evaluate(loaded: Loaded, dataset: Dataset, split: str) -> tuple[dict[str, float], dict[str, np.ndarray]]:
    """Return bits per character of a split (of a diffusion model: their bound), and those of each stretch of it.

    The text is cut into windows of as many tokens as the model takes, each coded by itself; a rest shorter than a
    window is left out, of the characters too. The bits of a window belong to its characters in equal parts, so
    that a score, the bits per character of STRETCH characters, is of the same text whatever the tokenizer.

    The standard error is that of a moving-block bootstrap over the stretches (`moving_blocks`).
    """
    windows, offsets = dataset.arrays(split)["tokens"], dataset.offsets(split)
    bits = loaded.nats(windows) / np.log(2)
    ends = offsets[np.arange(len(windows) + 1) * windows.shape[1]]  # character at which each window ends
    coded = np.concatenate([[0.0], np.cumsum(bits)])
    characters = int(ends[-1] - ends[0])
    if characters < 2 * STRETCH:
        raise UserError(
            f"{dataset.directory}/{split}.txt: {characters} characters in whole windows; an error needs {2 * STRETCH}"
        )
    borders = np.arange(0, characters + 1, STRETCH) + ends[0]
    scores = np.diff(np.interp(borders, ends, coded)) / STRETCH
    metrics = {
        loaded.model.metric: float(bits.sum() / characters),
        f"{loaded.model.metric}_se": standard_error(scores),
        "characters": characters,
    }
    return metrics, {"score": scores}


def standard_error(scores: np.ndarray) -> float:
    """Return that of the mean of a text's scores, in their order."""
    resampled = scores[moving_blocks(len(scores), RESAMPLES, np.random.default_rng(0))].mean(1)
    return float(resampled.std(ddof=1))


def figures(loaded: Loaded, dataset: Dataset, columns: dict[str, np.ndarray], folder: Path) -> Tables:
    """Draw bits per character along the test text, stretch by stretch, and their mean with its 95 % interval."""
    scores = columns["score"]
    mean, error, block = scores.mean(), 1.96 * standard_error(scores), block_length(len(scores))
    at = (np.arange(len(scores)) + 0.5) * STRETCH / 1000
    smooth = np.convolve(scores, np.full(block, 1 / block), "valid")
    figure, ax = new(3)
    ax.plot(
        at, scores, ".", color=PALETTE[0], alpha=0.35, markersize=5, label=f"{STRETCH} characters", markeredgewidth=0
    )
    ax.plot(
        np.convolve(at, np.full(block, 1 / block), "valid"), smooth, color=PALETTE[0], label=f"mean of {block} such"
    )
    ax.axhline(mean, color=PALETTE[1], linewidth=1, label=f"mean {mean:.3f} ± {error:.3f}")
    ax.axhspan(mean - error, mean + error, color=PALETTE[1], alpha=0.15, linewidth=0)
    bound = " (at most)" if loaded.model.metric.startswith("nelbo") else ""
    ax.set(
        title=f"{loaded.name}: bits per character along the test text{bound}",
        xlabel="thousand characters",
        ylabel="bits per character",
    )
    ax.grid(alpha=0.3)
    ax.legend(loc="upper right", fontsize=8, ncols=3)
    ax.margins(x=0.01)
    save(figure, folder / "bits_per_character.png")
    rows = ((f"{x:g}", f"{bits:.6g}") for x, bits in zip(at, scores, strict=True))
    return {"bits_per_character": [("thousand_characters", "bits"), *rows]}


def moving_blocks(n: int, resamples: int, rng: np.random.Generator) -> np.ndarray:
    """Return indices of n examples in order, (resamples, n), drawn in blocks of neighbours.

    Künsch, "The jackknife and the bootstrap for general stationary observations", Annals of Statistics, 1989.
    Stretches of one text are correlated (lag 1: 0.3 to 0.4), so that resampling them one by one gives
    an error that is too small.
    """
    length = block_length(n)
    starts = rng.integers(n - length + 1, size=(resamples, -(-n // length)))
    return (starts[:, :, None] + np.arange(length)).reshape(resamples, -1)[:, :n]


def block_length(n: int) -> int:
    """Return how many neighbouring stretches of one text are resampled together.

    n^(1/3) is the rate at which bias and variance of the estimated error balance (Hall, Horowitz and Jing,
    Biometrika, 1995). Twice that: at the correlation that stretches of text show, n^(1/3) of 600 leave out 5 % of the
    standard error, which at the gate's small levels doubles the false promotions.
    """
    return min(math.ceil(2 * n ** (1 / 3)), max(n // 2, 1))


def signature(description: dict[str, Any], sampling: dict[str, Any]) -> dict[str, Any]:
    """Return what a served model takes and answers."""
    columns = ("columns", {"text": "string"})
    return {"inputs": columns, "outputs": ("columns", {"nats": "double"}), "example": {"text": ["The"]}}


def answer(loaded: Loaded, directory: Path, data: Any, sampling: dict[str, Any]) -> Any:
    """Return -log p of each text of the column `text`, in nats. Raises UserError where one is too long."""
    import pandas as pd

    tokenizer, limit = load_tokenizer(directory), loaded.description.shape[0]
    values = []
    for text in data["text"]:
        if not isinstance(text, str):
            raise UserError(f"text: {text!r} should be a string")
        tokens = np.array([tokenizer.encode(text).ids], dtype=np.int64)
        if tokens.shape[1] > limit and hasattr(loaded.model, "parameters"):
            raise UserError(f"text: {tokens.shape[1]} tokens where the model takes {limit}; shorten it")
        values.append(float(loaded.nats(tokens)[0]) if tokens.size else 0.0)
    return pd.DataFrame({"nats": values})
