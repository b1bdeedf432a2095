"""The flow in DVC projects that are not this one: three shapes, left by it as `dvc repro` leaves them."""

import os
import re
import shutil
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from flows import UserError
from flows import pipeline as flow
from flows.lock import split
from tests.flows.test_flow import api, dvc, here, last_run, processes_in, wait_for  # noqa: F401
from tests.flows.test_lock import git, runs, state

pytestmark = [
    pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SADeprecationWarning"),  # in Prefect's server
    pytest.mark.filterwarnings("ignore:_NoneStep.value:DeprecationWarning"),  # in DVC
]
ROOT = Path(__file__).parents[2]

# What comes first in DVC's order takes longest, so that stages end in another.
PLAIN = {
    "params.yaml": "prepare: {split: 3, seed: 20170428}\ntrain: {lr: 1.0e-05}\n",
    "src/prepare.sh": 'mkdir -p data/prepared && head -"$1" data/data.xml > data/prepared/train\n',
    "late code": "one\n",
    "dvc.yaml": """\
stages:
  prepare:
    cmd: sleep 0.4; sh src/prepare.sh ${prepare.split}
    deps: [data/data.xml, src/prepare.sh]
    params: [prepare]
    outs: [data/prepared]
  late:
    cmd:
    - sleep 0.6
    - mkdir -p models && cp 'late code' "models/spät [1].txt"
    deps: [late code]
    outs: ["models/spät [1].txt"]
  train:
    cmd: |
      # its output stands in a folder with another's, which it is done before
      mkdir -p models logs
      cat data/prepared/train > models/model.bin
      echo '{"loss": 0.5}' > logs/metrics.json
      printf 'step,loss\\n0,1\\n' > logs/loss.csv
    deps: [data/prepared]
    params: [train.lr]
    outs: [models/model.bin]
    metrics:
    - logs/metrics.json: {cache: false}
    plots:
    - logs/loss.csv: {cache: false, x: step, y: loss}
  report:
    wdir: models
    cmd: ls -A > ../report.txt; cat .gitignore >> ../report.txt
    deps: [.]
    outs: [../report.txt]
  with_tools:
    cmd: echo $0 $(python) $PYTHONPATH $DVC_STAGE $(basename $DVC_ROOT) > tools.txt
    deps: [late code]
    outs: [tools.txt]
  appends: {cmd: cat report.txt >> kept.txt, deps: [report.txt], outs: [kept.txt: {persist: true}]}
  always: {cmd: echo always > always.txt, outs: [always.txt], always_changed: true}
  nothing: {cmd: echo nothing to keep}
  frozen: {cmd: exit 1, deps: [data/prepared], outs: [frozen.txt], frozen: true}
metrics: [logs/metrics.json]
plots:
- loss: {x: step, y: {logs/loss.csv: loss}}
artifacts:
  model: {path: models/model.bin, type: model, desc: what was trained}
""",
}
LOOPS = {
    "params.yaml": "models: {a: {n: 3}, b: {n: 2}, c: {n: 1}}\nsizes: [small, large]\n",
    "more.json": '{"rate": {"first": 0.25}, "name": "two words"}',
    "conf.toml": 'title = "x"\n[table]\nlist = [1.5, 2]\n',
    "constants.py": "LR = 0.1\nSTEPS: int = 3\n",
    "dvc.yaml": """\
vars:
- more.json
- folder: out
stages:
  prepare:
    cmd: mkdir -p ${folder} && echo ${rate.first} ${name} > ${folder}/base
    outs: ["${folder}/base"]
  each:
    foreach: ${models}
    do:
      cmd: sleep 0.${item.n}; cat ${folder}/base > ${folder}/${key}; echo ${item.n} >> ${folder}/${key}
      deps: ["${folder}/base"]
      params: ["models.${key}"]
      outs: ["${folder}/${key}"]
  listed:
    foreach: [{n: 1, f: x}, {n: 2, f: y}]
    do:
      cmd: echo ${item.f} > listed-${item.n}
      params: [conf.toml: [table.list, title], constants.py: [LR, STEPS], more.json: ]
      outs: ["listed-${item.n}"]
  grid:
    matrix:
      size: ${sizes}
      kind: [cnn, mlp]
    cmd: >-
      cat listed-1 > grid-${item.size}-${item.kind}.csv;
      test ! -e fail-${item.kind}
    deps: [listed-1]
    plots:
    - grid-${item.size}-${item.kind}.csv: {cache: false}
  all:
    cmd: cat ${folder}/* grid-* > all.txt
    deps: ["${folder}", grid-small-cnn.csv, grid-large-mlp.csv]
    outs: [all.txt]
""",
}
STAGES = """\
stages:
  one: {{cmd: "sleep 0.5; cat code > one.txt", deps: [code], outs: [one.txt]}}
  two: {{cmd: "touch began; test ! -e slow || sleep 60; test ! -e fail; cat code > two.txt", deps: [code], outs: [two.txt]}}
  three: {{cmd: "cat one.txt two.txt {0} > three.txt", deps: [one.txt, two.txt{1}], outs: [three.txt]}}
"""
FOLDERS = {
    "code": "0\n",
    "a/code": "1\n",
    "b/code": "2\n",
    "b/c/code": "3\n",
    "dvc.yaml": STAGES.format("b/three.txt", ", b/three.txt"),
    "a/dvc.yaml": STAGES.format("", ""),
    "b/dvc.yaml": STAGES.format("../a/three.txt", ", ../a/three.txt"),
    "b/c/dvc.yaml": STAGES.format("", ""),
    "plots/dvc.yaml": "plots: [x.csv]\n",
    "numbers.py": "raise SystemExit('of the project, and no module of the flow')\n",
    ".gitignore": "began\n",
}


def made(folder: Path, files: dict[str, str]) -> Path:
    """Return a folder with a project in git."""
    git(folder, "init", "-q")
    dvc(folder, "init", "-q")
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def commit(folder: Path) -> None:
    git(folder, "add", "-A")
    git(folder, "-c", "user.name=x", "-c", "user.email=x@localhost", "commit", "-qm", "first")


@pytest.fixture(scope="module")
def plain(tmp_path_factory) -> Path:
    folder = made(tmp_path_factory.mktemp("plain"), PLAIN)
    (folder / "data").mkdir()
    (folder / "data/data.xml").write_text("".join(f"<{i}>\n" for i in range(9)))
    dvc(folder, "add", "-q", "data/data.xml")
    commit(folder)
    (folder / "frozen.txt").write_text("as it was\n")
    return folder


@pytest.fixture(scope="module")
def loops(tmp_path_factory) -> Path:
    folder = made(tmp_path_factory.mktemp("loops"), LOOPS)
    commit(folder)
    return folder


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> Path:
    folder = made(tmp_path_factory.mktemp("folders"), FOLDERS)
    commit(folder)
    return folder


@pytest.fixture
def tools(tmp_path, monkeypatch) -> None:
    """A shell and a Python of the user's, as a project finds that has an environment of its own."""
    (tmp_path / "bin").mkdir()
    for name, script in {"shell": 'exec /bin/sh -c "$2" theirs', "python": "echo their python"}.items():
        (tmp_path / "bin" / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / "bin" / name).chmod(0o755)
    monkeypatch.setenv("SHELL", str(tmp_path / "bin/shell"))
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")


def repro(folder: Path, *arguments: str) -> str:
    """Run `dvc repro` as it is, in the environment of the flow without its PYTHONPATH."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [str(Path(sys.executable).with_name("dvc")), "repro", *arguments]
    done = subprocess.run(command, cwd=folder, env=environment, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def start(folder: str = ".", *arguments: str, **environment: str) -> subprocess.Popen:
    """Start the flow as the user of another project does."""
    return subprocess.Popen(
        [sys.executable, "-m", "flows.pipeline", *arguments],
        cwd=folder,
        env={name: value for name, value in (os.environ | environment).items() if value},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def assert_same(project: Path, other: Path) -> None:
    """Locks, outputs, caches and what git says are those that `dvc repro` has left, byte for byte."""
    left, expected = state(project), state(other)
    assert {name for name in expected if name.endswith("dvc.lock")}
    for name, content in expected.items():
        assert left.get(name) == content, name
    assert left.keys() == expected.keys()
    assert runs(project) == runs(other)
    assert git(project, "status", "--porcelain") == git(other, "status", "--porcelain")


def test_plain_stages_leave_what_dvc_repro_leaves(plain, here, tmp_path, tools):  # noqa: F811
    other = shutil.copytree(plain, tmp_path / "other" / "project")
    project = here(plain)
    for file, old, new in (("code", "", ""), ("params.yaml", "split: 3", "split: 4"), ("data/data.xml", "<8>", "<9>")):
        for folder in (project, other):
            path = folder / ("late code" if file == "code" else file)
            assert old in path.read_text()
            path.write_text(path.read_text().replace(old, new))
        repro(other)
        assert flow.run([]) == 0
        assert_same(project, other)
    assert (project / "tools.txt").read_text() == "theirs their python with_tools project\n"


def test_loops_leave_what_dvc_repro_leaves_also_after_a_failure(loops, here, tmp_path):  # noqa: F811
    other, project = shutil.copytree(loops, tmp_path / "other"), here(loops)
    Path("fail-cnn").touch()
    assert flow.run([]) == 1
    assert last_run().tasks["all"] == "Skipped"
    Path("fail-cnn").unlink()
    repro(other)
    assert flow.run([]) == 0
    assert_same(project, other)
    for folder in (project, other):
        (folder / "constants.py").write_text("LR = 0.2\nSTEPS: int = 3\n")
        (folder / "more.json").write_text('{"rate": {"first": 0.5}, "name": "x"}')
    repro(other, "listed", "each@b")
    assert flow.run(["listed", "each@b"]) == 0
    assert_same(project, other)


def test_folders_leave_what_dvc_repro_leaves_also_after_a_failure_and_a_kill(folders, here, tmp_path):  # noqa: F811
    """With Prefect's API inside the flow, whose files git does not show."""
    other, project = shutil.copytree(folders, tmp_path / "other"), here(folders)
    repro(other, "--all-pipelines")
    Path("a/fail").touch()
    Path("b/c/slow").touch()
    failed = start(".", ".", PREFECT_API_URL="")
    assert wait_for(lambda: Path("b/c/began").exists() and Path("b/two.txt").exists(), 60), failed.communicate()
    failed.kill()
    failed.wait()
    assert wait_for(lambda: processes_in(project / "b/c") == [], 5)
    Path("a/fail").unlink()
    Path("b/c/slow").unlink()
    output, _ = (again := start(".", ".")).communicate()
    assert again.returncode == 0, output
    assert_same(project, other)
    assert Path(".dvc/tmp/flow/prefect/prefect.db").is_file() and not Path(".prefect").exists()

    for folder in (project, other):
        (folder / "a/code").write_text("edited\n")
    repro(other / "b", "-q")
    output, _ = (inside := start("b")).communicate()
    assert inside.returncode == 0, output
    assert_same(project, other)


def test_targets_are_those_of_dvc_repro(folders, here):  # noqa: F811
    from flows.project import Project

    project = here(folders)
    flow.set_environment()
    repro(project, "--all-pipelines")
    for targets, arguments in {
        (): (),
        ("one", "a/dvc.yaml:three"): ("one", "a/dvc.yaml:three"),
        ("b/dvc.yaml",): ("b/dvc.yaml",),
        ("b",): ("-R", "b"),
        (".",): ("--all-pipelines",),
    }.items():
        printed = repro(project, "--dry", *arguments)
        with closing(Project()) as opened:
            names = [stage.name for stage in opened.plan(list(targets))]
        # DVC takes a set for less than half of a project's stages: of those that are independent any may be first
        assert sorted(names) == sorted(line.split("'")[1] for line in printed.splitlines() if "didn't change" in line)
    for target, says in {
        "tow": "'tow' is not a stage of dvc.yaml; did you mean two?",
        "no/dvc.yaml": "no/dvc.yaml' does not exist",
        "plots": "plots: no stage is in it",
    }.items():
        with closing(Project()) as opened, pytest.raises(UserError, match=re.escape(says)):
            opened.plan([target])
    Path("dvc.yaml").unlink()
    with closing(Project()) as opened, pytest.raises(UserError, match="no dvc.yaml here; name one"):
        opened.plan([])


def test_a_frozen_stage_and_what_it_reads_never_run_side_by_side(folders, here):  # noqa: F811
    from flows.project import Project

    project = here(folders)
    project.joinpath("dvc.yaml").write_text("""\
stages:
  frozen: {cmd: cp code x, deps: [code, a.txt], outs: [x], frozen: true}
  a: {cmd: cp code a.txt, deps: [code], outs: [a.txt]}
  b: {cmd: cp x b.txt, deps: [x], outs: [b.txt]}
""")
    flow.set_environment()
    with closing(Project()) as opened:
        planned = {stage.name: stage.upstream for stage in opened.plan([])}
    # which of the two comes first is DVC's chance
    assert (planned["a"], planned["frozen"]) in ((["frozen"], []), ([], ["a"])) and planned["b"] == ["frozen"]


@pytest.mark.parametrize("damage", ["cut short", "in conflict"])
def test_a_damaged_lock_of_a_folder_is_made_again_and_kept_aside(folders, here, damage, capsys):  # noqa: F811
    from flows.project import Project

    here(folders)
    flow.set_environment()
    repro(Path.cwd(), "a/dvc.yaml")
    lock = Path("a/dvc.lock")
    whole = lock.read_text()
    damaged = (
        whole[: whole.index("path: code")]
        if damage == "cut short"
        else whole.replace("  two:\n", "<<<<<<< HEAD\n  two:\n")
    )
    lock.write_text(damaged)
    with closing(Project()) as opened:
        for stage in opened.plan(["a/dvc.yaml"]):
            assert (
                opened.reproduce(stage.name, lambda *_: pytest.fail("a command was run")) == "restored from DVC's cache"
            )
        opened.write()
    assert split(lock.read_text()) == split(whole)  # of three stages of twelve, DVC has any order
    assert capsys.readouterr().out.startswith("a/dvc.lock was damaged and is made again;")
    assert Path(".dvc/tmp/flow/damaged.lock").read_text() == damaged


def test_the_lock_of_an_old_dvc_is_refused_as_dvc_refuses_it(folders, here):  # noqa: F811
    from flows.project import Project

    here(folders)
    flow.set_environment()
    old = "one:\n  cmd: sleep 0.5; cat code > one.txt\n"
    Path("a/dvc.lock").write_text(old)
    with pytest.raises(UserError, match="a/dvc.lock' validation failed"):
        Project()
    assert Path("a/dvc.lock").read_text() == old


def test_a_kill_that_leaves_the_folder_of_an_entry_of_the_run_cache_empty_costs_nothing(folders, here):  # noqa: F811
    from flows.project import Project

    here(folders)
    flow.set_environment()
    repro(Path.cwd(), "a/dvc.yaml:two")
    (entry,) = [path for path in Path(".dvc/cache/runs").rglob("*") if path.is_file()]
    entry.unlink()
    Path("a/dvc.lock").unlink()
    with closing(Project()) as killed:
        killed.plan(["a/dvc.yaml:two"])
    ran = []
    with closing(Project()) as opened:
        opened.plan(["a/dvc.yaml:two"])
        opened.reproduce(
            "a/dvc.yaml:two", lambda *command: ran.append(command) or float(Path("a/two.txt").write_text("1\n"))
        )
    assert len(ran) == 1 and entry.is_file()
