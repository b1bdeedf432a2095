"""The leaderboard ranks by test what compares, keeps what else was measured, and fails in one line where a figure is missing."""

import json

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save_file

from genai.commands.report import confusion, draw_weights, leaderboard, markdown
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
GRADES = {"bound": ("t", "text_generation", {"judge_gap": 0.3}, {"judge_gap": 0.2, "distinct_2": 0.8})}


@pytest.fixture
def params(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for folder, figures in (("metrics", FIGURES), ("grades", GRADES)):
        (tmp_path / folder).mkdir()
        for name, (_, _, validation, test) in figures.items():
            (tmp_path / folder / f"{name}.json").write_text(json.dumps({"validation": validation, "test": test}))
    own = {"code": "genai/topic/b.py", "model": "C", "config": {}, "train": {"method": "fit", "seed": 0, "threads": 1}}
    generator = {"judge": "exact", "sampling": {}, "show": {}, "grade": {}}
    return Params(
        datasets={name: {"kind": "table", "source": "digits"} for name in "dit"},
        experiments={name: own | {"data": data, "task": task} for name, (data, task, *_) in FIGURES.items()},
        generators={name: generator | {"real": data, "task": task} for name, (data, task, *_) in GRADES.items()},
    )


def test_rows_are_grouped_by_data_and_task_and_ranked_by_test(params):
    order = [(row["experiment"], row["metric"]) for row in leaderboard(params)]
    assert [name for name, _ in order] == [
        "ridge",
        "mean",
        "best",
        "worse",
        "clusters",
        "exact",
        "bound",
        "worst",
        "bound",
    ]
    assert order[-1] == ("bound", "judge_gap")


def test_every_figure_of_test_stands_in_the_table_beside_that_of_validation(params):
    table = markdown(leaderboard(params))
    assert "| d    | ridge      | r2                  | 0.4000     | 0.5000 ± 0.0600 | rmse 53.0" in table
    assert "characters 80000" in table and "log_loss 0.2500" in table and "distinct_2 0.8000" in table
    assert len({len(line) for line in table.splitlines()}) == 1


@pytest.mark.parametrize(
    ("file", "stage"), [("metrics/ridge.json", "evaluate@ridge"), ("grades/bound.json", "grade@bound")]
)
def test_a_missing_figure_is_one_line(params, tmp_path, file, stage):
    for damage in ("{", "{}", "[]"):
        (tmp_path / file).write_text(damage)
        with pytest.raises(UserError, match=rf"{file}: missing or damaged; run: dvc repro {stage}"):
            leaderboard(params)


def model(tmp_path, weights, classes=()):
    folder = tmp_path / "models" / "m"
    folder.mkdir(parents=True)
    save_file(weights, folder / "model.safetensors")
    description = {"shape": [1, 8, 8], "classes": list(classes)}
    (folder / "config.json").write_text(json.dumps({"description": description}))


@pytest.mark.parametrize(("n", "rows", "columns"), [(10, 1, 10), (16, 1, 16), (20, 2, 16), (33, 3, 16)])
def test_every_center_is_drawn(tmp_path, monkeypatch, n, rows, columns):
    monkeypatch.chdir(tmp_path)
    centers = np.linspace(0, 1, n)[:, None] * np.ones((n, 64))
    model(tmp_path, {"cluster_centers_": centers})
    draw_weights("m", tmp_path / "out")
    image = Image.open(tmp_path / "out" / "weights.png")
    assert image.size == (40 * columns, 40 * rows)
    middles = np.asarray(image)[20::40, 20::40].ravel()[:n]
    assert middles.tolist() == np.round(np.linspace(0, 1, n) * 255).tolist()


def test_classes_and_predictions_are_a_table_by_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model(tmp_path, {"w": np.zeros(1)}, classes=["cat", "dog"])
    (tmp_path / "scores").mkdir()
    (tmp_path / "scores" / "m.csv").write_text("example,score,label,prediction\n0,0.1,0,0\n1,2.0,1,0\n")
    confusion("m", tmp_path / "out")
    assert (tmp_path / "out/confusion/m.csv").read_text() == "label,prediction\ncat,cat\ndog,cat\n"
    assert Image.open(tmp_path / "out/figures/m/confusion.png").size == (462, 440)


def test_scores_without_classes_have_no_such_table(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "scores").mkdir()
    (tmp_path / "scores" / "m.csv").write_text("example,score\n0,0.1\n")
    confusion("m", tmp_path / "out")
    assert not (tmp_path / "out").exists()
