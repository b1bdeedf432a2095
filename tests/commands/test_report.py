"""What the report draws and gathers of models, whatever the experiments are."""

import json
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save_file

from genai.commands.report import draw_curves, draw_weights, plots

DVC = Path(__file__).parents[2] / "dvc.yaml"


def model(tmp_path, weights):
    folder = tmp_path / "models" / "m"
    folder.mkdir(parents=True)
    save_file(weights, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({"description": {"shape": [1, 8, 8]}}))


@pytest.mark.parametrize(("n", "rows", "columns"), [(10, 1, 10), (16, 1, 16), (20, 2, 16), (33, 3, 16), (800, 5, 16)])
def test_every_center_is_drawn_and_of_hundreds_some(tmp_path, monkeypatch, n, rows, columns):
    monkeypatch.chdir(tmp_path)
    centers = np.linspace(0, 1, n)[:, None] * np.ones((n, 64))
    model(tmp_path, {"cluster_centers_": centers})
    draw_weights("m", tmp_path / "out")
    image = Image.open(tmp_path / "out" / "weights.png")
    assert image.size == (40 * columns, 40 * rows)
    middles = np.asarray(image)[20::40, 20::40].ravel()[: min(n, 80)]
    assert middles == pytest.approx(np.linspace(0, 255, len(middles)), abs=1)


def test_tables_for_dvcs_plots_are_gathered_by_kind_and_each_kind_has_its_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for path in ("models/net/history.csv", "plots/net/confusion.csv", "plots/gone/confusion.csv"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text("a,b\n1,2\n")
    (tmp_path / "out").mkdir()
    plots(SimpleNamespace(experiments={"net": None, "other": None}), tmp_path / "out")
    found = {path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*.csv")}
    assert found == {"curves/net.csv", "confusion/net.csv"}
    named = re.findall(r"reports/plots/(\w+)", DVC.read_text())  # DVC fails where one that is named is not there
    assert {path.name for path in (tmp_path / "out").iterdir()} == set(named)


@pytest.mark.parametrize("names", [[], ["a"], ["a", "b", "c"]])
def test_every_training_has_its_curve(tmp_path, monkeypatch, names):
    monkeypatch.chdir(tmp_path)
    for name in names:
        (tmp_path / "models" / name).mkdir(parents=True)
        (tmp_path / "models" / name / "history.csv").write_text(
            "step,train_loss,validation_loss\n1,2.0,3.0\n2,1.0,2.0\n"
        )
    draw_curves(SimpleNamespace(experiments=dict.fromkeys([*names, "fitted"])), tmp_path / "out")
    assert (tmp_path / "out" / "curves.png").exists() == bool(names)
