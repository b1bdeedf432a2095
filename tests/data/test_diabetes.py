"""The diabetes data set is scikit-learn's, in raw units, split without overlap."""

import numpy as np
import pytest

from genai.core.config import UserError
from genai.core.dataset import Dataset
from genai.data import diabetes


def test_the_splits_together_are_the_published_data(tmp_path):
    from sklearn.datasets import load_diabetes

    diabetes.prepare(diabetes.Config(validation=0.2, test=0.2, seed=0), tmp_path)
    dataset = Dataset(tmp_path)
    assert dataset.description.kind == "table" and dataset.description.shape == [10]
    parts = [dataset.arrays(split) for split in ("train", "validation", "test")]
    assert [len(part["y"]) for part in parts] == [266, 88, 88]
    found = np.concatenate([np.column_stack([part["x"], part["y"]]) for part in parts])
    x, y = load_diabetes(return_X_y=True, scaled=False)
    published = np.column_stack([x, y]).astype(np.float32)
    np.testing.assert_array_equal(found[np.lexsort(found.T)], published[np.lexsort(published.T)])


def test_the_card_gives_the_statistics_of_the_training_split(tmp_path):
    diabetes.prepare(diabetes.Config(validation=0.2, test=0.2, seed=3), tmp_path)
    y = Dataset(tmp_path).arrays("train")["y"]
    assert (
        f"| target | {y.mean(dtype=np.float64):.4g} | {y.std(dtype=np.float64):.4g} |"
        in (tmp_path / "card.md").read_text()
    )


def test_damaged_values_are_refused(tmp_path, monkeypatch):
    import sklearn.datasets

    bunch = sklearn.datasets.load_diabetes(scaled=False)
    bunch.data[3, 2] = np.nan
    monkeypatch.setattr(sklearn.datasets, "load_diabetes", lambda scaled: bunch)
    with pytest.raises(UserError, match="not finite"):
        diabetes.prepare(diabetes.Config(validation=0.2, test=0.2, seed=0), tmp_path)
    assert list(tmp_path.iterdir()) == []
