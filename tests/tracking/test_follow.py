"""`track --follow` in a process of its own, beside trainings that begin, go on, die and end."""

import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
from PIL import Image

from genai import tracking
from genai.tracking.store import Store
from tests import project
from tests.tracking.test_mirror import counts


class Follower:
    """The follower, its pipe held by the test."""

    def __init__(self, root, release=False, patience=60):
        code = "from importlib import import_module; from pathlib import Path; "
        code += "follow = import_module('genai.tracking.follow'); follow.POLL = 0.1; "
        code += f"print('ready', flush=True); follow.follow(Path.cwd(), {release})"
        settings = {
            "PYTHONPATH": str(project.HERE),
            "OMP_NUM_THREADS": "1",
            "MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL": "1",
        }
        self.process = subprocess.Popen(
            [sys.executable, "-c", code],
            cwd=root,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=os.environ | settings,
        )
        assert self.process.stdout.readline() == b"ready\n"
        time.sleep(0.5)  # until it has had its first look
        self.patience = patience

    def until(self, condition):
        deadline = time.monotonic() + self.patience
        while not condition():
            assert self.process.poll() is None and time.monotonic() < deadline
            time.sleep(0.2)

    def close(self):
        self.process.stdin.close()
        assert self.process.wait(self.patience) == 0


@pytest.fixture
def look(root):
    """What the store holds of the runs, the oldest first: status and curve; another process writes it."""
    store = Store(root)

    def runs():
        return sorted(store.runs(), key=lambda run: run.info.start_time)

    def steps(key="train/loss"):
        return sorted(m.step for run in runs() for m in store.client.get_metric_history(run.info.run_id, key))

    look.runs, look.steps, look.client = runs, steps, store.client
    look.statuses = lambda: [run.info.status for run in runs()]
    return look


def test_a_running_training_is_followed_across_deaths_without_a_step_twice(root, look):
    follower = Follower(root)
    live = project.start(root, "cnn", steps=8) / "history.csv"
    live.write_text(project.history(range(1, 3)))
    follower.until(lambda: look.steps() == [1, 2])
    assert look.statuses() == ["RUNNING"]
    with open(live, "a") as file:
        file.write("3,0.333")  # a line being written is left alone
    time.sleep(1)
    assert look.steps() == [1, 2]
    live.write_text(project.history(range(1, 5)))
    follower.until(lambda: look.steps() == [1, 2, 3, 4])
    follower.process.kill()
    follower.process.wait()
    assert look.statuses() == ["RUNNING"]

    follower = Follower(root)  # the training was killed too, and resumes from step 2
    live = project.start(root, "cnn", steps=8, started=1.8e9 + 60) / "history.csv"
    live.write_text(project.history(range(1, 7)))
    follower.until(lambda: look.steps() == [1, 2, 3, 4, 5, 6])
    project.finish(root, "cnn", **project.CNN | {"steps": 8})
    follower.close()
    assert look.steps() == list(range(1, 9))
    assert look.statuses() == ["FINISHED"]
    before = counts(root)
    tracking.track(root)
    assert counts(root) == before


def test_what_is_known_at_the_start_is_there_from_the_start(root, look):
    follower = Follower(root)
    work = project.start(root, "cnn", steps=8, started=1.7e9)
    follower.until(lambda: look.runs() and "train.steps" in look.runs()[0].data.params)
    (run,) = look.runs()
    assert look.steps() == []
    assert run.data.tags["mlflow.user"] == "ada" and run.data.tags["mlflow.source.git.commit"] == "c" * 40
    assert run.data.params["config.channels"] == "[4]" and run.data.params["environment.python"] == "3.11"
    assert run.info.start_time == 1_700_000_000_000

    (work / "history.csv").write_text(project.history(range(1, 3)))
    (work / "previews").mkdir()
    Image.new("L", (8, 8)).save(work / "previews" / "2.png")
    follower.until(lambda: [a.path for a in look.client.list_artifacts(run.info.run_id, "images")])
    follower.until(lambda: "system/cpu_utilization_percentage" in look.runs()[0].data.metrics)
    follower.close()
    assert look.statuses() == ["KILLED"]


def test_the_load_of_another_machine_is_logged_once_a_row_and_in_the_place_of_this_ones(root, look):
    begun = 1_800_000_000
    head, name = "time,name,value\n", "system/gpu_0_utilization_percentage"
    rows = [f"{begun + 10 * i}.5,{name},{50 + i}\n" for i in range(5)]

    def load():
        (run,) = look.runs()
        return [
            (m.timestamp - begun * 1000, m.step, m.value) for m in look.client.get_metric_history(run.info.run_id, name)
        ]

    def wanted(n):
        return [(10_000 * i + 500, i, 50.0 + i) for i in range(n)]

    follower = Follower(root)
    work = project.start(root, "cnn", steps=8)
    stale = f"{begun - 9},{name},1\n"  # what an earlier training on a worker left
    (work / "system.csv").write_text(head + stale + rows[0] + rows[1] + rows[2][:15])
    follower.until(lambda: look.runs() and len(load()) == 2)
    (work / "system.csv").write_text(head + stale + "".join(rows[:3]))
    follower.until(lambda: len(load()) == 3)
    time.sleep(2)  # this machine would have been logged twice
    assert set(look.runs()[0].data.metrics) == {name}
    follower.process.kill()
    follower.process.wait()

    follower = Follower(root)
    (work / "history.csv").write_text(project.history(range(1, 3)))
    (work / "system.csv").write_text(head + "".join(rows))
    follower.until(lambda: len(load()) == 5)
    assert load() == wanted(5)
    project.start(root, "cnn", steps=8, started=begun + 3600)  # goes on here, where no worker is left
    follower.until(lambda: "system/cpu_utilization_percentage" in look.runs()[-1].data.metrics)
    follower.close()
    assert load() == wanted(5)


def test_a_training_that_is_done_but_not_evaluated_is_no_killed_one(root, look):
    follower = Follower(root)
    live = project.start(root, "cnn", steps=8) / "history.csv"
    live.write_text(project.history(range(1, 9)))
    follower.until(lambda: look.steps() == list(range(1, 9)))
    (root / "models" / "cnn").mkdir(parents=True)
    (root / "models" / "cnn" / "history.csv").write_text(live.read_text())
    follower.close()
    assert look.statuses() == ["FINISHED"]
    shutil.rmtree(root / "models" / "cnn")
    project.finish(root, "cnn", **project.CNN | {"steps": 8})
    tracking.track(root)  # the same run gets its measures
    assert look.statuses() == ["FINISHED"] and counts(root)["runs"] == 1
    assert look.steps() == list(range(1, 9)) and "test/accuracy" in look.runs()[0].data.metrics


def test_an_abandoned_training_is_killed_and_another_has_its_own_run(root, look):
    follower = Follower(root)
    live = project.start(root, "cnn", steps=8) / "history.csv"
    live.write_text(project.history(range(1, 4)))
    follower.until(lambda: look.steps() == [1, 2, 3])
    live.write_text(project.history(range(1, 3), shift=0.5))  # other code, from the start
    follower.until(lambda: len(look.steps()) == 5)
    assert sorted(look.statuses()) == ["KILLED", "RUNNING"]
    project.start(root, "cnn", steps=9)  # other parameters
    follower.until(lambda: len(look.runs()) == 3)
    assert sorted(look.statuses()) == ["KILLED", "KILLED", "RUNNING"]
    follower.process.send_signal(signal.SIGTERM)
    assert follower.process.wait(30) == 0
    assert look.statuses() == ["KILLED"] * 3


def test_the_end_of_the_pipe_releases_what_is_finished(root, look):
    project.finish(root, "mean")
    follower = Follower(root, release=True)
    follower.close()
    assert look.statuses() == ["FINISHED"] and counts(root)["versions"] == 1


def test_a_run_that_a_killed_follower_left_is_closed_by_the_next(root, look):
    follower = Follower(root)
    project.start(root, "cnn", steps=8)
    follower.until(look.runs)
    follower.process.kill()
    follower.process.wait()
    assert look.statuses() == ["RUNNING"]
    Follower(root).close()
    assert look.statuses() == ["KILLED"]
