"""The whole pipeline, run twice at session scope on real data with tiny numbers: by the flow and by `dvc repro`."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.project import ENVIRONMENT, Project

torch.set_num_threads(1)  # tensors are small; beside other work two threads took fourteen times as long
AUDIT = Path(__file__).parent / "audit"


def pytest_collection_modifyitems(config, items):
    if not os.environ.get("GENAI_DRILL"):
        for item in items:
            if item.get_closest_marker("drill"):
                item.add_marker(pytest.mark.skip(reason="takes minutes: make drill"))


@pytest.fixture(scope="session")
def by_flow(tmp_path_factory) -> Project:
    """The project after `python -m flows.pipeline`."""
    project = Project(tmp_path_factory.mktemp("by_flow"))
    project.output = project.flow().stdout
    return project


@pytest.fixture(scope="session", autouse=True)
def dvc_repro(request, tmp_path_factory) -> Iterator[tuple[Project, subprocess.Popen] | None]:
    """`dvc repro`, begun with the session where a test will ask for what it leaves: other tests run meanwhile."""
    if not any("by_dvc" in item.fixturenames for item in request.session.items):
        yield None
        return
    project = Project(tmp_path_factory.mktemp("by_dvc"))
    project.opened = tmp_path_factory.mktemp("opened")
    environment = ENVIRONMENT | {"PYTHONPATH": str(AUDIT), "OPENED": str(project.opened)}
    with (
        open(project.opened.with_suffix(".log"), "w+") as project.log,
        subprocess.Popen(
            ["dvc", "repro"], cwd=project.folder, env=environment, stdout=project.log, stderr=project.log
        ) as process,
    ):
        yield project, process
        process.terminate()  # where no test came to ask


@pytest.fixture(scope="session")
def by_dvc(dvc_repro) -> Project:
    """The project after `dvc repro`, with the files that each stage opened noted in `opened`."""
    project, process = dvc_repro
    status = process.wait(600)
    project.log.seek(0)
    assert status == 0, project.log.read()
    return project
