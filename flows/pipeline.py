"""The pipeline: python -m flows.pipeline [STAGE ...]

Brings the stages of dvc.yaml up to date under Prefect, in parallel, as `dvc repro` does one after the other. With
names of stages (train@cnn) or of groups (train): those and what they depend on.
"""

import argparse
import fcntl
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from flows import history
from flows.errors import UserError
from flows.history import ORDER, STATE
from flows.project import Project, Stage
from flows.server import prefect_api

GENAI = [sys.executable, "-m", "genai"]
TRACKED = Path(".work/tracked")  # is there when MLflow shows all that the stages wrote


def run(targets: list[str]) -> int:
    """Do all of it; return the exit status."""
    set_environment()
    ours = Path("genai/__main__.py").exists()  # in any other DVC project there is nothing to check and to track
    check = subprocess.Popen([*GENAI, "check"]) if ours else None  # runs while Prefect's server starts
    with only_run_here() as lock, prefect_api() as wait_for_api:
        if check and (status := check.wait()):
            return status
        project = Project()
        stages = project.plan(targets, history.order_before(project.locked_stages()))
        wait_for_api()
        anything = any(stage.changed for stage in stages)
        tracking = start_tracking() if ours and (anything or not TRACKED.exists()) else None

        from flows.stages import Processes, pipeline

        processes = Processes(lock)
        named = pipeline.with_options(flow_run_name=f"{', '.join(targets) or 'all stages'} {time.strftime('%d %b %H:%M')}")
        state = named(stages, history.urgency(stages), cores(), project, processes, return_state=True)
        project.sort_lock()
        history.write(history.SECONDS, history.cpu_seconds() | processes.cpu_seconds)
        if state.is_completed():
            ORDER.unlink(missing_ok=True)
    if tracking:
        finish_tracking(tracking, stopped=processes.stopped_by is not None)
    if processes.stopped_by:
        return 128 + processes.stopped_by
    if not state.is_completed():
        print(f"\nfailed: {state.message}", file=sys.stderr)
        return 1
    print_results(stages)
    return 0


def set_environment() -> None:
    """Set what DVC and the stages read: no telemetry, a plain shell, a private cache, output at once."""
    if not Path(".dvc").is_dir():
        raise UserError(f"{Path.cwd()}: no DVC project; run this in the project's root")
    site = (STATE / "site").resolve()
    site.mkdir(mode=0o700, parents=True, exist_ok=True)
    os.environ.setdefault("DVC_SITE_CACHE_DIR", str(site))
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    os.environ |= {"DVC_NO_ANALYTICS": "1", "SHELL": "/bin/sh", "PYTHONUNBUFFERED": "1"}


@contextmanager
def only_run_here() -> Iterator[int]:
    """Hold a lock that lasts until this run and all its stages are gone; yield its descriptor. Raises UserError."""
    with open(STATE / "lock", "w") as lock:
        for attempts_left in reversed(range(31)):  # the stages of a killed run take up to 2 s to end
            with suppress(BlockingIOError):
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            if not attempts_left:
                raise UserError(f"{Path.cwd()}: another run of the pipeline is in progress here")
            time.sleep(0.1)
        with suppress(FileNotFoundError):
            rwlock = Path(".dvc/tmp/rwlock")
            try:
                json.loads(rwlock.read_text())
            except ValueError:  # a kill cut it short, and DVC would refuse to go on
                rwlock.unlink()
        yield lock.fileno()


def cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def start_tracking() -> subprocess.Popen[bytes]:
    """Start the one process that mirrors what the stages write into MLflow, and at its end releases."""
    TRACKED.unlink(missing_ok=True)
    command = ["nice", *GENAI, "track", "--follow", "--release"]
    return subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)


def finish_tracking(tracking: subprocess.Popen[bytes], stopped: bool) -> None:
    """Let it do its last pass, or end it; a fault of tracking costs no result of a stage."""
    if not stopped:
        assert tracking.stdin
        tracking.stdin.close()
        if tracking.wait() == 0:
            TRACKED.parent.mkdir(exist_ok=True)
            TRACKED.touch()
        else:
            print("tracking failed; all results are here, mirror them with: python -m genai track", file=sys.stderr)
        return
    tracking.terminate()
    with suppress(subprocess.TimeoutExpired):
        tracking.wait(timeout=1)
    tracking.kill()


def print_results(stages: list[Stage]) -> None:
    """Print what the stages made to be read, and a line on files in Git that are not those of the commit."""
    for stage in stages:
        path = Path(stage.meta.get("print", ""))
        if path.is_file():
            print("\n" + path.read_text(encoding="utf-8").rstrip())
    with suppress(OSError, subprocess.CalledProcessError):
        command = ["git", "status", "--porcelain", "--untracked-files=no"]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        changed = [line[3:] for line in done.stdout.splitlines()]
        figures = [path for path in changed if path.endswith(".json") and Path(path).parent.name in ("metrics", "grades")]
        if "dvc.lock" in changed or figures:
            print(
                f"\ngit: dvc.lock and {len(figures)} files of figures are not those of the commit (of another processor, "
                "library or edit); `dvc metrics diff` shows by how much"
            )


def main() -> int:
    """Run the pipeline; a user's mistake becomes one line and exit status 2."""
    parser = argparse.ArgumentParser(prog="python -m flows.pipeline", description="Bring stages up to date.")
    parser.add_argument("targets", nargs="*", metavar="STAGE", help="of dvc.yaml, such as train@cnn or train")
    try:
        return run(parser.parse_args().targets)
    except UserError as error:
        print(f"flow: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
