"""The team's servers on this machine, each by what docker-compose.yml says of it: PostgreSQL, MLflow, Prefect, an S3 server."""

import contextlib
import getpass
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg2
import pytest
import requests
from ruamel.yaml import YAML

from genai.ui import TETHER
from services import team

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
PATIENCE = 120.0  # seconds until a server answers
WRONG = [None, ("admin", "wrong"), ("nobody", "wrong"), ("admin", "")]


@dataclass(frozen=True)
class Service:
    """A server: where it listens, and the environment by which its clients reach it, as .env names things."""

    address: str
    environment: dict[str, str]


def composed(env: dict[str, str]) -> dict[str, Any]:
    """Return the services of docker-compose.yml as they are with this .env."""

    def interpolated(node: Any) -> Any:
        if isinstance(node, dict):
            return {key: interpolated(value) for key, value in node.items()}
        if isinstance(node, list):
            return [interpolated(value) for value in node]
        if isinstance(node, str):
            node = re.sub(r"\$\{(\w+)(?::[-?]([^}]*))?}", lambda found: env.get(found[1], found[2]), node)
            return node.replace("$$", "$")
        return node

    return interpolated(YAML(typ="safe").load((ROOT / "docker-compose.yml").read_text()))["services"]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return probe.getsockname()[1]


def clean(**variables: str) -> dict[str, str]:
    """Return this environment without what tells tools of other servers, and with these variables."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("PREFECT_", "MLFLOW_", "AWS_", "PG"))}
    return kept | variables


@contextlib.contextmanager
def server(command: list[str], environment: dict[str, str], ready, log: Path, **options) -> Iterator[None]:
    """Run a server until the end of the block, or of this process by whatever death."""
    with open(log, "w") as file:
        process = subprocess.Popen(
            ["/bin/sh", "-c", TETHER, "sh", *command],
            env=environment, stdin=subprocess.PIPE, stdout=file, stderr=file, start_new_session=True, **options,
        )  # fmt: skip
    try:
        deadline = time.monotonic() + PATIENCE
        while not answers(ready):
            assert process.poll() is None and time.monotonic() < deadline, f"no answer: {log.read_text()[-3000:]}"
            time.sleep(0.2)
        yield
    finally:
        process.stdin.close()  # the shell ends the group
        process.wait(30)


def answers(ready) -> bool:
    with contextlib.suppress(OSError, psycopg2.OperationalError):
        ready()
        return True
    return False


@pytest.fixture(scope="session")
def team_env() -> dict[str, str]:
    """A .env as `make team` writes it, with ports that are free here."""
    env = team.values(team.filled((ROOT / ".env.example").read_text()))
    ports = {name: str(free_port()) for name in ("PREFECT_PORT", "MLFLOW_PORT", "SERVE_PORT")}
    return env | ports | {
        "PREFECT_API_URL": f"http://127.0.0.1:{ports['PREFECT_PORT']}/api",
        "MLFLOW_TRACKING_URI": f"http://127.0.0.1:{ports['MLFLOW_PORT']}",
        "AWS_ENDPOINT_URL_S3": f"http://127.0.0.1:{free_port()}",
    }  # fmt: skip


@contextlib.contextmanager
def new_postgres(env: dict[str, str]) -> Iterator[Service]:
    """PostgreSQL with the team's roles and databases, empty; its environment is the superuser's."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name))
    found += [Path(path).resolve().parent for path in [shutil.which("postgres")] if path]
    if not found:
        pytest.skip(
            "PostgreSQL IS NOT INSTALLED: nothing of the team's servers was tested (apt-get install postgresql)"
        )
    who = {"user": "postgres", "group": "postgres", "extra_groups": []} if os.geteuid() == 0 else {}
    port = free_port()
    folder = Path(tempfile.mkdtemp(prefix="genai-postgres-"))  # pytest's own are closed to other users
    try:
        password = folder / "password"
        password.write_text(env["POSTGRES_PASSWORD"])
        for path in (folder, password):
            shutil.chown(path, *((who["user"], who["group"]) if who else (getpass.getuser(),)))
        initdb = [found[-1] / "initdb", "-D", folder / "data", "-U", "postgres", "-A", "scram-sha-256", "--no-sync"]
        initdb += ["--encoding=UTF8", "--locale=C.UTF-8", f"--pwfile={password}"]
        subprocess.run(initdb, check=True, stdout=subprocess.DEVNULL, cwd=folder, **who)
        options = ["-D", folder / "data", "-p", port, "-h", "127.0.0.1", "-k", folder, "-F"]
        access = {
            "PGHOST": "127.0.0.1",
            "PGPORT": str(port),
            "PGUSER": "postgres",
            "PGPASSWORD": env["POSTGRES_PASSWORD"],
        }

        def ready() -> None:
            psycopg2.connect("", **libpq(access), dbname="postgres").close()

        command = [str(part) for part in (found[-1] / "postgres", *options)]
        with server(command, clean(), ready, folder.with_suffix(".log"), cwd=folder, **who):
            script = ["psql", "-qXv", "ON_ERROR_STOP=1", "-d", "postgres", "-f", ROOT / "services" / "databases.sql"]
            subprocess.run(script, check=True, env=clean(**access, **env))
            yield Service(f"127.0.0.1:{port}", access)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        folder.with_suffix(".log").unlink(missing_ok=True)


def libpq(access: dict[str, str]) -> dict[str, str]:
    """Return libpq's environment as psycopg2's keywords."""
    return {name.removeprefix("PG").lower(): value for name, value in access.items()}


@pytest.fixture(scope="session")
def postgres(team_env) -> Iterator[Service]:
    with new_postgres(team_env) as service:
        yield service


@contextlib.contextmanager
def new_s3(env: dict[str, str], log: Path) -> Iterator[Service]:
    """An S3 server with the team's buckets, empty: moto, in place of the store of docker-compose.yml."""
    port = free_port()
    told = composed(env)["store"]["environment"]
    access = {name: env[name] for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_DEFAULT_REGION")}
    access["AWS_ENDPOINT_URL_S3"] = f"http://127.0.0.1:{port}"
    command = [sys.executable, str(HERE / "moto_store.py"), "127.0.0.1", str(port)]

    def ready() -> None:
        requests.get(access["AWS_ENDPOINT_URL_S3"] + told["VGW_HEALTH"], timeout=5).raise_for_status()

    with server(command, clean(**told), ready, log):
        subprocess.run([sys.executable, ROOT / "services" / "store.py", "buckets"], check=True, env=clean(**access))
        yield Service(access["AWS_ENDPOINT_URL_S3"], access)


@pytest.fixture(scope="session")
def s3(team_env, tmp_path_factory) -> Iterator[Service]:
    with new_s3(team_env, tmp_path_factory.mktemp("s3") / "log") as service:
        yield service


@contextlib.contextmanager
def new_mlflow(env: dict[str, str], postgres: Service, s3: Service, home: Path) -> Iterator[Service]:
    """MLflow's server as docker-compose.yml starts it, but for its addresses."""
    told = composed(env)["mlflow"]
    port = env["MLFLOW_PORT"]
    here = {"--host=0.0.0.0": "--host=127.0.0.1", "--port=5000": f"--port={port}"}
    command = [here.pop(part, part) for part in told["command"]]
    assert not here, f"docker-compose.yml no longer says {here}"
    access = {name: env[f"MLFLOW_TRACKING_{name}"] for name in ("USERNAME", "PASSWORD")}
    environment = clean(**told["environment"] | s3.environment | {
        "HOME": str(home),
        "PGHOST": postgres.environment["PGHOST"],
        "PGPORT": postgres.environment["PGPORT"],
        "MLFLOW_AUTH_CONFIG_PATH": str(ROOT / "services" / "mlflow_auth.ini"),
    })  # fmt: skip

    def ready() -> None:
        address = f"http://127.0.0.1:{port}/api/2.0/mlflow/experiments/search?max_results=1"
        requests.get(address, auth=(access["USERNAME"], access["PASSWORD"]), timeout=5).raise_for_status()

    with server([sys.executable, "-m", *command], environment, ready, home / "log", cwd=home):
        # what .env tells a client; not how the server is told its secrets
        client = ("MLFLOW_TRACKING_", "MLFLOW_ENABLE_", "MLFLOW_ALLOW_", "MLFLOW_DISABLE_")
        yield Service(env["MLFLOW_TRACKING_URI"], {k: v for k, v in env.items() if k.startswith(client)})


@pytest.fixture(scope="session")
def mlflow_server(team_env, postgres, s3, tmp_path_factory) -> Iterator[Service]:
    with new_mlflow(team_env, postgres, s3, tmp_path_factory.mktemp("mlflow")) as service:
        yield service


@contextlib.contextmanager
def new_prefect(env: dict[str, str], postgres: Service, home: Path) -> Iterator[Service]:
    """Prefect's server as docker-compose.yml starts it, but for its addresses."""
    told = composed(env)["prefect"]
    port = env["PREFECT_PORT"]
    here = {"--host=0.0.0.0": "--host=127.0.0.1", "--port=4200": f"--port={port}"}
    command = [here.pop(part, part) for part in told["command"]]
    assert not here, f"docker-compose.yml no longer says {here}"
    environment = clean(**told["environment"] | {
        "HOME": str(home),
        "PREFECT_HOME": str(home),
        "PREFECT_SERVER_UI_STATIC_DIRECTORY": str(home / "ui"),
        "PREFECT_SERVER_DATABASE_HOST": postgres.environment["PGHOST"],
        "PREFECT_SERVER_DATABASE_PORT": postgres.environment["PGPORT"],
    })  # fmt: skip
    address = f"http://127.0.0.1:{port}/api"

    def ready() -> None:
        user, password = env["PREFECT_API_AUTH_STRING"].split(":", 1)
        requests.post(f"{address}/flows/count", json={}, auth=(user, password), timeout=5).raise_for_status()

    with server([sys.executable, "-m", *command], environment, ready, home / "log", cwd=home):
        names = ("PREFECT_API_URL", "PREFECT_API_AUTH_STRING", "PREFECT_SERVER_ANALYTICS_ENABLED")
        yield Service(address, {name: env[name] for name in names})


@pytest.fixture(scope="session")
def prefect_server(team_env, postgres, tmp_path_factory) -> Iterator[Service]:
    with new_prefect(team_env, postgres, tmp_path_factory.mktemp("prefect")) as service:
        yield service


@pytest.fixture(scope="session")
def prepared_prefect(prefect_server) -> dict[str, str]:
    """The environment of controllers and workers, of a server that `python -m flows.prepare` has prepared."""
    environment = clean(**prefect_server.environment, PYTHONPATH=str(ROOT), DVC_NO_ANALYTICS="1", OMP_NUM_THREADS="1")
    environment |= {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    environment |= {"PREFECT_WORKER_QUERY_SECONDS": "1", "PREFECT_LOGGING_LEVEL": "INFO"}
    done = subprocess.run(
        [sys.executable, "-m", "flows.prepare"], check=False, cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return environment


@contextlib.contextmanager
def worker(name: str, clone: Path, environment: dict[str, str], pool: str = "gpu") -> Iterator[None]:
    """A worker, in a clone of its own."""
    log = clone.with_name(f"{clone.name}-worker.log")
    command = [sys.executable, "-m", "prefect", "worker", "start", "--pool", pool, "--limit", "1", "--name", name]

    def ready() -> None:
        if "started!" not in log.read_text():
            raise OSError

    with server(command, environment, ready, log, cwd=clone):
        yield
