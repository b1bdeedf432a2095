"""Stages on workers: real Prefect, workers in clones of their own, and what goes wrong with them."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from tests.services.conftest import worker

# train@X writes a line a tick to history.csv, where it stands to `checkpoint`, and where it began to `began`
TRAIN = """\
import os, sys, time
from pathlib import Path

name, ticks = sys.argv[1], int(sys.argv[2])
work = Path(".work") / name
work.mkdir(parents=True, exist_ok=True)
checkpoint, history = work / "checkpoint", work / "history.csv"
start = int(checkpoint.read_text()) if checkpoint.exists() else 0
with open(os.environ["TRACE"], "a") as trace:
    trace.write(f"{name} {start} {os.getcwd()}\\n")
for tick in range(start, ticks):
    time.sleep(0.5)
    history.write_text("step\\n" + "".join(f"{i + 1}\\n" for i in range(tick + 1)))
    checkpoint.write_text(str(tick + 1))
    print(f" {100 * (tick + 1) // ticks}%|###| {tick + 1}/{ticks}", end="\\r", flush=True)
    if (Path(os.environ["TRACE"]).parent / f"fail-{name}").exists():
        sys.exit("no luck")
checkpoint.unlink()
Path("models").mkdir(exist_ok=True)
Path("models", name).write_text(Path("data/x").read_text() + str(ticks))
"""
NAMED = ["-c", "user.name=t", "-c", "user.email=t@t"]
DAG = """\
stages:
  prepare:
    cmd: mkdir -p data && cp raw data/x
    deps: [raw]
    outs: [data]
  train:
    foreach: {a: 4, b: 4}
    do:
      cmd: python train.py ${key} ${item}
      deps: [data, train.py]
      outs: ["models/${key}"]
      meta: {pool: gpu, live: ".work/${key}"}
  evaluate:
    foreach: [a, b]
    do:
      cmd: wc -c < models/${item} > ${item}.json
      deps: ["models/${item}"]
      metrics: ["${item}.json": {cache: false}]
"""


@pytest.fixture
def team(prepared_prefect, tmp_path) -> SimpleNamespace:
    """A project with a DVC remote, the controller's clone; `worker()` starts one in a clone of its own."""
    return Team(prepared_prefect, tmp_path)


class Team:
    """A project, its remote, and workers, each in its own folder."""

    def __init__(self, environment: dict[str, str], folder: Path):
        self.folder, self.store, self.here = folder, folder / "store", folder / "here"
        self.origin = self.here  # what workers clone
        self.trace = folder / "trace"
        self.trace.touch()
        self.environment = environment | {"TRACE": str(self.trace), "PREFECT_HOME": str(folder / "prefect")}
        for name, text in {
            "train.py": TRAIN,
            "dvc.yaml": DAG,
            "raw": f"{folder.name}\n",
            ".gitignore": ".work/\n",
        }.items():
            (self.here / name).parent.mkdir(exist_ok=True)
            (self.here / name).write_text(text)
        self.run("git", "init", "-q", "-b", "main")
        self.run("dvc", "init", "-q")
        self.run("dvc", "remote", "add", "-q", "-d", "shared", str(self.store))
        self.commit()

    def run(self, *command: str, cwd: Path | None = None, check: bool = True) -> str:
        done = subprocess.run(
            command,
            check=False,
            cwd=cwd or self.here,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=200,
        )
        assert not check or done.returncode == 0, f"{command}: {done.stdout}\n{done.stderr}"
        return done.stdout + done.stderr

    def commit(self) -> None:
        self.run("git", "add", "-A")
        self.run("git", *NAMED, "commit", "-qm", "start")

    def set_ticks(self, **ticks: int) -> None:
        text = "{" + ", ".join(f"{name}: {n}" for name, n in ({"a": 4, "b": 4} | ticks).items()) + "}"
        (self.here / "dvc.yaml").write_text(DAG.replace("{a: 4, b: 4}", text))

    def flow(self, *arguments: str) -> subprocess.Popen:
        return subprocess.Popen(
            [sys.executable, "-m", "flows.pipeline", *arguments],
            cwd=self.here, env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip

    def finished(self, *arguments: str, status: int = 0) -> str:
        """Run the flow to its end; return what it printed."""
        process = self.flow(*arguments)
        output, _ = process.communicate(timeout=150)
        assert process.returncode == status, output
        return output

    @contextmanager
    def worker(self, name: str, clone: Path | None = None, pool: str = "gpu") -> Iterator[Path]:
        """A worker while the block runs; yield its clone."""
        clone = clone or self.folder / name
        if not clone.exists():
            self.run("git", "clone", "-q", str(self.origin), str(clone))
        with worker(name, clone, self.environment, pool):
            yield clone

    def began(self, name: str = "a") -> list[int]:
        """Return where each training of this name began."""
        lines = [line.split() for line in self.trace.read_text().splitlines()]
        return [int(start) for who, start, _ in lines if who == name]

    def where(self, name: str = "a") -> list[str]:
        return [
            Path(line.split()[2]).name for line in self.trace.read_text().splitlines() if line.startswith(f"{name} ")
        ]

    def live(self) -> list[Path]:
        return [path for path in (self.store / "live").rglob("*") if path.is_file()]


def stages_processes(clone: Path) -> list[psutil.Process]:
    """Return the processes in a worker's clone, the worker's own left out."""
    return [
        process
        for process in psutil.process_iter(["cwd", "cmdline"])
        if process.info["cwd"] == str(clone) and "worker" not in (process.info["cmdline"] or [])
    ]


def wait_for(condition, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, condition
        time.sleep(0.1)


def kill(name: str) -> None:
    """Kill -9 the processes whose command line has this text."""
    for process in psutil.process_iter(["cmdline"]):
        if name in " ".join(process.info["cmdline"] or []):
            process.kill()


def test_without_a_worker_a_stage_runs_here_or_fails_as_asked(team):
    output = team.finished("--gpu", "require", "--deadline", "2", "train@a", status=1)
    assert "no worker of the pool gpu answered in 2 s; where one shall run: prefect worker start --pool gpu" in output
    assert team.began() == []
    team.finished("train@a")
    assert team.where() == ["here"]


@pytest.mark.drill
def test_two_workers_train_and_the_lock_is_that_of_dvc_repro(team):
    alone = shutil.copytree(team.here, team.folder / "alone")
    team.run("dvc", "repro", "-q", cwd=alone)
    team.trace.write_text("")
    with team.worker("first"), team.worker("second"):
        output = team.finished()
    assert (team.here / "dvc.lock").read_bytes() == (alone / "dvc.lock").read_bytes()
    assert (team.here / "models/a").read_bytes() == (alone / "models/a").read_bytes()
    assert {*team.where("a"), *team.where("b")} == {"first", "second"}  # side by side, a worker each
    assert "%|###| 1/4" in output  # the stage's log is seen at the controller
    assert (team.here / ".work/a/history.csv").read_text() == "step\n1\n2\n3\n4\n"
    assert (team.here / ".work/a/system.csv").read_text().startswith("time,name,value\n")
    assert not (team.here / ".work/a/checkpoint").exists()
    assert team.live() == [] and team.run("git", "for-each-ref", "refs/flow") == ""
    assert team.run("git", "status", "--porcelain", "--untracked-files=no") == " M .gitignore\n"
    assert "up to date" in team.run("dvc", "status")


@pytest.mark.drill
def test_a_worker_that_has_just_gone_is_waited_for_as_long_as_asked(team):
    with team.worker("first"):
        pass
    output = team.finished("--deadline", "2", "train@a")  # Prefect takes it for alive for a minute or so
    assert "no worker of the pool gpu answered in 2 s" in output and "the stage runs here" in output
    assert team.where() == ["here"]


@pytest.mark.drill
def test_never_means_here(team):
    with team.worker("first"):
        team.finished("--gpu", "never", "train@a")
    assert team.where() == ["here"]


@pytest.mark.drill
def test_a_stage_that_fails_there_fails_here_with_its_own_words(team):
    (team.folder / "fail-a").touch()
    with team.worker("first"):
        output = team.finished("train@a", status=1)
    assert "Failed('no luck')" in output and "Traceback" not in output
    assert team.began() == [0]  # it is not tried again


@pytest.mark.drill
def test_a_run_that_was_killed_goes_on_elsewhere_from_its_last_checkpoint(team):
    team.set_ticks(a=40)
    with team.worker("first"), team.worker("second"):
        run = team.flow("train@a")
        wait_for(lambda: any(path.name == "checkpoint" for path in team.live()))
        kill("flows.remote_stage train@a")
        output, _ = run.communicate(timeout=100)
    assert run.returncode == 0, output
    assert len(team.began()) == 2 and team.began()[1] > 0
    assert "goes on from its last checkpoint" in output
    assert (team.here / "models/a").read_text().endswith("\n40")


@pytest.mark.drill
def test_a_worker_that_was_killed_is_noticed_and_another_goes_on(team):
    team.set_ticks(a=60)
    with ExitStack() as stack:
        first = stack.enter_context(team.worker("first"))
        run = team.flow("train@a")
        wait_for(lambda: any(path.name == "checkpoint" for path in team.live()))
        for process in psutil.process_iter(["cwd"]):  # as when its host loses power
            if process.info["cwd"] == str(first):
                process.kill()
        stack.enter_context(team.worker("second"))
        output, _ = run.communicate(timeout=200)
    assert run.returncode == 0, output
    assert team.where() == ["first", "second"] and team.began()[1] > 0
    assert "it told nothing for 90 s" in output


@pytest.mark.drill
def test_a_controller_that_was_killed_finds_what_it_had_begun(team):
    team.set_ticks(a=20)
    with team.worker("first"):
        run = team.flow("train@a")
        wait_for(lambda: team.began() == [0])
        run.kill()
        run.communicate()
        team.finished("train@a")  # while it still trains
        assert team.began() == [0]

        shutil.rmtree(team.here / ".dvc/cache")  # as if it had been killed before it had fetched the result
        (team.here / "models/a").unlink()
        (team.here / "dvc.lock").unlink()
        output = team.finished("train@a")
    assert team.began() == [0] and "restored" in output


@pytest.mark.drill
def test_of_two_controllers_at_once_one_has_it_trained(team):
    other = team.folder / "other"
    team.run("git", "clone", "-q", str(team.here), str(other))
    with team.worker("first"), team.worker("second"):
        runs = [team.flow("train@a"), subprocess.Popen(
            [sys.executable, "-m", "flows.pipeline", "train@a"],
            cwd=other, env=team.environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )]  # fmt: skip
        for run in runs:
            output, _ = run.communicate(timeout=100)
            assert run.returncode == 0, output
    assert team.began() == [0]
    assert (team.here / "dvc.lock").read_bytes() == (other / "dvc.lock").read_bytes()


@pytest.mark.drill
def test_a_remote_that_is_away_for_a_while_costs_nothing(team):
    team.set_ticks(a=20)
    with team.worker("first"):
        run = team.flow("train@a")
        wait_for(lambda: team.live() != [])
        team.store.rename(team.folder / "away")
        team.store.touch()  # where the folder was, nothing can be written
        wait_for(lambda: "trying again" in (team.folder / "first-worker.log").read_text())
        team.store.unlink()
        (team.folder / "away").rename(team.store)
        output, _ = run.communicate(timeout=100)
    assert run.returncode == 0, output
    assert team.began() == [0]


@pytest.mark.drill
def test_a_clone_that_is_behind_gets_code_and_data_of_the_controller(team):
    with team.worker("first") as clone:
        team.finished("train@a")
        (clone / "data/x").unlink()
        (clone / "data/x").write_text("stale\n")
        (team.here / "raw").write_text("new data\n")
        (team.here / "train.py").write_text(TRAIN.replace("+ str(ticks)", '+ "new code"'))
        output = team.finished("train@a")  # of what is not committed
    assert (team.here / "models/a").read_text() == "new data\nnew code", output


@pytest.mark.drill
def test_a_clone_that_somebody_works_in_is_left_alone(team):
    team.run("git", "clone", "-q", str(team.here), str(team.folder / "first"))
    (team.folder / "first/train.py").write_text("my work")
    with team.worker("first") as clone:
        output = team.finished("train@a", status=1)
    assert "first/train.py is not committed; a worker needs a clone of its own" in output
    assert (clone / "train.py").read_text() == "my work"


@pytest.mark.drill
def test_a_disk_that_is_full_at_the_worker_is_told_in_one_line(team):
    small = team.folder / "small"
    small.mkdir()
    if (
        os.geteuid()
        or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(small)], check=False).returncode
    ):
        pytest.skip("A DISK THAT IS FULL WAS NOT TRIED: a small file system cannot be mounted here")
    try:
        text = TRAIN.replace("+ str(ticks)", '+ "x" * 10_000_000')
        (team.here / "train.py").write_text(text)
        with team.worker("first", clone=small / "clone"):
            output = team.finished("train@a", status=1)
    finally:
        subprocess.run(["umount", "--lazy", str(small)], check=False)
    assert "No space left on device" in output and "Traceback" not in output.replace(
        "Traceback (most recent call last)", "", 1
    )


@pytest.mark.drill
def test_a_flow_that_is_stopped_stops_its_stages_elsewhere(team):
    team.set_ticks(a=100)
    with team.worker("first"):
        run = team.flow("train@a")
        wait_for(lambda: team.began() == [0])
        run.send_signal(signal.SIGINT)
        output, _ = run.communicate(timeout=60)
        assert run.returncode == 130, output
        wait_for(
            lambda: not any("train.py a" in " ".join(p.info["cmdline"] or []) for p in psutil.process_iter(["cmdline"]))
        )


@pytest.mark.drill
def test_a_stage_has_the_processes_that_it_asks_for(team):
    (team.here / "train.py").write_text(
        "import os\nfrom pathlib import Path\nPath('models').mkdir(exist_ok=True)\n"
        "Path('models', os.environ['RANK']).write_text(os.environ['WORLD_SIZE'])\n"
    )
    stage = "cmd: python train.py\n    deps: [train.py]\n    outs: [models]\n    meta: {pool: gpu, nproc_per_node: 2}\n"
    (team.here / "dvc.yaml").write_text(f"stages:\n  train:\n    {stage}")
    with team.worker("first"):
        team.finished("--gpu", "require")
    assert {path.name: path.read_text() for path in (team.here / "models").iterdir()} == {"0": "2", "1": "2"}
    assert "cmd: python train.py\n" in (team.here / "dvc.lock").read_text()  # as `dvc repro` has it


@pytest.mark.drill
def test_a_flow_that_starts_on_a_worker_hands_off_to_another_and_pushes_what_it_made(team):
    team.origin = team.folder / "origin.git"
    team.run("git", "clone", "-q", "--bare", str(team.here), str(team.origin))
    with team.worker("first"), team.worker("cpu", pool="cpu") as clone:
        team.run("prefect", "deployment", "run", "pipeline/all", "--watch")
    assert set(team.where("a") + team.where("b")) == {"first"}
    assert team.run("git", "for-each-ref", "refs/flow", cwd=team.origin) == ""
    made = (clone / "dvc.lock").read_bytes()
    shutil.rmtree(clone)
    team.trace.write_text("")
    team.run("dvc", "fetch", "--run-cache")
    output = team.run("dvc", "repro", "--pull")
    assert team.began("a") == team.began("b") == [] and "Running stage 'prepare'" not in output
    assert (team.here / "dvc.lock").read_bytes() == made


@pytest.mark.drill
def test_a_run_that_could_not_tell_that_it_lives_costs_no_training(team):
    team.set_ticks(a=30)
    with team.worker("first") as clone:
        run = team.flow("train@a")
        wait_for(lambda: team.began() == [0])
        silent = [p for p in stages_processes(clone) if "prefect.engine" in p.cmdline()]
        for process in silent:  # it beats no more, as if its link were cut; its stage goes on
            process.suspend()
        seen = []
        for line in run.stdout:
            seen.append(line)
            if "it told nothing for 90 s" in line:
                for process in silent:
                    process.resume()
        run.wait(timeout=100)
    assert silent and run.returncode == 0, seen
    assert "it told nothing for 90 s" in "".join(seen)
    assert team.began() == [0]
