"""The frame of a stage: what was read is noted, and what changed meanwhile fails the stage."""

import json
import os

import pytest
from ruamel.yaml import YAML

from genai.core import stage as frame
from genai.core.config import UserError
from genai.core.stage import stage, trained_threads

MEAN = {
    "data": "d", "task": "regression", "code": "genai/basics/baselines.py", "model": "Mean", "config": {},
    "train": {"method": "fit", "seed": 0, "threads": 2},
}  # fmt: skip
GENERATOR = {"task": "t", "judge": "j", "real": "d", "sampling": {"steps": 1}, "show": {"n": 1}, "grade": {"n": 2}}


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A folder with parameters and a data set, as the working directory; what a change of the former does."""
    monkeypatch.chdir(tmp_path)
    values = {"datasets": {}, "experiments": {"mean": MEAN, "other": MEAN}, "generators": {"mean": GENERATOR}}
    values = json.loads(json.dumps(values))

    def change(*keys, value):
        section = values
        for key in keys[:-1]:
            section = section[key]
        section[keys[-1]] = value
        YAML().dump(values, tmp_path / "params.yaml")

    change("datasets", "d", value={"kind": "table", "source": "x"})
    (tmp_path / "data" / "d").mkdir(parents=True)
    (tmp_path / "data" / "d" / "x").write_text("1")
    return change


def test_what_a_stage_read_and_cost_is_noted(project, tmp_path):
    with stage("train", "mean") as this:
        assert this.section("experiments").train.threads == 2
        this.reads(tmp_path / "data" / "d")
    record = json.loads((tmp_path / ".work/mean/train.json").read_text())
    assert record["params"] == ["experiments.mean"] and record["folders"] == [str(tmp_path / "data" / "d")]
    assert "genai/core/stage.py" in record["code"] and record["cpu_seconds"] >= record["work_cpu_seconds"] >= 0


def test_a_key_that_is_left_unread_is_neither_noted_nor_checked(project, tmp_path):
    project("generators", "mean", "show", value="nonsense")
    with stage("grade", "mean") as this:
        section = this.section("generators", without=("show",))
        assert section.sampling == {"steps": 1} and not hasattr(section, "show")
    noted = json.loads((tmp_path / ".work/mean/grade.json").read_text())["params"]
    assert noted == [f"generators.mean.{key}" for key in ("grade", "judge", "real", "sampling", "task")]


@pytest.mark.parametrize(
    ("keys", "value"),
    [(("experiments", "mean", "train", "seed"), 1), (("experiments", "mean"), {}), (("experiments",), {})],
)
def test_parameters_edited_after_the_process_began_fail_the_stage(project, tmp_path, keys, value):
    with (
        pytest.raises(UserError, match=r"params\.yaml: experiments\.mean: changed while train@mean ran"),
        stage("train", "mean") as this,
    ):
        project(*keys, value=value)
        assert this.section("experiments").train.seed == 0  # what it began with
    assert not (tmp_path / ".work/mean/train.json").exists()


def test_parameters_that_the_stage_does_not_read_may_change(project):
    with stage("train", "mean") as this:
        this.section("experiments")
        project("experiments", "other", "train", "seed", value=5)


def test_data_written_added_or_deleted_fail_the_stage(project, tmp_path):
    folder = tmp_path / "data" / "d"
    for edit in (
        lambda: (folder / "x").write_text("22"),
        lambda: (folder / "new").touch(),
        lambda: (folder / "x").unlink(),
    ):
        with pytest.raises(UserError, match="changed while train@mean ran"), stage("train", "mean") as this:
            this.reads(folder)
            edit()


def test_code_counts_where_the_process_imported_it(project, tmp_path, monkeypatch):
    code = tmp_path / "genai"
    for name in ("used", "unused"):
        code.mkdir(exist_ok=True)
        (code / f"{name}.py").write_text("1")
    monkeypatch.setattr(frame, "ROOT", tmp_path)
    monkeypatch.setattr(frame, "code", lambda: ["genai/used.py"])
    with stage("train", "mean"):
        (code / "unused.py").write_text("22")
    with pytest.raises(UserError, match=r"genai/used\.py: changed while train@mean ran"), stage("train", "mean"):
        os.utime(code / "used.py", ns=(0, 0))


def test_a_name_that_is_not_there_is_one_line(project):
    with (
        pytest.raises(UserError, match=r"'meen' is not in experiments of params\.yaml; did you mean mean\?"),
        stage("train", "meen") as this,
    ):
        this.section("experiments")


def test_a_model_says_how_many_threads_it_was_trained_with(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"experiment": MEAN}))
    assert trained_threads(tmp_path) == 2
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(UserError, match="not a model's config"):
        trained_threads(tmp_path)
    with pytest.raises(UserError, match="no trained model here; run: dvc repro train@nothing"):
        trained_threads(tmp_path / "nothing")
