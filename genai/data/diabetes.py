"""Diabetes: 442 patients, ten measurements, how far the disease has gone a year later (Efron et al., 2004)."""

from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import Field

from genai.core.config import Seed, Strict, UserError
from genai.core.dataset import Description, split_indices, write_arrays, write_json, write_text

kind = "table"

Share = Annotated[float, Field(gt=0, lt=0.5)]


class Config(Strict):
    validation: Share
    test: Share
    seed: Seed = Field(description="of the split")


def prepare(config: Config, directory: Path) -> None:
    """Write the data set, features in their own units. Raises UserError where a value or a split is wrong."""
    from sklearn.datasets import load_diabetes

    diabetes = load_diabetes(scaled=False)
    x, y = diabetes.data.astype(np.float32), diabetes.target.astype(np.float32)
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise UserError("diabetes: a value is not finite; the installed scikit-learn carries damaged data")
    if len(np.unique(x, axis=0)) < len(x):
        raise UserError("diabetes: a patient stands there twice; the installed scikit-learn carries other data")
    indices = split_indices(len(x), config.validation, config.test, config.seed)
    for split, index in indices.items():
        write_arrays(directory / f"{split}.safetensors", {"x": x[index], "y": y[index]})
    write_json(directory / "description.json", Description(kind=kind, shape=[x.shape[1]]).model_dump())
    train = indices["train"]
    rows = [
        f"| {name} | {column.mean(dtype=np.float64):.4g} | {column.std(dtype=np.float64):.4g} |"
        for name, column in [*zip(diabetes.feature_names, x[train].T, strict=True), ("target", y[train])]
    ]
    write_text(
        directory / "card.md",
        f"""# Diabetes

442 diabetes patients, from scikit-learn (`load_diabetes`), where they need no network: age, sex, body-mass
index, blood pressure and six blood-serum measurements; the target is a measure of how far the disease has
gone a year later. Efron, Hastie, Johnstone and Tibshirani, "Least angle regression", Annals of Statistics, 2004.

The features are the raw ones (`scaled=False`): scikit-learn's default would centre and scale them with the
statistics of all patients, those of the test split included. A model standardises by what it is fitted to.

| train | mean | standard deviation |
| --- | ---: | ---: |
{chr(10).join(rows)}

Splits, random: {", ".join(f"{split} {len(index)}" for split, index in indices.items())}.
Checked: all values finite, no patient in two splits.
""",
    )
