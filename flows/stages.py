"""The stages of dvc.yaml as tasks of a Prefect flow, side by side on the cores there are."""

import logging
import re
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, closing, nullcontext
from datetime import datetime
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any, Literal
from uuid import UUID

from dvc.exceptions import DvcException
from dvc.repo import Repo
from dvc.stage.run import _make_cmd, get_executable
from prefect import Flow, Task, allow_failure, flow, get_run_logger, task
from prefect.artifacts import create_progress_artifact, update_progress_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import State
from prefect.exceptions import FailedRun
from prefect.futures import PrefectConcurrentFuture
from prefect.runtime import flow_run
from prefect.states import Cancelled, Completed, Crashed, Failed

from flows import PREFIX, UserError
from flows.handoff import HandOff, NoWorker, StageFailed, has_worker
from flows.pipeline import Opened
from flows.plan import Stage
from flows.process import Processes, lines
from flows.project import RAN, UNCHANGED, WRITE_EVERY, Project, one_line
from flows.remote import Remote, insist
from flows.results import show_results, slug

ASK_EVERY = 10.0  # seconds between two looks for workers of a pool
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
        self.show("> " + command)
        last = ""
        with self._processes.start(_make_cmd(get_executable(), command), cwd, env) as process:
            for line, is_progress in lines(process.stdout):
                if is_progress:
                    if time.monotonic() - self._shown < PROGRESS_EVERY:
                        continue
                    self._shown = time.monotonic()
                self.show(line)
                last = line
            if status := process.wait():
                raise CommandFailed(last or f"exit status {status}")
        return process.cpu_seconds

    def show(self, line: str) -> None:
        """Show a line in the log, and a progress bar as an artifact, too."""
        self._log.info(line)
        if bar := BAR.search(line):
            percent, description = float(bar[1]), f"{self._stage}: {bar[2]}"
            if self._artifact is None:
                key = f"{slug(PREFIX)}progress-{slug(self._stage)}"
                artifact = create_progress_artifact(percent, key=key, description=description)
                assert isinstance(artifact, UUID)  # it would be a coroutine in a flow of coroutines
                self._artifact = artifact
            else:
                update_progress_artifact(self._artifact, percent, description=description)

    def done(self) -> None:
        """Show that it is."""
        if self._artifact is not None:
            update_progress_artifact(self._artifact, 100.0, description=f"{self._stage}: done")


Policy = Literal["prefer", "require", "never"]


def flow_of(opened: Callable[[list[str], bool], AbstractContextManager[Opened]]) -> Flow:
    """Return the flow that brings up to date what `opened` opens, given the names of stages and whether to release."""

    @flow(name=f"{PREFIX}pipeline", flow_run_name=run_name, result_serializer="json")
    def pipeline(
        targets: list[str] = [],  # noqa: B006
        gpu: Policy = "prefer",
        deadline: float = 60.0,
        release: bool = True,
        push: bool = False,
    ) -> State:
        """Bring the stages of dvc.yaml up to date, longest path first; a failed one costs its descendants, no other.

        Args:
            targets: stages (train@cnn) or groups of them (train), with what they depend on; all where there are none.
            gpu: whether stages with a pool go to its workers where there are such, have to, or never do.
            deadline: seconds in which a worker of the pool has to answer.
            release: whether a model that is better than its champion then takes its place.
            push: whether what was made then goes to DVC's remote, with the run-cache's entries.
        """
        logging.getLogger("prefect.task_runs").addFilter(without_empty_traceback)
        try:
            with opened(targets, release) as this, this.processes.stop_at_signals():
                return bring_up_to_date(this, gpu, deadline, push)
        except UserError as error:
            return Failed(message=str(error))

    return pipeline


def run_name() -> str:
    """Return the name of the flow run that begins: what was asked for, and when."""
    return f"{' '.join(flow_run.parameters['targets']) or 'all stages'} {datetime.now():%Y-%m-%d %H:%M}"


def bring_up_to_date(this: Opened, gpu: Policy, deadline: float, push: bool) -> State:
    """Do what the flow does once the project is open; return its state. Raises UserError."""
    with closing(Repo()) if push else nullcontext() as repo:
        remote = Remote(repo) if repo else None
        try:
            finished = run_all(this, gpu, deadline)
        finally:
            this.project.write()
        faults = [push_made(remote, this, finished)] if remote and not this.processes.stopped_by else []
        if this.processes.stopped_by:
            return Cancelled(message=f"stopped by {this.processes.stopped_by.name}")
    show_results(this.stages)
    if failed := [name for name, state in finished.items() if not state.is_completed()]:
        faults.insert(0, f"{len(failed)} of {len(this.stages)} stages: {', '.join(failed)}")
    else:
        this.project.complete()
    if any(faults):
        return Failed(message="; ".join(filter(None, faults)))
    ran = [name for name, state in finished.items() if state.name != "Cached"]
    summary = f"{len(ran)} of {len(this.stages)} stages ran, the rest was cached"
    return Completed(message=summary, data={"ran": ran, "stages": len(this.stages)})


def run_all(this: Opened, gpu: Policy, deadline: float) -> dict[str, State]:
    """Submit each stage when what it depends on is done and there are cores for it; return how each ended."""
    project, cores, processes = this.project, this.cores, this.processes
    places = Places(gpu, deadline, processes)
    waiting = {stage.name: stage for stage in sorted(this.stages, key=lambda stage: -stage.urgency)}
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
            elif places.elsewhere(stage):
                submit(reproduce, stage, stage, project, processes, places)
            elif not full and sum(occupied.values()) + cores_needed <= cores:
                occupied[stage.name] = cores_needed
                submit(reproduce, stage, stage, project, processes)
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


def push_made(remote: Remote, this: Opened, finished: dict[str, State]) -> str | None:
    """Copy what the completed stages make to DVC's remote, what it has left out; return why that failed."""
    stages = [this.project.stage(name) for name, state in finished.items() if state.is_completed()]
    try:
        insist(partial(remote.push_results, stages), get_run_logger().info, lambda: this.processes.stopped_by)
    except Exception as error:  # noqa: BLE001  each kind of remote has exceptions of its own
        return f"not pushed: {one_line(error)}"
    return None


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


class Places:
    """Which stages go to the workers of their pool."""

    def __init__(self, gpu: Policy, deadline: float, processes: Processes):
        self._gpu, self._deadline, self._processes = gpu, deadline, processes
        self._seen: dict[str, tuple[float, bool]] = {}  # when a pool was last asked for workers, and whether it had one

    def elsewhere(self, stage: Stage) -> bool:
        """Return whether the stage goes to a worker."""
        if stage.pool is None or self._gpu != "prefer":
            return stage.pool is not None and self._gpu == "require"
        asked, answer = self._seen.get(stage.pool, (0.0, False))
        if time.monotonic() - asked > ASK_EVERY:
            with get_client(sync_client=True) as client:
                answer = has_worker(client, stage.pool)
            self._seen[stage.pool] = time.monotonic(), answer
        return answer

    def hand_off(self, stage: Stage, show: Callable[[str], None]) -> HandOff:
        """Return what hands the stage off. show: takes each line of its log."""
        return HandOff(stage, self._gpu == "require", self._deadline, self._processes, show)


@task(cache_policy=NO_CACHE)
def reproduce(stage: Stage, project: Project, processes: Processes, places: Places | None = None) -> State:
    """Let DVC bring one stage up to date: run it, here or by a worker, restore it from a cache, or find it unchanged."""
    command = Command(stage.name, processes)
    try:
        outcome = project.reproduce(stage.name, command, places.hand_off(stage, command.show) if places else None)
    except (CommandFailed, StageFailed, NoWorker, UserError, DvcException, OSError) as error:
        if processes.stopped_by:
            return Cancelled(message=f"stopped by {processes.stopped_by.name}")
        if not isinstance(error, (CommandFailed, StageFailed)):  # whose message is in the log
            get_run_logger().error(one_line(error))
        return Failed(message=one_line(error))
    command.done()
    return Completed(message=outcome) if outcome == RAN else Completed(name="Cached", message=outcome)


def without_empty_traceback(record: logging.LogRecord) -> bool:
    """Take the traceback from what Prefect logs of a state that is Failed without an exception: its message says all."""
    if record.exc_info and record.exc_info[0] in (None, FailedRun):
        record.exc_info = None
    return True
