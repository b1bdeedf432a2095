"""California housing: 20,640 blocks of the census of 1990, eight features, the median value of a house (1997)."""

from pathlib import Path

from genai.core.dataset import Kind
from genai.core.dataset import RandomSplit as Config
from genai.data import table
from genai.data.download import fetch

__all__ = ["Config", "kind", "prepare"]

kind: Kind = "table"

# StatLib's file itself; scikit-learn's address has it in an archive.
REPOSITORY = "https://raw.githubusercontent.com/lapets/course-data-science"
ADDRESSES = [
    f"{REPOSITORY}/8b7f62812de4e3bd86bbc7879f65691e1775d1c9/cal_housing.data",
    f"{REPOSITORY}/de59926b097817c130050161bee9d276c850f0ef/cal_housing.data",
]
SHA256 = "d3d8a1a722ae78f91134862727d27a70b1415e7d512a89140406248687f4b902"
COLUMNS = ["Longitude", "Latitude", "HouseAge", "Rooms", "Bedrooms", "Population", "Households", "MedInc", "Value"]

ABOUT = f"""
20,640 groups of blocks of the Californian census of 1990: R. K. Pace and R. Barry, "Sparse spatial autoregressions",
Statistics and Probability Letters, 1997; StatLib's `cal_housing.data`, SHA-256
`{SHA256}` (checked).

The features are those of scikit-learn's `fetch_california_housing`: rooms, bedrooms and occupants are means per
household. The target is the median value of a house in 100,000 dollars; values above 5 stand as 5.00001.
"""

TARGET = "median house value, $100,000"


def prepare(config: Config, directory: Path) -> None:
    """Fetch and write the data set. Raises UserError where the file cannot be had or a byte in it is wrong."""
    import pandas as pd

    path = fetch(ADDRESSES, "california-housing/cal_housing.data", sha256=SHA256)
    raw = pd.read_csv(path, names=COLUMNS)
    frame = pd.DataFrame(
        {
            "MedInc": raw.MedInc,
            "HouseAge": raw.HouseAge,
            "AveRooms": raw.Rooms / raw.Households,
            "AveBedrms": raw.Bedrooms / raw.Households,
            "Population": raw.Population,
            "AveOccup": raw.Population / raw.Households,
            "Latitude": raw.Latitude,
            "Longitude": raw.Longitude,
        }
    )
    y = raw.Value.to_numpy() / 100_000
    table.write(directory, "California housing", frame, y, table.split(y, config, None), ABOUT, target=TARGET)
