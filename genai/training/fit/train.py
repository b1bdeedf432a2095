"""Fitting at once, as scikit-learn means it: the data goes to the model's own `fit`."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from genai.core.config import Count, Seed, Strict
from genai.core.dataset import Dataset


class Config(Strict):
    """Nothing but a seed and a share of the machine."""

    method: Literal["fit"]
    seed: Seed
    threads: Count = Field(description="CPU threads; results depend on it, so it is a parameter")


def train(
    build: Callable[[], Any],
    dataset: Dataset,
    config: Config,
    work: Path,
    fingerprint: str,
    on_preview: Callable[[int, Any], None] | None = None,
) -> Any:
    """Return the model that `build` makes, fitted to the training split; the rest is what other methods need."""
    model = build()
    if dataset.description.kind == "text":
        return model.fit(dataset.tokens("train"), None, config.seed)
    arrays = dataset.arrays("train")
    return model.fit(arrays["x"], arrays["y"], config.seed)
