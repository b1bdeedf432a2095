"""What prefect.yaml deploys beside stages: a release that a person is asked for, batches by a champion; on one worker."""

import json
import shutil
import subprocess
import sys
import time

import pytest
import requests
from mlflow.models import get_model_info

from tests.services.conftest import ROOT, worker
from tests.services.test_handoff import NAMED


@pytest.fixture
def here(by_dvc, tmp_path):
    """The worker's clone, in which all is done but the release."""
    folder = shutil.copytree(by_dvc.folder, tmp_path / "cpu", symlinks=True)
    for command in (["add", "-A"], [*NAMED, "commit", "-q", "--allow-empty", "-m", "results"]):
        by_dvc.run("git", *command, cwd=folder)
    return folder


class Api:
    """Prefect's, as its pages use it."""

    def __init__(self, environment: dict[str, str]):
        self.address = environment["PREFECT_API_URL"]
        self.key = tuple(environment["PREFECT_API_AUTH_STRING"].split(":", 1))

    def __call__(self, method: str, path: str, **body) -> dict:
        answer = requests.request(method, f"{self.address}/{path}", json=body or None, auth=self.key, timeout=20)
        answer.raise_for_status()
        return answer.json()

    def start(self, deployment: str, **parameters) -> str:
        """Run a deployment; return the id of the run."""
        deployed = self("GET", f"deployments/name/{deployment}")["id"]
        return self("POST", f"deployments/{deployed}/create_flow_run", parameters=parameters)["id"]

    def reaches(self, run: str, *names: str) -> str:
        """Wait until the run is in a state of one of these names; return its message."""
        end = time.monotonic() + 120
        while True:
            state = self("GET", f"flow_runs/{run}")["state"]
            if state["name"] in names:
                return state["message"] or ""
            assert time.monotonic() < end and state["type"] not in ("FAILED", "CRASHED", "COMPLETED"), state
            time.sleep(0.5)


def test_a_person_is_asked_for_the_release_and_its_worker_does_other_work_meanwhile(
    here, prepared_prefect, mlflow_server, monkeypatch
):
    environment = prepared_prefect | mlflow_server.environment | {
        "MLFLOW_TRACKING_URI": mlflow_server.address, "MLFLOW_EXPERIMENT_NAME": "asked", "GENAI_MODEL_PREFIX": "asked-",
        "PREFECT_HOME": str(here.parent / "prefect"), "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    api, champion = Api(environment), "models:/asked-ridge@champion"
    (here / "batch").mkdir()
    with worker("cpu", here, environment, "cpu"):
        declined, asked = (api.start("release/ask", names=["ridge", "text_diffusion"]) for _ in range(2))
        for run in (declined, asked):
            api.reaches(run, "Suspended")
        missing = api.start("batch/predict", model=champion, file="batch/rows.csv", out="batch/answers.json")
        assert api.reaches(missing, "Failed") == f"file: 'batch/rows.csv' is not in {here}, the folder of the worker"
        api("POST", f"flow_runs/{declined}/resume", run_input={"release": False})
        assert "declined" in api.reaches(declined, "Completed")
        api("POST", f"flow_runs/{asked}/resume", run_input={"release": True})
        assert api.reaches(asked, "Completed") == "released"
        columns = get_model_info(champion).signature.inputs.input_names()
        (here / "batch/rows.csv").write_text(",".join(columns) + "\n" + ",".join("0" for _ in columns) + "\n")
        answered = api.start("batch/predict", model=champion, file="batch/rows.csv", out="batch/answers.json")
        assert api.reaches(answered, "Completed") == "written: batch/answers.json"
        (here / "batch/prompts.csv").write_text("prompt\nIn the beginning\nAnd God said\n")
        told = {
            "model": "models:/asked-text_diffusion@champion",
            "file": "batch/prompts.csv",
            "out": "batch/texts.json",
        }
        assert api.reaches(api.start("batch/generate", **told), "Completed") == "written: batch/texts.json"
    assert len(json.loads((here / "batch/answers.json").read_text())["predictions"]) == 1
    texts = json.loads((here / "batch/texts.json").read_text())["predictions"]
    assert [next(iter(text.values()))[:4] for text in texts] == ["In t", "And "]
    left = sorted(path.name for path in (here / "batch").iterdir())
    assert left == ["answers.json", "prompts.csv", "rows.csv", "texts.json"]


def test_a_schedule_that_was_switched_on_stays_on(prepared_prefect):
    api = Api(prepared_prefect)

    def nightly() -> dict:
        (schedule,) = api("GET", "deployments/name/pipeline/all")["schedules"]
        return schedule

    def switch(active: bool) -> None:
        deployed, schedule = api("GET", "deployments/name/pipeline/all")["id"], nightly()["id"]
        address = f"{api.address}/deployments/{deployed}/schedules/{schedule}"
        requests.patch(address, json={"active": active}, auth=api.key, timeout=20).raise_for_status()

    assert not nightly()["active"]
    switch(True)
    prepare = [sys.executable, "-m", "flows.prepare"]
    subprocess.run(prepare, check=True, cwd=ROOT, env=prepared_prefect, capture_output=True)
    assert nightly()["active"]
    switch(False)


@pytest.mark.parametrize(
    ("name", "value", "line"),
    [
        ("PREFECT_API_AUTH_STRING", "admin:wrong", "answers 401; PREFECT_API_AUTH_STRING should be the server's USER:PASSWORD"),
        ("PREFECT_API_URL", "http://127.0.0.1:9/api", "http://127.0.0.1:9/api should be a server that runs: "),
    ],
)  # fmt: skip
@pytest.mark.parametrize("command", ["prepare", "pipeline"])
def test_a_wrong_key_or_address_ends_in_one_line(prepared_prefect, name, value, line, command):
    told = prepared_prefect | {name: value}
    run = [sys.executable, "-m", f"flows.{command}"]
    done = subprocess.run(run, check=False, cwd=ROOT, env=told, capture_output=True, text=True)
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith(f"{command}: PREFECT_API_URL: ") and line in done.stderr
