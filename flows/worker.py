"""What a worker runs: one stage of a snapshot that a controller took, in the clone in which the worker was started.

The flow run only brings the clone to the snapshot; what follows is the snapshot's own code, flows/remote_stage.py.
"""

import fcntl
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from prefect import flow, get_run_logger
from prefect.logging.loggers import PrefectLogAdapter
from prefect.states import Completed, Crashed, Failed, State

from flows import PREFIX
from flows.process import Tethered, lines

SHOW_EVERY = 5.0  # seconds between two progress lines in the log


@flow(name=f"{PREFIX}stage", flow_run_name="{stage}")
def run_stage(stage: str, ref: str, folder: str, key: str, remote: str, live: str | None = None) -> State:
    """Run one stage of dvc.yaml and leave what it made in DVC's remote.

    ref: of Git, a snapshot of the controller's files. folder: of dvc.yaml, in the repository. key: of the stage in
    DVC's run-cache. remote: DVC's name of it. live: folder of what the stage writes as it runs, checkpoints among it.
    """
    parent = get_run_logger()
    assert isinstance(parent, PrefectLogAdapter)
    log = parent.getChild("stage")  # by its name the controller tells the stage's lines from Prefect's
    with only_one_here() as lock:
        try:
            check_out(ref)
        except subprocess.CalledProcessError as error:
            return Failed(message=f"git {error.cmd[1]}: {(error.stderr or '').strip() or 'failed'}")
        except ValueError as error:
            return Failed(message=str(error))
        command = [sys.executable, "-m", "flows.remote_stage", stage, key, remote, *([live] if live else [])]
        last, shown = "", 0.0
        with Tethered(command, lock, cwd=folder) as process:
            for line, is_progress in lines(process.stdout):
                if is_progress and time.monotonic() - shown < SHOW_EVERY:
                    continue
                shown = time.monotonic() if is_progress else shown
                log.info(line)
                last = line
            status = process.wait()
    if status < 0:  # killed from outside: another worker may go on
        return Crashed(message=f"ended by {signal.Signals(-status).name}")
    return Failed(message=last or f"exit status {status}") if status else Completed(message="ran")


@contextmanager
def only_one_here() -> Iterator[int]:
    """Wait until no other stage runs in this clone; yield the descriptor of the lock."""
    with open(own() / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield lock.fileno()


def check_out(ref: str) -> None:
    """Make the clone's files those of a ref of `origin`. Raises ValueError where they are somebody's work."""
    mark = own() / "worker"  # a clone that has it is a worker's, and holds nothing of value
    if not mark.exists() and (changed := git("status", "--porcelain", "--untracked-files=normal").splitlines()):
        raise ValueError(f"{Path.cwd() / changed[0][3:]} is not committed; a worker needs a clone of its own")
    mark.touch()
    git("fetch", "--quiet", "--no-tags", "origin", ref)
    git("checkout", "--quiet", "--force", "--detach", "FETCH_HEAD")
    git("clean", "-ffdq")


def own() -> Path:
    """Return the folder of the worker's files in its clone."""
    folder = Path(git("rev-parse", "--git-dir").strip()) / "flow"
    folder.mkdir(exist_ok=True)
    return folder


def git(*arguments: str) -> str:
    """Return what git prints. Raises subprocess.CalledProcessError."""
    return subprocess.run(["git", *arguments], check=True, capture_output=True, text=True).stdout
