"""params.yaml: what is right loads, and each mistake gets one line that names path, value and what is right."""

import copy

import pytest
from ruamel.yaml import YAML

from genai.core import config
from genai.core.config import UserError

GOOD = {
    "datasets": {
        "diabetes": {"source": "diabetes", "validation": 0.2, "test": 0.2, "seed": 0},
        "digits": {"source": "digits", "validation": 0.2, "test": 0.2, "seed": 0},
    },
    "experiments": {
        "cnn": {
            "data": "digits",
            "model": "cnn.classifier.ConvNet",
            "code": "genai/cnn/classifier.py",
            "judge": "cnn",
            "config": {"channels": [8], "n_features": 8},
            "train": {"seed": 0, "threads": 1, "steps": 10, "batch_size": 8, "learning_rate": 1e-3},
        },
        "mean": {
            "data": "diabetes",
            "model": "basics.baselines.Mean",
            "code": "genai/basics/baselines.py",
            "judge": "mean",
            "config": {},
            "train": {"seed": 0, "threads": 1},
        },
    },
}


def check(tmp_path, values) -> None:
    path = tmp_path / "params.yaml"
    with open(path, "w") as file:
        YAML().dump(values, file)
    config.check(config.load(path))


def changed(path: str, value) -> dict:
    values = copy.deepcopy(GOOD)
    *parents, last = path.split(".")
    inner = values
    for parent in parents:
        inner = inner[parent]
    if value is None:
        del inner[last]
    else:
        inner[last] = value
    return values


def test_good_parameters_load_frozen(tmp_path):
    check(tmp_path, GOOD)
    params = config.load(tmp_path / "params.yaml")
    with pytest.raises(ValueError, match="frozen"):
        params.experiments["cnn"].train.steps = 3


@pytest.mark.parametrize(
    ("path", "value", "line"),
    [
        ("experiments.cnn.train.learning_rate", -1, r"experiments\.cnn\.train\.learning_rate: -1 should be greater than 0"),
        ("experiments.cnn.train.learning_rate", "fast", r"cnn\.train\.learning_rate: 'fast' should be a valid number"),
        ("experiments.cnn.train.steps", 2.5, r"cnn\.train\.steps: 2\.5 should be a valid integer"),
        ("experiments.cnn.train.steps", True, r"cnn\.train\.steps: True should be a valid integer"),
        ("experiments.cnn.train.learning_rat", 1.0, r"cnn\.train\.learning_rat: unknown key; did you mean learning_rate\?"),
        ("experiments.cnn.train.seed", None, r"experiments\.cnn\.train\.seed: missing"),
        ("experiments.cnn.train.batch_size", None, r"experiments\.cnn\.train\.batch_size: missing"),
        ("experiments.cnn.dat", "x", r"experiments\.cnn\.dat: unknown key; did you mean data\?"),
        ("experiments.cnn.data", "digit", r"experiments\.cnn\.data: 'digit' is not a key of datasets; known: diabetes, digits"),
        ("experiments.cnn.data", "diabetes", r"experiments\.cnn\.data: 'diabetes' holds regression; .* takes images"),
        ("experiments.cnn.judge", "me", r"experiments\.cnn\.judge: 'me' is not a key of experiments"),
        ("experiments.cnn.code", "x.py", r"experiments\.cnn\.code: 'x\.py' should be 'genai/cnn/classifier\.py'"),
        ("experiments.cnn.model", "cnn.classifier.ConvNets", r"experiments\.cnn\.model: 'ConvNets' is not a model in .*; known: ConvNet"),
        ("experiments.cnn.config.chanels", [8], r"experiments\.cnn\.config\.chanels: unknown key; did you mean channels\?"),
        ("experiments.cnn.config.channels", [0], r"experiments\.cnn\.config\.channels\.0: 0 should be greater than or equal to 1"),
        ("experiments.cnn.sample", {"n": 1}, r"experiments\.cnn\.sample: unknown key; ConvNet generates nothing"),
        ("experiments.mean.train.steps", 3, r"experiments\.mean\.train\.batch_size: missing"),
        ("datasets.digits.source", "digit", r"datasets\.digits\.source: 'digit' should be one of .*digits"),
        ("datasets.digits.test", 1.5, r"datasets\.digits\.test: 1\.5 should be less than"),
        ("datasets", None, r"datasets: missing"),
        ("models", {}, r"models: unknown key"),
    ],
)  # fmt: skip
def test_a_mistake_gets_one_line_with_path_value_and_what_is_right(tmp_path, path, value, line):
    with pytest.raises(UserError, match=line) as caught:
        check(tmp_path, changed(path, value))
    assert "\n" not in str(caught.value)


def test_a_fitted_model_given_steps_is_refused(tmp_path):
    train = {"seed": 0, "threads": 1, "steps": 10, "batch_size": 8, "learning_rate": 1e-3}
    with pytest.raises(UserError, match=r"experiments\.mean\.train\.steps: unknown key; Mean is fitted"):
        check(tmp_path, changed("experiments.mean.train", train))


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a: [1,", r"params\.yaml:2:\d+: not YAML"),
        ("a: 1\na: 2\n", r"params\.yaml:2:1: not YAML: found duplicate key"),
        ("- 1\n", "should be a map"),
        ("", "should be a map"),
    ],
)
def test_a_broken_file_is_placed(tmp_path, text, line):
    (tmp_path / "params.yaml").write_text(text)
    with pytest.raises(UserError, match=line) as caught:
        config.load(tmp_path / "params.yaml")
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there_or_not_text_is_named(tmp_path):
    with pytest.raises(UserError, match=r"params\.yaml: no such file"):
        config.load(tmp_path / "params.yaml")
    (tmp_path / "params.yaml").write_bytes(b"\xff")
    with pytest.raises(UserError, match="not UTF-8"):
        config.load(tmp_path / "params.yaml")
