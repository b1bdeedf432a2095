"""text8: refused when a byte is wrong, split in order as is customary."""

import hashlib
import zipfile

import numpy as np
import pytest

from genai.core.config import UserError, validate
from genai.core.dataset import Dataset
from genai.data import text8
from genai.data.download import MIRROR


@pytest.fixture
def archive(tmp_path, monkeypatch):
    """Put a text8 of 20,000 characters into a mirror, and its checksums and borders in the place of the real one's."""
    words = np.random.default_rng(0).choice(["anarchism", "originated", "as", "a", "term", "of", "abuse"], 6000)
    content = " ".join(words)[:20_000]
    (tmp_path / "mirror" / "text8").mkdir(parents=True)
    path = tmp_path / "mirror" / "text8" / "text8.zip"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("text8", content)
    monkeypatch.setenv(MIRROR, str(tmp_path / "mirror"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(text8, "SHA256", hashlib.sha256(path.read_bytes()).hexdigest())
    monkeypatch.setattr(text8, "MD5", hashlib.md5(content.encode()).hexdigest())
    monkeypatch.setattr(text8, "ENDS", {"train": 18_000, "validation": 19_000, "test": 20_000})
    (tmp_path / "out").mkdir()
    return tmp_path, content


CONFIG = validate(text8.Config, {"vocabulary_size": 300, "window": 32}, "datasets.x")


def test_the_splits_are_in_order_and_unchanged(archive):
    folder, content = archive
    text8.prepare(CONFIG, folder / "out")
    data = Dataset(folder / "out")
    splits = [data.text(split) for split in ("train", "validation", "test")]
    assert "".join(splits) == content and [*map(len, splits)] == [18_000, 1000, 1000]
    assert data.arrays("test")["tokens"].shape[1] == 32 and text8.SHA256 in (folder / "out" / "card.md").read_text()


@pytest.mark.parametrize("name", ["SHA256", "MD5"])
def test_a_wrong_byte_is_refused(archive, monkeypatch, name):
    folder, _ = archive
    monkeypatch.setattr(text8, name, "0" * len(getattr(text8, name)))
    with pytest.raises(UserError, match="text8"):
        text8.prepare(CONFIG, folder / "out")
    assert list((folder / "out").iterdir()) == []


def test_the_splits_are_not_a_parameter():
    with pytest.raises(UserError, match=r"datasets.x.test: unknown key"):
        validate(text8.Config, {"vocabulary_size": 300, "window": 32, "test": 0.1}, "datasets.x")
