"""The published tables are what scikit-learn loads, or what their publishers' files say, encoded by training."""

import os
from pathlib import Path

import numpy as np
import pytest
import sklearn.datasets

from genai.core.config import UserError
from genai.core.dataset import SPLITS, Dataset
from genai.data import adult, breast_cancer, california_housing, iris, wine

MIRROR = Path(__file__).parents[3] / "shared" / "data"


@pytest.mark.parametrize("source", [breast_cancer, wine, iris])
def test_embedded_tables_are_scikit_learns(source, tmp_path):
    name = source.__name__.rpartition(".")[2]
    source.prepare(source.Config(validation=0.2, test=0.2, seed=0), tmp_path)
    dataset, bunch = Dataset(tmp_path), getattr(sklearn.datasets, f"load_{name}")()
    assert dataset.description.classes == bunch.target_names.tolist()
    parts = [dataset.arrays(split) for split in SPLITS]
    y = np.concatenate([part["y"] for part in parts])
    raw = np.concatenate([dataset.description.decode(part["x"]).to_numpy() for part in parts])
    found, published = np.column_stack([y, raw]), np.column_stack([bunch.target, bunch.data])
    dropped = len(published) - len(found)
    assert dropped <= 1  # iris has a flower twice, which stays in the later split
    order = np.lexsort(published.round(5).T)
    mine = found[np.lexsort(found.round(5).T)]
    theirs = published[order] if not dropped else np.unique(published, axis=0)
    mine = mine if not dropped else np.unique(mine.round(5), axis=0)
    np.testing.assert_allclose(mine, theirs, rtol=1e-5, atol=1e-5)
    for part, share in zip(parts, (0.6, 0.2, 0.2), strict=True):
        np.testing.assert_allclose(np.bincount(part["y"]), np.bincount(bunch.target) * share, atol=1.01)


@pytest.fixture
def mirror(tmp_path, monkeypatch):
    """A folder with the published files, and another to work in."""
    mirror = Path(os.environ.get("GENAI_DATA_MIRROR", MIRROR))
    if not (mirror / "adult").is_dir() or not (mirror / "california-housing").is_dir():
        pytest.skip("no adult or california-housing in a mirror folder")
    monkeypatch.setenv("GENAI_DATA_MIRROR", str(mirror.resolve()))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "out").mkdir()
    return tmp_path


def test_california_housing_has_scikit_learns_features(mirror):
    california_housing.prepare(california_housing.Config(validation=0.2, test=0.2, seed=0), mirror / "out")
    dataset = Dataset(mirror / "out")
    parts = [dataset.arrays(split) for split in SPLITS]
    assert sum(len(part["y"]) for part in parts) == 20640
    rows = np.concatenate([dataset.description.decode(part["x"]).to_numpy() for part in parts])
    y = np.concatenate([part["y"] for part in parts])
    # the first row as the documentation of fetch_california_housing shows it, and its target
    first = [8.3252, 41.0, 6.98412698, 1.02380952, 322.0, 2.55555556, 37.88, -122.23]
    (at,) = np.flatnonzero(np.isclose(rows, first, rtol=1e-5).all(1))
    assert y[at] == np.float32(4.526) and y.max() == np.float32(5.00001)


def test_adult_keeps_its_published_test_split(mirror):
    adult.prepare(adult.Config(validation=0.1, seed=0), mirror / "out")
    dataset = Dataset(mirror / "out")
    parts = {split: dataset.arrays(split) for split in SPLITS}
    assert np.bincount(parts["test"]["y"]).tolist() == [12435, 3846]  # as published
    assert 32561 - 40 < len(parts["train"]["y"]) + len(parts["validation"]["y"]) < 32561  # less the copies
    columns = {column.name: column for column in dataset.description.columns}
    assert len(columns) == 14 and {n for n, c in columns.items() if c.missing} == {
        "workclass", "occupation", "native-country",
    }  # fmt: skip
    assert len(columns["education"].levels) == 16 and columns["age"].type == "number"


def test_a_published_table_with_a_wrong_byte_is_refused(tmp_path, monkeypatch):
    path = tmp_path / "mirror" / "california-housing" / "cal_housing.data"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"not the published bytes")
    monkeypatch.setenv("GENAI_DATA_MIRROR", str(tmp_path / "mirror"))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="wrong sha256"):
        california_housing.prepare(california_housing.Config(validation=0.2, test=0.2, seed=0), tmp_path)
