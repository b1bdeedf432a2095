"""Breast cancer: 569 tumours, thirty measurements of their cells' nuclei, malignant or benign (Street et al., 1993)."""

from pathlib import Path

from genai.core.dataset import Kind
from genai.core.dataset import RandomSplit as Config
from genai.data import table

__all__ = ["Config", "kind", "prepare"]

kind: Kind = "table"

ABOUT = """
569 breast tumours, from scikit-learn (`load_breast_cancer`), where they need no network: mean, standard error and
largest value of ten measurements of the nuclei in an image of a fine-needle aspirate; the class is malignant or benign.
Street, Wolberg and Mangasarian, "Nuclear feature extraction for breast tumor diagnosis", 1993; UCI Machine Learning
Repository, "Breast Cancer Wisconsin (Diagnostic)" (CC BY 4.0).
"""


def prepare(config: Config, directory: Path) -> None:
    """Write the data set. Raises UserError where a split would lack a class."""
    from sklearn.datasets import load_breast_cancer

    tumours = load_breast_cancer(as_frame=True)
    y, classes = tumours.target.to_numpy(), tumours.target_names.tolist()
    table.write(directory, "Breast cancer", tumours.data, y, table.split(y, config, classes), ABOUT, classes)
