"""Fitting at once, as scikit-learn means it: the data goes to the model's own `fit`."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from genai.core.config import Count, Seed, Strict, UserError
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
    """Return the model that `build` makes, fitted to the training split, examples flat; the rest other methods need.

    Raises UserError where a keyword or the data are not as the model wants them.
    """
    model = build()
    try:
        if dataset.description.kind == "text":
            return model.fit(dataset.tokens("train"))
        arrays = dataset.arrays("train")
        return model.fit(arrays["x"].reshape(len(arrays["x"]), -1), arrays["y"])
    except ValueError as error:
        raise UserError(str(error).splitlines()[0]) from None
