"""docker-compose.yml: what it promises of every service; and, by `make drill`, all of it on an engine."""

import contextlib
import os
import re
import subprocess
import sys
import time
import warnings
from pathlib import Path

import boto3
import pytest
import requests
from botocore.config import Config

from services import team
from tests.services.conftest import ROOT, WRONG, composed, free_port

JOBS = {"buckets", "deployments"}
OWN_IMAGES = {"genai-services", "genai-worker"}


@pytest.fixture(scope="module")
def services():
    return composed(team.values(team.filled((ROOT / ".env.example").read_text())))


def test_every_service_is_confined(services):
    for name, service in services.items():
        assert service["cap_drop"] == ["ALL"] and service["read_only"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert not {"privileged", "pid", "network_mode", "devices"} & service.keys(), name
        assert service["logging"]["options"].keys() == {"max-size", "max-file"} and service["pids_limit"], name
        assert "mem_limit" in service or name == "buckets", name
        assert not any("docker.sock" in volume for volume in service.get("volumes", [])), name
    assert {name for name, service in services.items() if "cap_add" in service} == {"postgres"}


def test_images_are_pinned_and_what_stays_up_has_a_health_check(services):
    for name, service in services.items():
        image = service["image"]
        assert image in OWN_IMAGES or re.fullmatch(r"[\w/]+:v?\d[\w.-]*", image), name
        assert "test" in service.get("healthcheck", {}) or name in JOBS, name
        for needed, how in service.get("depends_on", {}).items():
            finished = needed in JOBS
            assert how["condition"] == ("service_completed_successfully" if finished else "service_healthy")


def test_ports_are_on_127_0_0_1_and_workers_do_not_reach_the_database(services):
    ports = {name: service["ports"] for name, service in services.items() if "ports" in service}
    assert ports.keys() == {"mlflow", "prefect", "served"}
    assert all(port.startswith("127.0.0.1:") for published in ports.values() for port in published)
    on_database = {name for name, service in services.items() if "database" in service["networks"]}
    assert on_database == {"postgres", "mlflow", "prefect"}


def test_a_gpu_worker_knows_neither_mlflow_nor_its_keys(services):
    assert any(name.startswith("MLFLOW_TRACKING") for name in services["cpu-worker"]["environment"])
    assert not any(name.startswith("MLFLOW_TRACKING") for name in services["gpu-worker"]["environment"])


def test_each_secret_is_drawn_anew_and_a_missing_one_stops_the_start():
    example = (ROOT / ".env.example").read_text()
    empty = {name for name, value in team.values(example).items() if value == "" or value.endswith(":")}
    one, other = (team.values(team.filled(example)) for _ in range(2))
    drawn = {name for name in one if one[name] != other[name]}
    assert empty == drawn and len(drawn) == 9
    assert len({one[name] for name in drawn}) == len(drawn) and all(len(one[name]) >= 48 for name in drawn)
    compose = (ROOT / "docker-compose.yml").read_text()
    for name in drawn:
        uses = re.findall(rf"\${{{name}\b[^}}]*}}", compose)
        assert uses and all(use.startswith(f"${{{name}:?") for use in uses), name
    named = set(re.findall(r"\${(\w+)", compose))
    assert named <= one.keys()


def test_the_images_have_the_versions_of_the_lock_and_the_servers_no_torch():
    def pins(name):
        return set(re.findall(r"^([\w.-]+==\S+)", (ROOT / name).read_text(), re.MULTILINE))

    own = pins("requirements-services.lock")
    assert own <= pins("requirements.lock") and len(own) > 100
    names = {pin.split("==")[0] for pin in own}
    assert {"mlflow", "prefect", "boto3", "asyncpg", "psycopg2-binary"} <= names
    assert not {name for name in names if name.startswith(("torch", "nvidia", "triton"))}


def test_an_older_env_is_completed_and_what_it_says_stays():
    example = "# a comment\nOLD=\nEMPTY=\nNEW=\nPORT=5000\n"
    before = "OLD=kept\nEMPTY=\nPORT=6000"
    after = team.values(team.completed(before, example))
    assert (after["OLD"], after["PORT"]) == ("kept", "6000")
    assert len(after["NEW"]) == len(after["EMPTY"]) == 48 and after.keys() == team.values(example).keys()
    whole = team.completed(before, example)
    assert team.completed(whole, example) == whole


def test_env_is_written_for_its_owner_alone_and_never_over_another(tmp_path):
    team.write(tmp_path / ".env", "A=1\n")
    assert (tmp_path / ".env").stat().st_mode & 0o777 == 0o600
    assert [path.name for path in tmp_path.iterdir()] == [".env"]


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ([], "usage: python services/team.py up | backup | restore FOLDER"),
        (["restore", ""], "team: BACKUP='' should be a folder that `make backup` wrote; prefect.dump is not in it"),
        (
            ["restore", "docs"],
            "team: BACKUP='docs' should be a folder that `make backup` wrote; prefect.dump is not in it",
        ),
    ],
)
def test_a_mistake_ends_in_one_line(arguments, line):
    command = [sys.executable, ROOT / "services" / "team.py", *arguments]
    answer = subprocess.run(command, check=False, capture_output=True, text=True)
    assert (answer.returncode, answer.stdout, answer.stderr) == (1, "", line + "\n")


# --- the drill: make drill ---------------------------------------------------------------------------


def succeeds(*command: str) -> bool:
    return subprocess.run(command, check=False, capture_output=True).returncode == 0


class Stack:
    """The services of a fresh clone, as `make team` starts them."""

    def __init__(self, folder: Path):
        self.folder = folder
        subprocess.run(["git", "clone", "-q", ROOT, folder], check=True)
        files = "docker-compose.yml"
        image = composed({})["store"]["image"]
        if not (succeeds("docker", "image", "inspect", image) or succeeds("docker", "pull", "--quiet", image)):
            warnings.warn(f"{image} COULD NOT BE PULLED AND WAS NOT RUN: moto stood in for it", stacklevel=1)
            files += ":tests/services/standin.yml"
        self.environment = os.environ | {"COMPOSE_FILE": files, "COMPOSE_PROJECT_NAME": "genai-drill"}
        self.new_env()

    def new_env(self) -> None:
        """Other secrets, and ports and a network that are no other stack's."""
        env = team.values(team.filled((self.folder / ".env.example").read_text()))
        if hasattr(self, "env"):
            ports = {name: self.env[name] for name in ("PREFECT_PORT", "MLFLOW_PORT", "SERVE_PORT")}
        else:
            ports = {name: str(free_port()) for name in ("PREFECT_PORT", "MLFLOW_PORT", "SERVE_PORT")}
        self.env = env | ports | {
            "TEAM_NETWORK": "172.31.78",
            "AWS_ENDPOINT_URL_S3": "http://172.31.78.10:7070",
            "PREFECT_API_URL": f"http://127.0.0.1:{ports['PREFECT_PORT']}/api",
            "MLFLOW_TRACKING_URI": f"http://127.0.0.1:{ports['MLFLOW_PORT']}",
        }  # fmt: skip
        (self.folder / ".env").unlink(missing_ok=True)
        team.write(self.folder / ".env", "".join(f"{name}={value}\n" for name, value in self.env.items()))

    def run(self, *command: str) -> str:
        """Run a command of a client, told what .env says."""
        told = self.environment | self.env
        options = {"cwd": self.folder, "env": told, "capture_output": True, "text": True, "timeout": 400}
        answer = subprocess.run(command, check=False, **options)
        assert answer.returncode == 0, f"{command}: {answer.stdout[-3000:]}{answer.stderr[-3000:]}"
        return answer.stdout

    def team(self, *arguments: str) -> str:
        return self.run(sys.executable, "services/team.py", *arguments)

    def compose(self, *arguments: str) -> str:
        return self.run("docker", "compose", *arguments)

    def container(self, service: str) -> str:
        return self.compose("ps", "--all", "--quiet", service).strip()

    def inspect(self, service: str, what: str) -> str:
        return self.run("docker", "inspect", "--format", what, self.container(service)).strip()

    def store(self):
        """A client of the store."""
        path_style = Config(s3={"addressing_style": "path"}, connect_timeout=5)
        names = {"AWS_ACCESS_KEY_ID": "aws_access_key_id", "AWS_SECRET_ACCESS_KEY": "aws_secret_access_key"}
        keys = {keyword: self.env[name] for name, keyword in names.items()}
        address = self.env["AWS_ENDPOINT_URL_S3"]
        return boto3.client("s3", endpoint_url=address, region_name="us-east-1", config=path_style, **keys)

    def runs(self, state: str) -> list[str]:
        """The flow runs in a state."""
        key = tuple(self.env["PREFECT_API_AUTH_STRING"].split(":"))
        answer = requests.post(f"{self.env['PREFECT_API_URL']}/flow_runs/filter", json={}, auth=key, timeout=20)
        return [run["name"] for run in answer.json() if run["state"]["type"] == state]


@pytest.fixture(scope="module")
def stack(tmp_path_factory):
    if not os.environ.get("GENAI_DRILL"):
        pytest.skip("THE SERVICES WERE NOT RUN FROM docker-compose.yml: make drill does, on a Docker engine")
    if not succeeds("docker", "info"):
        pytest.skip("NO DOCKER ENGINE ANSWERS: the services were not run from docker-compose.yml")
    stack = Stack(tmp_path_factory.mktemp("drill") / "genai")
    try:
        stack.team("up")
        yield stack
    finally:
        stack.compose("--profile", "*", "down", "--volumes", "--timeout", "5")


def test_all_services_are_healthy_and_run_without_privileges(stack):
    states = dict(line.split() for line in stack.compose("ps", "--format", "{{.Service}} {{.Health}}").splitlines())
    assert states == dict.fromkeys(("postgres", "store", "mlflow", "prefect", "cpu-worker"), "healthy")
    for job in JOBS:
        assert stack.inspect(job, "{{.State.Status}} {{.State.ExitCode}}") == "exited 0"
    for service in ("mlflow", "prefect", "cpu-worker"):
        assert stack.compose("exec", "-T", service, "id", "-u").strip() == "1000"
        for compiler in ("gcc", "cc", "g++"):
            assert not stack.compose("exec", "-T", service, "sh", "-c", f"command -v {compiler} || true").strip()
    reach = "import socket; socket.create_connection(('postgres', 5432), 3)"
    with pytest.raises(AssertionError, match="gaierror|TimeoutError"):
        stack.compose("exec", "-T", "cpu-worker", "python", "-c", reach)


def test_clients_here_work_with_what_env_says_and_are_refused_without(stack):
    (stack.folder / "note.txt").write_text("kept")
    dvc = [sys.executable, "-m", "dvc"]
    stack.run(*dvc, "add", "--quiet", "note.txt")
    stack.run(*dvc, "push", "--quiet", "note.txt.dvc")  # by .dvc/config.local, which `make team` wrote
    assert stack.store().list_objects_v2(Bucket="genai-dvc")["KeyCount"] == 1
    assert requests.get(f"{stack.env['AWS_ENDPOINT_URL_S3']}/genai-dvc", timeout=10).status_code == 403
    for key in WRONG:
        mlflow = f"{stack.env['MLFLOW_TRACKING_URI']}/api/2.0/mlflow/experiments/search?max_results=1"
        assert requests.get(mlflow, auth=key, timeout=20).status_code == 401
        assert requests.get(f"{stack.env['PREFECT_API_URL']}/version", auth=key, timeout=20).status_code == 401


def test_a_run_outlives_each_service_that_is_killed(stack):
    if os.geteuid():
        pytest.skip("ONLY ROOT MAY KILL A CONTAINER'S PROCESS: nothing was killed")
    targets = 'targets=["evaluate@mean", "evaluate@ridge", "evaluate@random_forest"]'
    prefect = [sys.executable, "-m", "prefect"]
    stack.run(*prefect, "deployment", "run", "pipeline/all", "--param", targets, "--param", "release=false")
    deadline = time.monotonic() + 600
    while not stack.runs("RUNNING"):
        assert time.monotonic() < deadline
        time.sleep(1)
    for service in ("store", "mlflow", "prefect", "postgres"):
        os.kill(int(stack.inspect(service, "{{.State.Pid}}")), 9)
        while stack.inspect(service, "{{.RestartCount}} {{.State.Health.Status}}") != "1 healthy":  # by its own policy
            assert time.monotonic() < deadline, service
            time.sleep(1)
        if service == "store":
            stack.compose("run", "--rm", "-T", "buckets")  # the stand-in forgets them when it is killed
    while not stack.runs("COMPLETED"):
        assert time.monotonic() < deadline, stack.compose("logs", "--tail", "60", "cpu-worker")
        ended = stack.runs("FAILED") + stack.runs("CRASHED")
        assert not ended, stack.compose("logs", "--no-color", "--tail", "150", "cpu-worker")
        time.sleep(2)
    assert (
        stack.store().list_objects_v2(Bucket="genai-dvc", Prefix="runs/")["KeyCount"] == 8
    )  # the flow has pushed them


def test_a_backup_is_restored_into_an_empty_stack_with_other_secrets(stack):
    stack.compose("run", "--rm", "-T", "buckets")  # the stand-in forgets them when it is killed
    stack.run(sys.executable, "-m", "dvc", "push", "--quiet", "note.txt.dvc")
    script = """
import mlflow
mlflow.set_experiment("kept")
with mlflow.start_run(run_name="kept"):
    mlflow.log_metric("accuracy", 0.5)
    mlflow.log_text("kept", "note.txt")
"""
    stack.run(sys.executable, "-c", script)
    folder = stack.team("backup").split()[-1]
    stack.compose("--profile", "*", "down", "--volumes", "--timeout", "5")
    stack.new_env()
    stack.team("up")
    with contextlib.suppress(FileNotFoundError):
        (stack.folder / "note.txt").unlink()
    stack.team("restore", folder)
    script = """
import mlflow
run, = mlflow.search_runs(experiment_names=["kept"], output_format="list")
assert run.data.metrics == {"accuracy": 0.5} and run.info.run_name == "kept"
assert mlflow.artifacts.load_text(run.info.artifact_uri + "/note.txt") == "kept"
"""
    stack.run(sys.executable, "-c", script)
    subprocess.run(["rm", "-rf", stack.folder / ".dvc" / "cache"], check=True)
    stack.run(sys.executable, "-m", "dvc", "pull", "--quiet", "note.txt.dvc")
    assert (stack.folder / "note.txt").read_text() == "kept"
    assert len(stack.runs("COMPLETED")) == 1  # of Prefect
