"""Registered models behind HTTP, through MLflow's own server, and in this process."""

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import requests
from genai.evaluate import apply
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from genai import model, tracking
from genai.core.dataset import Description
from tests import project

TEXT = Description(kind="text", shape=[32], vocabulary_size=256)
SAMPLING = {"length": 32, "steps": 4}
IMAGE_MODEL = {"channels": [4, 4], "n_embedding": 8}
IMAGE_SAMPLING = {"per_class": 1, "steps": 2, "seed": 0}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A project with a released model of every task."""
    root = tmp_path_factory.mktemp("project")
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={letter: i for i, letter in enumerate(letters)}, merges=[]))
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    tokenizer.save(str(root / "tokenizer.json"))
    shape = {"layers": 1, "width": 8, "heads": 2}
    about = {"description": TEXT, "steps": 3, "data": "text", "tokenizer": root / "tokenizer.json", "sample": SAMPLING}
    project.finish(root, "text_diffusion", "diffusion.text.MaskedDiffusion", shape, **about)
    about = {"description": project.IMAGES, "steps": 3, "data": "digits"}
    project.finish(root, "cnn", "cnn.classifier.ConvNet", {"channels": [4], "n_features": 8}, **about)
    project.finish(root, "image_diffusion", "diffusion.image.FlowMatching", IMAGE_MODEL, **about, sample=IMAGE_SAMPLING)
    del about["steps"]
    project.finish(root, "k_means", "basics.k_means.KMeans", {"n_clusters": 10, "n_init": 2}, **about)
    project.finish(root, "linear_regression", "basics.linear_regression.LinearRegression", {"l2": 1.0})
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        tracking.release(root, None)
    return root


@pytest.fixture(scope="module")
def served(root):
    """`mlflow models serve` of the champions, as a user would type it: no settings, the store in the current folder."""
    started = {}
    environment = os.environ | {"MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false", "OMP_NUM_THREADS": "1"}
    environment["PATH"] = f"{Path(sys.executable).parent}:{environment['PATH']}"
    for name in ("text_diffusion", "cnn"):
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        command = f"mlflow models serve -m models:/{name}@champion --env-manager local --port {port}"
        with open(root / f"{name}.log", "w") as log:
            started[name] = port, subprocess.Popen(command.split(), cwd=root, env=environment, stdout=log, stderr=log)
    try:
        for name, (port, process) in started.items():
            deadline = time.monotonic() + 120
            while True:
                try:
                    requests.get(f"http://127.0.0.1:{port}/ping").raise_for_status()
                    break
                except requests.ConnectionError:
                    assert process.poll() is None and time.monotonic() < deadline, (root / f"{name}.log").read_text()
                    time.sleep(0.2)
        yield {name: f"http://127.0.0.1:{port}/invocations" for name, (port, _) in started.items()}
    finally:
        for _, process in started.values():
            process.terminate()
            process.wait()


def test_a_prompt_is_answered_with_text_over_http(served):
    def ask(prompt, **params):
        answer = requests.post(
            served["text_diffusion"], json={"dataframe_records": [{"prompt": prompt}], "params": params}
        )
        assert answer.status_code == 200, answer.text
        return answer.json()["predictions"][0]["text"]

    text = ask("def ")
    assert text.startswith("def ") and len(text) > 4
    assert text == ask("def ") == ask("def ", steps=SAMPLING["steps"])  # the experiment's numbers are the defaults
    assert text != ask("def ", seed=1)
    filled = ask("if [[5]]: pass", temperature=0.5)
    assert filled.startswith("if ") and filled.endswith(": pass")


@pytest.mark.parametrize(
    ("prompt", "params", "line"),
    [
        (" ", {}, "prompt: ' ' is empty"),
        ("a" * 40, {}, "prompt: 40 tokens where the model takes 31"),
        (3, {}, "prompt: 3 should be a string"),
        ("a", {"steps": 0}, "sample.steps: 0 should be greater than or equal to 1"),
    ],
)
def test_a_bad_prompt_is_status_400_with_the_reason(served, prompt, params, line):
    answer = requests.post(served["text_diffusion"], json={"dataframe_records": [{"prompt": prompt}], "params": params})
    assert answer.status_code == 400
    assert f"Error: {line}" in answer.json()["message"] and "stack_trace" not in answer.json()


def test_images_are_answered_with_class_probabilities_over_http(root, served):
    x = np.random.default_rng(0).random((3, 1, 8, 8), dtype=np.float32)
    answer = requests.post(served["cnn"], json={"inputs": x.tolist()})
    assert answer.status_code == 200, answer.text
    probabilities = pd.DataFrame(answer.json()["predictions"])
    assert list(probabilities) == project.IMAGES.classes
    expected = apply(model.load(root / "models" / "cnn").model, "predict_proba", x)
    np.testing.assert_allclose(probabilities, expected, atol=1e-6)
    answer = requests.post(served["cnn"], json={"inputs": np.zeros((1, 1, 7, 7)).tolist()})
    assert (
        answer.status_code == 400
        and "(1, 1, 7, 7) does not match expected shape (-1, 1, 8, 8)" in answer.json()["message"]
    )


@pytest.fixture
def champion(root, monkeypatch):
    """The champion of a name, loaded as MLflow loads it where pickle is forbidden."""
    monkeypatch.chdir(root)
    monkeypatch.setenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    import mlflow.pyfunc

    return lambda name: mlflow.pyfunc.load_model(f"models:/{name}@champion")


def test_each_task_answers_its_own_example(root, champion):
    from mlflow.models import Model

    for name, columns in {
        "linear_regression": ["prediction"],
        "k_means": ["cluster"],
        "cnn": project.IMAGES.classes,
    }.items():
        loaded = champion(name)
        example = loaded.input_example
        prediction = loaded.predict(example)
        assert list(prediction) == columns == loaded.metadata.signature.outputs.input_names() and len(prediction) == 1
        assert isinstance(loaded.metadata, Model) and loaded.metadata.signature.inputs is not None
    x = np.random.default_rng(0).random((4, 3), dtype=np.float32)
    expected = model.load(root / "models" / "linear_regression").model.predict(x)
    np.testing.assert_allclose(champion("linear_regression").predict(x)["prediction"], expected)


def test_labels_are_answered_with_images(champion):
    from mlflow.exceptions import MlflowException

    loaded = champion("image_diffusion")
    images = loaded.predict(pd.DataFrame({"label": ["3", "3", "7"]}))
    assert images.shape == (3, 1, 8, 8) and images.min() >= 0 and images.max() <= 1
    other = loaded.predict(pd.DataFrame({"label": ["3"]}), params={"seed": 5})
    assert not np.array_equal(other[0], images[0])
    with pytest.raises(MlflowException, match="label: 'cat' should be one of 0, 1, 2"):
        loaded.predict(pd.DataFrame({"label": ["cat"]}))
