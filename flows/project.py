"""A DVC project, kept open: its graph is read once, and each stage is brought up to date by DVC's own objects.

What `dvc repro` does for a stage, in its order, except that the stages' commands run side by side and that dvc.lock
is written entry by entry (flows/lockfile.py). The methods used are DVC's internals, so that pyproject.toml holds DVC
to the versions that tests/flows compares with `dvc repro`.
"""

import difflib
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flows import lockfile
from flows.errors import UserError

UNCHANGED, RESTORED, RAN = "nothing that it depends on has changed", "restored from DVC's cache", "ran"
Run = Callable[[str, dict[str, Any]], int]  # a shell command and where to run it -> its exit status


@dataclass(frozen=True)
class Stage:
    """A stage of a dvc.yaml, as the flow needs to know it."""

    name: str  # as DVC addresses it, such as train@cnn
    upstream: list[str]  # the stages whose outputs it reads
    changed: bool  # code, parameters, data or outputs are not those of dvc.lock
    meta: dict[str, Any]  # of dvc.yaml: threads, show, print


class Project:
    """The DVC project of the working directory."""

    def __init__(self) -> None:
        from dvc.exceptions import DvcException
        from dvc.repo import Repo

        try:
            self.repo: Any = Repo(_wait_for_lock=True)
            self._mend_lock()
            # imported once here: a first import from two threads at once would wait for itself
            import dvc.stage.cache
            import dvc.stage.run
            import dvc.stage.serialize  # noqa: F401
        except DvcException as error:
            raise UserError(" ".join(str(error).split())) from None
        self.one_at_a_time = threading.RLock()  # DVC's objects are not made for threads
        self.stages: dict[str, Any] = {}
        self.order: list[str] = []  # of the stages in dvc.lock

    def plan(self, targets: list[str], order_before: list[str]) -> list[Stage]:
        """Return the stages that `dvc repro TARGET ...` would visit, in its order; all without targets.

        order_before: of the stages that dvc.lock held when the work began that is now done or continued.
        A target is a stage (train@cnn) or a group of them (train). Raises UserError.
        """
        from dvc.exceptions import DvcException
        from dvc.repo.reproduce import collect_stages, get_active_graph, plan_repro

        try:
            graph = get_active_graph(self.repo.index.graph)
            names = [stage.addressing for stage in self.repo.index.stages]
            known = names + sorted({name.partition("@")[0] for name in names if "@" in name})
            for target in targets:
                if target not in known:
                    close = difflib.get_close_matches(target, known, 1)
                    hint = f"did you mean {close[0]}?" if close else f"known: {', '.join(known)}"
                    raise UserError(f"{target!r} is not a stage of dvc.yaml; {hint}")
            stages = plan_repro(graph, collect_stages(self.repo, targets or ["dvc.yaml"]))
            changed = self.repo.status()
        except DvcException as error:
            raise UserError(" ".join(str(error).split())) from None
        self.stages = {stage.addressing: stage for stage in stages}
        self.order = [*order_before, *(stage.name for stage in stages if hasattr(stage, "name"))]
        return [
            Stage(name, [above.addressing for above in graph.successors(s)], name in changed, dict(s.meta or {}))
            for name, s in self.stages.items()
        ]

    def reproduce(self, name: str, run: Run) -> str:
        """Bring one stage up to date: leave it, restore it from DVC's cache or run its command; return which.

        Raises DvcException where DVC cannot go on, CommandFailed where the command fails.
        """
        from dvc.stage.run import _enforce_cmd_list, prepare_kwargs

        stage = self.stages[name]
        with self.paths_held(stage):
            with self.locked():
                if stage.frozen or stage.is_import or not stage.cmd:
                    done = stage.reproduce()
                    return self._keep(stage, RAN) if done else UNCHANGED
                if not stage.changed():
                    return UNCHANGED
                stage.remove_outs(ignore_remove=False, force=False)
                if self._restore(stage):
                    return self._finish(stage, RESTORED)
                stage.save_deps()
                where = prepare_kwargs(stage)
            for command in _enforce_cmd_list(stage.cmd):
                if status := run(command, {"cwd": where["cwd"], "env": where["env"]}):
                    raise CommandFailed(status)
            with self.locked():
                return self._finish(stage, RAN)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold DVC's lock of the repository, which it too gives up while a command runs."""
        with self.one_at_a_time, self.repo.lock:
            yield

    @contextmanager
    def paths_held(self, stage: Any) -> Iterator[None]:
        """Tell other DVC processes that what the stage reads and writes is in use, as DVC does."""
        from dvc.rwlock import rwlock

        read, write = ([str(item.fs_path) for item in items if item.fs_path] for items in (stage.deps, stage.outs))
        held = rwlock(self.repo.tmp_dir, self.repo.fs, " ".join(sys.argv), read, write, False)
        with self.one_at_a_time:
            held.__enter__()
        try:
            yield
        finally:
            with self.one_at_a_time:
                held.__exit__(None, None, None)

    def _restore(self, stage: Any) -> bool:
        from dvc.stage.cache import RunCacheNotFoundError

        try:
            self.repo.stage_cache.restore(stage)
        except RunCacheNotFoundError:
            return False
        return True

    def _finish(self, stage: Any, how: str) -> str:
        """Hash what the stage read and wrote, move the latter into the cache, and note both in dvc.lock."""
        uncached = any(not out.use_cache for out in stage.outs if not (out.is_metric or out.is_plot))
        stage.save(run_cache=not uncached)
        stage.commit()
        return self._keep(stage, how)

    def _keep(self, stage: Any, how: str) -> str:
        from dvc.stage import PipelineStage
        from dvc.stage.serialize import to_lockfile

        if not isinstance(stage, PipelineStage):  # a .dvc file
            stage.dump(update_pipeline=False)
            return how
        path = Path(stage.dvcfile._lockfile.path)
        texts = {key: lockfile.dump(key, entry) for key, entry in to_lockfile(stage).items()}
        lockfile.write(path, texts, self.order)
        self.repo.scm_context.track_file(str(path))
        return how

    def sort_lock(self) -> None:
        """Bring the stages of dvc.lock into the order in which DVC alone would have written them."""
        path = Path(self.repo.root_dir, "dvc.lock")
        _, entries = lockfile.load(path)
        ranked = [name for name in dict.fromkeys(self.order) if name in entries]
        if [*dict.fromkeys([*ranked, *entries])] != [*entries]:
            with self.locked():
                lockfile.write(path, {}, self.order)

    def locked_stages(self) -> list[str]:
        """Return the stages of dvc.lock in its order."""
        return list(lockfile.load(Path(self.repo.root_dir, "dvc.lock"))[1])

    def _mend_lock(self) -> None:
        from dvc.dvcfile import Lockfile
        from dvc.exceptions import DvcException

        path = Path(self.repo.root_dir, "dvc.lock")
        try:
            Lockfile(self.repo, str(path)).load()
        except DvcException:  # cut short by a kill, or in conflict
            print("dvc.lock was damaged and is made again; what it named comes back from DVC's cache")
            path.unlink()


class CommandFailed(Exception):
    """A stage's command ended with a status that is not 0."""

    def __init__(self, status: int):
        super().__init__(f"exit status {status}")
