"""Digits: 1,797 handwritten digits of 8 x 8 grey pixels, which scikit-learn carries (UCI, 1998)."""

from pathlib import Path

import numpy as np

from genai.core.dataset import Kind, split_indices
from genai.core.dataset import RandomSplit as Config
from genai.data.images import write

__all__ = ["Config", "kind", "prepare"]

kind: Kind = "images"

ABOUT = """
Handwritten digits of 8 x 8 grey pixels, from scikit-learn (`load_digits`), where they need no network. They
are the test part of E. Alpaydin and C. Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine
Learning Repository, 1998 (CC BY 4.0): each pixel counts the ink dots, 0 to 16, in a 4 x 4 block of a 32 x 32
bitmap; here divided by 16. The splits are random and stratified; the source names no writers, so that one
writer's digits stand in all splits.
"""


def prepare(config: Config, directory: Path) -> None:
    """Write the data set. Raises UserError where a split would lack a class."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    x = digits.images[:, None].astype(np.float32) / 16
    shares = {"test": config.test, "validation": config.validation}
    indices = split_indices(len(x), shares, config.seed, digits.target)
    splits = {split: (x[index], digits.target[index]) for split, index in indices.items()}
    write(directory, "Digits", splits, [str(digit) for digit in range(10)], ABOUT)
