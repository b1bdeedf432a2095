"""What a prepared data set is: a folder with its description, its card and three splits.

data/NAME/description.json                      kind, shapes, classes, vocabulary size
data/NAME/card.md                               where it came from, what was done, what was checked
data/NAME/{train,validation,test}.safetensors   table (encoded) and images: x, y
data/NAME/{train,validation,test}.txt           text, with tokenizer.json
data/NAME/documents.json                        text whose documents have names: where each begins
"""

import json
import os
import re
import shutil
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field
from safetensors import SafetensorError
from safetensors.numpy import load_file

from genai.core.config import Seed, Share, Strict, UserError

Kind = Literal["table", "images", "text"]
SPLITS = ("train", "validation", "test")
PART = 1_000_000  # characters that are tokenized at a time
CUT = re.compile(r"(?<=\S)(?=[ \n])")  # where a part may end


class RandomSplit(Strict):
    """How data that are published in one part are split."""

    validation: Share
    test: Share
    seed: Seed = Field(description="of the split")


class PublishedSplit(Strict):
    """How data that are published with a training and a test part are split."""

    validation: Share = Field(description="share of the published training part")
    seed: Seed = Field(description="of the split into training and validation")


class Column(Strict):
    """A column of a table, and how it becomes the numbers that every model takes: learned from the training split.

    A number is standardised, a missing one then 0, the mean. A category is one-hot over its levels in training, all 0
    for any other. Where a value of training is missing, one more number says so, 0 or 1.
    """

    name: str
    type: Literal["number", "category"]
    mean: float = 0.0  # of a number
    scale: float = 1.0  # of a number: its standard deviation, or 1 where it does not vary
    levels: list[str] = Field(default_factory=list)  # of a category
    missing: bool = False  # in training

    @property
    def features(self) -> list[str]:
        """The names of the numbers that it becomes."""
        features = [self.name] if self.type == "number" else [f"{self.name} is {level}" for level in self.levels]
        return [*features, f"{self.name} is missing"] if self.missing else features

    def encode(self, values) -> np.ndarray:
        """Return a pandas series (N,) as (N, features) float32. Raises UserError where a number is none."""
        import pandas as pd

        absent = values.isna().to_numpy()
        if self.type == "number":
            numbers = pd.to_numeric(values, errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)
            with np.errstate(over="ignore"):
                x = ((numbers - self.mean) / self.scale).astype(np.float32)[:, None]
            if (wrong := ~absent & ~np.isfinite(x[:, 0])).any():
                raise UserError(f"{self.name}: {values[wrong].iloc[0]!r} should be a number")
            x[absent] = 0
        else:
            codes = pd.Index(self.levels, dtype=object).get_indexer(
                values.where(~absent, "").astype(str).astype(object)
            )
            x = (codes[:, None] == np.arange(len(self.levels))) & ~absent[:, None]
        return np.column_stack([x, absent] if self.missing else [x]).astype(np.float32)

    def decode(self, x: np.ndarray):
        """Return the values, a pandas series, that `encode` made x (N, features) of; an unknown level as "\\0"."""
        import pandas as pd

        if self.type == "number":
            values = pd.Series(x[:, 0].astype(np.float64) * self.scale + self.mean)
        else:
            hot = np.column_stack([x[:, : len(self.levels)], np.full(len(x), 0.5)])  # none of them: the last
            values = pd.Series(np.array([*self.levels, "\0"], dtype=object)[hot.argmax(1)])
        return values.mask(x[:, -1] == 1) if self.missing else values


class Description(Strict):
    """What a model needs to know of its data to take its shape, and who uses it to give it examples."""

    kind: Kind
    shape: list[int]  # of one example: [features], [channels, height, width] or [tokens in a window]
    classes: list[str] = Field(default_factory=list)  # table and images: the name of class 0, 1, ...
    vocabulary_size: int = 0  # text: number of tokens, special ones excluded
    columns: list[Column] = Field(default_factory=list)  # table: as it was before it was encoded
    target: str = ""  # regression: the number to predict, with its unit

    @property
    def n_classes(self) -> int:
        """The number of classes. Raises ValueError where the data have none."""
        if not self.classes:
            raise ValueError("the data have no classes")
        return len(self.classes)

    def served(self) -> dict[str, Any]:
        """Return what a served model takes, and an example: the columns of a table, missing values null, or examples."""
        if not self.columns:
            return {"inputs": ("tensor", "float32", (-1, *self.shape)), "example": None}
        types = {"number": "double", "category": "string"}
        example = {c.name: [c.levels[0] if c.levels else float(f"{c.mean:.4g}")] for c in self.columns}
        return {"inputs": ("columns", {c.name: types[c.type] for c in self.columns}), "example": example}

    def decode(self, x: np.ndarray):
        """Return the rows of a table, a pandas frame, that `encode` made x (N, features) of."""
        import pandas as pd

        ends = np.cumsum([len(column.features) for column in self.columns])[:-1]
        parts = zip(self.columns, np.split(x, ends, axis=1), strict=True)
        return pd.DataFrame({column.name: column.decode(part) for column, part in parts})

    def encode(self, rows) -> np.ndarray:
        """Return x (N, features) float32 of the rows of a table, a pandas frame with its columns in any order.

        Examples of data without columns are given as arrays, and returned as they are. Raises UserError where columns
        are missing or unknown, or a number is none.
        """
        if not self.columns:
            return rows
        names, given = [column.name for column in self.columns], [*rows.columns]
        differ = {"missing": [n for n in names if n not in given], "unknown": [n for n in given if n not in names]}
        if told := [f"{what}: {', '.join(map(repr, found))}" for what, found in differ.items() if found]:
            raise UserError(f"columns {'; '.join(told)}; should be {', '.join(map(repr, names))}")
        return np.hstack([column.encode(rows[column.name]) for column in self.columns])


class Dataset:
    """A prepared data set in a folder, read on demand.

    Raises UserError where the folder or a file in it is missing or damaged.
    """

    def __init__(self, directory: Path):
        self.directory = Path(directory)
        self.encoded: dict[str, tuple[np.ndarray, np.ndarray]] = {}  # split -> tokens, offsets
        try:
            text = (self.directory / "description.json").read_text()
            self.description = Description.model_validate_json(text)
        except FileNotFoundError:
            raise UserError(f"{self.directory}: not prepared; run: dvc repro prepare@{self.directory.name}") from None
        except ValueError:
            raise UserError(f"{self.directory}/description.json: damaged; prepare the data set again") from None

    def arrays(self, split: str) -> dict[str, np.ndarray]:
        """Return the split's arrays, first axis the examples.

        table:      x (N, features) float32, y (N,) float32, or int64 where it is a class
        images:     x (N, C, H, W) float32 in [0, 1], y (N,) int64
        text:       tokens (N, T) int64; of `train` every window of T tokens (a view: N is about the
                    number of tokens), of the others the windows side by side
        """
        assert split in SPLITS
        if self.description.kind == "text":
            tokens, size = self.tokens(split), self.description.shape[0]
            if len(tokens) < size:
                raise UserError(f"{self.directory}/{split}.txt: {len(tokens)} tokens, fewer than one window of {size}")
            if split == "train":
                return {"tokens": np.lib.stride_tricks.sliding_window_view(tokens, size)}
            return {"tokens": tokens[: len(tokens) // size * size].reshape(-1, size)}
        path = self.directory / f"{split}.safetensors"
        try:
            return load_file(path)
        except (SafetensorError, OSError) as error:
            raise UserError(f"{path}: missing or damaged ({error}); prepare the data set again") from None

    def text(self, split: str) -> str:
        """Return the split's text."""
        path = self.directory / f"{split}.txt"
        try:
            return path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"{path}: missing or damaged ({error}); prepare the data set again") from None

    def tokens(self, split: str) -> np.ndarray:
        """Return the split's text as token ids, (N,) int64."""
        return self._encoded(split)[0]

    def offsets(self, split: str) -> np.ndarray:
        """Return the character of the split's text at which each token begins, and at last its length, (N + 1,) int64.

        Where a character's bytes stand in several tokens, all but the first begin after it: it is counted once.
        """
        return self._encoded(split)[1]

    def documents(self, split: str) -> dict[str, int]:
        """Return the character of the split's text at which each document begins, by its name, in their order.

        Raises UserError where the documents have no names.
        """
        path = self.directory / "documents.json"
        try:
            return json.loads(path.read_text(encoding="utf-8"))[split]
        except (OSError, ValueError, KeyError):
            raise UserError(f"{path}: missing or damaged; the documents of this text have no names") from None

    def _encoded(self, split: str) -> tuple[np.ndarray, np.ndarray]:
        if split not in self.encoded:
            self.encoded[split] = encode(self.tokenizer, self.text(split))
        return self.encoded[split]

    @cached_property
    def tokenizer(self):
        return load_tokenizer(self.directory)


def encode(tokenizer: Any, text: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the token ids of a text, (N,) int64, and the character at which each begins, at last its length, (N + 1,).

    Part by part, in memory that does not grow with the text but by these arrays: a byte-level BPE joins no bytes across
    the beginning of white space, so that the ids are those of the whole.
    """
    ids, offsets, start = [np.zeros(0, dtype=np.int64)], [np.zeros(0, dtype=np.int64)], 0
    while start < len(text):
        cut = CUT.search(text, start + PART)
        part = text[start : cut.start() if cut else len(text)]
        encoding = tokenizer.encode(part)
        begins, ends = np.array(encoding.offsets, dtype=np.int64).reshape(-1, 2).T
        ids.append(np.array(encoding.ids, dtype=np.int64))
        offsets.append(start + np.maximum(begins, np.append(0, ends)[:-1]))
        start += len(part)
    return np.concatenate(ids), np.append(np.concatenate(offsets), len(text))


def read_utf8(path: Path, at: str) -> str:
    """Return the text of a file of the user's, a byte-order mark and line ends as they are. Raises UserError."""
    try:
        return path.read_bytes().decode("utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"{at}: {path} is not UTF-8 text (byte {error.start})") from None
    except OSError as error:
        raise UserError(f"{at}: {str(path)!r}: {error.strerror}; it should be a file") from None


def load_tokenizer(directory: Path):
    """Return the `tokenizers.Tokenizer` in a folder of data or of a model. Raises UserError."""
    from tokenizers import Tokenizer

    path = Path(directory) / "tokenizer.json"
    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:  # noqa: BLE001 (tokenizers raises no other)
        raise UserError(f"{path}: missing or damaged ({error})") from None


@contextmanager
def atomic(path: Path):
    """Yield a temporary path beside `path`; when the block succeeds, fsync it and rename it there.

    An OSError, of a full disk say, names `path`.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield temporary
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        error.filename = str(path)
        raise
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically."""
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value) -> None:
    """Write JSON atomically, keys in the order given, floats in full."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def write_arrays(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Write named arrays as safetensors, atomically."""
    from safetensors.numpy import save

    content = save({name: np.ascontiguousarray(array) for name, array in arrays.items()})
    with atomic(path) as temporary:
        temporary.write_bytes(content)  # its own way of writing files hides the error of a full disk


def image_grid(x: np.ndarray) -> Any:
    """Return images (rows, columns, C, H, W) in [0, 1] as one `PIL.Image`, enlarged to about 40 pixels each."""
    from PIL import Image

    x = np.pad(x, ((0, 0), (0, 0), (0, 0), (1, 1), (1, 1)), constant_values=0.5)
    rows, columns, channels, height, width = x.shape
    grid = x.transpose(0, 3, 1, 4, 2).reshape(rows * height, columns * width, channels)
    pixels = (np.clip(grid, 0, 1) * 255).round().astype(np.uint8)
    image = Image.fromarray(pixels.squeeze(2) if channels == 1 else pixels)
    factor = max(1, 40 // width)
    return image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)


def write_image_grid(x: np.ndarray, path: Path) -> None:
    """Write images (rows, columns, C, H, W) in [0, 1] as one PNG, atomically."""
    with atomic(path) as temporary:
        image_grid(x).save(temporary, "PNG")


def split_indices(n: int, shares: dict[str, float], seed: int, y: np.ndarray | None = None) -> dict[str, np.ndarray]:
    """Return the shuffled indices of the splits that `shares` names, and of train, which gets the rest.

    Of each class its share where `y` (N,) is given, and at least one where it has as many as there are splits.
    Raises UserError where n is too small for an example in each.
    """
    rng = np.random.default_rng(seed)
    groups = [np.arange(n)] if y is None else [np.flatnonzero(y == c) for c in np.unique(y)]
    parts: dict[str, list[np.ndarray]] = {split: [] for split in [*shares, "train"]}
    for group in groups:
        least = int(y is not None and len(group) > len(shares))
        group, start = rng.permutation(group), 0
        for split, share in shares.items():
            end = start + max(least, round(len(group) * share))
            parts[split].append(group[start:end])
            start = end
        parts["train"].append(group[start:])
    indices = {split: np.sort(np.concatenate(part)) for split, part in parts.items()}
    for split, index in indices.items():
        if len(index) == 0:
            raise UserError(f"datasets: {n} examples leave none for the {split} split; raise its share")
    return indices


@contextmanager
def replaced(directory: Path):
    """Yield a new empty folder of the same name; when the block succeeds, it takes the place of `directory`."""
    directory = Path(directory)
    around = directory.with_name(f".{directory.name}.new")
    shutil.rmtree(around, ignore_errors=True)
    (around / directory.name).mkdir(parents=True)
    try:
        yield around / directory.name
        shutil.rmtree(directory, ignore_errors=True)
        os.replace(around / directory.name, directory)
    finally:
        shutil.rmtree(around, ignore_errors=True)
