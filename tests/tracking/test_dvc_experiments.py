"""DVC's experiments as runs in MLflow: made by DVC in a repository with two projects, read out of git."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from genai import tracking
from genai.tracking.dvc_experiments import experiments
from genai.tracking.store import Store
from tests import project
from tests.tracking.test_mirror import counts

MEASURE = """
import json, pathlib, sys
folder, name, value = sys.argv[1:]
pathlib.Path(folder).mkdir(exist_ok=True)
key, value = "r2" if folder == "metrics" else "quality", float(value)
measures = {"validation": {key: value - 1, "examples": 9}, "test": {key: value, "examples": 8}}
pathlib.Path(folder, name + ".json").write_text(json.dumps(measures))
"""
STAGES = {
    command: {
        "foreach": f"${{{section}}}",
        "do": {
            "cmd": f"python measure.py {folder} ${{key}} ${{item.value}}",
            "deps": ["measure.py"],
            "params": [f"{section}.${{key}}"],
            "metrics": [{f"{folder}/${{key}}.json": {"cache": False}}],
        },
    }
    for command, section, folder in (("evaluate", "experiments", "metrics"), ("grade", "generators", "grades"))
}
GIT = {f"GIT_{who}_{what}": "ada" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    """A repository whose root and whose folder sub/ are projects, with three experiments of DVC on its second commit."""
    root = tmp_path_factory.mktemp("repository")

    def run(command, folder=root):
        subprocess.run(command.split(), cwd=folder, check=True, env=project.ENVIRONMENT | GIT, capture_output=True)

    for folder in (root, root / "sub"):
        folder.mkdir(exist_ok=True)
        (folder / "measure.py").write_text(MEASURE)
        (folder / "dvc.yaml").write_text(json.dumps({"stages": STAGES}))
        values = {"experiments": {"ridge": {"value": 1}, "lasso": {"value": 2}}, "generators": {"lasso": {"value": 3}}}
        (folder / "params.yaml").write_text(json.dumps(values))
    (root / ".gitignore").write_text("*.db\n.work/\nmlartifacts/\n")
    run("git init -q -b main")
    run("dvc init -q")
    for subject in ("start", "results"):
        run("dvc repro -q")
        run("dvc repro -q", root / "sub")
        run("git add -A")
        run(f"git commit -q --allow-empty -m {subject}")
    one = "dvc exp run -q --temp -n {} -S {}"
    run(one.format("better", "experiments.ridge.value=5"))
    run(one.format("both", "experiments.ridge.value=6") + " -S experiments.lasso.value=7 -S generators.lasso.value=8")
    run(one.format("below", "experiments.ridge.value=9"), root / "sub")
    return root


@pytest.fixture
def here(repository, root):
    """A copy of it in the current folder, with a store."""
    for path in repository.iterdir():
        (shutil.copytree if path.is_dir() else shutil.copy)(path, root / path.name)
    return root


def of(store, name):
    (run,) = store.runs(exp=name)
    return run


def git(*arguments):
    return subprocess.run(["git", *arguments], check=True, capture_output=True, text=True).stdout.strip()


def test_an_experiment_of_dvc_is_a_run_below_that_of_the_commit_it_began_from(here, capsys):
    tracking.track(here)
    assert capsys.readouterr().out == "MLflow: 0 runs, none new; new of DVC's experiments: better, both\n"
    store, head = Store(here), git("rev-parse", "HEAD")
    run, (baseline,) = of(store, "better"), store.runs(baseline=head)
    assert (baseline.info.run_name, baseline.info.status) == (head[:7], "FINISHED")
    assert (run.info.run_name, run.info.status) == ("better", "FINISHED")
    assert run.data.params == {"experiments.ridge.value": "5"}
    assert run.data.metrics == {"validation/r2": 4, "validation/examples": 9, "test/r2": 5, "test/examples": 8}
    ref = f"refs/exps/{head[:2]}/{head[2:]}/better"
    commit = git("rev-parse", ref)
    expected = {"genai.exp_ref": ref, "genai.exp_commit": commit, "mlflow.source.git.commit": commit}
    expected |= {"mlflow.parentRunId": baseline.info.run_id, "mlflow.user": "ada"}
    assert expected.items() <= run.data.tags.items()
    assert run.info.start_time == int(git("log", "-1", "--format=%ct", commit)) * 1000
    assert run.data.tags["mlflow.note.content"].split("  \n") == [
        f"DVC's experiment `better` on {head[:7]}, results",
        "`experiments.ridge.value`: 1 → 5",
        "ridge: r2 5 on test, baseline 1",
        "to restore it: `dvc exp apply better`",
    ]


def test_the_measures_of_several_models_have_their_names(here):
    tracking.track(here)
    run = of(Store(here), "both")
    assert run.data.metrics.items() >= {"test/ridge/r2": 6, "validation/ridge/r2": 5}.items()
    assert run.data.metrics.items() >= {"test/lasso/r2": 7, "test/lasso/quality": 8}.items()  # grades among them
    assert not {"test/r2", "validation/r2"} & run.data.metrics.keys()
    assert run.data.params["generators.lasso.value"] == "8"


def test_a_folder_below_shows_its_own_experiments_and_no_others(here, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{here}/mlflow.db")
    monkeypatch.chdir(here / "sub")
    tracking.track(here / "sub")
    store = Store(here / "sub")
    run, (baseline,) = of(store, "below"), store.runs(baseline=git("rev-parse", "HEAD"))
    assert len(store.runs()) == 2 and run.data.tags["mlflow.parentRunId"] == baseline.info.run_id
    assert run.data.params == {"experiments.ridge.value": "9"} and run.data.metrics["test/r2"] == 9
    tracking.track(here)  # in the same store
    assert len(store.runs()) == 4 and len(store.runs(exp="below")) == 1


def test_tracking_them_twice_adds_nothing_and_a_removed_one_stays(here):
    tracking.track(here)
    before = counts(here)
    assert before["runs"] == 3
    tracking.track(here)
    (here / ".work" / "tracked.json").unlink()  # nor where nothing is remembered
    tracking.track(here)
    git("update-ref", "-d", of(Store(here), "better").data.tags["genai.exp_ref"])
    tracking.track(here)
    assert counts(here) == before


def test_nothing_new_of_them_does_not_import_mlflow(here):
    tracking.track(here)
    code = "import sys; from pathlib import Path; from genai import tracking; "
    code += "tracking.track(Path.cwd()); sys.exit('mlflow' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, env=os.environ | {"PYTHONPATH": str(project.HERE)})


def test_a_tracker_that_died_half_way_leaves_none_of_them_twice(here, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(Store, "log_metrics", lambda *_: os._exit(9))
        if (pid := os.fork()) == 0:
            tracking.track(here)
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 9
    store = Store(here)
    assert "RUNNING" in [run.info.status for run in store.runs()]
    tracking.track(here)
    assert [run.info.status for run in store.runs()] == ["FINISHED"] * 3
    assert len(store.client.get_metric_history(of(store, "better").info.run_id, "test/r2")) == 1


def test_the_description_tells_of_edited_code_and_of_a_name_that_another_has_too(here):
    git("remote", "add", "team", "/nowhere")
    git("-c", "user.name=t", "-c", "user.email=t@t", "commit", "-q", "--allow-empty", "-m", "later")
    Path("measure.py").write_text(MEASURE.replace("key: value,", "key: 2 * value,"))
    subprocess.run(["dvc", "exp", "run", "-q", "--temp", "-n", "better"], check=True, env=project.ENVIRONMENT | GIT)
    tracking.track(here)
    head = git("rev-parse", "HEAD")
    commit = git("rev-parse", f"refs/exps/{head[:2]}/{head[2:]}/better")
    (run,) = Store(here).runs(exp_commit=commit)
    assert run.data.tags["mlflow.note.content"].split("  \n") == [
        f"DVC's experiment `better` on {head[:7]}, later",
        "changed files: measure.py",
        "ridge: r2 2 on test, baseline 1",
        "lasso: r2 4 on test, baseline 2",
        f"to restore it: `dvc exp apply {commit[:7]}`",
        "in another clone first `dvc exp pull team better`, once `dvc exp push team better` was run in this one",
    ]


def test_outside_of_git_there_is_none(root, monkeypatch):
    assert experiments(root) == []
    monkeypatch.setenv("PATH", str(root))  # nor where git is not installed
    assert experiments(root) == []


def test_a_release_takes_none_of_them_for_a_champion_or_a_challenger(here):
    shutil.rmtree(here / "metrics")
    (here / "dvc.lock").unlink()
    for seed in (0, 1):
        project.finish(here, "ridge", **project.LINEAR, seed=seed)
        tracking.release(here, None)
    store = Store(here)
    of_params = {run.info.run_id for run in store.runs(experiment="ridge")}
    assert len(of_params) == 2 and len(store.runs()) == 5
    assert {version.run_id for version in store.client.search_model_versions()} == of_params
