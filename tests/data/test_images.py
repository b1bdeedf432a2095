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


def photographs(folder, classes=("cat", "dog"), n=10, size=(6, 5), mode="RGB", suffix=".png"):
    """Write n images of each class into a folder's sub-folders; return the pixels of each, class by class."""
    from PIL import Image

    rng, pixels = np.random.default_rng(0), []
    for name in classes:
        (folder / name).mkdir(parents=True)
        for i in range(n):
            x = rng.integers(0, 256, (*size, 3) if mode == "RGB" else size).astype(np.uint8)
            Image.fromarray(x).save(folder / name / f"{i:03d}{suffix}")
            pixels.append(x)
    return np.stack(pixels)


def own(tmp_path, source, **changes):
    (tmp_path / "out").mkdir(exist_ok=True)
    given = {"validation": 0.2, "test": 0.2, "seed": 0}
    images.prepare(images.Config(**given | changes), tmp_path / "out", source)
    return Dataset(tmp_path / "out")


def together(dataset):
    """Return the images of all splits as bytes, (N, C, H, W), in an order of their own."""
    x = np.concatenate([dataset.arrays(split)["x"] for split in ("train", "validation", "test")])
    x = (x * 255).round().astype(np.uint8)
    return x[np.lexsort(x.reshape(len(x), -1).T)]


def test_a_folder_of_colour_images_is_read_as_it_is_and_dealt_class_by_class(tmp_path):
    pixels = photographs(tmp_path / "pets").transpose(0, 3, 1, 2)
    (tmp_path / "pets" / "cat" / "notes.txt").write_text("no image")
    data = own(tmp_path, tmp_path / "pets")
    assert data.description.classes == ["cat", "dog"] and data.description.shape == [3, 6, 5]
    np.testing.assert_array_equal(together(data), pixels[np.lexsort(pixels.reshape(len(pixels), -1).T)])
    assert [np.bincount(data.arrays(s)["y"]).tolist() for s in ("train", "validation", "test")] == [
        [6, 6],
        [2, 2],
        [2, 2],
    ]


def test_grey_images_have_one_channel_unless_declared_or_mixed_with_colour(tmp_path):
    pixels = photographs(tmp_path / "letters", mode="L")[:, None]
    data = own(tmp_path, tmp_path / "letters")
    assert data.description.shape == [1, 6, 5]
    np.testing.assert_array_equal(together(data), pixels[np.lexsort(pixels.reshape(len(pixels), -1).T)])
    assert own(tmp_path, tmp_path / "letters", colour=True).description.shape == [3, 6, 5]
    photographs(tmp_path / "letters", classes=["photo"])
    data = own(tmp_path, tmp_path / "letters")
    assert data.description.shape == [3, 6, 5]
    grey = data.arrays("train")["x"][data.arrays("train")["y"] == 0]
    np.testing.assert_array_equal(grey, np.repeat(grey[:, :1], 3, 1))
    assert own(tmp_path, tmp_path / "letters", colour=False).description.shape == [1, 6, 5]


def test_images_of_several_sizes_are_resized_by_declaration_alone(tmp_path):
    photographs(tmp_path / "pets", suffix=".jpg")
    photographs(tmp_path / "pets", classes=["fish"], size=(9, 9), suffix=".JPEG")
    with pytest.raises(UserError, match=r"fish.000.JPEG is 9 x 9, .*000.jpg 6 x 5 .*or declare `size: \[6, 5\]`"):
        own(tmp_path, tmp_path / "pets")
    assert own(tmp_path, tmp_path / "pets", size=[4, 8]).description.shape == [3, 4, 8]
    assert "Resized to 4 x 8" in (tmp_path / "out" / "card.md").read_text()


def test_a_folder_with_a_test_part_keeps_it(tmp_path):
    photographs(tmp_path / "pets" / "train")
    photographs(tmp_path / "pets" / "test", n=3, mode="L")
    data = own(tmp_path, tmp_path / "pets", test=None)
    assert [len(data.arrays(s)["y"]) for s in ("train", "validation", "test")] == [16, 4, 6]
    with pytest.raises(UserError, match="datasets.out.test: 0.2: .* has a test part; take test out"):
        own(tmp_path, tmp_path / "pets")
    with pytest.raises(UserError, match="datasets.out.test: missing: .* has no test part"):
        own(tmp_path, tmp_path / "pets" / "train", test=None)


def test_an_image_turned_by_its_camera_is_turned_back(tmp_path):
    from PIL import Image

    pixels = photographs(tmp_path / "pets")
    for path in (tmp_path / "pets").rglob("*.png"):
        image = Image.open(path)
        exif = image.getexif()
        exif[0x0112] = 6  # to be shown turned by 90 degrees clockwise
        image.save(path, exif=exif)
    data = own(tmp_path, tmp_path / "pets")
    turned = np.rot90(pixels, -1, axes=(1, 2)).transpose(0, 3, 1, 2)
    np.testing.assert_array_equal(together(data), turned[np.lexsort(turned.reshape(len(turned), -1).T)])


def broken(pets):
    path = pets / "cat" / "003.png"
    path.write_bytes(path.read_bytes()[:-30])


def deep(pets):
    from PIL import Image

    Image.fromarray(np.zeros((6, 5), np.uint16)).save(pets / "cat" / "deep.png")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (broken, r"\.source: .*cat.003.png is no whole PNG or JPEG"),
        (lambda pets: (pets / "cat" / "x.jpg").write_bytes(b"no image"), r"\.source: .*cat.x.jpg is no whole PNG or JPEG"),
        (deep, r"\.source: .*deep.png is of PIL's mode 'I;16'; should have 8 bits a channel"),
        (lambda pets: (pets / "fish").mkdir(), r"\.source: .*pets.fish holds no image; should hold .png, .jpg, .jpeg"),
        (lambda pets: photographs(pets, ["fish"], n=1), r": class 'fish': 1 images, should be at least 3, one for each split"),
        (lambda pets: [p.rename(pets / p.name) for c in ("cat", "dog") for p in [*(pets / c).iterdir(), (pets / c)] if p.is_file()]
         + [(pets / c).rmdir() for c in ("cat", "dog")], r"\.source: .*pets has no sub-folder; should have one for each class"),
        (lambda pets: pets.rename(pets.parent / "other"), r"\.source: .*pets' should be a folder"),
    ],
)  # fmt: skip
def test_a_wrong_folder_is_one_line_and_writes_nothing(tmp_path, change, message):
    photographs(tmp_path / "pets")
    change(tmp_path / "pets")
    with pytest.raises(UserError, match=f"datasets.out{message}") as caught:
        own(tmp_path, tmp_path / "pets")
    assert "\n" not in str(caught.value) and list((tmp_path / "out").iterdir()) == []


def idx(array):
    return bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes() + array.astype(np.uint8).tobytes()


def write_idx(folder, before="train-", n=20, compressed=False):
    """Write letters labelled 1 and 26 as EMNIST's are; return the images."""
    import gzip

    folder.mkdir(exist_ok=True)
    x = np.random.default_rng(len(before)).integers(0, 256, (n, 4, 4))
    for name, array in (("images-idx3", x), ("labels-idx1", np.arange(n) % 2 * 25 + 1)):
        content = gzip.compress(idx(array)) if compressed else idx(array)
        (folder / f"{before}{name}-ubyte{'.gz' if compressed else ''}").write_bytes(content)
    return x


@pytest.mark.parametrize("compressed", [False, True])
def test_idx_files_are_read_as_torchvision_reads_them(tmp_path, compressed):
    from torchvision.datasets.mnist import read_image_file

    x = write_idx(tmp_path / "letters", compressed=compressed)
    data = own(tmp_path, tmp_path / "letters")
    assert data.description.classes == ["1", "26"] and data.description.shape == [1, 4, 4]
    if not compressed:
        theirs = read_image_file(str(tmp_path / "letters" / "train-images-idx3-ubyte")).numpy()
        np.testing.assert_array_equal(theirs, x)
    np.testing.assert_array_equal(together(data)[:, 0], x[np.lexsort(x.reshape(len(x), -1).T)])
    test = write_idx(tmp_path / "letters", "t10k-", 8)
    data = own(tmp_path, tmp_path / "letters", test=None)
    np.testing.assert_array_equal((data.arrays("test")["x"][:, 0] * 255).round(), test)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("train-images-idx3-ubyte", lambda c: c[:-1], "holds 335 bytes, should be 336 by its head: .20, 4, 4."),
        ("train-images-idx3-ubyte", lambda c: c[:9], "holds 9 bytes, should be "),
        ("train-labels-idx1-ubyte", lambda c: c + b"\0", "holds 29 bytes, should be 28"),
        ("train-labels-idx1-ubyte", lambda c: b"PK" + c, "begins with 50 4b 00 00, should with 00 00 08 01, idx of 1 axes"),
        ("train-labels-idx1-ubyte", lambda c: idx(np.arange(19)), "holds 20 images, .*labels-idx1-ubyte 19 labels"),
        ("train-labels-idx1-ubyte", None, "labels-idx1-ubyte: No such file"),
    ],
)  # fmt: skip
def test_a_damaged_idx_file_is_named(tmp_path, name, content, message):
    write_idx(tmp_path / "letters")
    path = tmp_path / "letters" / name
    path.write_bytes(content(path.read_bytes())) if content else path.unlink()
    with pytest.raises(UserError, match=f"datasets.out.source: .*{message}"):
        own(tmp_path, tmp_path / "letters")


def test_idx_files_of_a_test_part_alone_and_labels_that_training_lacks_are_refused(tmp_path):
    write_idx(tmp_path / "letters", "t10k-")
    with pytest.raises(UserError, match="has a test part alone"):
        own(tmp_path, tmp_path / "letters", test=None)
    write_idx(tmp_path / "letters")
    (tmp_path / "letters" / "t10k-labels-idx1-ubyte").write_bytes(idx(np.arange(20)))
    with pytest.raises(UserError, match="test has the label 0, which train has not"):
        own(tmp_path, tmp_path / "letters", test=None)
    with pytest.raises(UserError, match="idx files are of one size and grey"):
        own(tmp_path, tmp_path / "letters", test=None, size=[2, 2])
