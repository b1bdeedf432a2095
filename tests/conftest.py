"""The whole pipeline, run twice at session scope on real data with tiny numbers: by the flow and by `dvc repro`."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from ruamel.yaml import YAML

ROOT = Path(__file__).parents[1]
ENVIRONMENT = {
    **{k: v for k, v in os.environ.items() if not k.startswith(("PREFECT_", "MLFLOW_", "DVC_"))},
    "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    "DVC_NO_ANALYTICS": "1",
    "DO_NOT_TRACK": "1",
}


def shrink(params: dict) -> dict:
    """Return the project's parameters with a few steps instead of many; everything else as it is."""
    for data in params["datasets"].values():
        if data["source"] == "python_reference":
            data.update(test=0.01, validation=0.01)
    for experiment in params["experiments"].values():
        if "steps" in experiment["train"]:
            experiment["train"].update(steps=4, validate_every=2, batch_size=4)
    for generator in params["generators"].values():
        generator["grade"]["n"] = 10 if generator["task"] == "image_generation" else 2
        if "steps" in generator["sampling"]:
            generator["sampling"].update(steps=2)
        if "per_class" in generator["show"]:
            generator["show"].update(per_class=2)
        else:
            generator["show"].update(n=1, prompts=generator["show"]["prompts"][:1])
    return params


class Project:
    """A copy of the project in a folder of its own, with the commands a user runs in it."""

    def __init__(self, folder: Path):
        self.folder = folder
        files = subprocess.run(
            ["git", "ls-files", "--cached", "--others", "--exclude-standard", "genai", "flows", ".dvc", ".dvcignore", "dvc.yaml", ".gitignore"],
            cwd=ROOT, check=True, capture_output=True, text=True,
        ).stdout.split()  # fmt: skip
        for file in files:
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / file, folder / file)
        yaml = YAML()
        self.params = shrink(yaml.load(ROOT / "params.yaml"))
        self.write_params()
        for command in (
            ["init", "-q"],
            ["add", "-A"],
            ["-c", "user.name=t", "-c", "user.email=t@t", "commit", "-qm", "start"],
        ):
            subprocess.run(["git", *command], cwd=folder, check=True)

    def write_params(self) -> None:
        YAML().dump(self.params, self.folder / "params.yaml")

    def run(
        self, *command: str, check: bool = True, cwd: Path | None = None, **environment: str
    ) -> subprocess.CompletedProcess:
        """Run a command to its end; with `check`, fail showing its output."""
        done = subprocess.run(
            command,
            check=False,
            cwd=cwd or self.folder,
            env=ENVIRONMENT | environment,
            capture_output=True,
            text=True,
            timeout=600,
        )
        assert not check or done.returncode == 0, f"{command}: exit {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    def genai(self, *arguments: str, **options) -> subprocess.CompletedProcess:
        return self.run(sys.executable, "-m", "genai", *arguments, **options)

    def flow(self, *arguments: str, **options) -> subprocess.CompletedProcess:
        return self.run(sys.executable, "-m", "flows.pipeline", *arguments, **options)


@pytest.fixture(scope="session")
def by_flow(tmp_path_factory) -> Project:
    """The project after `python -m flows.pipeline`."""
    project = Project(tmp_path_factory.mktemp("by_flow"))
    project.output = project.flow().stdout
    return project


@pytest.fixture(scope="session")
def by_dvc(tmp_path_factory) -> Project:
    """The project after `dvc repro`."""
    project = Project(tmp_path_factory.mktemp("by_dvc"))
    project.output = project.run("dvc", "repro").stdout
    return project
