"""The leaderboard ranks by test what compares, names the baseline, joins what differs in its seed alone, and is honest on cost."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from genai import leaderboard
from genai.core.config import Params, UserError

# name -> data, task, validation, test
FIGURES = {
    "mean": ("d", "regression", {"r2": 0.1, "rmse": 70.0}, {"r2": 0.0, "r2_se": 0.01, "rmse": 77.0}),
    "ridge": ("d", "regression", {"r2": 0.4, "rmse": 55.0}, {"r2": 0.5, "r2_se": 0.06, "rmse": 53.0}),
    "worse": ("i", "classification", {"accuracy": 0.95}, {"accuracy": 0.8}),
    "best": ("i", "classification", {"accuracy": 0.85}, {"accuracy": 0.9, "log_loss": 0.25}),
    "clusters": ("i", "clustering", {"clustering_accuracy": 0.9}, {"clustering_accuracy": 0.95}),
    "bound": ("t", "language_model", {"nelbo_bpc": 2.0}, {"nelbo_bpc": 1.9, "characters": 80000}),
    "exact": ("t", "language_model", {"bpc": 2.0}, {"bpc": 1.8}),
    "worst": ("t", "language_model", {"bpc": 2.0}, {"bpc": 2.4}),
}
GRADES = {
    "bound": ("t", "text_generation", {"judge_gap": 0.3}, {"judge_gap": 0.2, "judge_bpc_real": 1.9, "texts_real": 9})
}
SEEDS = {
    "a": ("i", "classification", {"accuracy": 0.5}, {"accuracy": 0.6, "log_loss": 1.0}),
    "b": ("i", "classification", {"accuracy": 0.7}, {"accuracy": 0.8, "log_loss": 3.0}),
}


def project(figures, grades, **changes):
    """Write metrics and models of experiments in the current folder; changes: of the configuration, by experiment."""
    own = {
        "code": "genai/topic/b.py",
        "model": "b.C",
        "config": {},
        "train": {"method": "fit", "seed": 0, "threads": 1},
    }
    generator = {"judge": "exact", "sampling": {}, "show": {}, "grade": {}}
    for folder, of in (("metrics", figures), ("grades", grades)):
        os.makedirs(folder, exist_ok=True)
        for name, (_, _, validation, test) in of.items():
            with open(f"{folder}/{name}.json", "w") as file:
                json.dump({"validation": validation, "test": test}, file)
    for i, name in enumerate(figures):
        os.makedirs(f"models/{name}")
        save_file(
            {"w": np.zeros((10, i + 1)), "b": np.zeros(()), "norm.running_var": np.ones(99)},
            f"models/{name}/model.safetensors",
        )
        with open(f"models/{name}/config.json", "w") as file:
            json.dump({"experiment": {"data": figures[name][0]}, "environment": {"threads": 1}}, file)
    sections = {name: own | {"data": data, "task": task} for name, (data, task, *_) in figures.items()}
    distinct = {name: section | {"config": {"n": i}} for i, (name, section) in enumerate(sections.items())}
    return Params(
        datasets={name: {"kind": "table", "source": "digits"} for name in "dit"},
        experiments=distinct | {name: sections[name] | change for name, change in changes.items()},
        generators={name: generator | {"real": data, "task": task} for name, (data, task, *_) in grades.items()},
        learning_curves={}, looks={},
    )  # fmt: skip


def trained(name, cpu_seconds):
    """Leave what the training of a model leaves beside it."""
    work = Path(".work") / name
    work.mkdir(parents=True)
    shutil.copy(Path("models") / name / "config.json", work / "started.json")
    (work / "train.json").write_text(json.dumps({"cpu_seconds": cpu_seconds}))


@pytest.fixture
def params(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return project(FIGURES, GRADES)


def of_seeds(seeds, **changes):
    train = {"method": "fit", "threads": 1}
    return {name: {"config": {}, "train": train | {"seed": seed}} | changes for name, seed in seeds.items()}


def test_rows_are_grouped_by_data_and_task_and_ranked_by_test(params):
    order = [(row["experiment"], row["metric"]) for row in leaderboard.rows(params)]
    names = ["ridge", "mean", "best", "worse", "clusters", "exact", "bound", "worst", "bound"]
    assert [name for name, _ in order] == names and order[-1] == ("bound", "judge_gap")


def test_the_first_of_a_group_in_the_parameters_is_its_baseline_where_there_is_another(params):
    baselines = {(row["data"], row["task"]): row["baseline"] for row in leaderboard.rows(params)}
    assert baselines["d", "regression"] == "mean" and baselines["i", "classification"] == "worse"
    assert baselines["i", "clustering"] is None and baselines["t", "text_generation"] is None


def test_parameters_are_the_numbers_in_the_models_file(params):
    row = next(row for row in leaderboard.rows(params) if row["experiment"] == "worse")
    assert row["parameters"] == 10 * 3 + 1 and row["model"] == "C"


def test_the_table_has_validation_and_test_with_its_error_and_below_it_the_controls(params):
    text = leaderboard.markdown(leaderboard.rows(params))
    assert "**d: regression, r2 (higher is better), baseline mean**" in text
    assert "| ridge | 0.4000 | 0.5000 ± 0.0600 | 21 |" in text
    assert "| bound (nelbo_bpc) | 2.0000 | 1.9000 |" in text  # where a group has two metrics, the row says which
    assert "\n\nbound: judge_bpc_real 1.9000\n" in text  # counts are no controls


def test_experiments_that_differ_in_their_seed_alone_are_one_row_of_mean_and_sd(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    board = leaderboard.rows(project(SEEDS, {}, **of_seeds({"a": 0, "b": 1})))
    assert [row["experiment"] for row in board] == ["b", "a"]  # as measured, in the file
    ((row,),) = leaderboard.groups(board)
    assert row["seeds"] == 2 and row["experiment"] == "a" and row["baseline"] is None
    assert (row["validation"], row["test"], row["others"]["log_loss"]) == pytest.approx((0.6, 0.7, 2.0))
    assert row["test_sd"] == pytest.approx(np.std([0.6, 0.8], ddof=1))
    assert leaderboard.cells(row, [row])[:3] == ["a, 2 seeds", "0.6000, sd 0.1414", "0.7000, sd 0.1414"]


def test_experiments_that_differ_in_more_are_rows_of_their_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    changes = of_seeds({"a": 0, "b": 1})
    changes["b"]["config"] = {"n": 2}
    (group,) = leaderboard.groups(leaderboard.rows(project(SEEDS, {}, **changes)))
    assert [row["experiment"] for row in group] == ["b", "a"] and group[0]["baseline"] == "a"


@pytest.mark.parametrize(
    ("file", "stage"),
    [("metrics/ridge.json", "evaluate@ridge"), ("grades/bound.json", "grade@bound"),
     ("models/mean/model.safetensors", "train@mean")],
)  # fmt: skip
def test_a_missing_figure_is_one_line(params, tmp_path, file, stage):
    for damage in ("{", "{}", "[]"):
        (tmp_path / file).write_text(damage)
        with pytest.raises(UserError, match=rf"{file}: missing or damaged; run: dvc repro {stage}"):
            leaderboard.rows(params)


def test_what_a_training_took_is_told_only_of_a_model_that_was_trained_here(params, tmp_path):
    assert leaderboard.cpu_seconds(tmp_path, ["ridge"]) is None
    trained("ridge", 3.0)
    trained("mean", 5.0)
    assert leaderboard.cpu_seconds(tmp_path, ["ridge"]) == 3.0
    assert leaderboard.cpu_seconds(tmp_path, ["ridge", "mean"]) == 4.0
    started = json.loads(Path(".work/ridge/started.json").read_text())
    started["environment"]["threads"] = 2
    Path(".work/ridge/started.json").write_text(json.dumps(started))  # DVC brought the model from another machine
    assert leaderboard.cpu_seconds(tmp_path, ["ridge"]) is None
