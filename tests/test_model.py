"""Models on disk: what is saved comes back, and what is not a model's folder is refused in one line."""

import json
import os
import pickle

import numpy as np
import pytest
import torch

from genai import model as models
from genai.core.config import Experiment, UserError
from genai.core.dataset import Description

IMAGES = Description(kind="images", shape=[1, 8, 8], classes=["a", "b", "c"])
TRAIN = {"seed": 0, "threads": 1}
CNN = Experiment(
    data="digits", model="cnn.classifier.ConvNet", code="genai/cnn/classifier.py", judge="cnn",
    config={"channels": [4], "n_features": 8}, train=TRAIN | {"steps": 1, "batch_size": 1, "learning_rate": 0.1},
)  # fmt: skip
KMEANS = Experiment(
    data="digits", model="basics.k_means.KMeans", code="genai/basics/k_means.py", judge="k_means",
    config={"n_clusters": 3, "n_init": 1}, train=TRAIN,
)  # fmt: skip


@pytest.fixture
def cnn(tmp_path):
    model = models.build("cnn", CNN, IMAGES)
    models.save(tmp_path, "cnn", CNN, IMAGES, model.eval())
    return model


def test_a_network_comes_back_bit_for_bit(cnn, tmp_path):
    loaded = models.load(tmp_path)
    x = torch.rand(5, 1, 8, 8)
    assert torch.equal(loaded.model.predict_proba(x), cnn.predict_proba(x))
    assert (loaded.name, loaded.experiment, loaded.description) == ("cnn", CNN, IMAGES)
    assert not loaded.model.training


def test_a_fitted_model_comes_back_bit_for_bit(tmp_path):
    x = np.random.default_rng(0).random((20, 1, 8, 8))
    model = models.build("k_means", KMEANS, IMAGES).fit(x, None, 0)
    models.save(tmp_path, "k_means", KMEANS, IMAGES, model)
    loaded = models.load(tmp_path)
    assert np.array_equal(loaded.model.predict(x), model.predict(x))
    assert {k: v.dtype for k, v in models.state(loaded.model).items()} == {
        k: v.dtype for k, v in models.state(model).items()
    }


def test_a_model_of_another_format_is_refused(cnn, tmp_path):
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"format": 99}))
    with pytest.raises(UserError, match="format 99, this version reads 1; train it again"):
        models.load(tmp_path)


def test_no_model_a_truncated_one_and_one_of_other_shapes_are_refused(cnn, tmp_path):
    with pytest.raises(UserError, match="no trained model here; run: dvc repro train@"):
        models.load(tmp_path / "nothing")
    weights = (tmp_path / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(weights[:-10])
    with pytest.raises(UserError, match="not readable as safetensors"):
        models.load(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(weights)
    config = json.loads((tmp_path / "config.json").read_text())
    config["experiment"]["config"]["n_features"] = 9
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match="does not fit cnn.classifier.ConvNet"):
        models.load(tmp_path)
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(UserError, match="not a model's config"):
        models.load(tmp_path)


class Poison:
    def __reduce__(self):
        return os.mkdir, ("poisoned",)


def test_a_poisoned_pickle_is_refused_and_not_run(cnn, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(pickle.dumps(Poison()))
    with pytest.raises(UserError, match="not readable as safetensors"):
        models.load(tmp_path)
    torch.save(Poison(), tmp_path / "model.safetensors")
    with pytest.raises(UserError, match="not readable as safetensors"):
        models.load(tmp_path)
    assert not (tmp_path / "poisoned").exists()


def test_a_config_that_does_not_go_with_the_data_is_one_line():
    deep = CNN.model_copy(update={"config": {"channels": [4, 4, 4, 4], "n_features": 8}})
    with pytest.raises(UserError, match=r"experiments\.cnn\.config: channels: 4 stages should be at most 3"):
        models.build("cnn", deep, IMAGES)
