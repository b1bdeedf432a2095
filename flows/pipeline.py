"""The pipeline: python -m flows.pipeline [STAGE ...]

Brings the stages of dvc.yaml up to date under Prefect, in parallel, each by DVC's own code. With names of
stages (train@cnn), of groups (train), of a dvc.yaml elsewhere (sub/dvc.yaml, sub/dvc.yaml:train) or of a folder with
such (., as `dvc repro -R .`): those and what they depend on, as `dvc repro TARGET` does. Stages with a pool
go to its workers where PREFECT_API_URL names a server that knows some.
"""

import argparse
import fcntl
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows import FLOW, PROJECT, STATE, UserError
from flows.plan import Stage
from flows.process import Processes
from flows.server import home, prefect_api

if TYPE_CHECKING:
    from flows.project import Project

GENAI = [sys.executable, "-m", "genai"]
TRACKED = STATE / "tracked"  # is there when MLflow shows all that the stages wrote


def run(
    targets: list[str], gpu: str = "prefer", deadline: float = 60.0, release: bool = True, push: bool = False
) -> int:
    """Do all of it; return the exit status."""
    set_environment()
    try:
        with only_run_here() as lock, prefect_api() as wait_for_api, opened(targets, release, lock) as this:
            wait_for_api()

            from prefect import tags  # only now: two threads must not import Prefect at once

            from flows.results import explain_git_status, print_results
            from flows.stages import flow_of

            with tags("pipeline"):
                flow = flow_of(lambda *_: nullcontext(this))
                state: Any = flow(targets, gpu, deadline, release, push, return_state=True)
    except CheckFailed as error:
        return error.status
    if this.processes.stopped_by:
        return 128 + this.processes.stopped_by
    if not state.is_completed():
        print(f"\nfailed: {state.message}", file=sys.stderr)
        return 1
    print_results(this.stages)
    explain_git_status(this.project.files_in_git())
    return 0


@dataclass(frozen=True)
class Opened:
    """A project, and what is to be done in it."""

    project: "Project"
    stages: list[Stage]
    processes: Processes
    cores: int


class CheckFailed(UserError):
    """The check of the project's own has failed, and said why."""

    def __init__(self, status: int):
        super().__init__("the check of params.yaml has failed; its log says why")
        self.status = status


@contextmanager
def opened(targets: list[str], release: bool, lock: int) -> Iterator[Opened]:
    """Open the project and plan, and mirror into MLflow what the stages write during the block. Raises UserError.

    release: whether a better model then becomes champion. lock: the descriptor of `only_run_here`.
    """
    genai = is_genai()
    with subprocess.Popen([*GENAI, "check"] if genai else ["true"]) as check:  # runs while Prefect's server starts
        from flows.project import Project

        if status := check.wait():
            raise CheckFailed(status)
    with closing(Project()) as project:
        stages = project.plan(targets)
        anything = any(stage.changed for stage in stages)
        tracking = start_tracking(release) if genai and (anything or not TRACKED.exists()) else None
        processes = Processes(lock)
        try:
            yield Opened(project, stages, processes, cores())
        except BaseException:
            if tracking:
                finish_tracking(tracking, stopped=True)
            raise
    if tracking:
        finish_tracking(tracking, stopped=processes.stopped_by is not None)


def is_genai() -> bool:
    """Return whether this is the project that has a check and tracking; any other DVC project has neither."""
    return Path("genai/__main__.py").is_file()


def set_environment() -> None:
    """Set what DVC and the stages read: no telemetry, a private cache, output at once."""
    if not (PROJECT / ".dvc").is_dir():
        raise UserError(f"{Path.cwd()}: no DVC project here; run this in a folder with a dvc.yaml")
    STATE.mkdir(parents=True, exist_ok=True)
    site = (FLOW / "site").resolve()
    site.mkdir(mode=0o700, parents=True, exist_ok=True)
    os.environ.setdefault("DVC_SITE_CACHE_DIR", str(site))
    ours, path = str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)
    # the Python of another project is that of the user's shell
    os.environ["PATH"] = os.pathsep.join([ours, path] if is_genai() else [path, ours])
    os.environ |= {"DVC_NO_ANALYTICS": "1", "DO_NOT_TRACK": "1", "PYTHONUNBUFFERED": "1"}
    if "PREFECT_API_URL" in os.environ:  # a server that is not this process's own closes runs that tell nothing
        os.environ.setdefault("PREFECT_FLOWS_HEARTBEAT_FREQUENCY", "30")


@contextmanager
def only_run_here() -> Iterator[int]:
    """Hold a lock that lasts until this run and all its stages are gone; yield its descriptor. Raises UserError."""
    folder = home().resolve()  # one for all that share it: whoever starts Prefect over it closes what others left
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "lock", "w") as lock:
        for attempts_left in reversed(range(31)):  # the stages of a killed run take up to 2 s to end
            with suppress(BlockingIOError):
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            if not attempts_left:
                raise UserError(f"{Path.cwd()}: another run of the pipeline is in progress here")
            time.sleep(0.1)
        with suppress(FileNotFoundError):
            rwlock = PROJECT / ".dvc/tmp/rwlock"
            try:
                json.loads(rwlock.read_text())
            except ValueError:  # a kill cut it short, and DVC would refuse to go on
                rwlock.unlink()
        yield lock.fileno()


def cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def start_tracking(release: bool) -> subprocess.Popen[bytes]:
    """Start the one process that mirrors what the stages write into MLflow, and at its end, if asked, releases."""
    TRACKED.unlink(missing_ok=True)
    command = ["nice", *GENAI, "track", "--follow", *["--release"] * release]
    return subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)


def finish_tracking(tracking: subprocess.Popen[bytes], stopped: bool) -> None:
    """Let it do its last pass, or end it; a fault of tracking costs no result of a stage."""
    if not stopped:
        assert tracking.stdin
        tracking.stdin.close()
        if tracking.wait() == 0:
            TRACKED.touch()
        else:
            print("tracking failed; all results are here, mirror them with: python -m genai track", file=sys.stderr)
        return
    tracking.terminate()
    with suppress(subprocess.TimeoutExpired):
        tracking.wait(timeout=1)
    tracking.kill()


def main() -> int:
    """Run the command line; a user's mistake becomes one line and exit status 2."""
    parser = argparse.ArgumentParser(prog="python -m flows.pipeline", description=__doc__)
    parser.add_argument(
        "stages", nargs="*", metavar="STAGE", help="a stage (train@cnn), a group (train), a dvc.yaml or a folder"
    )
    parser.add_argument(
        "--gpu", choices=("prefer", "require", "never"), default="prefer",
        help="whether stages with a pool go to its workers where there are such (prefer), have to, or never do",
    )  # fmt: skip
    parser.add_argument(
        "--deadline", type=float, default=60.0, metavar="S", help="seconds in which a worker has to answer"
    )
    parser.add_argument("--no-release", dest="release", action="store_false", help="make no model champion in the end")
    parser.add_argument(
        "--push", action="store_true", help="then copy what was made to DVC's remote, as `dvc push --run-cache` does"
    )
    arguments = parser.parse_args()
    try:
        return run(arguments.stages, arguments.gpu, arguments.deadline, arguments.release, arguments.push)
    except UserError as error:
        print(f"pipeline: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        if error.errno is None:
            raise
        print(f"pipeline: {error.filename or 'write'}: {error.strerror}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
