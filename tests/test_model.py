"""Models on disk: what is saved comes back, and what is not a model's folder is refused in one line."""

import json
import os
import pickle

import numpy as np
import pytest
import torch

from genai import model as models
from genai.core import config
from genai.core.config import Experiment, UserError, validate
from genai.core.dataset import Description

IMAGES = Description(kind="images", shape=[1, 8, 8], classes=["a", "b", "c"])
GRADIENT = {"method": "gradient_descent", "seed": 0, "threads": 1, "steps": 1, "batch_size": 1, "learning_rate": 0.1}
CNN = validate(Experiment, {
    "data": "digits", "task": "classification", "code": "genai/cnn/classifier.py", "model": "ConvNet",
    "config": {"channels": [4], "n_features": 8}, "train": GRADIENT,
}, "")  # fmt: skip
KMEANS = validate(Experiment, {
    "data": "digits", "task": "clustering", "code": "genai/basics/k_means.py", "model": "KMeans",
    "config": {"n_clusters": 3, "n_init": 1}, "train": {"method": "fit", "seed": 0, "threads": 1},
}, "")  # fmt: skip
HERE = {"python": "3.11"}


@pytest.fixture
def cnn(tmp_path):
    model = models.build("cnn", CNN, IMAGES)
    models.save(tmp_path, "cnn", CNN, IMAGES, model.eval(), HERE)
    return model


def test_a_network_comes_back_bit_for_bit(cnn, tmp_path):
    loaded = models.load(tmp_path)
    x = torch.rand(5, 1, 8, 8)
    assert torch.equal(loaded.model.predict_proba(x), cnn.predict_proba(x))
    assert (loaded.name, loaded.experiment, loaded.description) == ("cnn", CNN, IMAGES)
    assert not loaded.model.training


def test_a_fitted_model_comes_back_bit_for_bit(tmp_path):
    x = np.random.default_rng(0).random((20, 64))
    model = models.build("k_means", KMEANS, IMAGES).fit(x)
    models.save(tmp_path, "k_means", KMEANS, IMAGES, model, HERE)
    loaded = models.load(tmp_path)
    assert np.array_equal(loaded.model.predict(x), model.predict(x))
    assert {k: v.dtype for k, v in models.state(loaded.model).items()} == {
        k: v.dtype for k, v in models.state(model).items()
    }


def test_a_model_of_another_format_is_refused(cnn, tmp_path):
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"format": 99}))
    with pytest.raises(UserError, match="format 99, this version reads 2; train it again"):
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
    with pytest.raises(UserError, match="does not fit ConvNet"):
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


def test_a_task_that_is_not_the_models_is_one_line():
    other = CNN.model_copy(update={"task": "regression"})
    with pytest.raises(
        UserError, match=r"experiments\.cnn\.task: 'regression' should be 'classification', what ConvNet does here"
    ):
        models.build("cnn", other, IMAGES)


def test_data_of_another_kind_and_without_classes_are_one_line():
    with pytest.raises(UserError, match=r"experiments\.cnn\.data: 'digits' holds table; ConvNet takes images"):
        models.build("cnn", CNN, Description(kind="table", shape=[3]))
    with pytest.raises(UserError, match=r"experiments\.cnn\.config: the data have no classes"):
        models.build("cnn", CNN, Description(kind="images", shape=[1, 8, 8]))


def test_a_model_in_a_folder_is_named_with_its_file():
    text = validate(Experiment, {
        "data": "text", "task": "language_model", "code": "genai/diffusion/text", "model": "masked.MaskedDiffusion",
        "config": {"layers": 1, "width": 8, "heads": 2}, "train": GRADIENT,
    }, "")  # fmt: skip
    model = models.build("text", text, Description(kind="text", shape=[8], vocabulary_size=300))
    assert type(model).__name__ == "MaskedDiffusion"


def test_a_model_is_refused_once_its_code_is_edited(cnn, tmp_path, monkeypatch):
    """What a model computes is its weights and its code: evaluation of one with another would be of neither."""
    monkeypatch.setattr(models, "code_hash", lambda code: "another")
    with pytest.raises(
        UserError, match=r"genai/cnn/classifier\.py is not as it was in training; run: dvc repro train@"
    ):
        models.load(tmp_path)
    assert models.load(tmp_path, same_code=False).name == "cnn"


def test_the_hash_of_code_is_that_of_its_python_files(tmp_path, monkeypatch):
    monkeypatch.setattr(config, "ROOT", tmp_path)
    folder = tmp_path / "genai" / "text"
    folder.mkdir(parents=True)
    (folder / "a.py").write_text("a")
    (folder / "b.py").write_text("b")
    first = config.code_hash("genai/text")
    (folder / "README.md").write_text("reading matter")
    (folder / "__pycache__").mkdir()
    assert config.code_hash("genai/text") == first != config.code_hash("genai/text/a.py")
    (folder / "b.py").write_text("c")
    assert config.code_hash("genai/text") != first


def test_a_network_is_applied_in_batches_of_which_nothing_depends(cnn, tmp_path, monkeypatch):
    x = np.random.default_rng(0).random((9, 1, 8, 8), dtype=np.float32)
    whole = models.load(tmp_path).apply("predict_proba", x)
    monkeypatch.setattr(models, "BATCH", 2)
    np.testing.assert_allclose(models.load(tmp_path).apply("predict_proba", x), whole, atol=1e-6)
