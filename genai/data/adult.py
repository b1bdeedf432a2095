"""Adult: 48,842 people of the census of 1994, fourteen features, whether they earn over $50,000 (Kohavi, 1996)."""

from pathlib import Path

import numpy as np

from genai.core.dataset import Kind, split_indices
from genai.core.dataset import PublishedSplit as Config
from genai.data import table
from genai.data.download import fetch

__all__ = ["Config", "kind", "prepare"]

kind: Kind = "table"

ADDRESS = "https://archive.ics.uci.edu/ml/machine-learning-databases/adult/"
SHA256 = {
    "adult.data": "5b00264637dbfec36bdeaab5676b0b309ff9eb788d63554ca0a249491c86603d",
    "adult.test": "a2a9044bc167a35b2361efbabec64e89d69ce82d9790d2980119aac5fd7e9c05",
}
COLUMNS = [
    "age", "workclass", "fnlwgt", "education", "education-num", "marital-status", "occupation", "relationship", "race",
    "sex", "capital-gain", "capital-loss", "hours-per-week", "native-country", "income",
]  # fmt: skip
CLASSES = ["<=50K", ">50K"]

ABOUT = """
48,842 people of the United States' census of 1994: B. Becker and R. Kohavi, "Adult", UCI Machine Learning Repository,
1996 (CC BY 4.0), `adult.data` and `adult.test`, each with its published checksum; the class is whether a person earns
over 50,000 dollars a year. Missing values are written `?` there. `fnlwgt` is how many people a row stands for.
The test split is the published one; validation is a stratified share of the published training part.
"""


def prepare(config: Config, directory: Path) -> None:
    """Fetch and write the data set. Raises UserError where a file cannot be had or a byte in it is wrong."""
    import pandas as pd

    parts = [
        pd.read_csv(
            fetch([ADDRESS + file], f"adult/{file}", sha256=sha256),
            names=COLUMNS, skipinitialspace=True, na_values="?", keep_default_na=False,
            skiprows=int(file == "adult.test"),  # `|1x3 Cross validator`
        )
        for file, sha256 in SHA256.items()
    ]  # fmt: skip
    frame = pd.concat(parts, ignore_index=True)
    y = pd.Index(CLASSES).get_indexer(frame.pop("income").str.removesuffix("."))
    n = len(parts[0])
    indices = split_indices(n, {"validation": config.validation}, config.seed, y[:n])
    indices["test"] = np.arange(n, len(y))
    table.write(directory, "Adult", frame, y, indices, ABOUT, CLASSES)
