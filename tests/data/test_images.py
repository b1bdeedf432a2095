"""Images are validated, kept apart between splits and described; MNIST's family is read as published."""

import os
from pathlib import Path

import numpy as np
import pytest

from genai.core.config import UserError
from genai.core.dataset import Dataset
from genai.data import digits, fashion_mnist, images, mnist

MIRROR = Path(__file__).parents[3] / "shared" / "data"


def splits(n=20, n_classes=2):
    rng = np.random.default_rng(0)
    return {
        split: (rng.random((n, 1, 3, 3), np.float32), np.arange(n) % n_classes)
        for split in ("train", "validation", "test")
    }


def test_written_images_are_read_back(tmp_path):
    images.write(tmp_path, "Letters", splits(), ["a", "b"], "About.")
    dataset = Dataset(tmp_path)
    assert dataset.description.shape == [1, 3, 3]
    assert dataset.description.classes == ["a", "b"]
    for split, (x, y) in splits().items():
        found = dataset.arrays(split)
        assert found["x"].dtype == np.float32 and found["y"].dtype == np.int64
        np.testing.assert_array_equal(found["x"], x)
        np.testing.assert_array_equal(found["y"], y)
    card = (tmp_path / "card.md").read_text()
    assert card.startswith("# Letters\n")
    assert "| b | 10 | 10 | 10 |" in card


def test_an_image_in_two_splits_stays_in_the_later_one(tmp_path):
    parts = splits()
    parts["train"][0][:2] = parts["test"][0][5]
    parts["train"][0][2] = parts["validation"][0][7]
    parts["validation"][0][0] = parts["test"][0][1]
    images.write(tmp_path, "Letters", parts, ["a", "b"], "About.")
    found = {split: Dataset(tmp_path).arrays(split)["x"] for split in parts}
    assert {split: len(x) for split, x in found.items()} == {"train": 17, "validation": 19, "test": 20}
    assert len(np.unique(np.concatenate(list(found.values())).reshape(56, -1), axis=0)) == 56
    card = (tmp_path / "card.md").read_text()
    assert "3 images were dropped from train and 1 from validation" in " ".join(card.split())
    assert "| all | 17 | 19 | 20 |" in card


@pytest.mark.parametrize(
    ("split", "change", "message"),
    [
        ("train", lambda x, y: (x * 255, y), "train: pixels from"),
        ("test", lambda x, y: (np.where(x > 0.5, np.nan, x), y), "test: pixels from"),
        (
            "validation",
            lambda x, y: (x, np.zeros_like(y)),
            r"validation: labels \[0\]; should be every class from 0 to 1",
        ),
        ("test", lambda x, y: (x, y + 1), r"test: labels \[1, 2\]"),
        ("test", lambda x, y: (x[:, :, :2], y), r"test: images of shape \(1, 2, 3\)"),
        ("train", lambda x, y: (x, y[:-1]), "train: 20 images, 19 labels"),
    ],
)
def test_wrong_images_are_refused_by_name(tmp_path, split, change, message):
    parts = splits()
    parts[split] = change(*parts[split])
    with pytest.raises(UserError, match=message):
        images.write(tmp_path, "Letters", parts, ["a", "b"], "About.")
    assert list(tmp_path.iterdir()) == []


def test_digits_are_scikit_learns_split_by_class(tmp_path):
    from sklearn.datasets import load_digits

    digits.prepare(digits.Config(validation=0.2, test=0.2, seed=0), tmp_path)
    dataset = Dataset(tmp_path)
    parts = [dataset.arrays(split) for split in ("train", "validation", "test")]
    x = np.concatenate([part["x"].reshape(-1, 64) for part in parts])
    y = np.concatenate([part["y"] for part in parts])
    published = load_digits()
    order, theirs = np.lexsort(x.T), np.lexsort(published.data.T)
    np.testing.assert_array_equal(x[order] * 16, published.data[theirs])
    np.testing.assert_array_equal(y[order], published.target[theirs])
    for part, share in zip(parts, (0.6, 0.2, 0.2), strict=True):
        np.testing.assert_allclose(np.bincount(part["y"]), np.bincount(published.target) * share, atol=1.01)


def test_digits_depend_on_the_seed_alone(tmp_path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        (tmp_path / name).mkdir()
        digits.prepare(digits.Config(validation=0.2, test=0.2, seed=seed), tmp_path / name)
    one, same, other = ((tmp_path / name / "test.safetensors").read_bytes() for name in "abc")
    assert one == same != other


@pytest.mark.parametrize(("module", "folder"), [(mnist, "MNIST"), (fashion_mnist, "FashionMNIST")])
def test_published_files_become_the_published_images(module, folder, tmp_path, monkeypatch):
    mirror = Path(os.environ.get("GENAI_DATA_MIRROR", MIRROR))
    if not (mirror / folder / "raw" / "train-images-idx3-ubyte.gz").is_file():
        pytest.skip(f"no {folder} in a mirror folder")
    monkeypatch.setenv("GENAI_DATA_MIRROR", str(mirror.resolve()))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "out").mkdir()
    module.prepare(module.Config(validation=0.1, seed=0), tmp_path / "out")
    dataset = Dataset(tmp_path / "out")
    train, validation, test = (dataset.arrays(split) for split in ("train", "validation", "test"))
    assert len(train["y"]) + len(validation["y"]) == 60000 and len(test["y"]) == 10000
    expected = np.round(0.1 * (np.bincount(train["y"]) + np.bincount(validation["y"])))
    assert np.array_equal(np.bincount(validation["y"]), expected)  # of each class its share
    mean, sd = {"MNIST": (0.1307, 0.3081), "FashionMNIST": (0.2860, 0.3530)}[folder]  # the usual published values
    x = np.concatenate([train["x"], validation["x"]])
    assert x.mean(dtype=np.float64) == pytest.approx(mean, abs=5e-5)
    assert x.std(dtype=np.float64) == pytest.approx(sd, abs=5e-5)
    counts = np.bincount(train["y"]) + np.bincount(validation["y"])
    first = {"MNIST": [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949], "FashionMNIST": [6000] * 10}
    assert counts.tolist() == first[folder]


def test_a_published_file_with_a_wrong_byte_is_refused(tmp_path, monkeypatch):
    raw = tmp_path / "mirror" / "MNIST" / "raw"
    raw.mkdir(parents=True)
    (raw / "train-images-idx3-ubyte.gz").write_bytes(b"not the published bytes")
    monkeypatch.setenv("GENAI_DATA_MIRROR", str(tmp_path / "mirror"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "out").mkdir()
    with pytest.raises(UserError, match="wrong md5"):
        mnist.prepare(mnist.Config(validation=0.1, seed=0), tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []
