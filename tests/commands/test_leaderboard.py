"""What ends a run of the pipeline: figures with their cost, in a hundred columns, and the way to the rest."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from genai import leaderboard
from genai.commands.leaderboard import main
from genai.core.config import UserError
from tests.test_leaderboard import FIGURES, GRADES, project, trained

ROOT = Path(__file__).parents[2]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    params = project(FIGURES, GRADES)
    Path("reports").mkdir()
    Path("reports/leaderboard.json").write_text(json.dumps(leaderboard.rows(params)))
    trained("ridge", 1234.56)
    Path("samples/bound").mkdir(parents=True)
    Path("samples/bound/samples.json").write_text(json.dumps([{"prompt": None, "text": "[bold] one\ntwo " * 30}]))
    return tmp_path


@pytest.mark.parametrize("columns", ["40", "300"])
def test_it_fits_a_hundred_columns_and_tells_figures_cost_controls_texts_and_the_way_on(folder, columns):
    done = subprocess.run(
        [sys.executable, "-m", "genai", "leaderboard"], capture_output=True, text=True, check=True,
        env=os.environ | {"PYTHONPATH": str(ROOT), "COLUMNS": columns},
    ).stdout  # fmt: skip
    assert max(map(len, done.splitlines())) <= 100
    lines = [" ".join(line.split()) for line in done.splitlines()]
    assert "d: regression, r2 (higher is better), baseline mean" in lines
    assert "ridge 0.4000 0.5000 ± 0.0600 21 1234.6" in lines and "mean 0.1000 0.0000 ± 0.0100 11" in lines
    assert "bound: judge_bpc_real 1.9000" in lines and "bound writes:" in lines
    assert any(line.startswith("[bold] one two [bold]") for line in lines)  # a text is no markup
    assert "make ui" in done and (folder / "reports" / "index.html").exists()


def test_before_the_report_it_says_what_to_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="reports/leaderboard.json: missing or damaged; run: dvc repro report"):
        main()
