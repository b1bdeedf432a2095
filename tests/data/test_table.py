"""Tables are validated as they are written, split without overlap and described."""

import numpy as np
import pytest

from genai.core.config import UserError
from genai.core.dataset import SPLITS, Dataset
from genai.data import table

CONFIG = table.Config(validation=0.1, test=0.2, seed=0)


def rows(n=100):
    """x (n, 2) and three classes, of which the last is rare."""
    return np.random.default_rng(0).normal(size=(n, 2)), np.repeat([0, 1, 2], [n // 2, n - n // 2 - n // 10, n // 10])


def write(folder, x, y, classes=("a", "b", "rare"), columns=("height", "weight")):
    classes = None if classes is None else list(classes)
    table.write(folder, "Measured", x, y, list(columns), CONFIG, "About.", classes)
    return Dataset(folder)


def test_a_table_of_classes_is_split_class_by_class_and_loses_no_row(tmp_path):
    x, y = rows()
    data = write(tmp_path, x, y)
    assert data.description.shape == [2] and data.description.classes == ["a", "b", "rare"]
    parts = [data.arrays(split) for split in SPLITS]
    assert [np.bincount(part["y"]).tolist() for part in parts] == [[35, 28, 7], [5, 4, 1], [10, 8, 2]]
    assert all(part["x"].dtype == np.float32 and part["y"].dtype == np.int64 for part in parts)
    found = np.concatenate([np.column_stack([part["x"], part["y"]]) for part in parts])
    whole = np.column_stack([x.astype(np.float32), y])
    np.testing.assert_array_equal(found[np.lexsort(found.T)], whole[np.lexsort(whole.T)])
    assert "of train: a 35, b 28, rare 7" in (tmp_path / "card.md").read_text()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x, y: (np.where(x > 1, np.inf, x), y), "a value is not finite"),
        (lambda x, y: (np.where(x > 1, 1e39, x), y), "a value is not finite"),  # in float32
        (lambda x, y: (x, np.where(y == 2, np.nan, y)), "a value is not finite"),
        (lambda x, y: (np.concatenate([x[:-2], x[:2]]), y), "2 rows stand there twice"),
        (lambda x, y: (x, y + 1), r"classes \[1, 2, 3\]; should be every number from 0 to 2"),
        (lambda x, y: (x, y / 2), r"classes \[0.0, 0.5, 1.0\]"),
        (lambda x, y: (x[:, :1], y), r"features of shape \(100, 1\), should be \(100, 2\)"),
    ],
)
@pytest.mark.filterwarnings("ignore:overflow encountered in cast")
def test_a_wrong_table_is_one_line_and_writes_nothing(tmp_path, change, message):
    with pytest.raises(UserError, match=f"datasets.{tmp_path.name}: {message}"):
        write(tmp_path, *change(*rows()))
    assert list(tmp_path.iterdir()) == []
