"""Tables: a CSV file of your own, and what every source of tables does to encode, split and write."""

import csv
import io
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
from pydantic import Field

from genai.core.config import UserError
from genai.core.dataset import (
    SPLITS,
    Column,
    Description,
    RandomSplit,
    read_utf8,
    split_indices,
    write_arrays,
    write_json,
    write_text,
)

if TYPE_CHECKING:
    from pandas import DataFrame, Series

MISSING = ("", "?", "NA", "N/A", "NaN", "nan", "null", "NULL")  # in a CSV
SEPARATORS = ",;\t|"
MAX_LEVELS = 1000  # of a category: each is a number of every example
MAX_CLASSES = 100  # of a target of numbers; more are a quantity


class Config(RandomSplit):
    """Of a CSV file of the user's."""

    target: str = Field(description="the column to predict")
    unit: str = Field("", description="of the target where it is a number; figures show it")
    task: Literal["regression", "classification"] = Field(description="what the target is: a number, or a class")
    categories: list[str] = Field([], description="columns of numbers that are names: codes, numbered groups")
    drop: list[str] = Field([], description="columns to leave out: identifiers, free text, what tells the target")
    separator: Annotated[str, Field(min_length=1, max_length=1)] | None = Field(
        None, description="of the columns; null: comma, semicolon, tab or |, whichever the first line has most of"
    )


def prepare(config: Config, directory: Path, path: Path) -> None:
    """Write the data set of a UTF-8 CSV file whose first line names the columns. Raises UserError."""
    at = f"datasets.{directory.name}"
    frame = read_csv(path, config, at)
    y, classes = read_target(frame.pop(config.target), config.task, f"{at}: {path}")
    for name in frame:
        frame[name] = typed(frame[name], name in config.categories, f"{at}: {path}")
    about = f"""
The user's file `{path}`: {len(frame):,} rows, target `{config.target}` ({config.task}). Licence: the user knows.

A column is a number where all its values are, any other a category. Missing are {_listed(MISSING[1:])} and
nothing at all.
Declared as categories: {_listed(config.categories)}. Left out: {_listed(config.drop)}.
"""
    target = "" if classes else f"{config.target}, {config.unit}" if config.unit else config.target
    write(directory, path.stem, frame, y, split(y, config, classes), about, classes, target)


def _listed(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names) or "none"


# --- reading ----------------------------------------------------------------------------------------


def read_csv(path: Path, config: Config, at: str) -> "DataFrame":
    """Return the columns of a CSV file but those to drop, all as text, indexed by line. Raises UserError."""
    import pandas as pd

    text = read_utf8(path, f"{at}.source").removeprefix("\ufeff")
    header = text.partition("\n")[0]
    fields = {s: len(next(csv.reader([header], delimiter=s), [])) for s in SEPARATORS}
    separator = config.separator or max(SEPARATORS, key=lambda s: fields[s])
    names, lines = _shape(text, separator, f"{at}: {path}")
    for key, wanted in {"target": [config.target], "categories": config.categories, "drop": config.drop}.items():
        if unknown := [name for name in wanted if name not in names]:
            raise UserError(f"{at}.{key}: {unknown[0]!r} is no column of {path}; it has {', '.join(map(repr, names))}")
    kept = [name for name in names if name not in config.drop]
    if config.target not in kept or len(kept) < 2:
        raise UserError(f"{at}.drop: {config.drop} leaves {kept}; should leave the target and at least one more column")
    if "" in kept or len(set(kept)) < len(kept):
        twice = next(name for name in kept if name == "" or kept.count(name) > 1)
        found = kept.count(twice)
        raise UserError(f"{at}: {path}, line 1: {twice!r} names {found} of the columns; each needs a name of its own")
    frame = pd.read_csv(
        io.StringIO(text), sep=separator, header=0, index_col=False, dtype=str, keep_default_na=False,
        skipinitialspace=True,
    )  # fmt: skip
    frame = frame.set_axis(lines, axis=0).loc[:, [name in kept for name in names]].set_axis(kept, axis=1)
    for name in kept:
        values = frame[name].str.strip()
        frame[name] = values.mask(values.isin(MISSING), None)
    return frame


def _shape(text: str, separator: str, at: str) -> tuple[list[str], list[int]]:
    """Return the names of the columns, and the line in which each row ends. Raises UserError where a row is ragged."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, skipinitialspace=True, strict=True)
    lines = []
    try:
        names = [name.strip() for name in next(reader, [])]
        for row in reader:
            if row and len(row) != len(names):
                raise UserError(f"{at}, line {reader.line_num}: {len(row)} fields, should be {len(names)} as in line 1")
            if row:
                lines.append(reader.line_num)
    except csv.Error as error:
        raise UserError(f"{at}, line {reader.line_num}: not CSV ({error})") from None
    if len(names) < 2:
        raise UserError(f"{at}, line 1: one column by {separator!r}; say what else separates them by `separator`")
    if all(map(_is_number, names)):
        raise UserError(f"{at}, line 1: {names[0]!r} is a number; the first line should name the columns")
    if not lines:
        raise UserError(f"{at}: no row; should have one for each example")
    return names, lines


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def typed(values: "Series", category: bool, at: str) -> "Series":
    """Return a column of text as numbers where all are and `category` does not say otherwise. Raises UserError."""
    import pandas as pd

    at = f"{at}: column {values.name!r}"
    known = values.notna()
    if not known.any():
        raise UserError(f"{at} has no value; leave it out by `drop`")
    numbers = pd.to_numeric(values, errors="coerce")
    if not category and numbers[known].notna().all():
        if not np.isfinite(numbers[known]).all():
            line = numbers.index[known & ~np.isfinite(numbers.fillna(0))][0]
            raise UserError(f"{at}, line {line}: {values[line]!r} should be a finite number")
        return numbers.astype(np.float64)
    n, levels = int(known.sum()), values.nunique()
    if levels > MAX_LEVELS or (not category and levels > max(2, n / 2)):
        first = values[known & numbers.isna()] if not category else values[known]
        raise UserError(
            f"{at}: {levels} different texts in {n} rows, {first.iloc[0]!r} in line {first.index[0]} say; "
            "leave it out by `drop` if it is an identifier or free text, or mend what should be a number"
        )
    return values


def read_target(values: "Series", task: str, at: str) -> tuple[np.ndarray, list[str] | None]:
    """Return y (N,), and where the task is classification the names of its classes. Raises UserError."""
    import pandas as pd

    at = f"{at}: target {values.name!r}"
    if (absent := values.isna()).any():
        line = values.index[absent][0]
        raise UserError(
            f"{at}: {absent.sum()} of {len(values)} values are missing, the first in line {line}; take those rows out"
        )
    numbers = pd.to_numeric(values, errors="coerce")
    if task == "regression":
        if (wrong := ~np.isfinite(numbers)).any():
            line = values.index[wrong][0]
            raise UserError(f"{at}, line {line}: {values[line]!r} is not a number; should it be task: classification?")
        return numbers.to_numpy(np.float64), None
    counts = values.value_counts()
    if numbers.notna().all() and len(counts) > MAX_CLASSES:
        raise UserError(f"{at}: {len(counts)} different numbers are too many classes; should it be task: regression?")
    if counts.iloc[-1] < len(SPLITS):
        few = f"{counts.iloc[-1]} of {len(values)} examples, should be at least {len(SPLITS)}, one for each split"
        raise UserError(f"{at}: class {counts.index[-1]!r} has {few}")
    classes = sorted(counts.index, key=float if numbers.notna().all() else str)
    return pd.Index(classes).get_indexer(values), classes


# --- splitting, encoding, writing -------------------------------------------------------------------


def split(y: np.ndarray, config: RandomSplit, classes: list[str] | None) -> dict[str, np.ndarray]:
    """Return the rows of each split, drawn at random, of each class its share. Raises UserError."""
    shares = {"test": config.test, "validation": config.validation}
    return split_indices(len(y), shares, config.seed, None if classes is None else y)


def write(
    directory: Path,
    title: str,
    frame: "DataFrame",
    y: np.ndarray,
    indices: dict[str, np.ndarray],
    about: str,
    classes: list[str] | None = None,
    target: str = "",
) -> None:
    """Validate, encode and write the rows of a frame and y (N,), with description and card.

    frame: the features, a column of numbers or of text each, missing values as pandas has them; indices: the rows of
    each split; classes: the names of those in y where it holds numbers of classes, else y is a number to predict, and
    target says which, with its unit.
    Raises UserError where a value or a split is wrong.
    """
    at = f"datasets.{directory.name}"
    kept = without_copies(frame, y, indices)
    check(frame, y, kept, classes, at)
    train = frame.iloc[kept["train"]]
    columns = [learn(train[name]) for name in frame]
    shape = [sum(len(column.features) for column in columns)]
    description = Description(kind="table", shape=shape, classes=classes or [], columns=columns, target=target)
    y = y.astype(np.float32 if classes is None else np.int64)
    for split_, index in kept.items():
        x = description.encode(frame.iloc[index])
        write_arrays(directory / f"{split_}.safetensors", {"x": x, "y": y[index]})
    write_json(directory / "description.json", description.model_dump())
    sizes = ", ".join(f"{split} {len(kept[split]):,}" for split in SPLITS)
    dropped = {split: len(indices[split]) - len(kept[split]) for split in SPLITS}
    write_text(
        directory / "card.md",
        f"""# {title}

{about.strip()}

{_rows(frame, columns, y[kept["train"]], train, classes)}

Splits: {sizes}. Columns became {shape[0]} numbers by what training alone has: a number is
standardised, a missing one then 0; a category is one-hot; where training has missing values, one more number says so.

Checked: values finite, every class in every split, no row in two splits. For the last, {dropped["train"]} rows were dropped
from train and {dropped["validation"]} from validation: a later split has the same features and target.
""",
    )


def without_copies(frame: "DataFrame", y: np.ndarray, indices: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the splits without those rows of train that validation or test has, and of validation that test has.

    A copy has the same features and target. Within a split copies stay: they may be two examples that are alike.
    """
    alike = frame.assign(**{"": y}).groupby([*frame, ""], dropna=False, sort=False, observed=True).ngroup().to_numpy()
    later, kept = np.empty(0, dtype=np.int64), {}
    for split in reversed(SPLITS):
        kept[split] = indices[split][~np.isin(alike[indices[split]], later)]
        later = np.concatenate([later, alike[kept[split]]])
    return {split: kept[split] for split in SPLITS}


def check(
    frame: "DataFrame", y: np.ndarray, indices: dict[str, np.ndarray], classes: list[str] | None, at: str
) -> None:
    """Raise UserError where a value is not finite, a class is missing in a split, or there is nothing to predict."""
    for name, values in frame.select_dtypes("number").items():
        if not (largest := values.abs().max()) <= np.finfo(np.float32).max and values.notna().any():
            raise UserError(f"{at}: column {name!r}: {largest} should be finite in float32")
    if not np.isfinite(y.astype(np.float32)).all():
        raise UserError(f"{at}: a value of the target is not finite")
    if classes is None:
        if np.ptp(y[indices["test"]]) == 0:
            raise UserError(f"{at}: the target is {y[indices['test'][0]]} in every row of test; it should vary")
        return
    if len(classes) < 2:
        raise UserError(f"{at}: one class, {classes[0]!r}; should be two at least")
    if not np.array_equal(found := np.unique(y), np.arange(len(classes))):
        raise UserError(f"{at}: classes {found.tolist()}; should be every number from 0 to {len(classes) - 1}")
    for split, index in indices.items():
        if len(absent := np.setdiff1d(y, y[index])):
            why = "should have one at least, and no copy of it in a later split"
            raise UserError(f"{at}: class {classes[int(absent[0])]!r} has no example in {split}; {why}")


def learn(values: "Series") -> Column:
    """Return what encodes a column, learned from its values in training."""
    from pandas.api.types import is_numeric_dtype

    name, missing = str(values.name), bool(values.isna().any())
    if not is_numeric_dtype(values):
        return Column(name=name, type="category", levels=sorted(map(str, values.dropna().unique())), missing=missing)
    known = values.dropna().to_numpy(np.float64)
    mean, scale = (float(known.mean()), float(known.std())) if len(known) else (0.0, 1.0)
    # rounding leaves a column of one value a standard deviation of some 1e-16 of it
    varies = scale > 1e-12 * abs(mean)
    return Column(name=name, type="number", mean=mean, scale=scale if varies else 1.0, missing=missing)


def _rows(
    frame: "DataFrame", columns: list[Column], y: np.ndarray, train: "DataFrame", classes: list[str] | None
) -> str:
    """The card's table: each column, its type, how often it is missing, and what training has."""
    rows = ["| column | type | missing | in training |", "| --- | --- | ---: | --- |"]
    for column in columns:
        if column.type == "number":
            said = f"mean {column.mean:.4g}, standard deviation {column.scale:.4g}"
        else:
            said = _counted(train[column.name].value_counts().to_dict())
        rows.append(f"| {_cell(column.name)} | {column.type} | {frame[column.name].isna().sum():,} | {said} |")
    if classes is None:
        said = f"mean {y.mean(dtype=np.float64):.4g}, standard deviation {y.std(dtype=np.float64):.4g}"
        return "\n".join([*rows, f"| target | number | 0 | {said} |"])
    said = _counted({name: int((y == c).sum()) for c, name in enumerate(classes)})
    return "\n".join([*rows, f"| target | class | 0 | {said} |"])


def _counted(counts: Mapping[str, int]) -> str:
    shown = sorted(counts, key=lambda name: -counts[name])[:12]
    more = [f"{len(counts) - len(shown)} more"] if len(counts) > len(shown) else []
    return ", ".join([*(f"{_cell(name)} {counts[name]:,}" for name in shown), *more])


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
