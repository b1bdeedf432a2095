"""The leaderboard ranks what compares, keeps what else was measured, and fails in one line where a figure is missing."""

import json

import pytest

from genai.core.config import Params, UserError
from genai.report import leaderboard, markdown

METRICS = {
    "mean": {"r2": 0.0, "rmse": 77.0},
    "ridge": {"r2": 0.5, "rmse": 53.0},
    "worse": {"accuracy": 0.8},
    "best": {"accuracy": 0.9, "log_loss": 0.25},
    "clusters": {"clustering_accuracy": 0.95},
    "bound": {"nelbo_bpc": 1.9, "characters": 80000},
    "exact": {"bpc": 1.8},
    "worst": {"bpc": 2.4},
}
DATA = {"mean": "d", "ridge": "d", "worse": "i", "best": "i", "clusters": "i", "bound": "t", "exact": "t", "worst": "t"}


@pytest.fixture
def params(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "metrics").mkdir()
    for name, metrics in METRICS.items():
        (tmp_path / "metrics" / f"{name}.json").write_text(json.dumps(metrics))
    experiment = {"model": "a.b.C", "code": "genai/a/b.py", "config": {}, "train": {"seed": 0, "threads": 1}}
    return Params(
        datasets={name: {"source": "digits"} for name in "dit"},
        experiments={name: experiment | {"data": DATA[name], "judge": name} for name in METRICS},
    )


def test_rows_are_grouped_by_data_and_ranked_within_what_compares(params):
    order = [row["experiment"] for row in leaderboard(params)]
    assert order == ["ridge", "mean", "best", "worse", "clusters", "exact", "bound", "worst"]


def test_every_figure_stands_in_the_table(params):
    table = markdown(leaderboard(params))
    assert "| d    | ridge      | a     | r2                  | 0.5000 | rmse 53.0" in table
    assert "characters 80000" in table and "log_loss 0.2500" in table
    assert len({len(line) for line in table.splitlines()}) == 1


def test_a_missing_figure_is_one_line(params, tmp_path):
    (tmp_path / "metrics" / "ridge.json").write_text("{")
    with pytest.raises(UserError, match=r"metrics/ridge\.json: missing or damaged; run: dvc repro evaluate@ridge"):
        leaderboard(params)
