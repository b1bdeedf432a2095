"""The files dvc.lock: DVC's own bytes, written for many stages at once.

DVC reads and writes the whole file anew for every stage that ends, in pure Python, so that a stage costs the more,
the more stages there are. Here each stage's entry is made text once, by DVC's dumper, and the texts are joined.
"""

import json
import os
import re
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from dvc.stage import PipelineStage
from dvc.stage.serialize import to_single_stage_lockfile
from dvc.utils.serialize import YAMLFileCorruptedError, dumps_yaml, loads_yaml, parse_yaml_for_update
from ruamel.yaml import YAMLError

from flows import FLOW, PROJECT, write_atomically

LOCK = Path("dvc.lock")
# What each dvc.lock and .gitignore held when the last run began that has not completed: a run that was killed or
# failed leaves what it completed, and what completes it later shall give the files that an undisturbed run gives.
BEGUN = FLOW / "begun.json"
HEAD, STAGES = "schema: '2.0'\n", "stages:\n"
ANCHOR = re.compile(r"[&*]id\d{3}")


class Begun:
    """What files held before the runs that have not completed."""

    def __init__(self) -> None:
        self._parts: dict[str, list[str]] = {}
        with suppress(FileNotFoundError, ValueError):
            self._parts = json.loads(BEGUN.read_text())
        self.there = bool(self._parts)  # whether there were such runs

    def parts(self, path: Path, now: list[str]) -> list[str]:
        """Return the parts that a file had: those that it has now, where no run was begun."""
        return self._parts.setdefault(os.path.relpath(path, PROJECT), now)

    def write(self) -> None:
        """Write it down: from now on the files may change."""
        write_atomically(BEGUN, json.dumps(self._parts))

    def complete(self, paths: Iterable[Path]) -> None:
        """Forget these: they are as an undisturbed run leaves them."""
        done = {os.path.relpath(path, PROJECT) for path in paths}
        self._parts = {path: parts for path, parts in self._parts.items() if path not in done}
        self.write()


class Lock:
    """The stages' entries in one dvc.lock. Use it under DVC's repository lock."""

    def __init__(self, path: Path, plan: list[str], begun: Begun):
        """plan: the stages in it, in the order in which DVC would run them. Raises YAMLFileCorruptedError."""
        self._path = path
        self._text = self._before = read(path)
        self._order = [*begun.parts(path, names_in(self._before)), *plan]
        self._ran: dict[str, dict[str, Any]] = {}  # the entries of the stages that ran
        self._texts: dict[str, str] = {}  # the same as text
        self.pending = False  # whether there are some that are not written

    def add(self, stage: PipelineStage) -> None:
        """Take in what is to be known of a stage that has run."""
        self._ran[stage.name] = to_single_stage_lockfile(stage)
        self._texts[stage.name] = as_text(stage.name, self._ran[stage.name])
        self.pending = True

    def write(self) -> bool:
        """Write the file atomically, the stages in DVC's order; return whether it changed."""
        if (text := read(self._path)) != self._text:  # another process wrote it meanwhile, a `dvc repro` of others
            with suppress(YAMLFileCorruptedError):  # and was killed as it did
                names_in(text)
                self._before = text
        self._text = join(self._before, self._ran, self._texts, self._order)
        self.pending = False
        if self._text == text:
            return False
        write_atomically(self._path, self._text)
        return True


def read(path: Path) -> str:
    """Return the text of a dvc.lock, "" where there is none."""
    return path.read_text(encoding="utf-8") if path.exists() else ""


def names_in(text: str) -> list[str]:
    """Return the stages of a dvc.lock in its order. Raises YAMLFileCorruptedError."""
    try:
        return list(split(text))
    except (ValueError, YAMLError):
        return list(parse_yaml_for_update(text, LOCK).get("stages", {}))


def join(before: str, ran: dict[str, dict[str, Any]], texts: dict[str, str], order: list[str]) -> str:
    """Return the text of dvc.lock with the entries of the stages that ran, which are given as text, too."""
    # an alias has a number that depends on the other entries
    plain = {name: text for name, text in texts.items() if not ANCHOR.search(text)}
    try:
        text = join_texts(before, plain, order)
    except (ValueError, YAMLError):
        text, plain = before, {}
    return join_by_dvc(text, {name: entry for name, entry in ran.items() if name not in plain}, order)


def join_texts(before: str, texts: dict[str, str], order: list[str]) -> str:
    """Return the text of dvc.lock with these entries. Raises ValueError or YAMLError where only DVC can."""
    entries = split(before) | texts
    names = dict.fromkeys(name for name in [*order, *entries] if name in entries)
    return "".join([HEAD + STAGES, *(entries[name] for name in names)]) if entries else before


def join_by_dvc(before: str, ran: dict[str, dict[str, Any]], order: list[str]) -> str:
    """Do what DVC does: for one stage after the other read all, change it and write all."""
    text = before
    for name in [name for name in dict.fromkeys(order) if name in ran]:
        data = parse_yaml_for_update(text, LOCK) or {"schema": "2.0"}
        data["stages"] = entries = data.get("stages", {})
        entries.update({name: ran[name]})
        in_order = [key for key in dict.fromkeys([*order, *entries]) if key in entries]
        if in_order != list(entries):  # else comments of the user's stay
            data["stages"] = {key: entries[key] for key in in_order}
        text = dumps_yaml(data)
    return text


def as_text(name: str, entry: dict[str, Any]) -> str:
    """Return an entry as it stands in dvc.lock."""
    return dumps_yaml({"stages": {name: entry}}).removeprefix(STAGES)


def split(text: str) -> dict[str, str]:
    """Return the text of each entry, where all is as DVC writes it. Raises ValueError or YAMLError where it is not."""
    head, *entries = re.split(r"^(?=  [^ #\n])", text, flags=re.MULTILINE)
    if head not in ("", HEAD + STAGES) or not text.endswith("\n" * bool(text)):
        raise ValueError
    return {name_of(entry): entry for entry in entries}


def name_of(entry: str) -> str:
    """Return the name of the stage from the first line of its entry. Raises ValueError or YAMLError."""
    line = entry.partition("\n")[0]
    if plain := re.fullmatch(r"  ([a-zA-Z][\w@-]*@[\w@-]*):", line):  # nothing that YAML takes for a number or a bool
        return plain[1]
    content = loads_yaml(line)
    if not isinstance(content, dict) or [type(name) for name in content] != [str] or any(content.values()):
        raise ValueError
    return next(iter(content))
