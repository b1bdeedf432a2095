"""The stages of a DVC project as tasks of a Prefect flow, side by side on the cores there are."""

import base64
import logging
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from prefect import allow_failure, flow, get_run_logger, task
from prefect.artifacts import create_markdown_artifact, create_progress_artifact, update_progress_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.futures import PrefectFuture
from prefect.states import Cancelled, Completed, Failed

from flows.process import Tethered, lines, percent, tethered
from flows.project import RAN, UNCHANGED, CommandFailed, Project, Stage

PROGRESS_EVERY = 5.0  # seconds between two progress lines of a stage in the log


class Processes:
    """The stages' processes that run now, so that a signal can end them all."""

    def __init__(self, keep_open: int):
        self.keep_open = keep_open  # a file descriptor that every one of them inherits
        self.stopped_by: signal.Signals | None = None
        self.cpu_seconds: dict[str, float] = {}  # of the stages that ran
        self._running: set[Tethered] = set()
        self._lock = threading.RLock()  # a second signal may find the first one's handler inside

    @contextmanager
    def running(self, command: list[str], **where: Any) -> Iterator[Tethered]:
        """Run a command that a signal ends."""
        with tethered(command, self.keep_open, **where) as process:
            with self._lock:
                self._running.add(process)
                if self.stopped_by:
                    process.tether.close()
            try:
                yield process
            finally:
                with self._lock:
                    self._running.discard(process)

    def stop(self, signum: int, frame: Any) -> None:
        """End every stage; the flow starts no other."""
        with self._lock:
            self.stopped_by = signal.Signals(signum)
            for process in self._running:
                process.tether.close()

    @contextmanager
    def stop_at_signals(self) -> Iterator[None]:
        """Let INT, TERM and HUP stop the stages: without a handler, the flow would wait until they are done."""
        before = {signum: signal.signal(signum, self.stop) for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
        try:
            yield
        finally:
            for signum, handler in before.items():
                signal.signal(signum, handler)


@flow(name="pipeline", validate_parameters=False)
def pipeline(
    stages: list[Stage], urgency: dict[str, float], cores: int, project: Project, processes: Processes
) -> State:
    """Bring the stages up to date, longest path first; a failed one costs its descendants, nothing else."""
    logging.getLogger("prefect.task_runs").addFilter(without_empty_traceback)
    with processes.stop_at_signals():
        finished = run_all(stages, urgency, cores, project, processes)
    if processes.stopped_by:
        return Cancelled(message=f"stopped by {processes.stopped_by.name}")
    for stage in stages:
        if shown := stage.meta.get("show"):
            show(stage.name, Path(shown))
    if wrong := [name for name, state in finished.items() if not state.is_completed()]:
        return Failed(message=f"{len(wrong)} of {len(stages)} stages: {', '.join(wrong)}")
    ran = [name for name, state in finished.items() if state.name != "Cached"]
    return Completed(message=f"{len(ran)} of {len(stages)} stages ran, the rest was cached")


def run_all(
    stages: list[Stage], urgency: dict[str, float], cores: int, project: Project, processes: Processes
) -> dict[str, State]:
    """Submit each stage when what it depends on is done and there are cores for it; return how each ended."""
    waiting = {stage.name: stage for stage in sorted(stages, key=lambda stage: -urgency[stage.name])}
    futures: dict[str, PrefectFuture[Any]] = {}
    finished: dict[str, State] = {}
    done: SimpleQueue[str] = SimpleQueue()
    occupied: dict[str, int] = {}  # cores, by stage

    def submit(kind: Any, stage: Stage, *arguments: Any) -> None:
        upstream = [allow_failure(futures[name]) for name in stage.upstream]
        run = kind.with_options(name=stage.name, task_run_name=stage.name)
        futures[stage.name] = run.submit(*arguments, wait_for=upstream)
        futures[stage.name].add_done_callback(lambda _: done.put(stage.name))
        del waiting[stage.name]

    while len(finished) < len(futures) or (waiting and not processes.stopped_by):
        full = False  # once a stage has to wait for cores, none that is less urgent takes them
        for stage in list(waiting.values()):
            if processes.stopped_by or any(name not in finished for name in stage.upstream):
                continue
            needed = min(int(stage.meta.get("threads", 1)), cores)
            if wrong := [name for name in stage.upstream if not finished[name].is_completed()]:
                submit(skip, stage, wrong[0])
            elif not stage.changed and all(finished[name].message == UNCHANGED for name in stage.upstream):
                submit(keep, stage)
            elif not full and sum(occupied.values()) + needed <= cores:
                occupied[stage.name] = needed
                submit(reproduce, stage, stage.name, project, processes)
            else:
                full = True
        if len(finished) < len(futures):
            name = done.get()
            futures[name].wait()  # takes the state from the task; without it, from the API, which lags behind
            finished[name] = futures[name].state
            occupied.pop(name, None)

    return finished


@task(cache_policy=NO_CACHE)
def keep() -> State:
    """A stage that DVC found unchanged, and whose upstream stages did not change either."""
    return Completed(name="Cached", message=UNCHANGED)


@task(cache_policy=NO_CACHE)
def skip(failed: str) -> State:
    """A stage below one that failed."""
    return Failed(name="Skipped", message=f"{failed} failed")


@task(cache_policy=NO_CACHE)
def reproduce(name: str, project: Project, processes: Processes) -> State:
    """Bring one stage up to date: run it, restore it from DVC's cache, or find it unchanged."""
    from dvc.exceptions import DvcException
    from dvc.stage.run import _make_cmd, get_executable

    log = get_run_logger()
    last, artifact = "", None

    def run(command: str, where: dict[str, Any]) -> int:
        nonlocal last, artifact
        log.info(f"Running stage '{name}': {command}")
        shown = 0.0
        with processes.running(_make_cmd(get_executable(), command), **where) as process:
            for line, is_progress in lines(process.output):
                if is_progress:
                    if time.monotonic() - shown < PROGRESS_EVERY:
                        continue
                    shown, artifact = time.monotonic(), show_progress(name, line, artifact)
                log.info(line)
                last = line
        processes.cpu_seconds[name] = processes.cpu_seconds.get(name, 0.0) + process.cpu_seconds
        return process.returncode

    try:
        outcome = project.reproduce(name, run)
    except CommandFailed as error:
        if processes.stopped_by:
            return Cancelled(message=f"stopped by {processes.stopped_by.name}")
        return Failed(message=last or str(error))
    except DvcException as error:
        return Failed(message=" ".join(str(error).split()))
    if artifact:
        update_progress_artifact(artifact, 100.0, description=f"{name}: done")
    return Completed(message=outcome) if outcome == RAN else Completed(name="Cached", message=outcome)


def show_progress(stage: str, line: str, artifact: Any) -> Any:
    """Show how far a long stage is; return the artifact's id, None where its line does not say it."""
    at = percent(line)
    if at is None:
        return artifact
    if artifact is None:
        return create_progress_artifact(at, key=f"progress-{slug(stage)}", description=f"{stage}: {line}")
    update_progress_artifact(artifact, at, description=f"{stage}: {line}")
    return artifact


def show(stage: str, path: Path) -> None:
    """Show what a stage made for people, texts and pictures, in Prefect's pages."""
    for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
        key = slug(f"{stage}-{file.stem}" if path.is_dir() else stage)
        if file.suffix == ".md" and file.exists():
            create_markdown_artifact(file.read_text(encoding="utf-8"), key=key)
        elif file.suffix == ".png":
            encoded = base64.b64encode(file.read_bytes()).decode()
            # an image artifact would print the address too
            create_markdown_artifact(f"![{file}](data:image/png;base64,{encoded})", key=key)


def without_empty_traceback(record: logging.LogRecord) -> bool:
    """Take the traceback from what Prefect logs of a state that is Failed without an exception: "NoneType: None"."""
    if record.exc_info and record.exc_info[0] is None:
        record.exc_info = None
    return True


def slug(name: str) -> str:
    """Return a name as Prefect wants the keys of artifacts."""
    return "".join(c if c.isalnum() else "-" for c in name.lower())
