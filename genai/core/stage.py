"""The frame of a stage: what it reads is noted, its CPU-seconds too, and an edit while it runs fails it.

DVC hashes a stage's inputs after its command: without this frame, an edit of code, parameters or data while
the stage ran would be recorded as if the result had been made from it.
"""

import contextlib
import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import create_model

from genai.core.config import PARAMS, ROOT, SECTIONS, Strict, UserError, pick, read_params, validate


class Stage:
    """One run of a stage, from the moment its process began: parameters are read once, then."""

    def __init__(self, command: str, name: str):
        self.command, self.name = command, name
        self.work = Path(".work") / name
        self.before: dict[str, object] = _files([*(ROOT / "genai").rglob("*.py")])
        self.params = read_params()
        self.sections: set[str] = set()  # of params.yaml, that the stage has read
        self.folders: list[Path] = []  # that it has read

    def section(self, table: str, without: tuple[str, ...] = ()) -> Any:
        """Return the stage's own section of params.yaml, validated, its keys `without` left unread. Raises UserError."""
        cls, at = SECTIONS[table], f"{table}.{self.name}"
        values = pick(self.params.get(table) or {}, self.name, f"{table} of {PARAMS}")
        if without:
            fields: Any = {key: (f.annotation, f) for key, f in cls.model_fields.items() if key not in without}
            cls = create_model(cls.__name__, __base__=Strict, **fields)
            self.sections |= {f"{at}.{key}" for key in fields}
            if isinstance(values, dict):
                values = {key: value for key, value in values.items() if key not in without}
        else:
            self.sections.add(at)
        return validate(cls, values, at)

    def whole(self) -> dict[str, Any]:
        """Return all of params.yaml, not validated."""
        self.sections |= set(SECTIONS)
        return self.params

    def reads(self, folder: Path) -> Path:
        """Note that the stage is about to read a folder, and return it."""
        self.folders.append(folder)
        self.before |= _files([folder, *sorted(folder.rglob("*"))])
        return folder

    def changed(self) -> str | None:
        """Return an input that is no longer what it was when it was read."""
        after = _files([*(ROOT / "genai").rglob("*.py")])
        for folder in self.folders:
            after |= _files([folder, *sorted(folder.rglob("*"))])
        used = {str(ROOT / file) for file in code()}
        for path in self.before | after:
            if self.before.get(path) != after.get(path) and (path in used or not path.startswith(str(ROOT / "genai"))):
                return os.path.relpath(path)
        now = read_params()
        return next((f"{PARAMS}: {s}" for s in sorted(self.sections) if _at(now, s) != _at(self.params, s)), None)


@contextlib.contextmanager
def stage(command: str, name: str) -> Iterator[Stage]:
    """Run the block as a stage; what it read and cost stands in .work/NAME/COMMAND.json.

    Raises UserError where an input changed meanwhile.
    """
    this = Stage(command, name)
    this.work.mkdir(parents=True, exist_ok=True)
    cpu, wall = cpu_seconds(), time.monotonic()
    yield this
    if changed := this.changed():
        raise UserError(f"{changed}: changed while {command}@{name} ran; run it again")
    from genai.core.dataset import write_json

    figures = {
        "cpu_seconds": round(cpu_seconds(), 2),
        "work_cpu_seconds": round(cpu_seconds() - cpu, 2),
        "seconds": round(time.monotonic() - wall, 2),
        "code": code(),
        "params": sorted(this.sections),
        "folders": sorted(map(str, this.folders)),
    }
    write_json(this.work / f"{command}.json", figures)


def cpu_seconds() -> float:
    """Return what this process and the compilers that it called have taken."""
    return sum(os.times()[:4])


def code() -> list[str]:
    """Return the files of this package that the process has imported, as paths from the root."""
    files = [vars(m).get("__file__") for n, m in list(sys.modules.items()) if n.split(".")[0] == "genai"]
    return sorted(Path(file).resolve().relative_to(ROOT).as_posix() for file in files if file)


def limit_threads(threads: int) -> None:
    """Hold NumPy and torch to so many threads; to be called before either is imported."""
    assert "numpy" not in sys.modules and "torch" not in sys.modules
    for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS"):
        os.environ[variable] = str(threads)


def trained_threads(model: Path) -> int:
    """Return the number of threads that a model was trained with, to use it with as many. Raises UserError."""
    try:
        return int(json.loads((model / "config.json").read_text())["experiment"]["train"]["threads"])
    except FileNotFoundError:
        raise UserError(f"{model}: no trained model here; run: dvc repro train@{model.name}") from None
    except (ValueError, KeyError, TypeError):
        raise UserError(f"{model}/config.json: not a model's config; train it again") from None


def _files(paths: list[Path]) -> dict[str, object]:
    state: dict[str, object] = {}
    for path in paths:
        with contextlib.suppress(FileNotFoundError):
            status = path.stat()
            state[str(path)] = (status.st_size, status.st_mtime_ns) if path.is_file() else None
    return state


def _at(params: dict[str, Any], section: str) -> Any:
    value: Any = params
    for key in section.split("."):
        value = value.get(key) if isinstance(value, dict) else None
    return value
