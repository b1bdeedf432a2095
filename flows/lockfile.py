"""dvc.lock as text, an entry a stage: one entry is written without reading and writing the YAML of all the others.

DVC parses and writes the whole file for every stage, in pure Python; that is most of what a stage costs it, and grows with
the number of stages. The file is a map of independent entries, so that the text of the whole is the texts of
the entries, each as DVC itself would write it, one after the other.
"""

import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

HEAD = "schema: '2.0'\nstages:\n"
ENTRY = re.compile(r"^(?=  [^\s#-])", re.MULTILINE)  # names stand two blanks in, what belongs to them further


def dump(name: str, entry: dict[str, Any]) -> str:
    """Return the text of one stage's entry, as DVC writes it."""
    from dvc.utils.serialize import dumps_yaml

    text = dumps_yaml({"schema": "2.0", "stages": {name: entry}})
    assert text.startswith(HEAD)
    return text.removeprefix(HEAD)


def load(path: Path) -> tuple[str, dict[str, str]]:
    """Return what stands before the entries, and the text of each entry by the name of its stage, in order.

    No entries where there is no file, or where what it holds is not what DVC writes.
    """
    from dvc.utils.serialize import loads_yaml

    if not path.exists():
        return HEAD, {}
    head, *entries = ENTRY.split(path.read_text(encoding="utf-8"))
    named = {}
    for text in entries:
        key, _, _ = text.partition("\n")
        (name,) = loads_yaml(key)
        named[name] = text
    return head, named


def write(path: Path, changed: dict[str, str], order: Iterable[str]) -> None:
    """Put the texts of changed entries into the file, atomically, its stages in this order, others behind them."""
    head, entries = load(path)
    before = entries | changed
    ranked = [name for name in order if name in before]
    text = head + "".join(before[name] for name in dict.fromkeys([*ranked, *before]))
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with open(temporary, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
