"""The stages of dvc.yaml as tasks of a Prefect flow, side by side on the cores there are."""

import logging
import re
import time
from datetime import datetime
from queue import Empty, SimpleQueue
from typing import Any
from uuid import UUID

from dvc.exceptions import DvcException
from prefect import Task, allow_failure, flow, get_run_logger, task
from prefect.artifacts import create_progress_artifact, update_progress_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.futures import PrefectConcurrentFuture
from prefect.states import Cancelled, Completed, Crashed, Failed

from flows.plan import Stage
from flows.process import Processes, lines
from flows.project import RAN, UNCHANGED, WRITE_EVERY, Project, one_line
from flows.results import show_results, slug

PROGRESS_EVERY = 5.0  # seconds between two progress lines of a stage in the log
BAR = re.compile(r"(\d+)%\|[^|]*\|\s*(.*)")  # as tqdm prints it: 50%|#####     | 30/60 [00:10<00:10, 3.00it/s]


class CommandFailed(Exception):
    """A stage's command ended with an exit status other than 0; the message is the last line that it printed."""


class Command:
    """Runs the commands of one stage and shows what they print."""

    def __init__(self, stage: str, processes: Processes):
        self._stage, self._processes, self._log = stage, processes, get_run_logger()
        self._shown = 0.0  # when a progress line was
        self._artifact: UUID | None = None

    def __call__(self, command: str, cwd: str, env: dict[str, str]) -> float:
        """Run it; return its CPU-seconds. Raises CommandFailed."""
        self._log.info("> " + command)
        last = ""
        with self._processes.start(["/bin/sh", "-c", command], cwd, env) as process:
            for line, is_progress in lines(process.stdout):
                if is_progress:
                    if time.monotonic() - self._shown < PROGRESS_EVERY:
                        continue
                    self._shown = time.monotonic()
                    self._show_progress(line)
                self._log.info(line)
                last = line
            if status := process.wait():
                raise CommandFailed(last or f"exit status {status}")
        return process.cpu_seconds

    def _show_progress(self, line: str) -> None:
        if bar := BAR.search(line):
            percent, description = float(bar[1]), f"{self._stage}: {bar[2]}"
            if self._artifact is None:
                key = f"progress-{slug(self._stage)}"
                artifact = create_progress_artifact(percent, key=key, description=description)
                assert isinstance(artifact, UUID)  # it would be a coroutine in a flow of coroutines
                self._artifact = artifact
            else:
                update_progress_artifact(self._artifact, percent, description=description)

    def done(self) -> None:
        """Show that it is."""
        if self._artifact is not None:
            update_progress_artifact(self._artifact, 100.0, description=f"{self._stage}: done")


def run_flow(project: Project, stages: list[Stage], targets: list[str], cores: int, processes: Processes) -> State:
    """Bring the stages up to date in a flow run that says in its name and parameters what was asked for."""

    # its parameters are plain values, so that they can be read in Prefect's pages
    @flow(
        name="pipeline",
        flow_run_name=f"{' '.join(targets) or 'all stages'} {datetime.now():%Y-%m-%d %H:%M}",
        validate_parameters=False,
    )
    def pipeline(targets: list[str], cores: int) -> State:
        """Bring the stages of dvc.yaml up to date, longest path first; a failed one costs its descendants, no other."""
        logging.getLogger("prefect.task_runs").addFilter(without_empty_traceback)
        with processes.stop_at_signals():
            finished = run_all(project, stages, cores, processes)
        if processes.stopped_by:
            return Cancelled(message=f"stopped by {processes.stopped_by.name}")
        show_results(stages)
        failed = [name for name, state in finished.items() if not state.is_completed()]
        if failed:
            return Failed(message=f"{len(failed)} of {len(stages)} stages: {', '.join(failed)}")
        ran = [name for name, state in finished.items() if state.name != "Cached"]
        return Completed(message=f"{len(ran)} of {len(stages)} stages ran, the rest was cached")

    return pipeline(targets, cores, return_state=True)


def run_all(project: Project, stages: list[Stage], cores: int, processes: Processes) -> dict[str, State]:
    """Submit each stage when what it depends on is done and there are cores for it; return how each ended."""
    waiting = {stage.name: stage for stage in sorted(stages, key=lambda stage: -stage.urgency)}
    futures: dict[str, PrefectConcurrentFuture] = {}
    finished: dict[str, State] = {}
    done: SimpleQueue[str] = SimpleQueue()
    occupied: dict[str, int] = {}  # cores, by stage

    def submit(kind: Task, stage: Stage, *arguments: Any) -> None:
        # to wait for one that has crashed would be to crash with it
        upstream = [allow_failure(futures[name]) for name in stage.upstream if not finished[name].is_crashed()]
        run = kind.with_options(name=stage.name, task_run_name=stage.name)
        future = run.submit(*arguments, wait_for=upstream)
        assert isinstance(future, PrefectConcurrentFuture)  # that of Prefect's task runner of threads
        future.add_done_callback(lambda _: done.put(stage.name))
        futures[stage.name] = future
        del waiting[stage.name]

    while len(finished) < len(futures) or (waiting and not processes.stopped_by):
        full = False  # once a stage has to wait for cores, none that is less urgent takes them
        for stage in list(waiting.values()):
            states = [finished.get(name) for name in stage.upstream]
            if processes.stopped_by or None in states:
                continue
            cores_needed = min(stage.threads, cores)
            if failed := [name for name in stage.upstream if not finished[name].is_completed()]:
                submit(skip, stage, failed[0])
            elif not stage.changed and all(finished[name].message == UNCHANGED for name in stage.upstream):
                submit(keep, stage)
            elif not full and sum(occupied.values()) + cores_needed <= cores:
                occupied[stage.name] = cores_needed
                submit(reproduce, stage, stage.name, project, processes)
            else:
                full = True
        if len(finished) < len(futures):
            try:
                name = done.get(timeout=WRITE_EVERY)
            except Empty:
                project.write()
                continue
            finished[name] = end_of(futures[name])
            occupied.pop(name, None)

    return finished


def end_of(future: PrefectConcurrentFuture) -> State:
    """Return the state in which a task ended that is done; a task that Prefect could not end itself has crashed."""
    if error := future.wrapped_future.exception():
        return Crashed(message=repr(error))
    future.wait()  # takes the state from the task; without it, from the API, which lags behind
    return future.state


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
    """Let DVC bring one stage up to date: run it, restore it from its cache, or find it unchanged."""
    command = Command(name, processes)
    try:
        outcome = project.reproduce(name, command)
    except (CommandFailed, DvcException, OSError) as error:
        if processes.stopped_by:
            return Cancelled(message=f"stopped by {processes.stopped_by.name}")
        if not isinstance(error, CommandFailed):  # whose message is in the log
            get_run_logger().error(one_line(error))
        return Failed(message=one_line(error))
    command.done()
    return Completed(message=outcome) if outcome == RAN else Completed(name="Cached", message=outcome)


def without_empty_traceback(record: logging.LogRecord) -> bool:
    """Take the traceback from what Prefect logs of a state that is Failed without an exception: "NoneType: None"."""
    if record.exc_info and record.exc_info[0] is None:
        record.exc_info = None
    return True
