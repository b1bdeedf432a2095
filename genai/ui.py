"""The page of it all, MLflow and Prefect on this machine, in front of what the pipeline left in this folder."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from genai.core.config import UserError
from genai.page import PAGE
from genai.tracking import page, store_uri

HOST = "127.0.0.1"
PATIENCE = 120.0  # seconds until a server answers; the first start sets its database up

# Each server is a process group with a reader of a pipe that this process alone holds open: when it closes, by
# whatever death, the group ends.
TETHER = """
exec 3<&0
{ trap "" TERM INT HUP; cat; kill -TERM 0; sleep 3; kill -KILL 0; } <&3 >/dev/null 2>&1 &
exec "$@" </dev/null 3<&-
"""


def ui(root: Path) -> None:
    """Serve all three until SIGINT or SIGTERM. Ports: PAGE_PORT (5050), MLFLOW_PORT (5000) and PREFECT_PORT (4200) of the
    environment.

    No server outlives this process, nor the `make` that started it. Raises UserError where a port is not
    free or not a port, or a server does not start or ends.
    """
    maker = os.getppid() if "MAKELEVEL" in os.environ else None  # who kills `make` means this process
    ports = {"PAGE_PORT": 5050, "MLFLOW_PORT": 5000, "PREFECT_PORT": 4200}
    ports = {variable: _port(variable, default) for variable, default in ports.items()}
    if len(set(ports.values())) < len(ports):
        told = ", ".join(f"{variable} is {port}" for variable, port in ports.items())
        raise UserError(f"{told}; each page needs a port of its own")
    whole, mlflow, prefect = ports.values()
    settings = os.environ | {
        "DO_NOT_TRACK": "1",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # a start in 6 s instead of 22
        "PREFECT_HOME": os.environ.get("PREFECT_HOME", str(root / ".prefect")),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_UI_API_URL": f"http://{HOST}:{prefect}/api",
        "PREFECT_SERVER_UI_V2_ENABLED": "false",  # that page calls on a company that counts visits, whatever is set
    }
    settings.pop("PREFECT_API_URL", None)
    hosts = f"{HOST}:{mlflow},localhost:{mlflow}"
    commands = {
        "MLflow": f"mlflow server --host {HOST} --port {mlflow} --workers 1 --allowed-hosts {hosts}".split()
        + ["--backend-store-uri", store_uri(root), "--artifacts-destination", str(root / "mlartifacts")],
        "Prefect": f"prefect server start --host {HOST} --port {prefect} --analytics-off".split(),
    }
    health = {"MLflow": f"http://{HOST}:{mlflow}/health", "Prefect": f"http://{HOST}:{prefect}/api/health"}
    pages = {"MLflow": f"http://{HOST}:{mlflow}{page(root)}", "Prefect": f"http://{HOST}:{prefect}/runs"}
    logs = root / ".work" / "ui"
    logs.mkdir(parents=True, exist_ok=True)
    servers: dict[str, subprocess.Popen] = {}
    own = serve(root / PAGE, whole)
    # both: where a shell started this in the background, SIGINT would be ignored
    before = {n: signal.signal(n, signal.default_int_handler) for n in (signal.SIGINT, signal.SIGTERM)}
    try:
        for name, command in commands.items():
            with open(logs / f"{name.lower()}.log", "w") as log:
                servers[name] = subprocess.Popen(
                    ["/bin/sh", "-c", TETHER, "sh", sys.executable, "-m", *command], cwd=root, env=settings,
                    stdin=subprocess.PIPE, stdout=log, stderr=log, start_new_session=True,
                )  # fmt: skip
        print(f"{'Results':8} http://{HOST}:{whole}/", flush=True)
        for name, address in health.items():
            _await(address, servers, logs)
            print(f"{name:8} {pages[name]}", flush=True)
        print("Ctrl-C ends all.", flush=True)
        while maker in (None, os.getppid()):
            _check_alive(servers, logs)
            time.sleep(0.5)
    except KeyboardInterrupt:
        print()
    finally:
        for number in before:
            signal.signal(number, signal.SIG_IGN)  # a second Ctrl-C must not leave a server behind
        own.shutdown()
        own.server_close()
        _stop(servers)
        for number, handler in before.items():
            signal.signal(number, handler)


def serve(path: Path, port: int) -> ThreadingHTTPServer:
    """Serve one page, as its file is when it is asked for, from a thread of this process."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.headers.get("Host") not in (f"{HOST}:{port}", f"localhost:{port}"):  # a page of another site asks
                self.send_error(403)
                return
            try:
                status, content = 200, path.read_bytes()
            except OSError:
                status, content = 404, b"<!doctype html><title>genai</title><p>Nothing yet. Run: make pipeline"
            self.send_response(status)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer((HOST, port), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


def _port(variable: str, default: int) -> int:
    """Return the port that the environment asks for, if it is free. Raises UserError."""
    value = os.environ.get(variable) or str(default)
    if not value.isdecimal() or not 0 < int(value) < 65536:
        raise UserError(f"{variable}: {value!r} should be a port, 1 to 65535")
    port = int(value)
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # one just closed is free
        try:
            probe.bind((HOST, port))
        except OSError as error:
            raise UserError(f"port {port}: {error.strerror}; choose another: make ui {variable}={port + 1}") from None
    return port


def _await(address: str, servers: dict[str, subprocess.Popen], logs: Path) -> None:
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        _check_alive(servers, logs)
        with contextlib.suppress(OSError), urllib.request.urlopen(address, timeout=5):
            return
        time.sleep(0.2)
    raise UserError(f"{address}: no answer in {PATIENCE:.0f} s; see {logs}")


def _check_alive(servers: dict[str, subprocess.Popen], logs: Path) -> None:
    for name, server in servers.items():
        if server.poll() is not None:
            log = logs / f"{name.lower()}.log"
            last = (log.read_text(errors="replace").strip().splitlines() or ["no output"])[-1]
            raise UserError(f"{name}'s server ended with status {server.returncode}: {last} (see {log})")


def _stop(servers: dict[str, subprocess.Popen]) -> None:
    """End the servers with all their processes."""
    for number, seconds in ((signal.SIGTERM, 5.0), (signal.SIGKILL, 5.0)):
        for server in servers.values():
            with contextlib.suppress(ProcessLookupError):  # the group, which may outlive its first process
                os.killpg(server.pid, number)
        deadline = time.monotonic() + seconds
        for server in servers.values():
            with contextlib.suppress(subprocess.TimeoutExpired):
                server.wait(max(0.0, deadline - time.monotonic()))
