"""The whole pipeline, run twice at session scope on real data with tiny numbers: by the flow and by `dvc repro`."""

from pathlib import Path

import pytest
import torch

from tests.project import Project

torch.set_num_threads(
    1
)  # tensors here are small: threads that wait for each other take far longer where others compute, too
AUDIT = Path(__file__).parent / "audit"


@pytest.fixture(scope="session")
def by_flow(tmp_path_factory) -> Project:
    """The project after `python -m flows.pipeline`."""
    project = Project(tmp_path_factory.mktemp("by_flow"))
    project.output = project.flow().stdout
    return project


@pytest.fixture(scope="session")
def by_dvc(tmp_path_factory) -> Project:
    """The project after `dvc repro`, with the files that each stage opened noted in `opened`."""
    project = Project(tmp_path_factory.mktemp("by_dvc"))
    project.opened = tmp_path_factory.mktemp("opened")
    project.output = project.run("dvc", "repro", PYTHONPATH=str(AUDIT), OPENED=str(project.opened)).stdout
    return project
