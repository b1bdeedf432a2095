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

from genai import model, tracking
from genai.tracking import pyfunc
from tests import project
from tests.tracking.conftest import clean

SAMPLING = project.DIFFUSION["generator"]["sampling"]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A project with a released model of every task."""
    root = tmp_path_factory.mktemp("project")
    project.finish(root, "n_gram", **project.N_GRAM, scores=np.ones(20))
    project.finish(root, "text_diffusion", **project.DIFFUSION, scores=np.ones(20))
    project.finish(root, "cnn", **project.CNN)
    project.finish(root, "image_diffusion", **project.FLOW, scores=np.ones(20))
    project.finish(root, "plain_flow", **project.FLOW | {"generator": None}, scores=np.ones(20))
    project.finish(root, "k_means", **project.K_MEANS)
    project.finish(root, "linear_regression", **project.LINEAR)
    project.finish(root, "of_rows", **project.OF_ROWS)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        clean(patch)
        tracking.release(root, None)
    return root


@pytest.fixture(scope="module")
def served(root):
    """`mlflow models serve` of the champions, as a user would type it: no settings, the store in the current folder."""
    started = {}
    environment = os.environ | {"MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false", "OMP_NUM_THREADS": "1"}
    environment["PATH"] = f"{Path(sys.executable).parent}:{environment['PATH']}"
    for name in ("text_diffusion", "cnn", "of_rows"):
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
    assert text == ask("def ") == ask("def ", steps=SAMPLING["steps"])  # the generator's numbers are the defaults
    assert text != ask("def ", seed=1)
    other = ask("def ", sampler="threshold", threshold=0.5)  # the generator's steps are not its concern
    assert other.startswith("def ") and other != text
    filled = ask("if [[5]]: pass", temperature=0.5)
    assert filled.startswith("if ") and filled.endswith(": pass")


@pytest.mark.parametrize(
    ("prompts", "params", "line"),
    [
        ([" "], {}, "prompt: ' ' is empty"),
        (["a" * 40], {}, "prompt: 40 tokens where the model takes 31"),
        ([3], {}, "prompt: 3 should be a string"),
        (["a"], {"steps": 0}, "sampling.steps: 0 should be greater than or equal to 1"),
        (["a"], {"steps": 10**7}, "sampling.steps: 10000000 should be less than or equal to"),
        (["a"], {"temperature": 1e9}, "sampling.temperature: 1000000000.0 should be less than or equal to"),
        (["a"] * 65, {}, "prompt: 65 rows in one request, should be at most 64"),
        (["[[9999999]]a"], {}, "prompt: a gap of 9999999 tokens where the model takes 32"),
    ],
)
def test_what_asks_for_too_much_is_status_400_with_the_reason(served, prompts, params, line):
    records = [{"prompt": prompt} for prompt in prompts]
    answer = requests.post(served["text_diffusion"], json={"dataframe_records": records, "params": params})
    assert answer.status_code == 400
    assert line in answer.json()["message"] and "stack_trace" not in answer.json()


def test_images_are_answered_with_class_probabilities_over_http(root, served):
    x = np.random.default_rng(0).random((3, 1, 8, 8), dtype=np.float32)
    answer = requests.post(served["cnn"], json={"inputs": x.tolist()})
    assert answer.status_code == 200, answer.text
    probabilities = pd.DataFrame(answer.json()["predictions"])
    assert list(probabilities) == project.IMAGES.classes
    expected = model.load(root / "models" / "cnn").apply("predict_proba", x)
    np.testing.assert_allclose(probabilities, expected, atol=1e-6)
    answer = requests.post(served["cnn"], json={"inputs": np.zeros((1, 1, 7, 7)).tolist()})
    message = "(1, 1, 7, 7) does not match expected shape (-1, 1, 8, 8)"
    assert answer.status_code == 400 and message in answer.json()["message"]


@pytest.fixture
def champion(root, monkeypatch):
    """The champion of a name, loaded as MLflow loads it where pickle is forbidden."""
    monkeypatch.chdir(root)
    monkeypatch.setenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")
    clean(monkeypatch)
    import mlflow.pyfunc

    return lambda name: mlflow.pyfunc.load_model(f"models:/{name}@champion")


@pytest.mark.parametrize(
    "name",
    ["n_gram", "text_diffusion", "cnn", "image_diffusion", "plain_flow", "k_means", "linear_regression", "of_rows"],
)
def test_each_task_answers_its_own_example_as_its_signature_says(champion, name):
    loaded = champion(name)
    answer, outputs = loaded.predict(loaded.input_example), loaded.metadata.signature.outputs
    assert len(answer) == 1 and loaded.metadata.signature.inputs is not None
    if outputs.is_tensor_spec():
        assert answer.shape[1:] == outputs.inputs[0].shape[1:] and answer.dtype == outputs.inputs[0].type
    else:
        assert list(answer) == outputs.input_names()


def test_a_served_model_answers_what_the_model_predicts(root, champion):
    x = np.random.default_rng(0).random((4, 3), dtype=np.float32)
    expected = model.load(root / "models" / "linear_regression").model.predict(x)
    np.testing.assert_allclose(champion("linear_regression").predict(x)["prediction"], expected)


def test_the_rows_of_a_table_are_answered_over_http_and_other_columns_refused_by_name(root, served):
    """A column may have the name of another task's request: it is not held to that one's limits."""

    def ask(rows):
        return requests.post(served["of_rows"], json={"dataframe_records": rows})

    rows = [{"city": "Oslo", "label": 50}, {"label": 30.0, "city": None}, {"label": None, "city": "Paris"}]
    answer = ask(rows * 200)
    assert answer.status_code == 200, answer.text
    x = np.array([[1, 0, 1, 0, 0], [-1, 0, 0, 0, 1], [0, 0, 0, 0, 0]], dtype=np.float32)
    expected = model.load(root / "models" / "of_rows").model.predict(x)
    np.testing.assert_allclose(pd.DataFrame(answer.json()["predictions"])["prediction"][:3], expected, rtol=1e-6)
    for row, line in [
        ({"label": 1, "town": "Oslo"}, "Model is missing inputs ['city']. Note that there were extra inputs: ['town']"),
        ({"label": "young", "city": "Oslo"}, "could not convert string to float: 'young'"),
    ]:
        answer = ask([row])
        assert answer.status_code == 400 and line in answer.json()["message"], answer.text


def test_columns_that_differ_are_named_where_mlflow_does_not_look(root):
    from mlflow.exceptions import MlflowException

    loaded = pyfunc.Served(root / "models" / "of_rows")
    with pytest.raises(MlflowException, match="columns missing: 'city'; unknown: 'town'; should be 'label', 'city'"):
        loaded.predict(pd.DataFrame({"label": [1.0], "town": ["Oslo"]}))


def test_the_example_of_a_table_is_a_row_that_it_takes(champion):
    example = champion("of_rows").input_example
    assert example.to_dict("list") == {"label": [40.0], "city": ["Lima"]}
    types = {column.name: column.type.name for column in champion("of_rows").metadata.signature.inputs.inputs}
    assert types == {"label": "double", "city": "string"}


def test_labels_are_answered_with_images(champion):
    from mlflow.exceptions import MlflowException

    loaded = champion("image_diffusion")
    images = loaded.predict(pd.DataFrame({"label": ["3", "3", "7"]}))
    assert images.shape == (3, 1, 8, 8) and images.min() >= 0 and images.max() <= 1
    other = loaded.predict(pd.DataFrame({"label": ["3"]}), params={"seed": 5})
    assert not np.array_equal(other[0], images[0])
    for data, params, line in [
        (["cat"], {}, "label: 'cat' should be one of 0, 1, 2"),
        (["3"] * 257, {}, "label: 257 rows in one request, should be at most 256"),
        (["3"], {"steps": 10**7}, "sampling.steps: 10000000 should be less than or equal to 1000"),
    ]:
        with pytest.raises(MlflowException, match=line):
            loaded.predict(pd.DataFrame({"label": data}), params=params)


def test_too_many_examples_are_refused(champion):
    from mlflow.exceptions import MlflowException

    loaded, n = champion("linear_regression"), pyfunc.MAX_EXAMPLES
    assert len(loaded.predict(np.zeros((n, 3), np.float32))) == n
    with pytest.raises(MlflowException, match=f"inputs: {n + 1} rows in one request, should be at most {n}"):
        loaded.predict(np.zeros((n + 1, 3), np.float32))


def test_an_empty_text_is_certain(champion):
    nats = champion("n_gram").predict(pd.DataFrame({"text": ["", "the file", "the file the"]}))["nats"]
    assert nats[0] == 0 < nats[1] < nats[2]


def test_a_model_of_other_code_is_not_loaded_into_this_one(root, champion, monkeypatch):
    """Weights that fit by chance would give wrong answers without a word."""
    import genai.model

    monkeypatch.setattr(genai.model, "code_hash", lambda _: "another")
    with pytest.raises(Exception, match="is not as it was in training"):
        champion("linear_regression")
