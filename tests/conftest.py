"""The whole pipeline, run twice at session scope on real data with tiny numbers: by the flow and by `dvc repro`."""

import os
from pathlib import Path

import pytest
import torch
from xdist.scheduler import LoadScopeScheduling

from tests.project import Project

torch.set_num_threads(1)  # tensors are small; beside other work two threads took fourteen times as long
AUDIT = Path(__file__).parent / "audit"


class ByFile(LoadScopeScheduling):
    """Files are shared among the processes of `make test`; those that run the pipeline and servers are as one file."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.split("::")[0]
        return "whole" if is_of_the_whole(file) else file


def is_of_the_whole(nodeid: str) -> bool:
    """Return whether a test needs the whole pipeline, or the team's servers."""
    return nodeid.startswith(("tests/services/", "tests/test_dag", "tests/test_pipeline", "tests/test_travel"))


def pytest_xdist_make_scheduler(config, log):
    return ByFile(config, log)


def pytest_collection_modifyitems(config, items):
    if not os.environ.get("GENAI_DRILL"):
        for item in items:
            if item.get_closest_marker("drill"):
                item.add_marker(pytest.mark.skip(reason="takes minutes: make drill"))
    items.sort(key=lambda item: not is_of_the_whole(item.nodeid))  # what takes longest comes first


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
    project.run("dvc", "repro", PYTHONPATH=str(AUDIT), OPENED=str(project.opened))
    return project
