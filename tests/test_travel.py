"""Data that travel: two people share the project by git and a DVC remote, and DVC's experiments by both."""

import json
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import requests

from genai.tracking.store import Store
from tests.project import ENVIRONMENT, HERE, Project

SHARED_BY_LINK = (".dvc/config.local", ".dvcignore", ".prefect", "dvc.yaml", "flows", "genai")
NAME = ["-c", "user.name=t", "-c", "user.email=t@t"]


class Clone:
    """A clone of what is shared, with the commands that a user runs in it."""

    def __init__(self, project: Project, shared: Path, folder: Path, remote: bool = True):
        self.project, self.folder = project, folder
        project.run("git", "clone", "-q", str(shared / "code.git"), str(folder))
        if remote:
            self.dvc("remote", "add", "--local", "-d", "shared", str(shared / "data"))

    def run(self, *command: str, **options) -> str:
        return self.project.run(*command, cwd=self.folder, **options).stdout

    def dvc(self, *arguments: str, **options) -> str:
        return self.run("dvc", *arguments, **options)

    def git(self, *arguments: str) -> str:
        return self.run("git", *NAME, *arguments).strip()

    def genai(self, *arguments: str) -> str:
        return self.run(sys.executable, "-m", "genai", *arguments)

    def ran(self, *targets: str, **options) -> list[str]:
        """Run `dvc repro`; return the stages that it ran, rather than to find them unchanged or restore them."""
        said = self.dvc("repro", *targets, **options).splitlines()
        return [line.split("'")[1] for line in said if line.startswith("Running stage")]

    def alpha(self, value: float) -> None:
        params = (self.folder / "params.yaml").read_text()
        assert params.count("alpha: 20.0") == 1
        (self.folder / "params.yaml").write_text(params.replace("alpha: 20.0", f"alpha: {value}"))

    def files(self, *folders: str) -> dict[str, bytes]:
        paths = [path for folder in folders for path in sorted((self.folder / folder).rglob("*")) if path.is_file()]
        return {path.relative_to(self.folder).as_posix(): path.read_bytes() for path in paths}


@pytest.fixture(scope="module")
def shared(by_dvc, tmp_path_factory):
    """What is shared after somebody ran the pipeline and pushed: code.git, a bare repository, and data, a DVC remote."""
    folder = tmp_path_factory.mktemp("shared")
    first = shutil.copytree(by_dvc.folder, folder / "first", symlinks=True)
    by_dvc.run("git", "init", "-q", "--bare", str(folder / "code.git"))
    for command in (
        ["git", "add", "-A"],
        ["git", *NAME, "commit", "-q", "--allow-empty", "-m", "results"],
        ["git", "push", "-q", str(folder / "code.git"), "HEAD"],
        ["dvc", "remote", "add", "--local", "-d", "shared", str(folder / "data")],
        ["dvc", "push", "--run-cache"],
    ):
        by_dvc.run(*command, cwd=first)
    return folder


def test_a_clone_pulls_what_was_made_and_trains_nothing(by_dvc, shared, tmp_path):
    clone = Clone(by_dvc, shared, tmp_path / "clone")
    clone.dvc("pull")
    assert json.loads(clone.dvc("status", "--json")) == {} and clone.ran("--dry") == []
    folders = ("data", "models", "metrics", "grades", "scores", "samples", "looks", "reports/figures")
    assert clone.files(*folders) == {
        path: (by_dvc.folder / path).read_bytes() for path in clone.files(*folders)
    }  # and no fewer:
    assert {path.name for path in (clone.folder / "models").iterdir()} == by_dvc.params["experiments"].keys()
    (row,) = [line for line in clone.genai("leaderboard").splitlines() if line.split()[:1] == ["ridge"]]
    metrics = json.loads((by_dvc.folder / "metrics" / "ridge.json").read_text())
    assert f"{metrics['test']['r2']:.4f}" in row
    assert clone.genai("sample", "text_diffusion", "--sampler", "ancestral", "--steps", "2").strip()
    names = list(by_dvc.params["experiments"])
    assert clone.genai("track") == f"MLflow: {len(names)} runs, new: {', '.join(names)}\n"


def test_what_one_changed_and_pushed_another_pulls_or_has_from_the_run_cache(by_dvc, shared, tmp_path):
    one, other, late = (Clone(by_dvc, shared, tmp_path / name) for name in ("one", "other", "late"))
    one.dvc("pull")
    one.alpha(100.0)
    assert one.ran() == ["train@ridge", "evaluate@ridge", "report"]
    one.git("commit", "-qam", "a stronger ridge")
    one.git("push", "-q")
    one.dvc("push", "--run-cache")

    other.dvc("pull")
    before = other.files("models/ridge")
    other.git("pull", "-q")
    other.dvc("pull")
    assert json.loads(other.dvc("status", "--json")) == {}
    assert other.files("models", "reports/plots") == one.files("models", "reports/plots")
    assert other.files("models/ridge") != before

    late.alpha(100.0)  # had the same idea, and has the old dvc.lock
    late.dvc("fetch", "--run-cache", "train@ridge")
    assert late.ran("--pull", "train@ridge") == []
    assert late.files("models/ridge") == one.files("models/ridge")
    shutil.rmtree(late.folder / "models")
    (late.folder / "dvc.lock").unlink()  # or none
    assert late.ran("--pull", "train@ridge", "train@cnn") == []
    assert late.files("models") == one.files("models/ridge", "models/cnn")


def test_an_experiment_runs_apart_and_is_applied_from_another_clone_by_what_mlflow_says(
    by_dvc, shared, tmp_path, monkeypatch
):
    one, other = (Clone(by_dvc, shared, tmp_path / name) for name in ("one", "other"))
    one.dvc("pull", "evaluate@ridge", "prepare@diabetes", "train@ridge")
    for key in ("name", "email"):
        one.git("config", f"user.{key}", "t")
    before = one.files("models/ridge", "metrics")
    one.dvc("exp", "run", "--temp", "-n", "stronger", "-S", "experiments.ridge.config.alpha=50", "evaluate@ridge")
    assert one.files("models/ridge", "metrics") == before and one.git("status", "--porcelain") == ""
    shown = json.loads(one.dvc("exp", "show", "--json"))
    (row,) = [row for row in shown[1]["experiments"] if row["name"] == "stronger"]
    measured = row["revs"][0]["data"]["metrics"]["metrics/ridge.json"]["data"]["test"]["r2"]
    assert measured != json.loads(before["metrics/ridge.json"])["test"]["r2"]
    one.dvc("exp", "push", "origin", "stronger")

    other.dvc("exp", "pull", "origin", "stronger")
    assert "new of DVC's experiments: stronger\n" in other.genai("track")
    for variable in ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME"):
        monkeypatch.delenv(variable, raising=False)
    (run,) = Store(other.folder).runs(exp="stronger")
    assert run.data.params == {"experiments.ridge.config.alpha": "50"} and run.data.metrics["test/r2"] == measured
    restore = run.data.tags["mlflow.note.content"].split("to restore it: `")[1].split("`")[0]
    other.run(*restore.split())
    assert json.loads((other.folder / "metrics" / "ridge.json").read_text())["test"]["r2"] == measured
    assert "alpha: 50" in (other.folder / "params.yaml").read_text()
    assert other.ran("evaluate@ridge") == []


@pytest.fixture(scope="module")
def s3():
    """The address of an S3 server with a bucket `shared`."""
    import boto3

    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    command = [Path(sys.executable).with_name("moto_server"), "-H", "127.0.0.1", "-p", str(port)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        try:
            address, deadline = f"http://127.0.0.1:{port}", time.monotonic() + 60
            while True:
                try:
                    requests.get(address, timeout=5)
                    break
                except requests.ConnectionError:
                    assert time.monotonic() < deadline and server.poll() is None
                    time.sleep(0.2)
            login = {"aws_access_key_id": "key", "aws_secret_access_key": "secret", "region_name": "us-east-1"}
            boto3.client("s3", endpoint_url=address, **login).create_bucket(Bucket="shared")
            yield address
        finally:
            server.terminate()


def test_a_bucket_serves_as_a_folder_does_and_its_keys_stay_out_of_git(by_dvc, shared, s3, tmp_path):
    stages = ("prepare@diabetes", "train@ridge")
    keys = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_DEFAULT_REGION": "us-east-1"}
    one, other = (Clone(by_dvc, shared, tmp_path / name, remote=name == "one") for name in ("one", "other"))
    one.dvc("pull", *stages)  # of the folder
    for clone in (one, other):
        clone.dvc("remote", "add", "--local", "-d", "bucket", "s3://shared/dvc")
        clone.dvc("remote", "modify", "--local", "bucket", "endpointurl", s3)
    one.dvc("push", *stages, **keys)
    assert "models/ridge" in other.dvc("pull", *stages, **keys)
    assert other.files("data", "models") == one.files("data", "models") != {}
    assert other.git("status", "--porcelain") == ""


@pytest.mark.parametrize("name", ["tables", "text", "vision"])
def test_a_project_in_this_one_differs_in_nothing_but_its_parameters(name):
    for path in SHARED_BY_LINK:
        link = HERE / name / path
        assert link.is_symlink() and (link.parent / link.readlink()).resolve() == (HERE / path).resolve()
    both = [(HERE / folder / ".dvc" / "config").read_text() for folder in ("", name)]
    assert both[1] == both[0] + "[cache]\n    dir = ../../.dvc/cache\n"


def test_what_a_project_in_this_one_lacks_is_no_matter_of_this_one(tmp_path):
    """Without a .dvc of its own DVC would take both for one: pull would fail, and so would each experiment."""

    def run(command, folder=tmp_path):
        environment = ENVIRONMENT | {"DVC_SITE_CACHE_DIR": str(tmp_path.with_name("site"))}
        done = subprocess.run(command.split(), cwd=folder, check=True, env=environment, capture_output=True, text=True)
        return done.stdout

    files = run("git ls-files .dvc .dvcignore tables/.dvc tables/.dvcignore tables/.gitignore tables/dvc.yaml", HERE)
    for file in files.split():
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(HERE / file, tmp_path / file, follow_symlinks=False)
    write = "mkdir -p plots && echo ${value} > made && echo x > plots/x.csv && echo ${value} > plots/y.csv"
    stage = {"cmd": write, "params": ["value"], "outs": ["made", "plots"]}
    (tmp_path / "dvc.yaml").write_text(json.dumps({"stages": {"make": stage}, "plots": [{"plots": {"x": "x"}}]}))
    tables = tmp_path / "tables"
    for folder, value in ((tmp_path, 1), (tables, 2)):
        (folder / "params.yaml").write_text(f"value: {value}\n")
    run("git init -q")
    run(f"dvc remote add --local -d shared {tmp_path.with_name('remote')}", tables)  # for both
    for folder in (tmp_path, tables):
        run("dvc repro -q", folder)
    run("git add -A")
    run("git -c user.name=t -c user.email=t@t commit -qm results")
    run("dvc push -q")
    shutil.rmtree(tmp_path / ".dvc" / "cache")
    assert not (tables / ".dvc" / "cache").exists()
    for path in (tables / "made", tables / "plots", tmp_path / "made", tmp_path / "plots"):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    run("dvc pull")
    assert json.loads(run("dvc status --json")) == {} and (tmp_path / "made").read_text() == "1\n"
    assert json.loads(run("dvc status --json", tables)) != {}
    run("git config user.name t")
    run("git config user.email t")
    run("dvc exp run -q --temp -n other -S value=3")
    assert "other" in run("dvc exp list --name-only")
