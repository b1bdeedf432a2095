"""The stages of dvc.yaml as tasks of a Prefect flow, side by side on the cores there are."""

import base64
import json
import logging
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from queue import SimpleQueue
from subprocess import Popen

from prefect import allow_failure, flow, get_run_logger, task
from prefect.artifacts import (
    create_markdown_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.states import Cancelled, Completed, Failed

from flows.plan import Stage
from flows.process import lines, tethered

DVC = [sys.executable, "-m", "dvc", "--wait-for-lock", "repro", "--single-item"]
PROGRESS_EVERY = 5.0  # seconds between two progress lines of a stage in the log
HINTS = (  # what DVC says after every stage and means for a person at its own command line
    "To track the changes with git", "git add ", "To enable auto staging", "dvc config core.autostage",
    "Use `dvc push`", "Generating lock file", "Updating lock file",
)  # fmt: skip
UNCHANGED = "nothing that it depends on has changed"


class Processes:
    """The stages' processes that run now, so that a signal can end them all."""

    def __init__(self, keep_open: int):
        self.keep_open = keep_open  # a file descriptor that every one of them inherits
        self.stopped_by: signal.Signals | None = None
        self._running: set[Popen] = set()
        self._lock = threading.RLock()  # a second signal may find the first one's handler inside

    def add(self, process: Popen) -> None:
        with self._lock:
            self._running.add(process)
            if self.stopped_by:
                process.stdin.close()

    def remove(self, process: Popen) -> None:
        with self._lock:
            self._running.discard(process)

    def stop(self, signum: int, frame) -> None:
        """End every stage; the flow starts no other."""
        with self._lock:
            self.stopped_by = signal.Signals(signum)
            for process in self._running:
                process.stdin.close()

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
def pipeline(stages: list[Stage], cores: int, processes: Processes) -> State:
    """Bring the stages up to date, longest path first; a failed one costs its descendants, nothing else."""
    logging.getLogger("prefect.task_runs").addFilter(without_empty_traceback)
    with processes.stop_at_signals():
        finished = run_all(stages, cores, processes)
    if processes.stopped_by:
        return Cancelled(message=f"stopped by {processes.stopped_by.name}")
    show_results()
    failed = [name for name, state in finished.items() if state.is_failed()]
    if failed:
        return Failed(message=f"{len(failed)} of {len(stages)} stages: {', '.join(failed)}")
    ran = [name for name, state in finished.items() if state.name != "Cached"]
    return Completed(message=f"{len(ran)} of {len(stages)} stages ran, the rest was cached")


def run_all(stages: list[Stage], cores: int, processes: Processes) -> dict[str, State]:
    """Submit each stage when what it depends on is done and there are cores for it; return how each ended."""
    waiting = {stage.name: stage for stage in sorted(stages, key=lambda stage: -stage.urgency)}
    futures, finished, done = {}, {}, SimpleQueue()
    occupied: dict[str, int] = {}  # cores, by stage

    def submit(kind, stage: Stage, *arguments) -> None:
        upstream = [allow_failure(futures[name]) for name in stage.upstream]
        run = kind.with_options(name=stage.name, task_run_name=stage.name)
        futures[stage.name] = run.submit(*arguments, wait_for=upstream)
        futures[stage.name].add_done_callback(lambda _: done.put(stage.name))
        del waiting[stage.name]

    while len(finished) < len(futures) or (waiting and not processes.stopped_by):
        full = False  # once a stage has to wait for cores, none that is less urgent takes them
        for stage in list(waiting.values()):
            states = [finished.get(name) for name in stage.upstream]
            if processes.stopped_by or None in states:
                continue
            cores_needed = min(stage.threads, cores)
            if failed := [name for name in stage.upstream if finished[name].is_failed()]:
                submit(skip, stage, failed[0])
            elif not stage.changed and all(state.message == UNCHANGED for state in states):
                submit(keep, stage)
            elif not full and sum(occupied.values()) + cores_needed <= cores:
                occupied[stage.name] = cores_needed
                submit(reproduce, stage, stage.name, processes)
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
def reproduce(name: str, processes: Processes) -> State:
    """Let DVC bring one stage up to date: run it, restore it from its cache, or find it unchanged."""
    log, last, outcome, shown, artifact = get_run_logger(), "", UNCHANGED, 0.0, None
    with tethered([*DVC, name], processes.keep_open) as process:
        processes.add(process)
        for line, is_progress in lines(process.stdout):
            if is_progress:
                if time.monotonic() - shown < PROGRESS_EVERY:
                    continue
                shown, artifact = time.monotonic(), show_progress(name, artifact)
            if line.startswith(HINTS):
                continue
            log.info(line)
            if line.startswith("Running stage "):
                outcome = "ran"
            elif "is cached - skipping run" in line:
                outcome = "restored from DVC's cache"
            if not last or not line.startswith("ERROR: failed to reproduce"):
                last = line
        processes.remove(process)
    if processes.stopped_by:
        return Cancelled(message=f"stopped by {processes.stopped_by.name}")
    if artifact and not process.returncode:
        update_progress_artifact(artifact, 100.0, description=f"{name}: done")
    if process.returncode:
        return Failed(message=last or f"exit status {process.returncode}")
    return Completed(message=outcome) if outcome == "ran" else Completed(name="Cached", message=outcome)


def show_progress(stage: str, artifact):
    """Show how far a long training is; return the artifact's id, None where nothing is known yet."""
    name = stage.partition("@")[2]
    try:
        at = json.loads(Path(".work", name, "progress.json").read_text())
        percent, left = 100 * at["step"] / at["steps"], at["seconds_left"]
    except (OSError, ValueError, KeyError, TypeError):
        return artifact
    description = f"{stage}: step {at['step']} of {at['steps']}, {left:.0f} s left"
    if artifact is None:
        return create_progress_artifact(percent, key=f"progress-{slug(name)}", description=description)
    update_progress_artifact(artifact, percent, description=description)
    return artifact


def show_results() -> None:
    """Show the leaderboard and the samples that there are in Prefect's pages."""
    leaderboard = Path("reports/leaderboard.json")
    if leaderboard.exists():
        create_table_artifact(json.loads(leaderboard.read_text()), key="leaderboard")
    for text in sorted(Path("samples").glob("*/samples.md")):
        create_markdown_artifact(text.read_text(encoding="utf-8"), key=f"samples-{slug(text.parent.name)}")
    for image in sorted(Path("samples").glob("*/grid.png")):
        encoded = base64.b64encode(image.read_bytes()).decode()
        markdown = f"![{image}](data:image/png;base64,{encoded})"  # an image artifact would print the address too
        create_markdown_artifact(markdown, key=f"samples-{slug(image.parent.name)}")


def without_empty_traceback(record: logging.LogRecord) -> bool:
    """Take the traceback from what Prefect logs of a state that is Failed without an exception: "NoneType: None"."""
    if record.exc_info and record.exc_info[0] is None:
        record.exc_info = None
    return True


def slug(name: str) -> str:
    """Return a name as Prefect wants the keys of artifacts."""
    return name.lower().replace("_", "-")
