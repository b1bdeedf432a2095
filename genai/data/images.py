"""Labelled images: a folder of your own, and what every source of them does to validate, split and write."""

import gzip
import re
import shutil
import tempfile
import zlib
from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import Field

from genai.core.config import Count, Seed, Share, Strict, UserError
from genai.core.dataset import (
    SPLITS,
    Description,
    PublishedSplit,
    split_indices,
    write_arrays,
    write_json,
    write_text,
)
from genai.data.download import fetch


class Config(Strict):
    """Of a folder of images of the user's."""

    validation: Share = Field(description="share of what is not for test, of each class")
    test: Share | None = Field(None, description="share of each class; null: the folder has a test part")
    seed: Seed = Field(description="of the split")
    size: Annotated[list[Count], Field(min_length=2, max_length=2)] | None = Field(
        None, description="height and width to resize to; null: all have the same"
    )
    colour: bool | None = Field(None, description="three channels or one; null: one where all images are grey")


def prepare(config: Config, directory: Path, path: Path) -> None:
    """Write the data set of a folder with a sub-folder of PNG or JPEG for each class, or of idx files.

    Either may be in two parts, train and test. Raises UserError where a file is broken or images do not fit together.
    """
    at = f"datasets.{directory.name}"
    if not path.is_dir():
        form = "a sub-folder of images for each class or idx files"
        raise UserError(f"{at}.source: {str(path)!r} should be a folder, with {form}")
    classes, parts = read_idx(path, config, at) if idx_files(path) else read_folders(path, config, at)
    if config.test is None and "test" not in parts:
        raise UserError(f"{at}.test: missing: {path} has no test part")
    if config.test is not None and "test" in parts:
        raise UserError(f"{at}.test: {config.test}: {path} has a test part; take test out")
    x, y = parts.pop("train")
    shares = {split: share for split, share in (("test", config.test), ("validation", config.validation)) if share}
    for name, n in zip(classes, np.bincount(y, minlength=len(classes)), strict=True):
        if n <= len(shares):
            raise UserError(
                f"{at}: class {name!r}: {n} images, should be at least {len(shares) + 1}, one for each split"
            )
    indices = split_indices(len(y), shares, config.seed, y)
    resized = f" Resized to {config.size[0]} x {config.size[1]} (bilinear)." if config.size else ""
    about = f"The user's folder `{path}`.{resized} Licence: the user knows."
    write(directory, path.name, {split: (x[i], y[i]) for split, i in indices.items()} | parts, classes, about)


def validate(where: str, splits: dict[str, tuple[np.ndarray, np.ndarray]], n_classes: int) -> None:
    """Raise UserError unless each split holds x (N, C, H, W) in [0, 1] of one shape, and y (N,) of every class."""
    shape = splits["train"][0].shape[1:]
    for split, (x, y) in splits.items():
        at = f"{where}: {split}"
        if x.ndim != 4 or x.shape[1:] != shape:
            raise UserError(
                f"{at}: images of shape {x.shape[1:]}, should be (channels, height, width) as in train, {shape}"
            )
        if len(x) != len(y):
            raise UserError(f"{at}: {len(x)} images, {len(y)} labels; should be as many")
        if not (np.isfinite(x).all() and x.min() >= 0 and x.max() <= 1):
            raise UserError(f"{at}: pixels from {x.min()} to {x.max()}; should be finite and in [0, 1]")
        if not np.array_equal(found := np.unique(y), np.arange(n_classes)):
            raise UserError(f"{at}: labels {found.tolist()}; should be every class from 0 to {n_classes - 1}")


def without_duplicates(splits: dict[str, tuple[np.ndarray, np.ndarray]]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return the splits without those images of train that validation or test has, and of validation that test has."""
    seen: set[bytes] = set()
    kept = {}
    for split in reversed(SPLITS):
        x, y = splits[split]
        keys = [image.tobytes() for image in x]
        keep = np.array([key not in seen for key in keys])
        kept[split] = (x[keep], y[keep])
        seen.update(keys)
    return {split: kept[split] for split in SPLITS}


def write(
    directory: Path, title: str, splits: dict[str, tuple[np.ndarray, np.ndarray]], classes: list[str], about: str
) -> None:
    """Validate and write the splits, each x (N, C, H, W) in [0, 1] and y (N,), and the card. Raises UserError."""
    validate(title, splits, len(classes))
    kept = without_duplicates(splits)
    for split, (x, y) in kept.items():
        write_arrays(directory / f"{split}.safetensors", {"x": x.astype(np.float32), "y": y.astype(np.int64)})
    shape = [int(n) for n in splits["train"][0].shape[1:]]
    write_json(directory / "description.json", Description(kind="images", shape=shape, classes=classes).model_dump())
    dropped = {split: len(splits[split][1]) - len(kept[split][1]) for split in SPLITS}
    rows = [
        f"| {name} | " + " | ".join(str(np.count_nonzero(kept[split][1] == c)) for split in SPLITS) + " |"
        for c, name in enumerate(classes)
    ]
    sizes = " | ".join(str(len(kept[split][1])) for split in SPLITS)
    x = kept["train"][0]
    write_text(
        directory / "card.md",
        f"""# {title}

{about.strip()}

Images of {shape[0]} x {shape[1]} x {shape[2]} (channels, height, width), pixels in [0, 1];
those of train have mean {x.mean(dtype=np.float64):.4f} and standard deviation {x.std(dtype=np.float64):.4f}.

| class | {" | ".join(SPLITS)} |
| --- | ---: | ---: | ---: |
{chr(10).join(rows)}
| all | {sizes} |

Checked: shapes, pixel range, every class in every split, no image in two splits. For the last, {dropped["train"]} images
were dropped from train and {dropped["validation"]} from validation: a later split had them too.
""",
    )


Part = tuple[np.ndarray, np.ndarray]  # x (N, C, H, W) float32 in [0, 1], y (N,) int64
SUFFIXES = (".png", ".jpg", ".jpeg")
GREY, COLOURED = ("1", "L", "LA"), ("P", "PA", "RGB", "RGBA", "CMYK", "YCbCr")  # PIL's modes, 8 bits a channel
IDX = re.compile(r"(?P<before>.*)images(?P<after>[-._]idx)3(?P<rest>-ubyte(\.gz)?)")


def read_folders(path: Path, config: Config, at: str) -> tuple[list[str], dict[str, Part]]:
    """Return the classes, the names of the sub-folders, and the parts of a folder of images. Raises UserError."""
    parts = {folder.name: folder for folder in _folders(path)}
    if set(parts) != {"train", "test"}:
        parts = {"train": path}
    classes = [folder.name for folder in _folders(parts["train"])]
    if not classes:
        raise UserError(f"{at}.source: {parts['train']} has no sub-folder; should have one for each class")
    files = {}
    for part, folder in parts.items():
        if (found := [inside.name for inside in _folders(folder)]) != classes:
            raise UserError(f"{at}.source: {folder} has the classes {found}; should be those of train, {classes}")
        files[part] = [_images(folder / name, at) for name in classes]
    return classes, _decoded(files, config, at)


def _images(folder: Path, at: str) -> list[Path]:
    found = sorted(p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES and p.name[0] != ".")
    if not found:
        raise UserError(f"{at}.source: {folder} holds no image; should hold {', '.join(SUFFIXES)}")
    return found


def _folders(path: Path) -> list[Path]:
    return sorted(p for p in path.iterdir() if p.is_dir() and p.name[0] != ".")


def _decoded(files: dict[str, list[list[Path]]], config: Config, at: str) -> dict[str, Part]:
    """Return the images of the files, by part and class, as arrays: all of one size, grey or coloured as declared."""
    colour, shape, first, pixels = config.colour, None, None, {}
    for part, classes in files.items():
        pixels[part] = [open_image(file, config, f"{at}.source") for inside in classes for file in inside]
        for image, file in zip(pixels[part], (f for inside in classes for f in inside), strict=True):
            shape, first = shape or image.shape[:2], first or file
            if image.shape[:2] != shape:
                sizes = f"{file} is {_by(image.shape)}, {first} {_by(shape)} (height x width)"
                raise UserError(
                    f"{at}.source: {sizes}; should be of one size, or declare `size: [{shape[0]}, {shape[1]}]`"
                )
    if colour is None:
        colour = any(image.ndim == 3 for images in pixels.values() for image in images)
    result = {}
    for part, images in pixels.items():
        x = np.stack([np.stack([image] * 3, 2) if colour and image.ndim == 2 else image for image in images])
        x = x.transpose(0, 3, 1, 2) if colour else x[:, None]
        y = np.repeat(np.arange(len(files[part])), [len(inside) for inside in files[part]])
        result[part] = (x / np.float32(255), y)
    return result


def _by(shape: tuple[int, ...]) -> str:
    return f"{shape[0]} x {shape[1]}"


def open_image(file: Path, config: Config, at: str) -> np.ndarray:
    """Return a file's pixels, (height, width) uint8 where it is grey, else (height, width, 3). Raises UserError."""
    from PIL import Image, ImageOps

    try:
        with Image.open(file) as opened:
            if opened.mode not in GREY + COLOURED:
                raise UserError(f"{at}: {file} is of PIL's mode {opened.mode!r}; should have 8 bits a channel")
            coloured = opened.mode in COLOURED if config.colour is None else config.colour
            image = ImageOps.exif_transpose(opened).convert("RGB" if coloured else "L")
            if config.size:
                image = image.resize(config.size[::-1], Image.Resampling.BILINEAR)
            return np.asarray(image)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise UserError(f"{at}: {file} is no whole PNG or JPEG ({error})") from None


# --- idx, the format of MNIST -----------------------------------------------------------------------


def idx_files(path: Path) -> dict[str, tuple[Path, Path]]:
    """Return by part, train or test, the files of images and of labels as MNIST and its kin name them."""
    found = {}
    for file in sorted(path.iterdir()):
        if match := IDX.fullmatch(file.name):
            labels = f"{match['before']}labels{match['after']}1{match['rest']}"
            found["test" if re.search("t10k|test", match["before"]) else "train"] = (file, path / labels)
    return found


def read_idx(path: Path, config: Config, at: str) -> tuple[list[str], dict[str, Part]]:
    """Return the classes, the numbers that are labels, and the parts of a folder of idx files. Raises UserError."""
    if config.size or config.colour is not None:
        raise UserError(f"{at}: idx files are of one size and grey; take size and colour out")
    at, parts = f"{at}.source", {}
    for part, (images, labels) in idx_files(path).items():
        x, y = idx_array(images, 3, at), idx_array(labels, 1, at)
        if len(x) != len(y):
            raise UserError(f"{at}: {images} holds {len(x)} images, {labels} {len(y)} labels; should be as many")
        parts[part] = (x, y)
    if "train" not in parts:
        raise UserError(f"{at}: {path} has a test part alone; should have train-images-idx3-ubyte and its labels, too")
    numbers = np.unique(parts["train"][1])
    for part, (_, y) in parts.items():
        if len(other := np.setdiff1d(y, numbers)):
            raise UserError(f"{at}: {part} has the label {other[0]}, which train has not")
    return [str(number) for number in numbers], {
        part: (x[:, None] / np.float32(255), np.searchsorted(numbers, y)) for part, (x, y) in parts.items()
    }


def idx_array(file: Path, n_axes: int, at: str) -> np.ndarray:
    """Return the unsigned bytes of an idx file, gzipped or not, as an array of so many axes. Raises UserError.

    Its head: two bytes 0, the type 8, the number of axes, then the length of each as four bytes, the largest first.
    """
    try:
        content = (gzip.decompress if file.suffix == ".gz" else bytes)(file.read_bytes())
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{at}: {file}: {getattr(error, 'strerror', None) or error}") from None
    magic, head = bytes([0, 0, 8, n_axes]), 4 + 4 * n_axes
    if content[:4] != magic:
        raise UserError(
            f"{at}: {file} begins with {content[:4].hex(' ')}, should with {magic.hex(' ')}, idx of {n_axes} axes"
        )
    shape = np.frombuffer(content[4:head].ljust(4 * n_axes, b"\0"), ">u4").astype(int)
    if len(content) != head + shape.prod():
        raise UserError(
            f"{at}: {file} holds {len(content)} bytes, should be {head + shape.prod()} by its head: {shape.tolist()}"
        )
    return np.frombuffer(content, np.uint8, offset=head).reshape(shape)


def from_torchvision(name: str, classes: list[str], config: PublishedSplit, directory: Path, about: str) -> None:
    """Fetch, read and write `torchvision.datasets.NAME`, one of the MNIST family.

    Each file comes from a mirror folder or torchvision's addresses, and must have the MD5 that
    torchvision publishes. Raises UserError.
    """
    from torchvision import datasets

    cls = getattr(datasets, name)
    with tempfile.TemporaryDirectory() as root:
        raw = Path(root) / name / "raw"
        raw.mkdir(parents=True)
        for file, md5 in cls.resources:
            shutil.copy(fetch([mirror + file for mirror in cls.mirrors], f"{name}/raw/{file}", md5=md5), raw)
        # download=True unpacks; it finds the files with the right MD5 and asks no network
        parts = [cls(root, train=train, download=True) for train in (True, False)]
    (x, y), test = [(part.data.numpy()[:, None] / np.float32(255), part.targets.numpy()) for part in parts]
    indices = split_indices(len(y), {"validation": config.validation}, config.seed, y)
    splits = {split: (x[index], y[index]) for split, index in indices.items()}
    write(directory, name, splits | {"test": test}, classes, about)
