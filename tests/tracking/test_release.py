"""The registry: which model becomes champion, by what, and that two releases at once agree."""

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from genai import tracking
from genai.core.config import UserError
from genai.core.dataset import write_arrays
from genai.tasks.language_model import block_length
from genai.tracking import gate
from genai.tracking.compare import Decision
from genai.tracking.finished import md5
from genai.tracking.store import Store
from tests import project


def alias(root, name="mean", alias="champion"):
    """Return the version that an alias points at; None where there is none."""
    version = Store(root).client.get_registered_model(name).aliases.get(alias)
    return version and str(version)


def released(root, capsys, name="mean"):
    """Release and return the line."""
    capsys.readouterr()
    tracking.release(root, [name])
    return next(line for line in capsys.readouterr().out.splitlines() if line.startswith(f"{name}: "))


def test_only_a_model_that_is_better_beyond_chance_becomes_champion(root, capsys):
    rng = np.random.default_rng(0)
    scores, noise = rng.random(200), rng.normal(size=200)
    noise -= noise.mean()
    steps = [
        (scores, "1", None, "version 1 becomes champion: there is no other"),
        (scores, "1", "2", "version 2 does not become champion: mean score +0 against version 1"),
        (scores - 0.001 + 0.3 * noise, "1", "3", "version 3 does not become champion: mean score -0.001"),
        (scores + 0.1, "1", "4", "(look 3 at it: at most 0.0042)"),
        (scores - 0.2 + 0.3 * noise, "5", None, "version 5 becomes champion: mean score -0.2 against version 1"),
        (scores, "5", "6", "mean score +0.2 against version 5 (n = 200, lower is better), p = 1 (look 1 at it"),
    ]
    for seed, (values, expected, challenger, line) in enumerate(steps):
        project.finish(root, "mean", scores=values, seed=seed)
        assert line in released(root, capsys)
        assert (alias(root), alias(root, alias="challenger")) == (expected, challenger)
    version = Store(root).client.get_model_version("mean", "5")
    assert version.description.startswith("version 5 becomes champion")
    assert {"data_hash", "test_hash", "test.quality"} <= version.tags.keys()


def test_a_look_is_paid_for_even_where_it_died_half_way(root, capsys, monkeypatch):
    for seed in (0, 1):
        project.finish(root, "mean", seed=seed)
        with monkeypatch.context() as patch:
            if seed:
                patch.setattr(release_module(), "compare", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
                with pytest.raises(KeyboardInterrupt):
                    tracking.release(root, None)
            else:
                tracking.release(root, None)
    project.finish(root, "mean", seed=2)
    assert "look 2 at it" in released(root, capsys)
    project.finish(root, "mean", seed=1)  # the one that died: its look is not counted twice
    assert "look 2 at it" in released(root, capsys)


def release_module():
    return sys.modules["genai.tracking.release"]


def test_twenty_looks_are_each_held_to_their_level(root, capsys):
    """A gain that would pass at the first look does not at a later one."""
    rng = np.random.default_rng(0)
    scores = rng.random(200)
    noise = rng.normal(size=200)
    better = scores - 0.15 + (noise - noise.mean()) / noise.std()
    p = gate.better_score(better - scores, 1, 1e-4)
    assert gate.level(2) < p < gate.level(1)
    project.finish(root, "mean", scores=scores)
    tracking.release(root, None)
    project.finish(root, "mean", scores=scores, seed=1)
    tracking.release(root, None)
    project.finish(root, "mean", scores=better, seed=2)
    assert "version 3 does not become champion" in released(root, capsys)


# --- the champion measured anew ---


def test_on_new_test_data_the_champion_is_scored_anew(root, capsys):
    project.finish(root, "model")  # the mean
    tracking.release(root, None)
    project.prepare(root, "measured", project.TABLE, seed=1)
    project.finish(root, "model", **project.LINEAR)
    line = released(root, capsys, "model")
    squared = [float(row.split(",")[1]) for row in (root / "scores" / "model.csv").read_text().splitlines()[1:]]
    y = __import__("safetensors.numpy").numpy.load_file(root / "data/measured/test.safetensors")["y"]
    train = json.loads(Path("metrics/model.json").read_text())
    assert "version 2 becomes champion: mean score -" in line and "version 1, scored anew" in line
    assert train["test"]["r2"] > 0.5 and np.mean(squared) < y.var()


def test_an_equal_model_on_new_test_data_does_not_become_champion(root, capsys):
    project.finish(root, "mean")
    tracking.release(root, None)
    project.prepare(root, "measured", project.TABLE, seed=1)
    project.finish(root, "mean")  # of new data, so another config? its weights are: the mean of another training part
    assert "version 2 does not become champion" in released(root, capsys)


def test_a_new_card_or_training_part_leaves_the_scores_comparable(root, capsys):
    project.finish(root, "mean")
    tracking.release(root, None)
    (root / "data" / "measured" / "card.md").write_text("another card")
    project.finish(root, "mean", seed=1)
    assert "scored anew" not in released(root, capsys)


def test_scores_that_are_gone_or_were_measured_otherwise_are_made_anew(root, capsys):
    project.finish(root, "mean", scores=np.zeros(project.N))
    tracking.release(root, None)
    client = Store(root).client
    client.set_model_version_tag("mean", "1", "measured_by", "another hash")
    project.finish(root, "mean", **project.LINEAR)
    assert "version 1, scored anew" in released(root, capsys)
    for path in (root / "mlartifacts").rglob("scores/mean.csv"):
        path.unlink()
    project.finish(root, "mean", seed=2)
    assert "scored anew" in released(root, capsys)


def test_a_champion_of_another_tokenizer_reads_new_text_with_its_own(root, capsys):
    project.finish(root, "n_gram", **project.N_GRAM)
    tracking.release(root, None)
    larger = project.TEXT.model_copy(update={"vocabulary_size": 257, "shape": [16]})
    project.prepare(root, "text", larger, seed=1, merges=[("t", "h")])
    project.finish(root, "n_gram", **project.N_GRAM | {"description": larger})
    line = released(root, capsys, "n_gram")
    assert "version 2 does not become champion" in line and "scored anew" in line
    difference = float(line.split("mean score ")[1].split()[0])
    assert abs(difference) < 0.5  # bits a character: with tokens of another tokenizer the text would be noise to it


def registered_folder(root, name="mean", version=1):
    client = Store(root).client
    model_id = client.get_model_version(name, str(version)).source.removeprefix("models:/")
    return Path(client.get_logged_model(model_id).artifact_location.removeprefix("file://"))


def test_a_champion_of_other_code_is_scored_by_its_own(root, capsys):
    project.finish(root, "mean")
    tracking.release(root, None)
    folder = registered_folder(root)
    config = folder / "data" / "mean" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"code": "another hash"}))
    code = folder / "code" / "genai" / "basics" / "baselines.py"
    code.write_text(
        code.read_text().replace("return np.full(len(X), self.mean_)", "return np.full(len(X), self.mean_ + 10)")
    )
    project.prepare(root, "measured", project.TABLE, seed=1)
    project.finish(root, "mean", seed=1)  # the same mean, without the 10
    line = released(root, capsys)
    assert "version 2 becomes champion: mean score -1" in line and "scored anew" in line


@pytest.mark.parametrize("damage", ["model.safetensors", "config.json", "*.*"])
def test_a_champion_that_does_not_load_gives_way(root, capsys, damage):
    project.finish(root, "mean")
    tracking.release(root, None)
    project.prepare(root, "measured", project.TABLE, seed=1)
    for path in registered_folder(root).rglob(damage):
        path.unlink()
    project.finish(root, "mean", seed=1)
    line = released(root, capsys)
    assert "version 2 becomes champion: version 1 cannot be measured on the present test split (it" in line


def test_a_champion_of_another_task_gives_way(root, capsys):
    project.finish(root, "digits", **project.MAJORITY)
    tracking.release(root, None)
    project.finish(root, "digits", **project.K_MEANS)
    assert "(it is measured at another task, classification)" in released(root, capsys, "digits")
    assert alias(root, "digits") == "2"


def test_where_the_data_are_not_here_the_champion_is_not_given_up(root, capsys):
    project.finish(root, "mean")
    tracking.release(root, None)
    project.prepare(root, "measured", project.TABLE, seed=1)
    project.finish(root, "mean", seed=1)
    for path in sorted((root / "data" / "measured").iterdir()):
        path.unlink()
    (root / "data" / "measured").rmdir()
    assert "not on this machine" in released(root, capsys) and alias(root) == "1"


def test_a_champion_for_data_of_another_shape_gives_way(root, capsys):
    project.finish(root, "majority", **project.MAJORITY)
    tracking.release(root, None)
    larger = project.IMAGES.model_copy(update={"shape": [1, 16, 16]})
    project.prepare(root, "digits", larger, seed=1)
    project.finish(root, "majority", **project.MAJORITY | {"description": larger})
    line = released(root, capsys, "majority")
    assert "its data are of another shape: [1, 8, 8], now [1, 16, 16]" in line and alias(root, "majority") == "2"


def encoded(root, mean, levels):
    """Write the same rows of a table by the mean and levels that another training split had; return the description."""
    label, city = project.RAW.columns
    columns = [label.model_copy(update={"mean": mean}), city.model_copy(update={"levels": levels})]
    description = project.RAW.model_copy(update={"columns": columns})
    folder, rng = project.prepare(root, "people", description), np.random.default_rng(0)
    for split in ("train", "validation", "test"):
        rows = pd.DataFrame({"label": rng.normal(40, 10, 60), "city": rng.choice(["Lima", "Oslo", None], 60)})
        y = rows.label / 10 + (rows.city == "Oslo") + rng.normal(size=60) / 9
        arrays = {"x": description.encode(rows), "y": y.to_numpy(np.float32)}
        write_arrays(folder / f"{split}.safetensors", arrays)
    return description


def test_the_champion_of_a_table_is_scored_anew_by_the_means_and_levels_that_it_was_trained_with(root, capsys):
    def finish(*about):
        settings = {"settings": {"alpha": 1e-9}}  # least squares predict the same whatever the units
        project.finish(root, "ridge", **project.OF_ROWS | settings | {"description": encoded(root, *about)})

    finish(40.0, ["Lima", "Oslo", "Rome"])
    tracking.release(root, None)
    finish(1000.0, ["Oslo", "Lima", "Bonn"])
    line = released(root, capsys, "ridge")
    (difference,) = re.findall(r"mean score ([-+.e\d]+) against version 1, scored anew", line)
    assert abs(float(difference)) < 1e-4, line


def test_the_champion_of_a_table_of_other_columns_gives_way(root, capsys):
    project.finish(root, "ridge", **project.OF_ROWS)
    tracking.release(root, None)
    column = project.RAW.columns[0].model_copy(update={"name": "age"})
    other = project.RAW.model_copy(update={"columns": [column, project.RAW.columns[1]]})
    project.prepare(root, "people", other, seed=1)
    project.finish(root, "ridge", **project.OF_ROWS | {"description": other})
    line = released(root, capsys, "ridge")
    assert "its data are of another columns: ['label', 'city'], now ['age', 'city']" in line


def test_scores_that_are_not_finite_never_pass_and_never_block(root, capsys):
    project.finish(root, "mean", scores=np.ones(50))
    tracking.release(root, None)
    project.finish(root, "mean", scores=np.r_[np.zeros(49), np.nan], seed=1)
    assert "does not become champion: 1 scores are not finite" in released(root, capsys)
    Store(root).client.set_registered_model_alias("mean", "champion", "2")
    project.finish(root, "mean", scores=np.ones(50), seed=2)
    assert "version 3 becomes champion" in released(root, capsys)


def test_text_is_compared_in_blocks_and_whatever_the_tokenizer(root, capsys):
    scores = np.random.default_rng(0).random(300)
    project.finish(root, "n_gram", **project.N_GRAM, scores=scores)
    tracking.release(root, None)
    project.finish(root, "n_gram", **project.N_GRAM | {"settings": {"order": 2}}, scores=scores[:299] - 0.5)
    line = released(root, capsys, "n_gram")
    assert f"(n = 299 in blocks of {block_length(299)}, lower is better)" in line
    assert "version 2 becomes champion: mean score -0.5 against version 1" in line and "anew" not in line


# --- generators of images ---


def flow(root, seed, shift, labels=None, sampling=None):
    generated = project.images(seed, shift)
    if labels is not None:
        generated["y"] = labels(generated)
    project.finish(root, "flow", **project.FLOW | {"seed": seed}, scores=np.full(9, -seed), generated=generated)


def judged(root):
    from genai import model

    judge = model.load(root / "models" / "cnn")
    return lambda generated: judge.apply("predict_proba", generated["x"]).argmax(1)


def test_an_image_generator_is_promoted_by_its_distance_to_real_images_under_one_judge(root, capsys):
    project.finish(root, "cnn", **project.CNN)
    flow(root, 0, 0.4)
    tracking.release(root, None)
    flow(root, 1, 0.5)  # its scores, the loss, are better; its samples are not
    assert "version 2 does not become champion: kernel distance" in released(root, capsys, "flow")
    flow(root, 2, 0.0)
    line = released(root, capsys, "flow")
    judge = md5(root / "models" / "cnn")
    assert (
        "version 3 becomes champion: kernel distance" in line
        and f"by cnn {judge[:8]} (n = 100, 100 and 60 real)" in line
    )
    version = Store(root).client.get_model_version("flow", "3")
    assert (version.tags["judge"], version.tags["judge_hash"]) == ("cnn", judge)


def test_labels_that_are_less_often_right_block_a_nearer_generator(root, capsys):
    project.finish(root, "cnn", **project.CNN)
    flow(root, 0, 0.4, judged(root))
    tracking.release(root, None)
    flow(root, 1, 0.0, lambda generated: (judged(root)(generated) + 1) % 10)
    line = released(root, capsys, "flow")
    assert "version 2 does not become champion" in line and "label accuracy 0 where the floor is 0." in line


def test_another_judge_grades_both_anew(root, capsys):
    project.finish(root, "cnn", **project.CNN)
    flow(root, 0, 0.4)
    tracking.release(root, None)
    before = md5(root / "models" / "cnn")
    project.finish(root, "cnn", **project.CNN | {"seed": 1})
    flow(root, 1, 0.0)
    line = released(root, capsys, "flow")
    after = md5(root / "models" / "cnn")
    assert before != after and f"by cnn {after[:8]}" in line and "version 2 becomes champion" in line


def test_a_judge_that_is_not_what_graded_is_named(root, capsys):
    project.finish(root, "cnn", **project.CNN)
    flow(root, 0, 0.4)
    tracking.release(root, None)
    flow(root, 1, 0.0)
    project.finish(root, "cnn", **project.CNN | {"seed": 1})
    line = released(root, capsys, "flow")
    assert line == "flow: not released; models/cnn: not the judge that graded flow; run: dvc repro grade@flow"
    assert alias(root, "flow") == "1"


def test_what_is_not_here_is_named_in_one_line_and_released_once_it_is(root, capsys):
    project.finish(root, "mean")
    project.finish(root, "cnn", **project.CNN)
    config = root / "models" / "cnn" / "config.json"
    text = config.read_text()
    config.unlink()  # in a clone without `dvc pull`
    tracking.release(root, None)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("MLflow: 1 runs, new: mean; left out") and lines[1].startswith("mean: version 1")
    assert lines[2:] == ["not released, since their files are not what dvc.lock says: cnn"]
    config.write_text(text)
    assert "version 1 becomes champion" in released(root, capsys, "cnn")


def test_samples_that_are_gone_give_way(root, capsys):
    project.finish(root, "cnn", **project.CNN)
    flow(root, 0, 0.4)
    tracking.release(root, None)
    for path in (root / "mlartifacts").rglob("samples.safetensors"):
        path.unlink()
    flow(root, 1, 0.5)
    assert "cannot be measured on the present test split (its samples are no longer" in released(root, capsys, "flow")


# --- the lock ---

LOCKED = """
import sys, time
from pathlib import Path
from genai.tracking.release import lock
from genai.tracking.store import Store
with lock(Store(Path.cwd()), "mean"):
    print("held", flush=True)
    sys.stdin.read()
"""


def hold(root):
    """Hold the lock of a model in a process of its own."""
    environment = os.environ | {"PYTHONPATH": str(project.HERE)}
    process = subprocess.Popen(
        [sys.executable, "-c", LOCKED], cwd=root, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdout.readline() == b"held\n"
    return process


def test_a_second_release_waits_for_the_first(root, capsys):
    project.finish(root, "mean")
    tracking.track(root)
    holder = hold(root)
    environment = os.environ | {"PYTHONPATH": str(project.HERE)}
    code = "from pathlib import Path; from genai import tracking; tracking.release(Path.cwd(), None)"
    second = subprocess.Popen([sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, text=True)
    time.sleep(6)
    assert second.poll() is None and not Store(root).client.search_model_versions("name = 'mean'")
    holder.communicate()
    assert "version 1 becomes champion" in second.communicate(timeout=60)[0]
    assert [m.name for m in Store(root).client.search_registered_models()] == ["mean"]


def test_one_that_waits_too_long_loses_with_a_line_that_names_the_holder(root, capsys, monkeypatch):
    monkeypatch.setattr(release_module(), "PATIENCE", 0.1)
    project.finish(root, "mean")
    holder = hold(root)
    line = released(root, capsys)
    assert line.startswith(f"mean: not released; {os.uname().nodename}:{holder.pid} has been releasing mean since ")
    holder.communicate()
    assert "version 1 becomes champion" in released(root, capsys)


def test_the_lock_of_a_process_that_died_here_is_taken_over_at_once(root, capsys):
    project.finish(root, "mean")
    holder = hold(root)
    holder.kill()
    holder.wait()
    assert "version 1 becomes champion" in released(root, capsys)


def test_the_lock_of_another_host_is_taken_over_when_it_is_stale(root, capsys, monkeypatch):
    monkeypatch.setattr(release_module(), "PATIENCE", 0.1)
    project.finish(root, "mean")
    client = Store(root).client
    tags = {"holder": "elsewhere:1", "since": str(time.time()), "ticket": "theirs"}
    client.create_registered_model("mean.lock", tags)
    assert "elsewhere:1 has been releasing mean" in released(root, capsys)
    client.set_registered_model_tag("mean.lock", "since", str(time.time() - release_module().STALE - 1))
    assert "version 1 becomes champion" in released(root, capsys)


def test_a_release_whose_lock_was_taken_over_moves_no_alias(root, capsys, monkeypatch):
    project.finish(root, "mean")
    tracking.release(root, None)
    project.finish(root, "mean", **project.LINEAR)

    def slow(store, *_):
        store.client.set_registered_model_tag("mean.lock", "ticket", "theirs")
        return Decision(True, "better")

    monkeypatch.setattr(release_module(), "compare", slow)
    capsys.readouterr()
    tracking.release(root, ["mean"])
    assert "mean: not released; another release took over the lock of mean" in capsys.readouterr().out
    assert alias(root) == "1"


# --- names ---


def test_an_unknown_name_is_refused(root):
    project.finish(root, "mean")
    with pytest.raises(UserError, match="'meen' is not in the finished experiments.*did you mean mean"):
        tracking.release(root, ["meen"])


def test_a_model_comes_back_from_the_registry(root, tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/none.db")
    with pytest.raises(UserError, match="no model is registered"):
        tracking.local_copy("models:/mean@champion", tmp_path / "a")
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    project.finish(root, "mean")
    tracking.release(root, None)
    folder = tracking.local_copy("models:/mean@champion", tmp_path / "b")
    assert (folder / "model.safetensors").read_bytes() == (root / "models" / "mean" / "model.safetensors").read_bytes()
    for uri in ("models:/mean@challenger", "models:/other@champion", "models:/mean/7"):
        with pytest.raises(UserError, match="not found"):
            tracking.local_copy(uri, tmp_path / uri.replace("/", "_"))
    with pytest.raises(UserError, match="should be like"):
        tracking.local_copy("mean", tmp_path / "d")


def test_a_generator_takes_its_sampling_numbers_along(root, tmp_path):
    project.finish(root, "n_gram", **project.N_GRAM, scores=np.ones(20))
    project.finish(root, "text_diffusion", **project.DIFFUSION, scores=np.ones(20))
    tracking.release(root, None)
    folder = tracking.local_copy("models:/text_diffusion@champion", tmp_path / "copy")
    kept = json.loads((folder / "generator.json").read_text())
    assert kept["task"] == "text_generation" and kept["sampling"].items() >= {"length": 32, "steps": 4}.items()
    assert "sampling" not in (root / "models" / "text_diffusion" / "config.json").read_text()
    assert not (tracking.local_copy("models:/n_gram@champion", tmp_path / "other") / "generator.json").exists()
