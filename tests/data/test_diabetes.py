"""The diabetes data set is scikit-learn's, split without overlap, and standardised by its training split."""

import numpy as np
import pytest

from genai.core.config import UserError
from genai.core.dataset import SPLITS, Dataset
from genai.data import diabetes


def test_the_splits_together_are_the_published_data(tmp_path):
    from sklearn.datasets import load_diabetes

    diabetes.prepare(diabetes.Config(validation=0.2, test=0.2, seed=0), tmp_path)
    dataset = Dataset(tmp_path)
    assert dataset.description.kind == "table" and dataset.description.shape == [10]
    parts = [dataset.arrays(split) for split in SPLITS]
    assert [len(part["y"]) for part in parts] == [266, 88, 88]
    np.testing.assert_allclose(parts[0]["x"].mean(0), 0, atol=1e-6)
    np.testing.assert_allclose(parts[0]["x"].std(0), 1, rtol=1e-6)
    raw = [dataset.description.decode(part["x"]).to_numpy() for part in parts]
    found = np.column_stack([np.concatenate(raw), np.concatenate([part["y"] for part in parts])]).round(3)
    published = np.column_stack(load_diabetes(return_X_y=True, scaled=False)).round(3)
    np.testing.assert_allclose(found[np.lexsort(found.T)], published[np.lexsort(published.T)], atol=2e-3)


def test_damaged_values_are_refused(tmp_path, monkeypatch):
    import sklearn.datasets

    bunch = sklearn.datasets.load_diabetes(scaled=False, as_frame=True)
    bunch.data.iloc[3, 2] = np.inf
    monkeypatch.setattr(sklearn.datasets, "load_diabetes", lambda **_: bunch)
    with pytest.raises(UserError, match="column 'bmi': inf should be finite"):
        diabetes.prepare(diabetes.Config(validation=0.2, test=0.2, seed=0), tmp_path)
    assert list(tmp_path.iterdir()) == []
