"""The flow over a DVC project of shell commands: what it runs, what it leaves, and how it ends."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from itertools import accumulate
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from flows import UserError
from flows import pipeline as flow
from flows.plan import Stage, check_meta, longest_paths, pool_of
from flows.process import Tethered, lines

pytestmark = [
    pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SADeprecationWarning"),  # in Prefect's server
    pytest.mark.filterwarnings("ignore:_NoneStep.value:DeprecationWarning"),  # in DVC
]
ROOT = Path(__file__).parents[2]
PARAMS = """\
experiments:
  a: {train: {threads: 1, n: 1}}
  b: {train: {threads: 2, n: 1}}
  c: {train: {threads: 1, n: 1}}
"""
# train@X notes when it starts and ends; while there is a file slow-X it takes long, with fail-X it fails, with
# `together` it waits until all three have started
DAG = """\
stages:
  prepare:
    cmd: mkdir -p data && echo hello > data/x
    deps: [raw]
    outs: [data]
  train:
    foreach: ${experiments}
    do:
      cmd: >-
        echo "start ${key} ${item.train.threads}" >> trace; printf ' 50%%|#####     | 30/60 [00:10<00:10]\\r';
        if [ -e slow-${key} ]; then touch sleeping; sleep 60; fi;
        if [ -e together ]; then timeout 30 sh -c 'until [ $(grep -c start trace) -ge 3 ]; do sleep 0.1; done' || exit 1; fi;
        if [ -e fail-${key} ]; then echo "no luck with ${key}" >&2; exit 3; fi;
        sleep 0.2; mkdir -p models; echo ${item.train.n} | cat data/x - > models/${key};
        echo "end ${key} ${item.train.threads}" >> trace
      deps: [data]
      params: ["experiments.${key}"]
      outs: ["models/${key}"]
      meta: {threads: "${item.train.threads}", pool: gpu} # of which this server has no worker
  evaluate:
    foreach: ${experiments}
    do:
      cmd: mkdir -p metrics && wc -l < models/${key} > metrics/${key}
      deps: ["models/${key}"]
      outs: ["metrics/${key}"]
  report:
    cmd: cat metrics/* > report.txt
    deps: [metrics]
    outs: [report.txt]
    meta: {show: shown, print: cat report.txt}
"""
STAGES = ["prepare", "train@a", "train@b", "train@c", "evaluate@a", "evaluate@b", "evaluate@c", "report"]
# In the place of genai: what the flow runs of it
COMMANDS = """\
import sys
from pathlib import Path

if sys.argv[1] == "track":
    sys.stdin.read()
    with open("released", "a") as file:
        file.write("once\\n")
elif Path("params.yaml").read_text().startswith("wrong"):
    print("genai: params.yaml: wrong", file=sys.stderr)
    sys.exit(2)
"""
PLAIN = {"DVC_NO_ANALYTICS": "1", "SHELL": "/bin/sh", "PYTHONUNBUFFERED": "1", "PYTHONPATH": str(ROOT)}


@pytest.fixture(scope="session")
def api(tmp_path_factory):
    """One Prefect API in a temporary home, which the flows use through PREFECT_API_URL."""
    before, there = Path.cwd(), dict(os.environ)
    os.chdir(tmp_path_factory.mktemp("prefect"))
    from flows.server import prefect_api

    os.environ.pop("PREFECT_API_URL", None)
    with prefect_api() as wait_for_api:
        os.chdir(before)
        wait_for_api()
        yield
    os.environ.clear()
    os.environ.update(there)


@pytest.fixture(scope="session")
def template(tmp_path_factory):
    """The project before anything ran."""
    folder = tmp_path_factory.mktemp("template")
    dvc(folder, "init", "--no-scm", "-q")
    (folder / "params.yaml").write_text(PARAMS)
    (folder / "dvc.yaml").write_text(DAG)
    (folder / "raw").write_text("raw\n")
    (folder / "genai").mkdir()
    (folder / "genai/__init__.py").touch()
    (folder / "genai/__main__.py").write_text(COMMANDS)
    return folder


@pytest.fixture(scope="session")
def finished(template, tmp_path_factory):
    """The project after plain `dvc repro`."""
    folder = shutil.copytree(template, tmp_path_factory.mktemp("finished") / "project")
    repro(folder)
    return folder


@pytest.fixture
def project(template, here):
    """The project before anything ran, as the working directory."""
    return here(template)


@pytest.fixture
def done(finished, here):
    """The project after plain `dvc repro`, as the working directory."""
    return here(finished)


@pytest.fixture
def here(tmp_path, monkeypatch, api):
    """A function that copies a project and makes the copy the working directory."""
    for name in ("PATH", "DVC_SITE_CACHE_DIR"):  # put back what the flow sets
        monkeypatch.setenv(name, os.environ.get(name, str(tmp_path / "site")))
    for name, value in PLAIN.items():
        monkeypatch.setenv(name, value)

    def copy(folder: Path) -> Path:
        monkeypatch.chdir(shutil.copytree(folder, tmp_path / "project", symlinks=True))
        return Path.cwd()

    return copy


def dvc(folder: Path, *arguments: str) -> str:
    """Run DVC in a folder; return what it prints."""
    command = [sys.executable, "-m", "dvc", *arguments]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = os.environ | PLAIN | {"PATH": path, "DVC_SITE_CACHE_DIR": str(folder / ".dvc/tmp/site")}
    return subprocess.run(command, cwd=folder, check=True, env=environment, capture_output=True, text=True).stdout


def repro(folder: Path) -> bytes:
    """Run plain `dvc repro`; return the dvc.lock that it leaves."""
    dvc(folder, "repro", "-q")
    return (folder / "dvc.lock").read_bytes()


def child(**environment: str) -> subprocess.Popen:
    """Start the flow in the working directory as the user does."""
    return subprocess.Popen(
        [sys.executable, "-m", "flows.pipeline"],
        env={name: value for name, value in (os.environ | environment).items() if value},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def last_run() -> SimpleNamespace:
    """Return the last flow run's state and those of its tasks, once Prefect has recorded the latter."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import FlowRunFilter
    from prefect.client.schemas.sorting import FlowRunSort

    with get_client(sync_client=True) as client:
        (run,) = client.read_flow_runs(limit=1, sort=FlowRunSort.START_TIME_DESC)
        tasks = FlowRunFilter.model_validate({"id": {"any_": [run.id]}})
        stages = re.search(r" of (\d+) stages", run.state.message)  # not there when it was stopped
        for _ in range(100):
            found = client.read_task_runs(flow_run_filter=tasks)
            complete = len(found) == int(stages[1]) if stages else found
            if complete and all(task.state and task.state.is_final() for task in found):
                return SimpleNamespace(
                    run=run,
                    state=run.state,
                    tasks={task.name: task.state_name for task in found},
                    messages={task.name: task.state.message for task in found},
                )
            time.sleep(0.1)
    raise AssertionError([(task.name, task.state_name) for task in found])


def artifacts() -> dict:
    """Return the last flow run's artifacts by key."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import FlowRunFilter
    from prefect.client.schemas.sorting import FlowRunSort

    with get_client(sync_client=True) as client:
        (run,) = client.read_flow_runs(limit=1, sort=FlowRunSort.START_TIME_DESC)
        this = FlowRunFilter.model_validate({"id": {"any_": [run.id]}})
        # what has no key is the flow's result
        return {artifact.key: artifact for artifact in client.read_artifacts(flow_run_filter=this) if artifact.key}


def processes_in(folder: Path) -> list[str]:
    """Return the command lines of the processes whose working directory is this folder."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.pid != os.getpid() and process.cwd() == str(folder.resolve()):
                found.append(" ".join(process.cmdline()))
        except (psutil.Error, OSError):
            continue
    return found


def wait_for(condition, seconds: float) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.05)
    return False


def set_n(**changes: int) -> None:
    """Change the numbers of the experiments in params.yaml; a new name is a new experiment."""
    n = {"a": 1, "b": 1, "c": 1} | changes
    text = "".join(f"  {key}: {{train: {{threads: {2 if key == 'b' else 1}, n: {n[key]}}}}}\n" for key in n)
    Path("params.yaml").write_text("experiments:\n" + text)


def test_its_lock_is_that_of_dvc_repro_from_nothing(project, finished):
    assert flow.run([]) == 0
    assert last_run().tasks == dict.fromkeys(STAGES, "Completed")
    assert Path("dvc.lock").read_bytes() == (finished / "dvc.lock").read_bytes()


def test_its_lock_is_that_of_dvc_repro_after_changes(done, tmp_path):
    set_n(b=2, d=3)  # a parameter is changed, an experiment is added
    other = shutil.copytree(done, tmp_path / "other")
    assert flow.run([]) == 0
    ran = {name for name, state in last_run().tasks.items() if state == "Completed"}
    assert ran == {"train@b", "evaluate@b", "train@d", "evaluate@d", "report"}
    assert Path("dvc.lock").read_bytes() == repro(other)

    set_n(d=3)  # b as it was: DVC restores it
    assert flow.run([]) == 0
    run = last_run()
    assert set(run.tasks.values()) == {"Cached"}
    restored = {name for name, message in run.messages.items() if "restored" in message}
    assert restored == {"train@b", "evaluate@b"}
    assert Path("models/b").read_text() == "hello\n1\n"


def test_a_run_with_nothing_to_do_starts_no_stage(done, monkeypatch):
    lock = Path("dvc.lock").stat()
    flow.TRACKED.parent.mkdir(parents=True)
    flow.TRACKED.touch()
    monkeypatch.setattr("flows.project.Project.reproduce", lambda *_: pytest.fail("a stage was started"))
    assert flow.run([]) == 0
    assert last_run().tasks == dict.fromkeys(STAGES, "Cached")
    assert (Path("dvc.lock").stat().st_mtime_ns, Path("dvc.lock").stat().st_ino) == (lock.st_mtime_ns, lock.st_ino)
    assert not Path("released").exists()


def test_what_a_stage_names_is_shown_and_printed(done, capsys):
    Path("shown/folder").mkdir(parents=True)
    Path("shown/table.md").write_text("| cnn | 0.99 |\n")
    Path("shown/folder/grid.png").write_bytes(b"png")
    Path("shown/other.txt").write_text("neither\n")
    assert flow.run(["train"]) == 0  # without the stage that names them
    assert capsys.readouterr().out == "" and artifacts() == {}
    output, _ = child().communicate()  # a process of its own: what it prints comes from a command
    assert output.endswith("\n2\n2\n2\n")  # report.txt
    (shown,) = artifacts().values()
    assert shown.key == "report"
    assert shown.data == "| cnn | 0.99 |\n\n\n![shown/folder/grid.png](data:image/png;base64,cG5n)"


def test_of_a_page_its_body_is_shown_as_the_one_block_that_markdown_takes_for_html(tmp_path):
    from flows.results import as_markdown  # Prefect reads its settings when it is imported

    page = tmp_path / "index.html"
    page.write_text("<html><head><title>t</title></head>\n<body>\n<p>one\n\n  \n<pre>two</pre>\n</body></html>\n")
    assert as_markdown(page) == "\n<p>one\n<pre>two</pre>\n"
    assert as_markdown(tmp_path / "missing.html") == ""
    page.write_text("<body>a<style>b</style>\n<script type='x'>c\n\n</script>d<scripture>e</scripture></body>")
    assert as_markdown(page) == "a\nd<scripture>e</scripture>"  # Prefect runs no script and has its own styles
    (tmp_path / "moving.gif").write_bytes(b"GIF89a")
    assert as_markdown(tmp_path) == f"![{tmp_path}/moving.gif](data:image/gif;base64,R0lGODlh)"


def test_what_it_made_is_pushed_as_by_dvc_push_with_the_run_cache(project, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("flows.remote.PATIENCE", 1.0)
    assert flow.run(["evaluate@a"]) == 0  # pushed by the next run
    for command in ("remote add -d shared ../pushed", "remote add by_dvc ../by_dvc"):
        dvc(project, *command.split())
    (project / "fail-c").touch()
    assert flow.run([], push=True) == 1  # what is done is pushed even so
    pushed = tmp_path / "pushed"
    assert len([path for path in pushed.glob("runs/*/*/*")]) == 5
    (project / "fail-c").unlink()
    pushed.rename(tmp_path / "away")
    pushed.touch()  # where the folder was, nothing can be written
    assert flow.run([], push=True) == 1 and "failed: not pushed: " in capsys.readouterr().err
    pushed.unlink()
    (tmp_path / "away").rename(pushed)
    assert flow.run([], push=True) == 0  # and made up for
    dvc(project, "push", "--run-cache", "-r", "by_dvc")
    made, expected = ({path.relative_to(f) for path in f.rglob("*")} for f in (pushed, tmp_path / "by_dvc"))
    assert made == expected


def test_without_a_remote_a_run_that_is_to_push_runs_nothing(project, capsys):
    assert flow.run([], push=True) == 1
    assert (
        "failed: DVC's remote: config file error: no remote specified" in capsys.readouterr().err
        and not Path("trace").exists()
    )


def test_a_failed_stage_costs_its_descendants_only_and_the_next_run_does_what_is_missing(project, finished, capsys):
    Path("fail-b").touch()
    assert flow.run([]) == 1
    run = last_run()
    failed = {"train@b": "Failed", "evaluate@b": "Skipped", "report": "Skipped"}
    assert run.tasks == dict.fromkeys(STAGES, "Completed") | failed
    assert run.state.is_failed() and run.messages["train@b"] == "no luck with b"
    assert run.messages["report"] == "evaluate@b failed"
    assert "train@b" in capsys.readouterr().err

    Path("fail-b").unlink()
    assert flow.run([]) == 0
    assert last_run().tasks == dict.fromkeys(STAGES, "Cached") | dict.fromkeys(failed, "Completed")
    assert Path("dvc.lock").read_bytes() == (finished / "dvc.lock").read_bytes()  # as if it had never failed
    assert Path("released").read_text() == "once\n" * 2


def test_stages_share_the_cores_and_never_exceed_them(project, monkeypatch):
    monkeypatch.setattr(flow, "cores", lambda: 2)
    assert flow.run(["train"]) == 0
    assert set(last_run().tasks) == {"prepare", "train@a", "train@b", "train@c"}
    events = [line.split() for line in Path("trace").read_text().splitlines()]
    occupied = list(accumulate(int(threads) if what == "start" else -int(threads) for what, _, threads in events))
    assert max(occupied) == 2 and len(events) == 6
    assert events[0][:2] == ["start", "c"]  # the last of dvc.yaml is taken for the largest


def test_stages_fit_side_by_side(project, monkeypatch):
    Path("params.yaml").write_text(PARAMS.replace("threads: 2", "threads: 1"))
    Path("together").touch()
    monkeypatch.setattr(flow, "cores", lambda: 3)
    monkeypatch.setattr("flows.stages.Command.done", lambda self: None)
    assert flow.run(["train"]) == 0
    shown = artifacts()["progress-train-a"]
    assert (shown.data, shown.description) == (50, "train@a: 30/60 [00:10<00:10]")


def test_the_progress_of_a_stage_that_is_done_is_all(project):
    assert flow.run(["train@a"]) == 0
    shown = artifacts()["progress-train-a"]
    assert (shown.data, shown.description) == (100, "train@a: done")


def test_a_stage_is_run_with_what_it_depends_on(done, capsys):
    assert flow.run(["evaluate@c"]) == 0
    assert set(last_run().tasks) == {"prepare", "train@c", "evaluate@c"}
    with pytest.raises(UserError, match="'evalute@c' is not a stage of dvc.yaml; did you mean evaluate@c?"):
        flow.run(["evalute@c"])


def test_a_damaged_lock_is_made_again_from_the_cache(done, capsys):
    whole, trace = Path("dvc.lock").read_bytes(), Path("trace").read_text()
    Path("dvc.lock").write_bytes(whole[:200])
    assert flow.run([]) == 0
    assert Path("dvc.lock").read_bytes() == whole
    assert Path("trace").read_text() == trace  # nothing was trained again
    assert set(last_run().tasks.values()) == {"Cached"}
    assert "dvc.lock was damaged" in capsys.readouterr().out


def test_wrong_parameters_stop_it_before_anything_runs(project, capfd):
    Path("params.yaml").write_text("wrong: [")
    assert flow.run([]) == 2
    assert capfd.readouterr().err == "genai: params.yaml: wrong\n"


def test_a_second_run_in_the_same_folder_is_refused(project):
    flow.set_environment()
    refused = pytest.raises(UserError, match="another run of the pipeline is in progress")
    with flow.only_run_here(), refused, flow.only_run_here():
        pass
    with flow.only_run_here():
        pass


def test_a_failure_of_tracking_costs_nothing(done, capfd):
    Path("genai/__main__.py").write_text("import sys\nsys.exit(sys.argv[1] == 'track')\n")
    assert flow.run([]) == 0
    assert "tracking failed" in capfd.readouterr().err
    assert not flow.TRACKED.exists()


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_and_the_next_run_completes(done, signum):
    set_n(a=2)
    Path("slow-a").touch()
    run = child()
    assert wait_for(Path("sleeping").exists, 60), run.communicate()
    run.send_signal(signum)
    assert run.wait(timeout=30) == 128 + signum
    assert processes_in(done) == []
    ended = last_run()
    assert ended.state.is_cancelled() and ended.tasks["train@a"] == "Cancelled"

    Path("slow-a").unlink()
    assert flow.run([]) == 0
    assert Path("models/a").read_text() == "hello\n2\n"


def test_after_kill_nothing_is_left_and_the_next_run_completes(done, tmp_path):
    """With Prefect's API inside the flow, as `make pipeline` runs it."""
    set_n(a=2, d=3)
    other = shutil.copytree(done, tmp_path / "other")
    Path("slow-a").touch()
    run = child(PREFECT_API_URL="")
    assert wait_for(Path("sleeping").exists, 90), run.communicate()
    time.sleep(3)  # the server writes the tasks' states down once a second
    run.kill()
    run.wait()
    assert wait_for(lambda: processes_in(done) == [], 20), processes_in(done)

    Path("slow-a").unlink()
    again = child(PREFECT_API_URL="")
    output, _ = again.communicate()
    assert again.returncode == 0, output
    assert "Traceback" not in output
    assert Path("dvc.lock").read_bytes() == repro(other)
    import sqlite3

    with sqlite3.connect(".prefect/prefect.db") as database:
        flow_runs = [name for (name,) in database.execute("select state_name from flow_run order by created")]
        tasks = database.execute("select task_run.name, task_run.state_name from task_run order by created").fetchall()
    assert flow_runs == ["Crashed", "Completed"]
    assert ("train@a", "Crashed") in tasks and ("train@a", "Completed") in tasks
    assert not {state for _, state in tasks} & {"Running", "Pending"}


def test_a_process_ends_when_it_is_let_go_even_one_that_ignores_it(tmp_path):
    script = "trap '' TERM; sleep 60 & echo ready; wait; sleep 60"
    with open(tmp_path / "lock", "w") as keep, Tethered(["/bin/sh", "-c", script], keep.fileno()) as process:
        assert process.stdout.readline() == b"ready\n"
        began = time.monotonic()
        process.let_go()
        assert process.wait() == -signal.SIGKILL
        assert 1 < time.monotonic() - began < 30  # it had its time to write a checkpoint


def test_what_a_stage_leaves_behind_ends_with_it(tmp_path):
    script = "sleep 60 >/dev/null 2>&1 & echo $!"
    with open(tmp_path / "lock", "w") as keep, Tethered(["/bin/sh", "-c", script], keep.fileno()) as process:
        left = int(process.stdout.readline())
        assert process.wait() == 0
        assert psutil.pid_exists(left)
    assert wait_for(lambda: not psutil.pid_exists(left) or psutil.Process(left).status() == "zombie", 2)


def test_the_cpu_seconds_of_a_process_are_those_of_its_tree(tmp_path):
    burn = "import time\nwhile time.process_time() < 0.5: pass"
    command = ["/bin/sh", "-c", f"{sys.executable} -c '{burn}'; true"]
    with open(tmp_path / "lock", "w") as keep, Tethered(command, keep.fileno()) as process:
        assert process.wait() == 0
    assert 0.5 <= process.cpu_seconds < 1.5


def test_progress_bars_are_told_from_lines(tmp_path):
    printed = b"one\n\r 50%|#\r 100%|##\n\n caf\xc3\xa9 \xff\nlast"
    (tmp_path / "output").write_bytes(printed)
    with open(tmp_path / "output", "rb") as stream:
        assert list(lines(stream)) == [
            ("one", False),
            ("50%|#", True),
            ("100%|##", False),
            ("café �", False),
            ("last", False),
        ]


def test_the_longest_path_is_the_most_urgent():
    upstream = {"prepare@x": [], "train@b": ["prepare@x"], "train@a": ["prepare@x"], "report": ["train@a", "train@b"]}
    written = ["prepare@x", "train@a", "train@b", "report", "not@planned"]
    guess = longest_paths(upstream, {}, written)
    assert guess == {"report": 1, "train@a": 2, "train@b": 3, "prepare@x": 4}
    took = longest_paths(upstream, {"train@a": 500.0, "report": 2.0}, written)
    assert took == {"report": 2, "train@a": 502, "train@b": 504, "prepare@x": 505}  # b may take as long as a did


def test_importing_the_flow_loads_nothing_of_genai_nor_torch_nor_mlflow():
    code = "import sys, flows.pipeline, flows.stages; print({'torch', 'mlflow', 'genai'} & set(sys.modules))"
    found = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert found.stdout == "set()\n"


@pytest.mark.parametrize("error", [SystemExit(0), RuntimeError("a fault of the flow's")])
def test_a_task_that_crashes_fails_the_flow(project, monkeypatch, error):
    def crash(self, name, execute):
        raise error

    monkeypatch.setattr("flows.project.Project.reproduce", crash)
    assert flow.run(["train@a"]) == 1
    run = last_run()
    assert run.state.is_failed() and "prepare" in run.state.message
    assert run.tasks["train@a"] == "Skipped"


def test_a_run_says_what_it_was_asked_for(done):
    assert flow.run(["train@a", "evaluate@b"]) == 0
    run = last_run().run
    assert run.name.startswith("train@a evaluate@b 20")
    asked = {"targets": ["train@a", "evaluate@b"], "gpu": "prefer", "deadline": 60.0, "release": True, "push": False}
    assert run.parameters == asked
    assert flow.run([]) == 0
    assert last_run().run.name.startswith("all stages 20")


def test_stages_that_are_done_but_not_in_the_lock_yet_come_back_from_the_cache(project, finished):
    Path("slow-a").touch()
    run = child()
    assert wait_for(lambda: Path("metrics/c").exists() and Path("sleeping").exists(), 60), run.communicate()
    run.kill()
    run.wait()
    assert wait_for(lambda: processes_in(project) == [], 5), processes_in(project)
    Path("dvc.lock").unlink(missing_ok=True)  # as if the kill had come before it was written

    Path("slow-a").unlink()
    trace = Path("trace").read_text()
    assert flow.run([]) == 0
    messages = last_run().messages
    assert {messages["prepare"], messages["train@c"]} == {"restored from DVC's cache"}
    assert Path("trace").read_text().count("start c") == trace.count("start c") == 1
    assert Path("dvc.lock").read_bytes() == (finished / "dvc.lock").read_bytes()


def test_who_uses_dvc_beside_it_gets_dvcs_own_message_or_does_not_disturb(project):
    Path("slow-a").touch()
    run = child()
    assert wait_for(lambda: Path("sleeping").exists() and Path("metrics/b").exists(), 60), run.communicate()
    with pytest.raises(subprocess.CalledProcessError) as busy:
        dvc(project, "repro", "--single-item", "train@a")
    assert "models/a' is busy, it is being blocked by:" in busy.value.stderr
    with pytest.raises(subprocess.CalledProcessError) as busy:
        Path("raw").write_text("changed\n")
        dvc(project, "repro", "prepare")  # train@a reads its output; others that read it have ended
    assert "data' is busy" in busy.value.stderr
    Path("raw").write_text("raw\n")
    dvc(project, "stage", "add", "-q", "--run", "-n", "other", "-o", "other.txt", "echo other > other.txt")

    for process in psutil.Process(run.pid).children(recursive=True):
        if process.name() == "sleep" and "60" in process.cmdline():
            process.terminate()  # train@a goes on
    output, _ = run.communicate(timeout=60)
    assert run.returncode == 0, output
    lock = Path("dvc.lock").read_text()
    assert "\n  other:\n" in lock and "\n  report:\n" in lock
    dvc(project, "status")
    assert "up to date" in dvc(project, "repro")


def test_files_that_git_calls_modified_are_explained_in_one_line(tmp_path, monkeypatch, capsys):
    from flows.results import explain_git_status

    monkeypatch.chdir(tmp_path)
    explain_git_status({"m.json": True})  # no repository
    for command in ("init -q", "add .", "-c user.name=x -c user.email=x@localhost commit -qm first"):
        for name in ("dvc.lock", "m.json", "n.json", "table.csv", "code.py"):
            Path(name).write_text("as it was")
        subprocess.run(["git", *command.split()], check=True)
    outputs = {"m.json": True, "n.json": True, "table.csv": False}
    Path("code.py").write_text("edited")
    explain_git_status(outputs)
    assert capsys.readouterr().out == ""
    because = "from the commit (another processor, library or parameter); `dvc metrics diff` shows by how much"
    for name, says in {
        "dvc.lock": "dvc.lock differs",
        "m.json": "dvc.lock and 1 metric differ",
        "n.json": "dvc.lock and 2 metrics differ",
        "table.csv": "dvc.lock and 3 outputs differ",
    }.items():
        Path(name).write_text("is different")
        explain_git_status(outputs)
        assert capsys.readouterr().out == f"\ngit: {says} {because}\n"


def test_what_dvc_yaml_says_for_the_flow_is_checked():
    assert check_meta("a", None) == check_meta("a", "another project's own") == {}
    assert check_meta("a", {"threads": 2, "owner": "x"}) == {"threads": 2, "owner": "x"}
    for meta, says in {
        ("threads", 0): "dvc.yaml: a: meta.threads is 0; it is a whole number from 1",
        ("threads", True): "meta.threads is True",
        ("show", 1): "dvc.yaml: a: meta.show is 1; it is a path",
        ("live", 1): "meta.live is 1; it is a folder",
        ("nproc_per_node", "all"): "meta.nproc_per_node is 'all'; it is a whole number from 1, or gpu",
    }.items():
        with pytest.raises(UserError, match=says):
            check_meta("a", dict([meta]) if isinstance(meta, tuple) else meta)


def test_a_pool_is_that_of_a_stage_or_of_those_that_depend_on_a_path():
    below = {"pool": {"gpu": "code/diffusion"}}
    assert pool_of("a", {"pool": "gpu"}, []) == "gpu" and pool_of("a", {}, ["code"]) is None
    assert pool_of("a", below, ["data", "code/diffusion/text"]) == "gpu" == pool_of("a", below, ["code/diffusion"])
    assert pool_of("a", below, ["code", "code/diffusion_of_heat"]) is None
    with pytest.raises(UserError, match=r"dvc.yaml: a: meta.pool is \['gpu'\]; it is a name, or a map"):
        pool_of("a", {"pool": ["gpu"]}, [])


def test_a_worker_launches_a_stage_under_torchrun_where_it_is_to_have_several_processes():
    def launched(**meta) -> str:
        return Stage("a", [], True, meta=meta).launched("python -m genai train a")

    assert launched() == "python -m genai train a"
    assert launched(nproc_per_node=2) == "torchrun --standalone --nproc-per-node 2 -m genai train a"
