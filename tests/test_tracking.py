"""MLflow's view of finished and running experiments, and the gate of its registry: on a real store in a folder."""

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from ruamel.yaml import YAML
from scipy.stats import bootstrap, norm

from genai import tracking
from genai.core.config import UserError
from tests import project

HERE = Path(__file__).parent.parent
COUNTED = (
    "runs",
    "metrics",
    "params",
    "tags",
    "inputs",
    "datasets",
    "logged_models",
    "model_versions",
    "model_version_tags",
)


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory):
    """A store that MLflow has set up: that takes seconds, a copy of it none."""
    root = tmp_path_factory.mktemp("store")
    tracking.Store(root)
    return root / "mlflow.db"


@pytest.fixture
def root(empty_store, tmp_path, monkeypatch):
    """An empty project in the current folder, with a store of its own."""
    shutil.copy(empty_store, tmp_path)
    with closing(sqlite3.connect(tmp_path / "mlflow.db")) as connection, connection:
        connection.execute("update experiments set artifact_location = ?", [(tmp_path / "mlartifacts").as_uri()])
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return tmp_path


def counts(root):
    with closing(sqlite3.connect(root / "mlflow.db")) as connection:
        rows = {table: connection.execute(f"select count(*) from {table}").fetchone()[0] for table in COUNTED}
    return rows | {"files": sum(path.is_file() for path in (root / "mlartifacts").rglob("*"))}


def only_run(root, **tags):
    (run,) = tracking.Store(root).runs(**tags)
    return run


def test_a_finished_experiment_becomes_a_run_with_all_that_it_has(root):
    (root / "samples" / "cnn").mkdir(parents=True)
    (root / "samples" / "cnn" / "grid.png").write_bytes(b"a picture")
    (root / "reports").mkdir()
    for name in ("cnn", "cnn_filters", "cnn_wide", "leaderboard"):
        (root / "reports" / f"{name}.png").write_bytes(name.encode())
    settings = {"channels": [4], "n_features": 8}
    project.finish(root, "cnn", "cnn.classifier.ConvNet", settings, project.IMAGES, steps=7, data="digits")
    project.finish(root, "cnn_wide", data="measured")
    tracking.track(root)

    run = only_run(root, experiment="cnn")
    client = tracking.Store(root).client
    assert (run.info.run_name, run.info.status) == ("cnn", "FINISHED")
    assert run.data.params["config.channels"] == "[4]" and run.data.params["train.steps"] == "7"
    assert run.data.metrics["accuracy"] == json.loads(Path("metrics/cnn.json").read_text())["accuracy"]
    data = {entry["path"]: entry["md5"] for entry in YAML().load(Path("dvc.lock"))["stages"]["train@cnn"]["deps"]}
    dataset = run.inputs.dataset_inputs[0].dataset
    assert (dataset.name, dataset.digest) == ("digits", data["data/digits"])
    assert run.data.tags["topic"] == "cnn" and run.data.tags["data_hash"] == data["data/digits"]
    curve = [(m.step, m.value) for m in client.get_metric_history(run.info.run_id, "train_loss")]
    assert curve == [(step, float(f"{1 / step:.6g}")) for step in range(1, 8)]
    artifacts = {
        a.path
        for folder in ("figures", "samples", "scores", "metrics")
        for a in client.list_artifacts(run.info.run_id, folder)
    }
    assert artifacts == {
        "figures/cnn.png",
        "figures/cnn_filters.png",
        "samples/grid.png",
        "scores/cnn.csv",
        "metrics/cnn.json",
    }
    (output,) = run.outputs.model_outputs
    folder = Path(client.get_logged_model(output.model_id).artifact_location.removeprefix("file://"))
    assert (folder / "data" / "cnn" / "model.safetensors").read_bytes() == Path(
        "models/cnn/model.safetensors"
    ).read_bytes()
    assert not [*folder.rglob("*.pkl")] and (folder / "code" / "genai" / "serving.py").exists()


def test_tracking_and_releasing_twice_adds_nothing(root, capsys):
    project.finish(root, "mean")
    project.finish(root, "other", seed=1)
    tracking.track(root)
    tracking.release(root, None)
    before = counts(root)
    assert before["runs"] == before["logged_models"] == before["model_versions"] == 2
    tracking.track(root)
    tracking.release(root, None)
    assert counts(root) == before

    # nor where the store cannot be asked behind MLflow's back
    unasked = pytest.MonkeyPatch()
    unasked.setattr(tracking, "_ask", lambda *_: None)
    tracking.track(root)
    tracking.release(root, None)
    unasked.undo()
    assert counts(root) == before
    assert "none new" in capsys.readouterr().out


def test_nothing_to_do_does_not_import_mlflow(root):
    project.finish(root, "mean")
    tracking.track(root)
    tracking.release(root, None)
    code = "import sys; from pathlib import Path; from genai import tracking; "
    code += "tracking.track(Path.cwd()); tracking.release(Path.cwd(), None); sys.exit('mlflow' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, env=os.environ | {"PYTHONPATH": str(HERE)})


def test_new_content_is_a_new_run_and_old_content_the_old_one(root):
    project.finish(root, "mean")
    tracking.track(root)
    first = only_run(root, experiment="mean")
    project.finish(root, "mean", seed=1)
    tracking.track(root)
    project.finish(root, "mean")
    tracking.track(root)
    runs = tracking.Store(root).runs(experiment="mean")
    assert len(runs) == 2 and first.info.run_id in {run.info.run_id for run in runs}


def test_samples_and_figures_that_come_later_join_the_run(root):
    project.finish(root, "mean")
    tracking.track(root)
    (root / "samples" / "mean").mkdir(parents=True)
    (root / "samples" / "mean" / "samples.md").write_text("text")
    project.finish(root, "mean")  # the same, and its sample stage
    tracking.track(root)
    run = only_run(root, experiment="mean")
    assert [a.path for a in tracking.Store(root).client.list_artifacts(run.info.run_id, "samples")] == [
        "samples/samples.md"
    ]


def test_what_is_not_as_dvc_lock_says_is_not_mirrored(root, capsys):
    project.finish(root, "mean")
    (root / "scores" / "mean.csv").write_text("example,score\n")  # a stage is writing it
    tracking.track(root)
    assert (
        counts(root)["runs"] == 0
        and "left out, run dvc repro (scores/mean.csv is not what dvc.lock says): mean" in capsys.readouterr().out
    )
    project.finish(root, "mean")
    lock = YAML().load(Path("dvc.lock"))
    lock["stages"]["train@mean"]["outs"][0]["md5"] = "0" * 32 + ".dir"  # trained anew, not yet evaluated
    YAML().dump(lock, Path("dvc.lock"))
    assert tracking.finished(root) == {}


def test_a_tracker_that_died_half_way_is_continued(root, monkeypatch):
    project.finish(root, "mean", steps=None)
    project.finish(root, "mean")
    with monkeypatch.context() as patch:
        patch.setattr(tracking, "_log_model", lambda *_: os._exit(9))
        if (pid := os.fork()) == 0:
            tracking.track(root)
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 9
    assert only_run(root, experiment="mean").info.status == "RUNNING"
    tracking.track(root)
    assert only_run(root, experiment="mean").info.status == "FINISHED"
    assert counts(root)["logged_models"] == 1


def test_two_trackers_at_once_make_one_run(root):
    project.finish(root, "mean")
    code = "from pathlib import Path; from genai import tracking; tracking.release(Path.cwd(), None)"
    environment = os.environ | {"PYTHONPATH": str(HERE), "OMP_NUM_THREADS": "1"}
    both = [subprocess.Popen([sys.executable, "-c", code], env=environment) for _ in range(2)]
    assert [process.wait() for process in both] == [0, 0]
    after = counts(root)
    assert after["runs"] == after["logged_models"] == after["model_versions"] == 1


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
        assert tracking._md5(tmp_path / out["path"]) == out["md5"]


# --- live curves ---


class Follower:
    """`python -m genai track --follow` in a process of its own, its pipe held by the test."""

    def __init__(self, root, release=False, patience=60):
        code = "import sys; from pathlib import Path; from genai import tracking; tracking.POLL = 0.1; "
        code += f"tracking.follow(Path.cwd(), {release})"
        environment = os.environ | {"PYTHONPATH": str(HERE), "OMP_NUM_THREADS": "1"}
        self.process = subprocess.Popen([sys.executable, "-c", code], cwd=root, stdin=subprocess.PIPE, env=environment)
        self.root, self.patience = root, patience
        time.sleep(1.5)  # until it has had its first look

    def until(self, condition):
        deadline = time.monotonic() + self.patience
        while not condition():
            assert self.process.poll() is None and time.monotonic() < deadline
            time.sleep(0.1)

    def close(self):
        self.process.stdin.close()
        assert self.process.wait(self.patience) == 0


def logged_steps(root, key="train_loss"):
    with closing(sqlite3.connect(root / "mlflow.db")) as connection:
        return connection.execute("select step, value from metrics where key = ? order by step", [key]).fetchall()


def statuses(root):
    with closing(sqlite3.connect(root / "mlflow.db")) as connection:
        return [status for (status,) in connection.execute("select status from runs order by start_time")]


def test_a_running_training_is_followed_across_deaths_without_a_step_twice(root):
    live = root / ".work" / "cnn" / "history.csv"
    live.parent.mkdir(parents=True)

    follower = Follower(root)
    live.write_text(project.history(range(1, 3)))
    follower.until(lambda: [s for s, _ in logged_steps(root)] == [1, 2] and statuses(root) == ["RUNNING"])
    with open(live, "a") as file:
        file.write("3,0.333")  # a line being written is left alone
    follower.until(lambda: True)
    live.write_text(project.history(range(1, 5)))
    follower.until(lambda: len(logged_steps(root)) == 4)
    follower.process.kill()
    follower.process.wait()
    assert statuses(root) == ["RUNNING"]

    follower = Follower(root)  # the training was killed too, and resumes from step 2
    live.write_text(project.history(range(1, 3)))
    live.write_text(project.history(range(1, 7)))
    follower.until(lambda: len(logged_steps(root)) == 6)
    settings = {"channels": [4], "n_features": 8}
    project.finish(root, "cnn", "cnn.classifier.ConvNet", settings, project.IMAGES, steps=8, data="digits")
    follower.close()
    assert [step for step, _ in logged_steps(root)] == list(range(1, 9))
    assert statuses(root) == ["FINISHED"]
    assert only_run(root, experiment="cnn").data.params["train.steps"] == "8"
    before = counts(root)
    tracking.track(root)
    assert counts(root) == before


def test_an_abandoned_training_is_killed_and_another_has_its_own_run(root):
    live = root / ".work" / "cnn" / "history.csv"
    live.parent.mkdir(parents=True)
    follower = Follower(root)
    live.write_text(project.history(range(1, 4)))
    follower.until(lambda: len(logged_steps(root)) == 3)
    live.write_text(project.history(range(1, 3), shift=0.5))  # other parameters, from the start
    follower.until(lambda: len(logged_steps(root)) == 5)
    assert sorted(statuses(root)) == ["KILLED", "RUNNING"]
    follower.process.send_signal(signal.SIGTERM)
    assert follower.process.wait(30) == 0
    assert statuses(root) == ["KILLED", "KILLED"]


def test_the_end_of_the_pipe_releases_what_is_finished(root):
    project.finish(root, "mean")
    follower = Follower(root, release=True)
    follower.close()
    assert statuses(root) == ["FINISHED"] and counts(root)["model_versions"] == 1


def test_a_store_that_is_down_is_one_line(root, monkeypatch):
    project.finish(root, "mean")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://somebody:secret@127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(UserError, match=r"^MLflow at http://\*\*\*@127.0.0.1:9: no answer$") as error:
        tracking.track(root)
    assert "secret" not in str(error.value) and "\n" not in str(error.value)
    for uri in ("sqlite:////proc/nothing/mlflow.db", "nosuch://store"):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        with pytest.raises(UserError, match="^MLflow at "):
            tracking.track(root)


# --- the gate ---


def test_the_bootstrap_interval_is_that_of_scipy():
    difference = np.random.default_rng(1).exponential(size=200) - 0.9
    mean, low, high = tracking.paired_bootstrap(difference)
    expected = bootstrap((difference,), np.mean, n_resamples=10_000, method="percentile", rng=2).confidence_interval
    assert mean == difference.mean()
    assert (low, high) == pytest.approx((expected.low, expected.high), abs=0.01)
    half = norm.ppf(0.975) * difference.std() / np.sqrt(200)
    assert (high - low) / 2 == pytest.approx(half, rel=0.05)
    assert tracking.paired_bootstrap(difference) == (mean, low, high)


def test_the_bootstrap_interval_covers_the_mean_as_often_as_it_says():
    rng = np.random.default_rng(0)
    covered = [
        low <= 0 <= high for _, low, high in (tracking.paired_bootstrap(rng.normal(size=80), 500) for _ in range(600))
    ]
    assert 0.92 <= np.mean(covered) <= 0.97


def champion(root, name="mean"):
    return str(tracking.Store(root).client.get_registered_model(name).aliases["champion"])


def test_only_a_model_that_is_better_beyond_chance_becomes_champion(root, capsys):
    rng = np.random.default_rng(0)
    scores = rng.random(200)
    noise = rng.normal(size=200)
    noise -= noise.mean()
    steps = [
        (scores, "1", "version 1 becomes champion"),
        (scores, "1", "version 2 does not become champion: mean score +0 against version 1"),  # no difference
        (scores - 0.001 + 0.3 * noise, "1", "version 3 does not become champion"),  # better by chance alone
        (scores + 0.1, "1", "version 4 does not become champion"),
        (
            scores - 0.1 + 0.3 * noise,
            "5",
            "version 5 becomes champion: mean score -0.1 against version 1, 95 % interval -0.1",
        ),
        (scores, "5", "version 6 does not become champion: mean score +0.1"),  # champions are not judged by the first
    ]
    for seed, (values, expected, line) in enumerate(steps):
        project.finish(root, "mean", scores=values, seed=seed)
        tracking.release(root, ["mean"])
        assert line in capsys.readouterr().out
        assert champion(root) == expected
    version = tracking.Store(root).client.get_model_version("mean", "5")
    assert version.description.startswith("version 5 becomes champion")
    assert {"data_hash", "params_hash", "test.r2"} <= version.tags.keys()


def test_other_test_data_are_not_compared(root, capsys):
    project.finish(root, "mean", scores=np.ones(50))
    tracking.release(root, None)
    project.finish(root, "mean", scores=np.zeros(50), seed=1)
    folder = root / "data" / "measured"
    (folder / "description.json").write_text((folder / "description.json").read_text() + " ")
    lock = YAML().load(Path("dvc.lock"))
    lock["stages"]["train@mean"]["deps"][0]["md5"] = tracking._md5(folder)
    YAML().dump(lock, Path("dvc.lock"))
    tracking.release(root, None)
    assert "tested on other data" in capsys.readouterr().out and champion(root) == "1"


def test_an_unknown_name_is_refused(root):
    project.finish(root, "mean")
    with pytest.raises(UserError, match="'meen' is not in the finished experiments.*did you mean mean"):
        tracking.release(root, ["meen"])


def test_a_model_comes_back_from_the_registry(root, tmp_path):
    with pytest.raises(UserError, match="no model is registered"):
        tracking.local_copy("models:/mean@champion", tmp_path / "a")
    project.finish(root, "mean")
    tracking.release(root, None)
    folder = tracking.local_copy("models:/mean@champion", tmp_path / "b")
    assert (folder / "model.safetensors").read_bytes() == (root / "models" / "mean" / "model.safetensors").read_bytes()
    for uri in ("models:/mean@challenger", "models:/other@champion", "models:/mean/7"):
        with pytest.raises(UserError, match="^MLflow at"):
            tracking.local_copy(uri, tmp_path / "c")
    with pytest.raises(UserError, match="should be like"):
        tracking.local_copy("mean", tmp_path / "d")
