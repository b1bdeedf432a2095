"""Prefect's API inside this process: nothing to install, start or stop, and gone when the flow is.

Prefect's own ephemeral server is a second process, which pays for a second import of Prefect (7 CPU-seconds)
and outlives a flow that was killed.
"""

import asyncio
import os
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from pathlib import Path

from flows import FLOW, PREFIX, PROJECT, UserError

SETTINGS = {
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "DO_NOT_TRACK": "1",
    "PREFECT_RESULTS_DEFAULT_SERIALIZER": "json",
    "PREFECT_API_BLOCKS_REGISTER_ON_START": "false",  # 2 CPU-seconds for what the flow does not use
    "PREFECT_SERVER_SERVICES_TRIGGERS_ENABLED": "false",
    "PREFECT_SERVER_SERVICES_EVENT_PERSISTER_FLUSH_INTERVAL": "1",
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_BATCH_SIZE": "100",
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_FLUSH_INTERVAL": "1",
    "PREFECT_SERVER_LOGGING_LEVEL": "CRITICAL",  # it shows a traceback for each write that it then tries again
    "PREFECT_UI_URL": "http://127.0.0.1:4200",  # where `make ui` will serve this run
    "PREFECT_LOGGING_FORMATTERS_STANDARD_FLOW_RUN_FMT": "%(asctime)s | %(message)s",
    "PREFECT_LOGGING_FORMATTERS_STANDARD_TASK_RUN_FMT": "%(asctime)s | %(task_run_name)-28s | %(message)s",
}


@contextmanager
def prefect_api() -> Iterator[Callable[[], None]]:
    """Start the API over the project's folder for it, unless PREFECT_API_URL names another; yield a function that waits for it."""
    if os.environ.get("PREFECT_API_URL"):
        check_api()
        yield lambda: None
        return
    ready: Future = Future()
    listening = socket.create_server(("127.0.0.1", 0))  # connections wait in it until the server accepts them
    os.environ["PREFECT_HOME"] = str(home().resolve())
    os.environ["PREFECT_API_URL"] = f"http://127.0.0.1:{listening.getsockname()[1]}/api"
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
    stop = threading.Event()
    thread = threading.Thread(target=lambda: serve(listening, ready, stop), daemon=True)
    thread.start()

    def wait() -> None:
        ready.result()
        close_dead_runs()

    try:
        yield wait
    finally:
        if ready.done() and not ready.exception():
            send_all()
            stop.set()
            thread.join(timeout=3)


def check_api() -> None:
    """Raise UserError where PREFECT_API_URL does not answer, or not to this key."""
    import httpx
    from prefect.client.orchestration import get_client
    from prefect.exceptions import PrefectHTTPStatusError

    address = os.environ.get("PREFECT_API_URL")
    try:
        with get_client(sync_client=True) as client:
            client.read_work_pools(limit=1)
    except PrefectHTTPStatusError as error:
        status = error.response.status_code
        key = "; PREFECT_API_AUTH_STRING should be the server's USER:PASSWORD" if status in (401, 403) else ""
        raise UserError(f"PREFECT_API_URL: {address} answers {status}{key}") from None
    except (httpx.HTTPError, RuntimeError) as error:
        said = str(error).splitlines()[0]
        raise UserError(f"PREFECT_API_URL: {address} should be a server that runs: {said}") from None


def home() -> Path:
    """Return Prefect's folder: the project's .prefect/, or one of the flow's own where git would show that as new."""
    shown = False
    with suppress(FileNotFoundError):  # no git
        command = ["git", "check-ignore", "--quiet", ".prefect/"]
        shown = subprocess.run(command, cwd=PROJECT, capture_output=True, check=False).returncode == 1
    return FLOW / "prefect" if shown else PROJECT / ".prefect"


def send_all() -> None:
    """Send the log and the task runs' states that Prefect's client still holds back."""
    from prefect.events.worker import EventsWorker
    from prefect.logging.handlers import APILogWorker

    EventsWorker.drain_all(timeout=3)
    APILogWorker.drain_all(timeout=3)


def serve(listening: socket.socket, ready: Future, stop: threading.Event) -> None:
    """Serve until `stop`; runs in a thread of its own."""
    try:
        import uvicorn
        from prefect.server.api.server import create_app

        app = create_app(ephemeral=True)

        async def until_stopped() -> None:
            server = uvicorn.Server(uvicorn.Config(app, lifespan="off", log_level="warning"))
            async with app.router.lifespan_context(app):  # the database and the services
                ready.set_result(None)
                serving = asyncio.create_task(server.serve(sockets=[listening]))
                while not stop.is_set():
                    await asyncio.sleep(0.1)
                server.should_exit = True
                await serving

        asyncio.run(until_stopped())
    except Exception as error:
        if ready.done():
            raise
        ready.set_exception(UserError(f".prefect: Prefect's server did not start: {str(error).splitlines()[0]}"))


def close_dead_runs() -> None:
    """Mark runs that a killed flow left open as crashed: the lock of this folder says that none is alive."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import FlowFilter, FlowRunFilter, TaskRunFilter
    from prefect.client.schemas.objects import StateType
    from prefect.states import Crashed

    alive = {"state": {"type": {"any_": [StateType.PENDING, StateType.RUNNING, StateType.CANCELLING]}}}
    with get_client(sync_client=True) as client:
        flow = FlowFilter.model_validate({"name": {"any_": [f"{PREFIX}pipeline"]}})
        for run in client.read_flow_runs(flow_filter=flow, flow_run_filter=FlowRunFilter.model_validate(alive)):
            this = FlowRunFilter.model_validate({"id": {"any_": [run.id]}})
            tasks = TaskRunFilter.model_validate(alive)
            for task_run in client.read_task_runs(flow_run_filter=this, task_run_filter=tasks):
                client.set_task_run_state(task_run.id, Crashed(message="the flow was killed"), force=True)
            client.set_flow_run_state(run.id, Crashed(message="the flow was killed"), force=True)
