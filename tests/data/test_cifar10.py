"""CIFAR-10's binary archive is read as it is laid out, and refused where it is not whole."""

import hashlib
import io
import tarfile

import numpy as np
import pytest

from genai.core.config import UserError
from genai.core.dataset import Dataset
from genai.data import cifar10


def images(n, seed):
    rng = np.random.default_rng(seed)
    return rng.integers(256, size=(n, 3, 32, 32), dtype=np.uint8), (np.arange(n) % 10).astype(np.uint8)


def archive(path, change=lambda name, content: content):
    """Write an archive in the published layout, twenty images a file, and return the images of each file."""
    parts = {}
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz") as file:
        for i, name in enumerate([*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin"]):
            x, y = parts[name] = images(20, i)
            content = b"".join(bytes([label]) + image.tobytes() for image, label in zip(x, y, strict=True))
            content = change(name, content)
            if content is None:
                continue
            entry = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
            entry.size = len(content)
            file.addfile(entry, io.BytesIO(content))
    return parts


@pytest.fixture
def mirror(tmp_path, monkeypatch):
    monkeypatch.setenv("GENAI_DATA_MIRROR", str(tmp_path / "mirror"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "out").mkdir()
    return tmp_path / "mirror" / "CIFAR-10" / "cifar-10-binary.tar.gz"


def test_an_archive_in_the_published_layout_becomes_its_images(mirror, tmp_path, monkeypatch):
    parts = archive(mirror)
    monkeypatch.setattr(cifar10, "MD5", hashlib.md5(mirror.read_bytes()).hexdigest())
    cifar10.prepare(cifar10.Config(validation=0.2, seed=0), tmp_path / "out")
    dataset = Dataset(tmp_path / "out")
    assert dataset.description.shape == [3, 32, 32] and dataset.description.classes[3] == "cat"
    train, validation, test = (dataset.arrays(split) for split in ("train", "validation", "test"))
    assert (len(train["y"]), len(validation["y"]), len(test["y"])) == (80, 20, 20)
    x, y = parts["test_batch.bin"]
    np.testing.assert_array_equal((test["x"] * 255).round(), x)
    np.testing.assert_array_equal(test["y"], y)
    published = {
        image.tobytes(): label for name in cifar10.PARTS["train"] for image, label in zip(*parts[name], strict=True)
    }
    for part in (train, validation):
        for image, label in zip((part["x"] * 255).round().astype(np.uint8), part["y"], strict=True):
            assert published.pop(image.tobytes()) == label
    assert not published


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda name, content: content[:-1], "should be a multiple of 3073"),
        (lambda name, content: None if name == "test_batch.bin" else content, "not the binary version of CIFAR-10"),
        (lambda name, content: b"", "0 bytes"),
    ],
)
def test_an_archive_that_is_not_whole_is_refused(tmp_path, change, message):
    archive(tmp_path / "a.tar.gz", change)
    with pytest.raises(UserError, match=message):
        cifar10.read(tmp_path / "a.tar.gz")


def test_a_file_that_is_no_archive_is_refused(tmp_path):
    (tmp_path / "a.tar.gz").write_bytes(b"not an archive")
    with pytest.raises(UserError, match="not the binary version"):
        cifar10.read(tmp_path / "a.tar.gz")


def test_an_archive_without_the_published_checksum_is_refused(mirror, tmp_path):
    archive(mirror)
    with pytest.raises(UserError, match="wrong md5"):
        cifar10.prepare(cifar10.Config(validation=0.2, seed=0), tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []
