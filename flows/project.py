"""DVC, once for the whole flow: what is to be done, and the bringing up to date of one stage by DVC's own code.

`dvc repro` a stage would be a process a stage, which reads all of dvc.yaml and dvc.lock. DVC's objects are not
thread-safe: whoever uses them holds DVC's repository lock, as DVC does, and lets it go while a command runs, as DVC
does; the threads of this process take turns in the same way.
"""

import difflib
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

from dvc.dependency import param
from dvc.dvcfile import PROJECT_FILE
from dvc.exceptions import DvcException
from dvc.output import Output
from dvc.repo import Repo
from dvc.repo.index import Index
from dvc.repo.reproduce import get_active_graph, plan_repro
from dvc.rwlock import rwlock
from dvc.stage import PipelineStage
from dvc.stage import Stage as DvcStage
from dvc.stage.cache import RunCacheNotFoundError, _can_hash, _get_stage_hash
from dvc.stage.exceptions import StageNotFound
from dvc.stage.run import prepare_kwargs
from dvc.utils.serialize import load_path
from dvc.utils.strictyaml import YAMLSyntaxError, YAMLValidationError
from dvc_data.hashfile.hash_info import HashInfo
from pathspec.patterns import GitWildMatchPattern

from flows import FLOW, PROJECT, UserError, write_atomically
from flows.lock import HEAD, LOCK, Begun, Lock, read
from flows.plan import Stage, check_meta, longest_paths, pool_of, record_seconds, recorded_seconds

UNCHANGED = "nothing that it depends on has changed"
RAN = "ran"
RESTORED = "restored from DVC's cache"
WRITE_EVERY = 2.0  # seconds between two writes of dvc.lock; what is not in it yet comes back from the run-cache


@lru_cache(maxsize=4)
def load_unchanged(path: str, fs: Any, mtime: int, size: int) -> Any:
    """Parse a file of parameters that has not changed since it was parsed last."""
    return load_path(path, fs)


def load_once(path: str, fs: Any) -> Any:
    """Parse a file of parameters. DVC does so five times a stage, which costs the more, the longer the file is."""
    found = os.stat(path)
    return load_unchanged(path, fs, found.st_mtime_ns, found.st_size)


param.load_path = load_once

# Runs a command in a folder with an environment; returns its CPU-seconds
Execute = Callable[[str, str, dict[str, str]], float]
# Gets what a stage makes into DVC's cache by other means, given the stage, its key in the run-cache and the outputs that
# it reads; returns RAN or RESTORED, None where the stage is to run here
Elsewhere = Callable[[DvcStage, str, list[Output]], str | None]


class Project:
    """The DVC project in the working directory."""

    def __init__(self) -> None:
        """Raises UserError."""
        self._mutex = threading.Lock()
        self._written = time.monotonic()
        try:
            self._repo = Repo(_wait_for_lock=True)
            with self._owned():
                index = self._read_index()
                self._stages: dict[str, DvcStage] = {stage.addressing: stage for stage in index.stages}
                self._graph = index.graph
        except DvcException as error:
            raise UserError(one_line(error)) from None
        self._upstream: dict[str, list[str]] = {}  # of the stages of the plan, in its order
        self._locks: dict[Path, Lock] = {}  # each dvc.lock beside a dvc.yaml of the plan
        self._ignored: dict[Path, dict[str, int]] = {}  # the lines that runs add to each .gitignore, in DVC's order

    def _read_index(self) -> Index:
        """Read each dvc.yaml and dvc.lock; a dvc.lock that was cut short by a kill, or is in conflict, is set aside."""
        try:
            return self._repo.index
        except (YAMLSyntaxError, YAMLValidationError) as error:
            lock = Path(error.relpath if isinstance(error, YAMLSyntaxError) else error.path)
            if lock.name != LOCK.name or not HEAD.startswith(read(lock)[: len(HEAD)]):
                raise  # a mistake in dvc.yaml, or the dvc.lock of an old DVC
            print(
                f"{os.path.relpath(lock)} was damaged and is made again; what it named comes back from DVC's cache "
                f"(the damaged file is {FLOW / 'damaged.lock'})"
            )
            os.replace(lock, FLOW / "damaged.lock")
            self._repo._reset()
            return self._read_index()

    def plan(self, targets: list[str]) -> list[Stage]:
        """Return the stages that `dvc repro TARGET ...` would visit, in its order; all of dvc.yaml without targets.

        A target is a stage (train@cnn), a group of them (train), a file (sub/dvc.yaml), one of its stages
        (sub/dvc.yaml:train), or a folder: all stages in it, as by `dvc repro -R FOLDER`. Raises UserError.
        """
        main = os.path.abspath(PROJECT_FILE)
        if not targets and not os.path.exists(main):
            raise UserError(
                f"{Path.cwd()}: no {PROJECT_FILE} here; name one (sub/{PROJECT_FILE}), or a folder (.) for all"
            )
        with self._owned():
            try:
                wanted = [stage for name in targets for stage in self._named(name)]
                wanted = wanted or [stage for stage in self._stages.values() if stage.path == main]
                order = plan_repro(get_active_graph(self._graph), list(dict.fromkeys(wanted)))
                self._begin(order)
            except DvcException as error:
                raise UserError(one_line(error)) from None
            changed = {stage.addressing for stage in order if seems_changed(stage)}
        self._seconds = recorded_seconds()
        rank = {stage: i for i, stage in enumerate(order)}
        self._upstream = {stage.addressing: [] for stage in order}
        for stage in order:
            for other in self._graph.successors(stage):
                if other in rank:  # a frozen stage may come before what it reads: the one waits for the other even so
                    first, last = sorted((stage, other), key=rank.__getitem__)
                    self._upstream[last.addressing].append(first.addressing)
        urgency = longest_paths(self._upstream, self._seconds, self._stages)
        return [
            self._planned(name, upstream, name in changed, urgency[name]) for name, upstream in self._upstream.items()
        ]

    def _planned(self, name: str, upstream: list[str], changed: bool, urgency: float) -> Stage:
        stage = self._stages[name]
        meta = check_meta(name, stage.meta)
        pool = pool_of(name, meta, [str(dep) for dep in stage.deps])
        if "nproc_per_node" in meta and not str(stage.cmd).startswith("python "):
            raise UserError(
                f"dvc.yaml: {name}: cmd is {stage.cmd!r}; with meta.nproc_per_node it begins with `python `"
            )
        return Stage(name, upstream, changed, urgency, meta, pool)

    def _named(self, target: str) -> list[DvcStage]:
        """Return the stages that a target names. Raises UserError and DvcException."""
        groups = sorted({name.partition("@")[0] for name in self._stages if "@" in name})
        if target in self._stages:
            return [self._stages[target]]
        if target in groups:
            return [stage for name, stage in self._stages.items() if name.startswith(f"{target}@")]
        try:
            found = self._repo.stage.collect(target, recursive=True)
        except StageNotFound:
            known = [*self._stages, *groups]
            close = difflib.get_close_matches(target, known, 1)
            hint = f"did you mean {close[0]}?" if close else f"known: {', '.join(known)}"
            raise UserError(f"{target!r} is not a stage of dvc.yaml; {hint}") from None
        if not found:
            raise UserError(f"{target}: no stage is in it")
        return [self._stages[stage.addressing] for stage in found]

    def _begin(self, order: list[DvcStage]) -> None:
        """Note what files hold that are to be kept in DVC's order, unless a run has begun that did not complete."""
        self._begun = Begun()
        if (
            self._begun.there
        ):  # a kill may have come between an entry of the run-cache and its folder, at which DVC stumbles
            for folder in Path(self._repo.stage_cache.cache_dir).glob("*/*"):
                with suppress(OSError):
                    folder.rmdir()  # only where it is empty
        plans: dict[Path, list[str]] = {}
        for stage in order:
            if isinstance(stage, PipelineStage):
                plans.setdefault(lock_of(stage), []).append(stage.name)
            for path in [Path(out.fs_path) for out in stage.outs if out.use_cache and out.protocol == "local"]:
                lines = self._ignored.setdefault(path.with_name(".gitignore"), {})
                lines.setdefault(GitWildMatchPattern.escape(f"/{path.name}"), len(lines))
        self._locks = {path: Lock(path, names, self._begun) for path, names in plans.items()}
        for path, lines in self._ignored.items():
            for line in self._begun.parts(path, path.read_text("utf-8").splitlines() if path.exists() else []):
                lines.pop(line, None)
        self._begun.write()

    def files_in_git(self) -> dict[str, bool]:
        """Return the outputs that DVC leaves to git, and of each whether it is a metric."""
        outs = [out for stage in self._stages.values() for out in stage.outs]
        return {str(out): bool(out.metric) for out in outs if not out.use_cache}

    def reproduce(self, name: str, execute: Execute, elsewhere: Elsewhere | None = None) -> str:
        """Let DVC bring one stage up to date; return which of UNCHANGED, RESTORED and RAN.

        Raises what `execute` and `elsewhere` raise, DvcException and OSError.
        """
        stage, seconds = self._stages[name], []
        outcome = None

        def run_stage(*_, **__) -> None:  # dvc.stage.run.run_stage, but for who runs the commands
            nonlocal outcome
            try:
                self._repo.stage_cache.restore(stage)
                outcome = RESTORED
            except RunCacheNotFoundError:
                stage.save_deps()
                if elsewhere and travels(stage):
                    outcome = self._hand_off(stage, elsewhere)
                if not outcome:
                    seconds.append(self._run(stage, execute))
                    outcome = RAN

        with self._owned(), self._reading(stage), self._repo.scm_context(quiet=True) as context:
            stage._run_stage = run_stage
            if stage.reproduce() is None:
                return UNCHANGED
            for path in context.ignored_paths:
                self._sort(Path(path).with_name(".gitignore"))
            if isinstance(stage, PipelineStage):
                self._locks[lock_of(stage)].add(stage)
            else:
                stage.dump(update_pipeline=False)
            if seconds:
                self._seconds[name] = seconds[0]
            if time.monotonic() - self._written > WRITE_EVERY:
                self._write()
        return outcome or RESTORED  # a stage without a command has none to run

    def _hand_off(self, stage: DvcStage, elsewhere: Elsewhere) -> str | None:
        """Restore what the stage makes elsewhere; return how, None where it is to run here.

        Raises RunCacheNotFoundError where what it depends on was changed meanwhile.
        """
        self._write()  # dvc.lock goes with the snapshot, and names what the stage reads
        key, inputs = _get_stage_hash(stage), self.inputs(stage.addressing)
        with self._released():
            outcome = elsewhere(stage, key, inputs)
        if outcome:
            for out in stage.outs:  # or DVC takes what dvc.lock says of the old inputs for what the new ones make
                out.hash_info = HashInfo()
            self._repo.stage_cache.restore(stage)
        return outcome

    def stage(self, name: str) -> DvcStage:
        """Return DVC's own object of a stage."""
        return self._stages[name]

    def inputs(self, name: str) -> list[Output]:
        """Return the outputs of other stages and the data under DVC that a stage reads."""
        paths = [Path(dep.fs_path) for dep in self._stages[name].deps if dep.protocol == "local"]
        outs = [
            out for stage in self._stages.values() for out in stage.outs if out.use_cache and out.protocol == "local"
        ]
        return [
            out for out in outs
            if any(path.is_relative_to(out.fs_path) or Path(out.fs_path).is_relative_to(path) for path in paths)
        ]  # fmt: skip

    def _run(self, stage: DvcStage, execute: Execute) -> float:
        """Run the stage's commands one after the other as DVC does, while others may use DVC."""
        settings = prepare_kwargs(stage)
        commands = stage.cmd if isinstance(stage.cmd, list) else stage.cmd.splitlines()
        environment = without_this_repository(settings["env"])
        with self._released():
            return sum(execute(command, settings["cwd"], environment) for command in commands)

    @contextmanager
    def _released(self) -> Iterator[None]:
        """Let others use DVC during the block."""
        self._repo._reset()
        self._repo.lock.unlock()
        self._mutex.release()
        try:
            yield
        finally:
            self._mutex.acquire()
            self._repo.lock.lock()

    def _sort(self, gitignore: Path) -> None:
        """Bring what runs add to a .gitignore into the order of `dvc repro`: it may lie in a dependency."""
        text, rank = gitignore.read_text(encoding="utf-8"), self._ignored[gitignore]
        in_order = sorted(text.splitlines(keepends=True), key=lambda line: rank.get(line.rstrip("\n"), -1))
        if (new := "".join(in_order)) != text:
            write_atomically(gitignore, new)

    @contextmanager
    def _owned(self) -> Iterator[None]:
        """Use DVC alone: no other thread here, no other process."""
        with self._mutex, self._repo.lock:
            yield
            self._repo._reset()  # what it knows of files is old when others have had their turn

    @contextmanager
    def _reading(self, stage: DvcStage) -> Iterator[None]:
        """Hold DVC's path lock on what the stage reads, in the stage's own name.

        DVC's own lock is in this process's name, and gone with the first of several stages that read the same.
        """
        paths = [dep.fs_path for dep in stage.deps if dep.fs_path and dep.protocol == "local"]
        hardlink = self._repo.config["core"].get("hardlink_lock", False)
        who = f"{' '.join(sys.argv)} ({stage.addressing})"
        with rwlock(self._repo.tmp_dir, self._repo.fs, who, paths, [], hardlink):
            yield

    def write(self) -> None:
        """Write each dvc.lock and what stages took, where there is something new."""
        if any(lock.pending for lock in self._locks.values()):
            with self._owned():
                self._write()

    def _write(self) -> None:
        with self._repo.scm_context(quiet=True) as context:
            for path, lock in self._locks.items():
                if lock.pending and lock.write():
                    context.track_file(os.path.relpath(path))
        record_seconds(self._seconds)
        self._written = time.monotonic()

    def complete(self) -> None:
        """Note that the run has done all it was asked for."""
        self._begun.complete([*self._locks, *self._ignored])

    def close(self) -> None:
        self._repo.close()


def travels(stage: DvcStage) -> bool:
    """Return whether DVC keeps all that a stage makes in its run-cache, by which it gets from host to host."""
    return _can_hash(stage) and all(out.use_cache or out.is_metric or out.is_plot for out in stage.outs)


def without_this_repository(environment: dict[str, str]) -> dict[str, str]:
    """Return it without the entry of PYTHONPATH by which another project has the flow: its names are not its stages'."""
    here = Path(__file__).parents[1]
    paths = environment.get("PYTHONPATH", "").split(os.pathsep)
    if PROJECT.resolve() == here or here not in map(Path, paths):
        return environment
    rest = os.pathsep.join(path for path in paths if Path(path) != here)
    return {key: value for key, value in environment.items() if key != "PYTHONPATH"} | (
        {"PYTHONPATH": rest} if rest else {}
    )


def lock_of(stage: PipelineStage) -> Path:
    """Return the path of the dvc.lock that holds a stage."""
    return Path(stage.path).with_name(LOCK.name)


def seems_changed(stage: DvcStage) -> bool:
    """Return whether a stage is to be brought up to date; one that cannot be looked at is, and fails by itself."""
    try:
        return stage.changed()
    except (DvcException, OSError):
        return True


def one_line(error: BaseException) -> str:
    """Return what DVC says, and why where it says so elsewhere."""
    return " ".join(": ".join(str(part) for part in (error, error.__cause__) if part).split())
