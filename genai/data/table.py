"""Tables of numbers: what every source of them does to validate, split and write; no source itself."""

from pathlib import Path

import numpy as np
from pydantic import Field

from genai.core.config import Seed, Share, Strict, UserError
from genai.core.dataset import SPLITS, Description, split_indices, write_arrays, write_json, write_text


class Config(Strict):
    """How a table is split."""

    validation: Share
    test: Share
    seed: Seed = Field(description="of the split")


def write(
    directory: Path,
    title: str,
    x: np.ndarray,
    y: np.ndarray,
    columns: list[str],
    config: Config,
    about: str,
    classes: list[str] | None = None,
) -> None:
    """Validate, split and write x (N, D) and y (N,), with description and card.

    columns: the names of the D features; classes: those of y where it holds numbers of classes, else y is a number to
    predict. Raises UserError where a value or a split is wrong.
    """
    at = f"datasets.{directory.name}"
    if x.shape != (len(y), len(columns)):
        raise UserError(f"{at}: features of shape {x.shape}, should be {(len(y), len(columns))}")
    x = x.astype(np.float32)  # before the checks: they hold for what is written
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise UserError(f"{at}: a value is not finite")
    if twice := len(x) - len(np.unique(x, axis=0)):
        raise UserError(f"{at}: {twice} rows stand there twice; they could cross the splits")
    if classes is not None and not np.array_equal(found := np.unique(y), np.arange(len(classes))):
        raise UserError(f"{at}: classes {found.tolist()}; should be every number from 0 to {len(classes) - 1}")
    shares = {"test": config.test, "validation": config.validation}
    indices = split_indices(len(x), shares, config.seed, None if classes is None else y)
    y = y.astype(np.float32 if classes is None else np.int64)
    for split, index in indices.items():
        write_arrays(directory / f"{split}.safetensors", {"x": x[index], "y": y[index]})
    description = Description(kind="table", shape=[x.shape[1]], classes=classes or [])
    write_json(directory / "description.json", description.model_dump())
    train = indices["train"]
    numbers = [*zip(columns, x[train].T, strict=True)] + ([("target", y[train])] if classes is None else [])
    rows = [
        f"| {name} | {column.mean(dtype=np.float64):.4g} | {column.std(dtype=np.float64):.4g} |"
        for name, column in numbers
    ]
    counts = ", ".join(f"{name} {np.count_nonzero(y[train] == c)}" for c, name in enumerate(classes or []))
    sizes = ", ".join(f"{split} {len(indices[split])}" for split in SPLITS)
    write_text(
        directory / "card.md",
        f"""# {title}

{about.strip()}

| train | mean | standard deviation |
| --- | ---: | ---: |
{chr(10).join(rows)}

Splits, random{f" and stratified (of train: {counts})" if counts else ""}: {sizes}.
Checked: all values finite, no row in two splits.
""",
    )
