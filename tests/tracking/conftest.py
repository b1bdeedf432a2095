"""An empty project with a store of its own."""

import shutil

import pytest

from genai.tracking.store import Store


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory):
    """A store that MLflow has set up: that takes seconds, a copy of it none."""
    with pytest.MonkeyPatch.context() as patch:
        clean(patch)
        root = tmp_path_factory.mktemp("store")
        patch.setenv("MLFLOW_EXPERIMENT_NAME", "unused")  # the project makes its own, with its own folder for artifacts
        Store(root)
    return root / "mlflow.db"


@pytest.fixture
def root(empty_store, tmp_path, monkeypatch):
    """An empty project in the current folder."""
    shutil.copy(empty_store, tmp_path)
    clean(monkeypatch)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def clean(patch):
    for variable in ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME", "GENAI_MODEL_PREFIX"):
        patch.delenv(variable, raising=False)
