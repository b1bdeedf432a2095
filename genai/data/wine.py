"""Wine: 178 wines of three growers, thirteen chemical measurements (Aeberhard and Forina, 1992)."""

from pathlib import Path

from genai.core.dataset import Kind
from genai.core.dataset import RandomSplit as Config
from genai.data import table

__all__ = ["Config", "kind", "prepare"]

kind: Kind = "table"

ABOUT = """
178 wines of one region of Italy, from scikit-learn (`load_wine`), where they need no network: thirteen chemical
measurements; the class is which of three cultivars they were grown from. S. Aeberhard and M. Forina, "Wine", UCI
Machine Learning Repository, 1992 (CC BY 4.0).
"""


def prepare(config: Config, directory: Path) -> None:
    """Write the data set. Raises UserError where a split would lack a class."""
    from sklearn.datasets import load_wine

    wines = load_wine(as_frame=True)
    y, classes = wines.target.to_numpy(), wines.target_names.tolist()
    table.write(directory, "Wine", wines.data, y, table.split(y, config, classes), ABOUT, classes)
