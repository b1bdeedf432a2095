"""The team's way of working: a controller, two workers, PostgreSQL, S3, Prefect and MLflow, each a server or clone of its own."""

import shutil
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import psutil
import pytest
import requests
from mlflow import MlflowClient
from ruamel.yaml import YAML

from flows.remote_stage import SEND_EVERY
from tests.services.conftest import worker
from tests.services.test_handoff import NAMED, wait_for

BUCKET = "s3://genai-dvc"
TRAINED = ("image_diffusion", "text_diffusion")
TARGETS = ("grade@image_diffusion", "evaluate@image_diffusion", "train@text_diffusion")


@pytest.fixture
def here(by_dvc, tmp_path) -> Path:
    """The controller's folder: a finished project, of which two diffusion models are to be trained again."""
    folder = shutil.copytree(by_dvc.folder, tmp_path / "here", symlinks=True)
    yaml = YAML()
    params = yaml.load(folder / "params.yaml")
    for name in TRAINED:
        params["experiments"][name]["train"]["seed"] = 7
    yaml.dump(params, folder / "params.yaml")
    for command in (
        ["dvc", "remote", "add", "-q", "-d", "store", f"{BUCKET}/{tmp_path.parent.name}"],
        ["git", "add", "-A"],
        ["git", *NAMED, "commit", "-q", "--allow-empty", "-m", "results"],
    ):
        by_dvc.run(*command, cwd=folder)
    return folder


def test_diffusion_models_are_trained_by_two_workers_and_seen_in_mlflow_and_prefect(
    here,
    tmp_path,
    prepared_prefect,
    s3,
    mlflow_server,
    monkeypatch,
):
    common = prepared_prefect | s3.environment | {"OMP_NUM_THREADS": "1"}
    controller = common | mlflow_server.environment | {
        "MLFLOW_TRACKING_URI": mlflow_server.address, "MLFLOW_EXPERIMENT_NAME": "team", "GENAI_MODEL_PREFIX": "team-",
        "PREFECT_HOME": str(tmp_path / "prefect"),
    }  # fmt: skip
    with ExitStack() as workers:
        for name in ("one", "another"):
            subprocess.run(["git", "clone", "-q", str(here), str(tmp_path / name)], check=True)
            workers.enter_context(worker(name, tmp_path / name, common))
        done = subprocess.run(
            [sys.executable, "-m", "flows.pipeline", "--gpu", "require", *TARGETS],
            check=False, cwd=here, env=controller, capture_output=True, text=True, timeout=300,
        )  # fmt: skip
    output = done.stdout + done.stderr
    assert done.returncode == 0, output
    for name in TRAINED:
        assert f"{name}: 100%" in output  # its progress, from the worker
        assert (here / f".work/{name}/system.csv").exists() and not (here / f".work/{name}/checkpoint.pt").exists()

    for name, value in mlflow_server.environment.items():
        monkeypatch.setenv(name, value)
    client = MlflowClient(mlflow_server.address)
    experiment = client.get_experiment_by_name("team").experiment_id
    (run,) = client.search_runs([experiment], "tags.`genai.experiment` = 'image_diffusion'")
    assert run.info.status == "FINISHED" and run.data.params["train.seed"] == "7"
    assert {"train/loss", "system/cpu_utilization_percentage", "test/kernel_distance"} <= run.data.metrics.keys()
    assert client.get_model_version_by_alias("team-image_diffusion", "champion").run_id == run.info.run_id

    user, password = prepared_prefect["PREFECT_API_AUTH_STRING"].split(":", 1)

    def seen(what: str) -> dict[str, str]:
        """Return the state of each run by its name."""
        address = f"{prepared_prefect['PREFECT_API_URL']}/{what}/filter"
        found = requests.post(address, json={}, auth=(user, password), timeout=10).json()
        return {run["name"]: run["state_name"] for run in found}

    trained = {f"train@{name}": "Completed" for name in TRAINED}
    assert (trained | {"prepare@digits": "Cached"}).items() <= seen("task_runs").items()  # the controller's
    assert trained.items() <= seen("flow_runs").items()  # the workers'


@pytest.mark.drill
def test_a_training_whose_worker_died_goes_on_elsewhere_to_the_same_bits(by_dvc, here, tmp_path, prepared_prefect, s3):
    yaml = YAML()
    params = yaml.load(here / "params.yaml")
    params["experiments"]["image_diffusion"]["train"].update(steps=4000, validate_every=1000)  # a minute or so
    yaml.dump(params, here / "params.yaml")
    by_dvc.run("git", *NAMED, "commit", "-qam", "longer", cwd=here)
    environment = prepared_prefect | s3.environment | {"PREFECT_HOME": str(tmp_path / "prefect")}
    flow = [sys.executable, "-m", "flows.pipeline", "--no-release", "--gpu"]
    told = {"env": environment, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    alone = shutil.copytree(here, tmp_path / "alone", symlinks=True)
    with ExitStack() as stack:
        for name in ("one", "another"):
            subprocess.run(["git", "clone", "-q", str(here), str(tmp_path / name)], check=True)
        stack.enter_context(worker("one", tmp_path / "one", environment))
        run = stack.enter_context(subprocess.Popen([*flow, "require", "train@image_diffusion"], cwd=here, **told))
        wait_for((tmp_path / "one/.work/image_diffusion/checkpoint.pt").exists, 120)  # after 30 s
        time.sleep(SEND_EVERY + 2)  # the remote has it
        for process in psutil.process_iter(["cwd"]):
            if process.info["cwd"] == str(tmp_path / "one"):
                process.kill()
        stack.enter_context(worker("another", tmp_path / "another", environment))
        told["env"] = environment | {"PREFECT_HOME": str(tmp_path / "prefect of alone")}
        subprocess.run([*flow, "never", "train@image_diffusion"], cwd=alone, check=True, **told)
        output, _ = run.communicate(timeout=400)
    assert run.returncode == 0 and "goes on from its last checkpoint" in output, output
    model = "models/image_diffusion/model.safetensors"
    assert (here / model).read_bytes() == (alone / model).read_bytes()
