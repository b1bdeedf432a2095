"""dvc.lock: DVC's own bytes, written for many stages at once.

DVC reads and writes the whole file anew for every stage that ends, in pure Python, so that a stage costs the more,
the more stages there are. Here each stage's entry is made text once, by DVC's dumper, and the texts are joined.
"""

import json
import os
import re
from contextlib import suppress
from pathlib import Path

from dvc.stage import PipelineStage
from dvc.stage.serialize import to_lockfile
from dvc.utils.serialize import YAMLFileCorruptedError, dumps_yaml, loads_yaml, parse_yaml_for_update
from ruamel.yaml import YAMLError

from flows import STATE, UserError

LOCK = Path("dvc.lock")
# The stages of dvc.lock when the last run began that has not completed: a run that was killed or failed leaves what
# it completed, and what completes it later shall give the file that an undisturbed run gives.
ORDER = STATE / "order.json"
HEAD, STAGES = "schema: '2.0'\n", "stages:\n"


class Lock:
    """The text of each stage's entry in dvc.lock. Use it under DVC's repository lock."""

    def __init__(self, plan: list[str]):
        """plan: the stages in the order in which DVC would run them. Raises UserError."""
        self._text = read()
        self._entries = split(self._text)
        self._new: dict[str, str] = {}  # not yet written
        before = list(self._entries)
        with suppress(FileNotFoundError, ValueError):
            before = json.loads(ORDER.read_text())
        ORDER.write_text(json.dumps(before))
        self._order = [*before, *plan]

    def add(self, stage: PipelineStage) -> None:
        """Take in what is to be known of a stage that has run."""
        self._new[stage.name] = dumps_yaml({"stages": to_lockfile(stage)}).removeprefix(STAGES)

    @property
    def pending(self) -> bool:
        """Whether something was added that is not yet written."""
        return bool(self._new)

    def write(self) -> bool:
        """Write what was added, atomically, the stages in DVC's own order; return whether the file changed."""
        if not self._new:
            return False
        if (text := read()) != self._text:  # another process, a `dvc repro` of other stages, wrote it meanwhile
            with suppress(UserError):  # and was killed as it did
                self._entries = split(text)
        self._entries |= self._new
        self._new = {}
        names = dict.fromkeys(name for name in [*self._order, *self._entries] if name in self._entries)
        self._text = HEAD + STAGES + "".join(self._entries[name] for name in names) if names else ""
        if self._text == text:
            return False
        temporary = LOCK.with_name(f".{LOCK.name}.{os.getpid()}")
        temporary.write_text(self._text, encoding="utf-8")
        os.replace(temporary, LOCK)
        return True


def read() -> str:
    """Return the text of dvc.lock, "" where there is none."""
    return LOCK.read_text(encoding="utf-8") if LOCK.exists() else ""


def split(text: str) -> dict[str, str]:
    """Return the text of each stage's entry in the text of dvc.lock. Raises UserError."""
    try:
        return split_canonical(text)
    except (ValueError, YAMLError):  # edited by hand: as DVC would write it
        with suppress(ValueError, YAMLError, YAMLFileCorruptedError):
            return split_canonical(dumps_yaml(parse_yaml_for_update(text, LOCK)))
    raise UserError(f"{LOCK}: not as DVC writes it; delete it, what it names comes back from DVC's cache")


def split_canonical(text: str) -> dict[str, str]:
    """Do so where the text is as DVC writes it. Raises ValueError or YAMLError where it is not."""
    head, *entries = re.split(r"^(?=  [^ #\n])", text, flags=re.MULTILINE)
    if head not in ("", HEAD + STAGES) or not text.endswith("\n" * bool(text)):
        raise ValueError
    return {name_of(entry): entry for entry in entries}


def name_of(entry: str) -> str:
    """Return the name of the stage from the first line of its entry. Raises ValueError or YAMLError."""
    line = entry.partition("\n")[0]
    if plain := re.fullmatch(r"  ([a-zA-Z][\w@-]*@[\w@-]*):", line):  # nothing that YAML takes for a number or a bool
        return plain[1]
    name, value = next(iter(loads_yaml(line).items()))
    if value is not None or not isinstance(name, str):
        raise ValueError
    return name
