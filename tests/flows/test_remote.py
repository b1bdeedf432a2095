"""DVC's remote as one stage needs it: its own entry of the run-cache and no other, hashed; its live files by version."""

import shutil
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from dvc.exceptions import DvcException
from dvc.repo import Repo
from dvc.stage.cache import _get_stage_hash

from flows import UserError
from flows.remote import Remote, insist

DAG = """\
stages:
  train:
    foreach: [a, b]
    do:
      cmd: mkdir -p models/${item} metrics && cp raw models/${item}/x && echo 1 > metrics/${item}.json
      deps: [raw]
      outs: ["models/${item}"]
      metrics: ["metrics/${item}.json": {cache: false}]
"""


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project that has run, with a folder as its remote, as the working directory."""
    monkeypatch.setenv("DVC_SITE_CACHE_DIR", str(tmp_path / "site"))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    Path("dvc.yaml").write_text(DAG)
    Path("raw").write_text("raw\n")
    for command in ("init --no-scm -q", "remote add -q -d shared ../store", "repro -q"):
        subprocess.run([sys.executable, "-m", "dvc", *command.split()], check=True)
    return Path.cwd()


def opened(repo: Repo, name: str = "train@a"):
    """Return the remote, a stage and its key."""
    (stage,) = repo.stage.collect(name)
    stage.save_deps()
    return Remote(repo), stage, _get_stage_hash(stage)


def forget(project: Path) -> None:
    """Leave what a fresh clone has."""
    for folder in ("models", "metrics", ".dvc/cache"):
        shutil.rmtree(project / folder)


def test_what_one_stage_made_travels_with_its_metrics_and_nothing_else_does(project):
    with closing(Repo()) as repo:
        remote, stage, key = opened(repo)
        remote.push_results([stage])
    runs = Path("../store/runs")
    assert [path.parent.name for path in runs.rglob("*") if path.is_file()] == [key]
    for i in range(300):  # entries of others, of which none is to be read
        other = runs / "ab" / f"ab{i:062x}" / "0"
        other.parent.mkdir(parents=True)
        other.write_text("not an entry")
    forget(project)
    with closing(Repo()) as repo:
        remote, stage, key = opened(repo)
        made = remote.fetch_entry(stage, key)
        assert {str(out) for out in made} == {"models/a", "metrics/a.json"}
        remote.pull(made)
        with repo.lock:
            repo.stage_cache.restore(stage)
        assert Path("models/a/x").read_text() == "raw\n" and Path("metrics/a.json").read_text() == "1\n"
        assert len([path for path in Path(".dvc/cache/runs").rglob("*") if path.is_file()]) == 1
        remote, stage, key = opened(repo, "train@b")
        assert remote.fetch_entry(stage, key) is None


def test_what_somebody_changed_in_the_remote_is_refused(project):
    with closing(Repo()) as repo:
        remote, stage, key = opened(repo)
        remote.push_results([stage])
    (forged,) = [path for path in Path("../store/files").rglob("*") if path.is_file() and path.read_text() == "raw\n"]
    forged.chmod(0o644)
    forged.write_text("bad\n")
    forget(project)
    with closing(Repo()) as repo:
        remote, stage, key = opened(repo)
        with pytest.raises(DvcException, match="1 files are not in shared, or not as they should be"):
            remote.pull(remote.fetch_entry(stage, key))


def test_live_files_are_copied_when_they_change(project):
    sent, known, there = {}, {}, project / "there"
    live = project / "live"
    (live / "previews").mkdir(parents=True)
    (live / "history.csv").write_text("step\n")
    (live / "previews/1.txt").write_text("one")
    (live / "checkpoint").write_text("x" * 100)
    with closing(Repo()) as repo:
        remote = Remote(repo)
        remote.push_live("key", live, sent)
        assert remote.pull_live("key", there, known, largest=50) == 2
        assert not (there / "checkpoint").exists()  # too large to be looked at while it changes
        assert remote.pull_live("key", there, known, largest=50) == 0
        (live / "history.csv").write_text("step\n1\n")
        remote.push_live("key", live, sent)
        assert remote.pull_live("key", there, known) == 2
        assert (there / "history.csv").read_text() == "step\n1\n" and (there / "previews/1.txt").read_text() == "one"
        remote.drop_live("key")
        remote.drop_live("key")  # another controller was first
        assert remote.pull_live("key", there, {}) == 0
    assert list(Path("../store/live").iterdir()) == []


def test_without_a_remote_the_command_that_makes_one_is_told(project):
    subprocess.run([sys.executable, "-m", "dvc", "remote", "remove", "-q", "shared"], check=True)
    with closing(Repo()) as repo, pytest.raises(UserError, match="dvc remote add -d <remote name> <remote url>"):
        Remote(repo)


def test_what_fails_for_a_while_is_tried_again_and_told_once(monkeypatch):
    monkeypatch.setattr("flows.remote.time.sleep", lambda _: None)
    told, tries = [], []

    def third() -> str:
        tries.append(1)
        if len(tries) < 3:
            raise OSError("no route")
        return "there"

    assert insist(third, told.append) == "there"
    assert told == ["DVC's remote: no route; trying again for 10 minutes"]
    with pytest.raises(PermissionError):  # a wrong key stays wrong
        insist(lambda: (_ for _ in ()).throw(PermissionError("403")), told.append)
