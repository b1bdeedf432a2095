"""What dvc.lock says is finished, and hashes that are DVC's."""

import json
import os
import subprocess
import sys
from pathlib import Path

from ruamel.yaml import YAML

from genai.tracking.finished import finished, md5, read_history
from tests import project


def test_the_hashes_are_those_of_dvc(tmp_path):
    folder = tmp_path / "models" / "mean"
    (folder / "deeper").mkdir(parents=True)
    (folder / "a.json").write_text("{}\r\n")
    (folder / "deeper" / "b").write_bytes(bytes(range(256)))
    (folder / "c.txt").write_text("c")
    stage = {"cmd": "true", "outs": [{"models/mean": {"persist": True}}, {"models/mean.txt": {"persist": True}}]}
    (tmp_path / "models" / "mean.txt").write_text("text")
    (tmp_path / "dvc.yaml").write_text(json.dumps({"stages": {"train": {"foreach": ["mean"], "do": stage}}}))
    environment = os.environ | {"DVC_NO_ANALYTICS": "1", "DVC_SITE_CACHE_DIR": str(tmp_path / "site")}
    for command in ("init --no-scm -q", "repro -q"):
        dvc = Path(sys.executable).with_name("dvc")
        subprocess.run([dvc, *command.split()], cwd=tmp_path, check=True, env=environment)
    outs = YAML(typ="safe").load(tmp_path / "dvc.lock")["stages"]["train@mean"]["outs"]
    assert len(outs) == 2
    for out in outs:
        assert md5(tmp_path / out["path"]) == out["md5"]


def edit(root, stage, change):
    lock = YAML().load(root / "dvc.lock")
    change(lock["stages"][stage])
    YAML().dump(lock, root / "dvc.lock")


def test_what_was_trained_anew_is_not_finished_until_it_is_measured(tmp_path):
    assert finished(tmp_path) == {}
    project.finish(tmp_path, "mean")
    assert list(finished(tmp_path)) == ["mean"]
    edit(tmp_path, "train@mean", lambda entry: entry["outs"][0].update(md5="0" * 32 + ".dir"))
    assert finished(tmp_path) == {}


def test_an_entry_older_than_the_other_is_of_no_run(tmp_path):
    """While a run goes on, training stands in dvc.lock with the new code and evaluation still with the old."""
    project.finish(tmp_path, "mean")
    path = tmp_path / "dvc.lock"
    lock = YAML(typ="safe").load(path.read_text())
    for command, h in (("train", "new"), ("evaluate", "old")):
        lock["stages"][f"{command}@mean"]["deps"].append({"path": "genai/core", "hash": "md5", "md5": h})
    YAML().dump(lock, path)
    assert finished(tmp_path) == {}
    lock["stages"]["evaluate@mean"]["deps"][-1]["md5"] = "new"
    YAML().dump(lock, path)
    assert list(finished(tmp_path)) == ["mean"]


def test_a_generator_is_not_finished_until_its_present_model_is_graded(tmp_path):
    project.finish(tmp_path, "cnn", **project.CNN)
    project.finish(tmp_path, "flow", **project.FLOW, scores=project.np.ones(9))
    e = finished(tmp_path)["flow"]
    assert e.generator == project.FLOW["generator"] and e.task == "image_generation"
    assert e.judge == ("cnn", md5(tmp_path / "models" / "cnn"))
    assert e.metrics["test"].keys() == {"quality", "quality_se", "examples"}
    edit(tmp_path, "grade@flow", lambda entry: entry["deps"][0].update(md5="0" * 32 + ".dir"))
    assert list(finished(tmp_path)) == ["cnn"]


def test_the_test_splits_hash_is_of_what_is_scored(tmp_path):
    project.finish(tmp_path, "mean")

    def test_hash():
        e = finished(tmp_path)["mean"]
        return e.splits(e.data)["test"]

    before = test_hash()
    (tmp_path / "data" / "measured" / "card.md").write_text("another card")
    (tmp_path / "data" / "measured" / "train.safetensors").write_bytes(b"another training part")
    assert test_hash() == before
    (tmp_path / "data" / "measured" / "test.safetensors").write_bytes(b"other examples")
    assert test_hash() != before


def test_each_split_has_a_hash_where_the_data_are_not_here(tmp_path):
    project.finish(tmp_path, "mean")
    e = finished(tmp_path)["mean"]
    assert len(set(e.splits(("elsewhere", "0" * 32 + ".dir")).values())) == 3


def test_a_file_that_is_not_what_dvc_lock_says_is_named(tmp_path):
    project.finish(tmp_path, "mean")
    assert finished(tmp_path)["mean"].changed() is None
    (tmp_path / "scores" / "mean.csv").write_text("example,score\n")
    assert finished(tmp_path)["mean"].changed() == "scores/mean.csv"
    project.finish(tmp_path, "mean")
    (tmp_path / "data" / "measured" / "card.md").write_text("edited")
    assert finished(tmp_path)["mean"].changed() == "data/measured"


def test_code_that_is_no_longer_what_trained_is_named(tmp_path):
    project.finish(tmp_path, "mean")
    config = tmp_path / "models" / "mean" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"code": "another"}))
    edit(tmp_path, "train@mean", lambda entry: entry["outs"][0].update(md5=md5(config.parent)))
    edit(tmp_path, "evaluate@mean", lambda entry: entry["deps"][1].update(md5=md5(config.parent)))
    assert finished(tmp_path)["mean"].changed() == "genai/basics/baselines.py"


def test_who_trained_is_known_only_of_what_was_trained_here(tmp_path):
    work = project.start(tmp_path, "cnn", steps=3)
    project.finish(tmp_path, "cnn", **project.CNN)
    assert finished(tmp_path)["cnn"].started == {}  # train.json, written at the end, is not there
    (work / "train.json").write_text("{}")
    assert finished(tmp_path)["cnn"].started["user"] == "ada"
    os.utime(tmp_path / "models" / "cnn" / "config.json", (1, 1))  # DVC brought back what an earlier training made
    assert finished(tmp_path)["cnn"].started == {}
    project.finish(tmp_path, "cnn", **project.CNN | {"steps": 4})
    assert finished(tmp_path)["cnn"].started == {}


def test_a_line_of_the_history_that_is_being_written_is_left_for_later(tmp_path):
    path = tmp_path / "history.csv"
    assert read_history(path) == {}
    path.write_text(project.history(range(1, 3)) + "3,0.3")
    curves = {"train/loss": 0.5, "validation/loss": 1.0, "train/learning_rate": 0.001}
    assert read_history(path).keys() == {1, 2} and read_history(path)[2] == curves
    path.write_text(project.history(range(1, 2)).replace(",2,", ",nan,"))
    assert "validation/loss" not in read_history(path)[1]
