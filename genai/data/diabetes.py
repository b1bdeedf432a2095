"""Diabetes: 442 patients, ten measurements, how far the disease has gone a year later (Efron et al., 2004)."""

from pathlib import Path

from genai.core.dataset import Kind
from genai.core.dataset import RandomSplit as Config
from genai.data import table

__all__ = ["Config", "kind", "prepare"]

kind: Kind = "table"

ABOUT = """
442 diabetes patients, from scikit-learn (`load_diabetes`), where they need no network: age, sex, body-mass
index, blood pressure and six blood-serum measurements; the target is a measure of how far the disease has
gone a year later. Efron, Hastie, Johnstone and Tibshirani, "Least angle regression", Annals of Statistics, 2004.

The features are the raw ones (`scaled=False`): scikit-learn's default would centre and scale them with the
statistics of all patients, those of the test split included.
"""

TARGET = "progression in a year, points"


def prepare(config: Config, directory: Path) -> None:
    """Write the data set. Raises UserError where a value or a split is wrong."""
    from sklearn.datasets import load_diabetes

    diabetes = load_diabetes(scaled=False, as_frame=True)
    y = diabetes.target.to_numpy()
    table.write(directory, "Diabetes", diabetes.data, y, table.split(y, config, None), ABOUT, target=TARGET)
