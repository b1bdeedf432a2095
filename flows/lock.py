"""dvc.lock: DVC's own bytes, written for many stages at once.

DVC reads and writes the whole file anew for every stage that ends, in pure Python, so that a stage costs the more,
the more stages there are. Here each stage's entry is made text once, by DVC's dumper, and the texts are joined.
"""

import json
import os
import re
from contextlib import suppress
from pathlib import Path
from typing import Any

from dvc.stage import PipelineStage
from dvc.stage.serialize import to_single_stage_lockfile
from dvc.utils.serialize import YAMLFileCorruptedError, dumps_yaml, loads_yaml, parse_yaml_for_update
from ruamel.yaml import YAMLError

from flows import STATE

LOCK = Path("dvc.lock")
# The stages of dvc.lock when the last run began that has not completed: a run that was killed or failed leaves what
# it completed, and what completes it later shall give the file that an undisturbed run gives.
ORDER = STATE / "order.json"
HEAD, STAGES = "schema: '2.0'\n", "stages:\n"
ANCHOR = re.compile(r"[&*]id\d{3}")


class Lock:
    """The stages' entries in dvc.lock. Use it under DVC's repository lock."""

    def __init__(self, plan: list[str]):
        """plan: the stages in the order in which DVC would run them. Raises YAMLFileCorruptedError."""
        self._text = self._before = read()
        order = names_in(self._before)
        with suppress(FileNotFoundError, ValueError):
            order = json.loads(ORDER.read_text())
        ORDER.write_text(json.dumps(order))
        self._order = [*order, *plan]
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
        if (text := read()) != self._text:  # another process wrote it meanwhile, a `dvc repro` of other stages
            with suppress(YAMLFileCorruptedError):  # and was killed as it did
                names_in(text)
                self._before = text
        self._text = join(self._before, self._ran, self._texts, self._order)
        self.pending = False
        if self._text == text:
            return False
        temporary = LOCK.with_name(f".{LOCK.name}.{os.getpid()}")
        temporary.write_text(self._text, encoding="utf-8")
        os.replace(temporary, LOCK)
        return True


def read() -> str:
    """Return the text of dvc.lock, "" where there is none."""
    return LOCK.read_text(encoding="utf-8") if LOCK.exists() else ""


def names_in(text: str) -> list[str]:
    """Return the stages of dvc.lock in its order. Raises YAMLFileCorruptedError."""
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
        entries = data.get("stages", {}) | {name: ran[name]}
        data["stages"] = {key: entries[key] for key in dict.fromkeys([*order, *entries]) if key in entries}
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
