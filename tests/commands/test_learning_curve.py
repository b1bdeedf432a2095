"""A learning curve adds examples to examples, of each class its share, and trains by the experiment's own recipe."""

import csv
import itertools
import json

import numpy as np
import pytest
from ruamel.yaml import YAML

from genai.commands import learning_curve
from genai.core import config
from genai.core.dataset import Dataset
from tests import project


@pytest.fixture
def digits(tmp_path):
    return Dataset(project.prepare(tmp_path, "digits", project.IMAGES))


def test_the_parts_are_nested_and_hold_each_class_by_its_share_and_another_seed_draws_others(digits):
    y = digits.arrays("train")["y"]
    parts = [learning_curve.beginning(digits, n, 3, "at").arrays("train") for n in (10, 25, len(y))]
    for less, more in itertools.pairwise(parts):
        np.testing.assert_array_equal(less["x"], more["x"][: len(less["x"])])
    assert sorted(parts[0]["y"]) == list(range(10))  # one of each class
    counts = np.bincount(parts[1]["y"], minlength=10)
    assert abs(counts - 25 * np.bincount(y, minlength=10) / len(y)).max() <= 1
    np.testing.assert_array_equal(np.sort(parts[2]["x"].ravel()), np.sort(digits.arrays("train")["x"].ravel()))
    other = learning_curve.beginning(digits, 10, 4, "at").arrays("train")
    assert not np.array_equal(other["x"], parts[0]["x"])
    np.testing.assert_array_equal(
        learning_curve.beginning(digits, 10, 4, "at").arrays("test")["x"], digits.arrays("test")["x"]
    )


@pytest.mark.parametrize("n", [9, 61])
def test_too_few_or_too_many_examples_are_one_line(digits, n):
    with pytest.raises(config.UserError, match=f"at: {n} should be from 10, one of each class, to 60, the training"):
        learning_curve.beginning(digits, n, 0, "at")


def test_with_all_examples_the_curve_ends_where_the_experiment_stands(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(learning_curve, "limit_threads", lambda threads: None)
    project.finish(tmp_path, "k_means", **project.MAJORITY)
    section = json.loads((tmp_path / "models/k_means/config.json").read_text())["experiment"]
    curve = {"data": "digits", "task": "classification", "method": "fit", "examples": [10, 60], "seeds": 2}
    params = {
        "datasets": {"digits": {"kind": "images", "source": "digits"}},
        "experiments": {"k_means": section}, "generators": {}, "learning_curves": {"k_means": curve},
    }  # fmt: skip
    YAML().dump(params, tmp_path / "params.yaml")
    assert config.load(tmp_path / "params.yaml")
    learning_curve.main("k_means")
    with open("learning_curves/k_means.csv") as file:
        rows = list(csv.DictReader(file))
    assert [(r["examples"], r["seed"]) for r in rows if r["split"] == "test"] == [
        ("10", "0"), ("10", "1"), ("60", "0"), ("60", "1"),
    ]  # fmt: skip
    frequencies = np.bincount(Dataset(tmp_path / "data/digits").arrays("train")["y"]) / 60
    whole = [float(r["accuracy"]) for r in rows if r["split"] == "train" and r["examples"] == "60"]
    assert whole == pytest.approx([frequencies.max()] * 2)


@pytest.mark.parametrize(("key", "value"), [("data", "other"), ("task", "clustering"), ("method", "gradient_descent")])
def test_what_differs_from_the_experiment_is_one_line(tmp_path, key, value):
    project.finish(tmp_path, "k_means", **project.MAJORITY)
    section = json.loads((tmp_path / "models/k_means/config.json").read_text())["experiment"]
    curve = {"data": "digits", "task": "classification", "method": "fit", "examples": [10], "seeds": 1} | {key: value}
    params = {
        "datasets": {"digits": {"kind": "images", "source": "digits"}},
        "experiments": {"k_means": section}, "generators": {}, "learning_curves": {"k_means": curve},
    }  # fmt: skip
    YAML().dump(params, tmp_path / "params.yaml")
    with pytest.raises(config.UserError, match=f"learning_curves.k_means.{key}: '{value}' should be "):
        config.load(tmp_path / "params.yaml")
