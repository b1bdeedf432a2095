"""MLflow's view of finished experiments: on a real store in a folder."""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from ruamel.yaml import YAML

from genai import tracking
from genai.core.config import UserError
from genai.tracking import mirror
from genai.tracking.finished import md5
from genai.tracking.store import Store
from tests import project


def counts(root):
    """Return how much of everything the store holds."""
    store = Store(root)
    runs = store.runs()
    models = store.client.search_logged_models([store.experiment_id])
    return {
        "runs": len(runs),
        "params": sum(len(run.data.params) for run in runs),
        "tags": sum(len(run.data.tags) for run in runs),
        "inputs": sum(len(run.inputs.dataset_inputs) for run in runs),
        "metrics": sum(len(store.client.get_metric_history(r.info.run_id, k)) for r in runs for k in r.data.metrics),
        "logged_models": len(models),
        "versions": len(store.client.search_model_versions()),
        "registered": len(store.client.search_registered_models()),
        "files": sum(path.is_file() for path in (root / "mlartifacts").rglob("*")),
    }


def only_run(root, **tags):
    (run,) = Store(root).runs(**tags)
    return run


def artifacts(root, run, folder):
    return {a.path for a in Store(root).client.list_artifacts(run.info.run_id, folder)}


def test_a_finished_experiment_becomes_a_run_with_all_that_it_has(root):
    for path in (
        "samples/cnn/grid.png",
        "figures/cnn/confusion.png",
        "reports/figures/cnn/weights.png",
        "reports/figures/cnn_wide/weights.png",
    ):
        (root / path).parent.mkdir(parents=True)
        (root / path).write_bytes(path.encode())
    project.finish(root, "cnn", **project.CNN | {"steps": 7})
    project.finish(root, "cnn_wide", **project.MEAN)
    tracking.track(root)

    run = only_run(root, experiment="cnn")
    client = Store(root).client
    assert (run.info.run_name, run.info.status) == ("cnn", "FINISHED")
    assert run.data.params["config.channels"] == "[4]" and run.data.params["train.steps"] == "7"
    assert run.data.params["environment.python"] == "3.11" and "environment.torch" in run.data.params
    metrics = json.loads(Path("metrics/cnn.json").read_text())
    for split in ("validation", "test"):
        assert run.data.metrics[f"{split}/accuracy"] == metrics[split]["accuracy"]
    curve = [(m.step, m.value) for m in client.get_metric_history(run.info.run_id, "train/loss")]
    assert curve == [(step, float(f"{1 / step:.6g}")) for step in range(1, 8)]
    assert {"validation/loss", "train/learning_rate"} <= run.data.metrics.keys()
    assert run.data.tags["topic"] == "cnn"
    assert artifacts(root, run, "figures") == {"figures/confusion.png", "figures/weights.png"}
    assert artifacts(root, run, "samples") == {"samples/grid.png"}
    assert artifacts(root, run, "scores") == {"scores/cnn.csv"}
    (output,) = run.outputs.model_outputs
    folder = Path(client.get_logged_model(output.model_id).artifact_location.removeprefix("file://"))
    weights = Path("models/cnn/model.safetensors").read_bytes()
    assert (folder / "data" / "cnn" / "model.safetensors").read_bytes() == weights
    assert not [*folder.rglob("*.pkl")] and (folder / "code" / "genai" / "tracking" / "pyfunc.py").exists()


def test_each_split_is_an_input_of_its_own(root):
    project.finish(root, "cnn", **project.CNN)
    tracking.track(root)
    inputs = only_run(root).inputs.dataset_inputs
    digests = {i.tags[0].value: i.dataset.digest for i in inputs}
    assert digests.keys() == {"training", "validation", "testing"} and len(set(digests.values())) == 3
    assert {i.dataset.name for i in inputs} == {"digits"}
    from genai.tracking.finished import md5

    assert digests["testing"] == md5(root / "data" / "digits" / "test.safetensors")


def test_who_trained_it_and_from_which_commit_stands_there_only_where_it_is_known(root):
    work = project.start(root, "cnn", steps=3)
    (work / "train.json").write_text("{}")
    project.finish(root, "cnn", **project.CNN)
    project.finish(root, "mean")  # DVC brought it back: no started.json
    tracking.track(root)
    cnn, mean = only_run(root, experiment="cnn"), only_run(root, experiment="mean")
    assert cnn.data.tags["mlflow.user"] == "ada" and cnn.data.tags["mlflow.source.git.commit"] == "c" * 40
    assert cnn.info.start_time == 1_800_000_000_000
    assert not {"mlflow.user", "mlflow.source.git.commit"} & mean.data.tags.keys()
    assert f"git checkout {'c' * 40} && dvc checkout models/cnn" in cnn.data.tags["mlflow.note.content"]
    assert "`dvc checkout models/mean`" in mean.data.tags["mlflow.note.content"]


def row(experiment, test, topic="cnn", task="classification", metric="accuracy"):
    about = {"data": "digits", "experiment": experiment, "topic": topic, "task": task, "metric": metric}
    return about | {"validation": test, "test": test, "test_se": 0.01}


def test_the_description_sets_the_run_beside_its_baseline_and_says_how_to_restore_it(root):
    project.finish(root, "cnn", **project.CNN, scores=np.full(50, 0.1))
    tracking.track(root)
    assert len(only_run(root).data.tags["mlflow.note.content"].splitlines()) == 2  # the report has not run
    board = [row("mlp", 0.95, "neural_networks"), row("cnn", 0.9), row("logistic_regression", 0.8, "basics")]
    board += [row("majority_class", 0.1, "basics"), row("k_means", 0.99, "basics", "clustering")]
    board[1]["others"] = {"log_loss": 0.3, "loss_constant": 2.3026, "examples": 50}
    (root / "metrics" / "cnn.json").write_text(json.dumps({s: {"accuracy": 0.9} for s in ("validation", "test")}))
    (root / "reports").mkdir()
    (root / "reports" / "leaderboard.json").write_text(json.dumps(board))
    project.lock(root, {"report": {"cmd": "", "outs": []}})
    tracking.track(root)
    assert only_run(root).data.tags["mlflow.note.content"].split("  \n") == [
        "ConvNet of genai/cnn/classifier.py, trained on digits for classification",
        "accuracy 0.9 ± 0.01 on test",
        "baseline logistic_regression: accuracy 0.8 ± 0.01, best other mlp: accuracy 0.95 ± 0.01, loss_constant 2.303",
        "to restore it: `dvc checkout models/cnn` (or `dvc pull models/cnn`)",
    ]


def test_what_somebody_wrote_in_the_description_stays(root):
    project.finish(root, "mean")
    tracking.track(root)
    store = Store(root)
    store.client.set_tag(only_run(root).info.run_id, "mlflow.note.content", "mine")
    (root / ".work" / "tracked.json").unlink()
    tracking.track(root)
    assert only_run(root).data.tags["mlflow.note.content"] == "mine"


def generated(root, texts):
    folder = root / "samples" / "text_diffusion"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "samples.json").write_text(json.dumps([{"prompt": None, "text": text} for text in texts]))


def test_a_text_generator_shows_a_sample_and_its_sampling_numbers(root):
    generated(root, ["the  file\nis `not` found"])
    project.finish(root, "n_gram", **project.N_GRAM, scores=np.ones(20))
    project.finish(root, "text_diffusion", **project.DIFFUSION, scores=np.ones(20))
    tracking.track(root)
    run = only_run(root, experiment="text_diffusion")
    assert "it writes: the file is 'not' found" in run.data.tags["mlflow.note.content"]
    assert run.data.params["sampling.steps"] == "4" and run.data.params["sampling.sampler"] == "ancestral"
    assert run.data.metrics["test/quality_se"] == 0.1  # of the grades
    assert run.data.tags["judge"] == "n_gram" and len(run.data.tags["judge_hash"]) == 36
    assert artifacts(root, run, "generated") == {"generated/samples.json"}


def test_other_sampling_numbers_are_another_run_of_the_same_model(root):
    project.finish(root, "n_gram", **project.N_GRAM, scores=np.ones(20))
    for steps in (4, 5):
        generator = project.DIFFUSION["generator"]
        generator = generator | {"sampling": generator["sampling"] | {"steps": steps}}
        project.finish(root, "text_diffusion", **project.DIFFUSION | {"generator": generator}, scores=np.ones(20))
        tracking.track(root)
    runs = Store(root).runs(experiment="text_diffusion")
    assert [run.data.params["sampling.steps"] for run in runs] == ["5", "4"]


def test_tracking_and_releasing_twice_adds_nothing(root, capsys):
    project.finish(root, "mean")
    project.finish(root, "other", seed=1)
    tracking.track(root)
    tracking.release(root, None)
    before = counts(root)
    assert before["runs"] == before["logged_models"] == before["versions"] == before["registered"] == 2
    tracking.track(root)
    tracking.release(root, None)
    assert counts(root) == before
    (root / ".work" / "tracked.json").unlink()  # nor where nothing is remembered
    tracking.track(root)
    tracking.release(root, None)
    tracking.release(root, ["mean"])
    assert counts(root) == before
    out = capsys.readouterr().out
    assert "none new" in out and out.endswith("released already: mean\n")


def test_a_store_that_was_deleted_is_filled_again(root, empty_store):
    project.finish(root, "mean")
    tracking.release(root, None)
    (root / "mlflow.db").unlink()
    shutil.copy(empty_store, root)  # as `make ui` would leave it
    tracking.track(root)
    assert counts(root)["runs"] == 1


def test_nothing_to_do_does_not_import_mlflow(root):
    project.finish(root, "mean")
    tracking.track(root)
    tracking.release(root, None)
    code = "import sys; from pathlib import Path; from genai import tracking; "
    code += "tracking.track(Path.cwd()); tracking.release(Path.cwd(), None); sys.exit('mlflow' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, env=os.environ | {"PYTHONPATH": str(project.HERE)})


def test_new_content_is_a_new_run_and_old_content_the_old_one(root):
    project.finish(root, "mean")
    tracking.track(root)
    first = only_run(root, experiment="mean")
    project.finish(root, "mean", seed=1)
    tracking.track(root)
    project.finish(root, "mean")
    tracking.track(root)
    runs = Store(root).runs(experiment="mean")
    assert len(runs) == 2 and first.info.run_id in {run.info.run_id for run in runs}


def test_samples_and_figures_that_come_later_join_the_run(root):
    project.finish(root, "mean")
    tracking.track(root)
    (root / "samples" / "mean").mkdir(parents=True)
    (root / "samples" / "mean" / "samples.md").write_text("text")
    project.finish(root, "mean")  # the same, and its sample stage
    tracking.track(root)
    assert artifacts(root, only_run(root, experiment="mean"), "samples") == {"samples/samples.md"}


def test_what_is_not_as_dvc_lock_says_is_left_out_until_it_is(root, capsys):
    project.finish(root, "mean")
    scores = (root / "scores" / "mean.csv").read_text()
    (root / "scores" / "mean.csv").write_text("example,score\n")  # a stage is writing it
    tracking.track(root)
    line = "left out, run dvc pull or dvc repro (scores/mean.csv is not what dvc.lock says): mean"
    assert counts(root)["runs"] == 0 and line in capsys.readouterr().out
    (root / "scores" / "mean.csv").write_text(scores)
    tracking.track(root)
    assert counts(root)["runs"] == 1


def test_a_tracker_that_died_half_way_is_continued(root, monkeypatch):
    project.finish(root, "mean")
    with monkeypatch.context() as patch:
        patch.setattr(mirror, "log_model", lambda *_: os._exit(9))
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
    environment = os.environ | {"PYTHONPATH": str(project.HERE), "OMP_NUM_THREADS": "1"}
    both = [subprocess.Popen([sys.executable, "-c", code], env=environment) for _ in range(2)]
    assert [process.wait() for process in both] == [0, 0]
    after = counts(root)
    assert after["runs"] == after["logged_models"] == after["versions"] == after["registered"] == 1


def test_previews_are_logged_once_each_by_step(root):
    work = project.start(root, "flow", steps=3, started=time.time() - 60)
    (work / "previews").mkdir()
    Image.new("L", (8, 8)).save(work / "previews" / "10.png")
    (work / "previews" / "20.txt").write_text("the file")
    (work / "previews" / "15.txt").write_text("of an earlier training")
    os.utime(work / "previews" / "15.txt", (1, 1))
    (work / "started.json").touch()  # from a worker it may come after them
    (work / "previews" / ".30.txt.123").write_text("being writ")
    store = Store(root)
    run_id = store.client.create_run(store.experiment_id).info.run_id
    assert mirror.log_previews(store, run_id, work, None) == {"10.png", "20.txt"}
    assert mirror.log_previews(store, run_id, work, None) == {"10.png", "20.txt"}  # another follower asks the run
    images = [a.path for a in store.client.list_artifacts(run_id, "images") if a.path.endswith(".png")]
    assert len(images) == 1 and "+step+10+" in images[0]
    assert [a.path for a in store.client.list_artifacts(run_id, "previews")] == ["previews/0000020.txt"]


def test_names_can_be_prefixed_on_a_shared_store(root, monkeypatch):
    project.finish(root, "mean")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "team")
    monkeypatch.setenv("GENAI_MODEL_PREFIX", "team.")
    tracking.release(root, None)
    client = Store(root).client
    assert client.get_model_version_by_alias("team.mean", "champion").version in (1, "1")
    assert client.get_experiment_by_name("team").experiment_id in tracking.page(root)
    monkeypatch.setenv("GENAI_MODEL_PREFIX", "")
    tracking.release(root, None)  # another place: what is remembered is not of it
    assert {m.name for m in client.search_registered_models()} == {"team.mean", "mean"}
    monkeypatch.setenv("GENAI_MODEL_PREFIX", "a/b")
    with pytest.raises(UserError, match="GENAI_MODEL_PREFIX: 'a/b' should be of letters"):
        tracking.release(root, None)


def test_the_page_of_an_empty_project_is_that_of_all_experiments(root):
    assert tracking.page(root) == "/#/experiments"


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


def test_an_experiment_in_mlflows_trash_is_named(root):
    store = Store(root)
    store.client.delete_experiment(store.experiment_id)
    project.finish(root, "mean")
    with pytest.raises(UserError, match="'genai' is in its trash"):
        tracking.track(root)


def test_a_lock_of_another_schema_is_no_traceback(root, capsys):
    YAML().dump({"schema": "2.0"}, root / "dvc.lock")
    tracking.track(root)
    assert capsys.readouterr().out == "MLflow: 0 runs, none new\n"


def test_a_generator_graded_on_other_data_has_their_test_split_as_an_input_too(root):
    project.finish(root, "n_gram", **project.N_GRAM, scores=np.ones(20))
    project.prepare(root, "other", project.TEXT, seed=1)
    generator = project.DIFFUSION["generator"] | {"real": "other"}
    project.finish(root, "text_diffusion", **project.DIFFUSION | {"generator": generator}, scores=np.ones(20))
    tracking.track(root)
    inputs = only_run(root, experiment="text_diffusion").inputs.dataset_inputs
    found = sorted((i.dataset.name, i.tags[0].value) for i in inputs)
    assert found == [("other", "testing"), ("text", "testing"), ("text", "training"), ("text", "validation")]


def reported(root, test):
    """Write what the report leaves, and its entry of dvc.lock."""
    (root / "reports").mkdir(exist_ok=True)
    board = [
        row("cnn", test) | {"recipe": "cnn", "baseline": None, "code": "genai/cnn/classifier.py", "model": "ConvNet"}
    ]
    board[0] |= {"parameters": 9, "higher_is_better": True, "others": {}}
    (root / "reports" / "leaderboard.json").write_text(json.dumps(board))
    (root / "reports" / "leaderboard.md").write_text(f"| cnn | {test} |")
    outs = [
        {"path": f"reports/{name}", "md5": md5(root / "reports" / name)}
        for name in ("leaderboard.json", "leaderboard.md")
    ]
    project.lock(root, {"report": {"cmd": "", "outs": outs}})


def test_the_page_of_it_all_is_kept_in_one_run_that_a_later_one_replaces(root):
    project.finish(root, "cnn", **project.CNN)
    for test in (0.8, 0.9):
        reported(root, test)
        tracking.track(root)
    store = Store(root)
    (run,) = store.runs(page=store.place)
    assert run.info.status == "FINISHED" and artifacts(root, run, None) == {"index.html"}
    assert "0.9000" in Path(store.client.download_artifacts(run.info.run_id, "index.html", str(root))).read_text()
    notes = [run.data.tags, store.client.get_experiment(store.experiment_id).tags]
    assert [tags["mlflow.note.content"] for tags in notes] == ["| cnn | 0.9 |"] * 2
    store.client.set_experiment_tag(store.experiment_id, "mlflow.note.content", "mine")
    reported(root, 0.7)
    tracking.track(root)
    assert store.client.get_experiment(store.experiment_id).tags["mlflow.note.content"] == "mine"
    assert len(store.runs()) == 2


def test_a_report_that_is_being_written_is_left_for_later(root):
    project.finish(root, "cnn", **project.CNN)
    reported(root, 0.8)
    (root / "reports" / "leaderboard.md").write_text("| cn")
    tracking.track(root)
    assert not Store(root).runs(page=Store(root).place)
