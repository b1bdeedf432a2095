"""A snapshot holds what is in the folder, committed or not, and touches nothing."""

import subprocess
from pathlib import Path

import pytest

from flows import UserError
from flows.snapshot import git, snapshot


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """A repository with a file that is committed, as the working directory."""
    for name in ("HOME", "XDG_CONFIG_HOME"):  # no identity, no remote of the user's
        monkeypatch.setenv(name, str(tmp_path / "nobody"))
    monkeypatch.delenv("FLOW_GIT_REMOTE", raising=False)
    (tmp_path / "here" / "sub").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "here")
    Path("kept").write_text("as committed")
    Path(".gitignore").write_text("ignored\n")
    for command in ("init -q", "add -A", "-c user.name=t -c user.email=t@t commit -qm first"):
        subprocess.run(["git", *command.split()], check=True)
    return Path.cwd()


def state() -> tuple[str, ...]:
    return git("rev-parse", "HEAD"), git("status", "--porcelain"), git("diff", "--cached"), git("stash", "list")


def test_it_holds_what_is_changed_staged_and_new_but_not_what_is_ignored(repository):
    Path("kept").write_text("changed")
    Path("staged").write_text("staged")
    git("add", "staged")
    Path("staged").write_text("and changed again")
    Path("new").write_text("new")
    Path("ignored").write_text("ignored")
    before = state()
    with snapshot() as (ref, folder):
        assert folder == "."
        names = git("ls-tree", "-r", "--name-only", ref).split()
        assert {name: git("show", f"{ref}:{name}") for name in names} == {
            ".gitignore": "ignored\n", "kept": "changed", "staged": "and changed again", "new": "new",
        }  # fmt: skip
        assert state() == before
    assert git("for-each-ref", "refs/flow") == ""
    assert state() == before


def test_of_what_is_committed_it_is_the_commit(repository):
    with snapshot() as (ref, _):
        assert git("rev-parse", ref) == git("rev-parse", "HEAD")


def test_of_a_folder_in_the_repository_all_is_taken_and_its_place_is_told(repository, monkeypatch):
    Path("sub/new").write_text("new")
    monkeypatch.chdir(repository / "sub")
    with snapshot() as (ref, folder):
        assert folder == "sub"
        assert git("ls-tree", "-r", "--name-only", "--full-tree", ref).split() == [".gitignore", "kept", "sub/new"]


def test_it_goes_where_workers_fetch_from(repository, tmp_path, monkeypatch):
    shared = tmp_path / "shared.git"
    git("init", "-q", "--bare", str(shared))
    git("remote", "add", "origin", str(shared))
    with snapshot() as (ref, _):
        assert ref in git("ls-remote", "origin") and git("for-each-ref", "refs/flow") == ""
    assert git("ls-remote", "origin") == ""
    monkeypatch.setenv("FLOW_GIT_REMOTE", ".")
    with snapshot() as (ref, _):
        assert git("ls-remote", "origin") == "" and ref in git("for-each-ref", "refs/flow")


def test_what_git_refuses_is_told_in_one_line(repository):
    git("remote", "add", "origin", "/nowhere")
    with pytest.raises(UserError, match="^git push: .*") as error, snapshot():
        pass
    assert "\n" not in str(error.value)
