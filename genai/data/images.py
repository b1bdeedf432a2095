"""Labelled images: what every source of them does to validate, split and write; no source itself."""

import shutil
import tempfile
from pathlib import Path

import numpy as np
from pydantic import Field

from genai.core.config import Seed, Share, Strict, UserError
from genai.core.dataset import SPLITS, Description, split_indices, write_arrays, write_json, write_text
from genai.data.download import fetch


class Config(Strict):
    """Of a set that is published with a training and a test part."""

    validation: Share = Field(description="share of the published training part")
    seed: Seed = Field(description="of the split into training and validation")


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


def from_torchvision(name: str, classes: list[str], config: Config, directory: Path, about: str) -> None:
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
