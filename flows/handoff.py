"""The hand-off of a stage to a worker of a Prefect work pool, wherever that is, and the wait for what it makes.

The controller pushes what the stage reads to DVC's remote and a snapshot of its files to Git; the worker runs the stage
and pushes what it made with the entry of the run-cache; the controller, which alone writes dvc.lock, restores it.
"""

import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any
from uuid import UUID

from dvc.exceptions import DvcException
from dvc.output import Output
from dvc.repo import Repo
from dvc.stage import Stage as DvcStage
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import FlowRunFilter, LogFilter
from prefect.client.schemas.objects import FlowRun, WorkerStatus
from prefect.client.schemas.sorting import LogSort
from prefect.deployments import run_deployment
from prefect.exceptions import ObjectNotFound, PrefectHTTPStatusError
from prefect.states import Cancelled, Cancelling, State

from flows import PREFIX, UserError
from flows.plan import Stage
from flows.prepare import close_silent_runs
from flows.process import Processes
from flows.project import RAN, RESTORED, one_line
from flows.remote import PATIENCE, Remote, insist
from flows.snapshot import snapshot

POLL = 5.0  # seconds between two looks at a run that trains; the first ones come sooner
ATTEMPTS = 3  # workers that may die before the stage fails
SMALL = 2**20  # bytes: curves, previews; a checkpoint is fetched where the stage goes on here


class NoWorker(UserError):
    """No worker of the pool answered."""


class StageFailed(Exception):
    """The stage failed at its worker; the message says why."""


def has_worker(client: SyncPrefectClient, pool: str) -> bool:
    """Return whether a worker of the pool is alive."""
    try:
        return any(w.status == WorkerStatus.ONLINE for w in client.read_workers_for_work_pool(pool))
    except PrefectHTTPStatusError as error:  # Prefect's client makes no ObjectNotFound of this one
        if error.response.status_code == 404:
            return False  # no such pool
        raise


class HandOff:
    """Has one stage run by a worker of its pool."""

    def __init__(
        self, stage: Stage, required: bool, deadline: float, processes: Processes, show: Callable[[str], None]
    ):
        """required: whether to fail where no worker answers within `deadline` seconds; else the stage runs here.

        show: takes each line of the stage's log.
        """
        assert stage.pool
        self._stage, self._pool, self._required, self._deadline = stage, stage.pool, required, deadline
        self._processes, self._show = processes, show
        self._live: str | None = stage.meta.get("live")
        self._known: dict[str, Any] = {}  # versions of the live files that are here

    def __call__(self, stage: DvcStage, key: str, inputs: list[Output]) -> str | None:
        """Get what the stage makes into DVC's cache; return how, None where it is to run here.

        Raises UserError, StageFailed, DvcException.
        """
        with closing(Repo()) as repo, get_client(sync_client=True) as client:
            self._client = client
            try:
                self._remote = Remote(repo)
                return self._get(stage, key, inputs)
            except UserError as error:  # no worker, no remote, no Git
                if self._required:
                    raise
                self._show(f"{error}; the stage runs here")
                return None

    def _get(self, stage: DvcStage, key: str, inputs: list[Output]) -> str | None:
        if self._is_made(stage, key):
            self._forget(key)
            return RESTORED
        self._wait_for_worker()
        self._insist(lambda: self._remote.push(inputs))
        for _ in range(ATTEMPTS):
            state = self._run(key)
            if not state.is_crashed():
                break
            self._show(f"the worker died ({state.message}); the stage goes on from its last checkpoint")
        if not state.is_completed():
            raise StageFailed(state.message or state.name)
        made = self._insist(lambda: self._remote.fetch_entry(stage, key))
        if made is None:
            raise DvcException(f"the worker has finished, but {self._remote.name} does not have what it made")
        self._insist(lambda: self._remote.pull(made))
        self._forget(key)
        return RAN

    def _is_made(self, stage: DvcStage, key: str) -> bool:
        """Fetch what another run of the flow had made, or this one before it was killed; return whether there was such."""
        made = self._insist(lambda: self._remote.fetch_entry(stage, key))
        if made is None:
            return False
        try:
            self._remote.pull(made)
        except DvcException as error:  # somebody has cleared the remote, or damaged it
            self._show(f"DVC's remote: {one_line(error)}; the stage runs again")
            return False
        return True

    def _insist(self, what: Callable[[], Any]) -> Any:
        return insist(what, self._show, lambda: self._processes.stopped_by)

    def _wait_for_worker(self) -> None:
        """Wait for one where one is required; else one was there a moment ago. Raises NoWorker."""
        end = time.monotonic() + self._deadline
        told = False
        while self._required and not has_worker(self._client, self._pool):
            if time.monotonic() > end or self._processes.stopped_by:
                raise NoWorker(self._no_worker())
            if not told:
                self._show(f"no worker of the pool {self._pool} yet; waiting {self._deadline:.0f} s for one")
                told = True
            time.sleep(1)

    def _no_worker(self) -> str:
        command = f"prefect worker start --pool {self._pool}"
        return f"no worker of the pool {self._pool} answered in {self._deadline:.0f} s; where one shall run: {command}"

    def _run(self, key: str) -> State:
        """Submit the stage, or find it under way; return the state in which it ended. Raises NoWorker."""
        close_silent_runs(self._client)
        with snapshot() as (ref, folder):
            tag = FlowRunFilter.model_validate({"tags": {"all_": [key]}})
            before = self._client.read_flow_runs(flow_run_filter=tag)
            under_way = [run for run in before if not state_of(run).is_final()]
            run = under_way[0] if under_way else self._submit(ref, folder, key, len(before))
            try:
                return self._follow(run, key)
            except BaseException:
                runs = state_of(self._client.read_flow_run(run.id)).is_running()
                end = Cancelling if runs else Cancelled  # a run that no worker has, none can end
                self._client.set_flow_run_state(run.id, end(message="its controller does not wait for it any more"))
                raise

    def _submit(self, ref: str, folder: str, key: str, number: int) -> FlowRun:
        """Make the `number`-th run of this key; of several controllers one makes it. Raises UserError."""
        name = f"{PREFIX}stage/{self._pool}"
        parameters: dict[str, Any] = {"stage": self._stage.name, "ref": ref, "folder": folder, "key": key}
        parameters |= {"remote": self._remote.name, "live": self._live}
        try:
            run = run_deployment(
                name, timeout=0, parameters=parameters, flow_run_name=self._stage.name, tags=[key],
                idempotency_key=f"{key}-{number}",
            )  # fmt: skip
        except ObjectNotFound:
            raise UserError(f"Prefect has no deployment {name}; run: python -m flows.prepare") from None
        assert isinstance(run, FlowRun)  # it would be a coroutine in a flow of coroutines
        return run

    def _follow(self, run: FlowRun, key: str) -> State:
        """Show the run's log and bring its live files here until it ends; return its state. Raises NoWorker, StageFailed."""
        began = reached = waiting_since = time.monotonic()
        lines = 0
        told: set[str] = set()  # faults, each once

        def tell(fault: str) -> None:
            if fault not in told:
                self._show(fault)
                told.add(fault)

        while True:
            now = time.monotonic()
            try:
                run = self._client.read_flow_run(run.id)
                lines += self._show_log(run.id, lines)
                alone = not state_of(run).is_running() and not has_worker(self._client, self._pool)
                reached = now
            except Exception as error:  # the server's restart costs no training
                if now - reached > PATIENCE:
                    raise
                tell(f"Prefect: {one_line(error)}; trying again")
                alone = False
            try:
                self._fetch_live(key, SMALL)
            except Exception as error:  # noqa: BLE001  each kind of remote has its own, and curves can wait
                tell(f"DVC's remote: {one_line(error)}; curves come later")
            if state_of(run).is_final():
                self._show_log(run.id, lines)
                return state_of(run)
            if self._processes.stopped_by:
                raise StageFailed(f"stopped by {self._processes.stopped_by.name}")
            if not alone:
                waiting_since = now
            elif now - waiting_since > self._deadline:
                self._fetch_live(key, float("inf"))  # from a checkpoint that one came to the stage goes on here
                raise NoWorker(self._no_worker())
            pause = time.monotonic() + (1.0 if now - began < 30 else POLL)
            while time.monotonic() < pause and not self._processes.stopped_by:
                time.sleep(0.25)

    def _show_log(self, run_id: UUID, start: int) -> int:
        """Show the stage's lines from the `start`-th on; return how many there were."""
        this = LogFilter.model_validate({"flow_run_id": {"any_": [run_id]}, "level": {"ge_": 20}})
        logs = self._client.read_logs(this, limit=200, offset=start, sort=LogSort.TIMESTAMP_ASC)
        for log in logs:
            if log.name.endswith(".stage"):  # not Prefect's own
                self._show(log.message)
        return len(logs)

    def _forget(self, key: str) -> None:
        """Bring the last of the live files here, and take them from the remote."""
        self._insist(lambda: self._fetch_live(key, SMALL))
        self._insist(lambda: self._remote.drop_live(key))

    def _fetch_live(self, key: str, largest: float) -> None:
        if self._live:
            self._remote.pull_live(key, Path(self._live), self._known, largest)


def state_of(run: FlowRun) -> State:
    """Return the state of a run, which each has that was ever submitted."""
    assert run.state
    return run.state
