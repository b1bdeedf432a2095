"""Iris: 150 flowers of three species, four lengths (Fisher, 1936)."""

from pathlib import Path

from genai.core.dataset import Kind
from genai.core.dataset import RandomSplit as Config
from genai.data import table

__all__ = ["Config", "kind", "prepare"]

kind: Kind = "table"

ABOUT = """
150 irises, from scikit-learn (`load_iris`), where they need no network: length and width of sepals and petals in cm;
the class is the species. R. A. Fisher, "The use of multiple measurements in taxonomic problems", Annals of Eugenics,
1936, as in his paper: UCI's copy differs in two flowers (CC BY 4.0).
"""


def prepare(config: Config, directory: Path) -> None:
    """Write the data set. Raises UserError where a split would lack a class."""
    from sklearn.datasets import load_iris

    irises = load_iris(as_frame=True)
    y, classes = irises.target.to_numpy(), irises.target_names.tolist()
    table.write(directory, "Iris", irises.data, y, table.split(y, config, classes), ABOUT, classes)
