"""The pipeline: python -m flows.pipeline [STAGE ...]

Brings the stages of dvc.yaml up to date under Prefect, in parallel, each by DVC's own command. With names of
stages (train@cnn) or of groups (train): those and what they depend on, as `dvc repro STAGE` does.
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

from flows.plan import locked_stages, plan, sort_lock
from flows.server import prefect_api
from genai.core.config import UserError

GENAI = [sys.executable, "-m", "genai"]
STATE = Path(".dvc/tmp/flow")  # the flow's own files
ORDER = STATE / "order.json"  # the stages of dvc.lock when the last run began that has not completed
TRACKED = Path(".work/tracked")  # is there when MLflow shows all that the stages wrote


def run(targets: list[str]) -> int:
    """Do all of it; return the exit status."""
    set_environment()
    check = [*GENAI, "check"]  # runs while Prefect's server starts
    with only_run_here() as lock, subprocess.Popen(check) as check, prefect_api() as wait_for_api:
        if status := check.wait():
            return status
        stages = plan(targets)
        wait_for_api()
        before = order_before()
        anything = any(stage.changed for stage in stages)
        tracking = start_tracking() if anything or not TRACKED.exists() else None

        from flows.stages import Processes, pipeline

        processes = Processes(lock)
        state = pipeline(stages, cores(), processes, return_state=True)
        sort_lock([*before, *(stage.name for stage in stages)])
        if state.is_completed():
            ORDER.unlink(missing_ok=True)
    if tracking:
        finish_tracking(tracking, stopped=processes.stopped_by is not None)
    if processes.stopped_by:
        return 128 + processes.stopped_by
    if not state.is_completed():
        print(f"\nfailed: {state.message}", file=sys.stderr)
        return 1
    if any(stage.name == "report" for stage in stages):  # else what is there may be of an earlier run
        print_results()
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


def order_before() -> list[str]:
    """Return the order of dvc.lock from which DVC alone would have started.

    A run that was killed or failed leaves the order in which its stages completed; what completes it later
    shall give the file that an undisturbed run gives.
    """
    with suppress(FileNotFoundError, ValueError):
        return json.loads(ORDER.read_text())
    order = locked_stages()
    ORDER.write_text(json.dumps(order))
    return order


def cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def start_tracking() -> subprocess.Popen:
    """Start the one process that mirrors what the stages write into MLflow, and at its end releases."""
    TRACKED.unlink(missing_ok=True)
    command = ["nice", *GENAI, "track", "--follow", "--release"]
    return subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)


def finish_tracking(tracking: subprocess.Popen, stopped: bool) -> None:
    """Let it do its last pass, or end it; a fault of tracking costs no result of a stage."""
    if not stopped:
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


def print_results() -> None:
    """Print what there is: the leaderboard, a few generated sentences, where the figures are."""
    leaderboard, samples = Path("reports/leaderboard.md"), Path("samples/text_diffusion/samples.json")
    if leaderboard.exists():
        print("\n" + leaderboard.read_text(encoding="utf-8"))
    if samples.exists():
        print("text_diffusion writes:")
        for sample in json.loads(samples.read_text(encoding="utf-8"))[:3]:
            print("  " + " ".join(sample["text"].split())[:300])
    figures = [str(path) for folder in ("reports", "samples") for path in sorted(Path(folder).rglob("*.png"))]
    if figures:
        print("\nfigures: " + "  ".join(figures))
    print("\nto look at it in MLflow and Prefect: make ui")


def main() -> int:
    """Run the command line; a user's mistake becomes one line and exit status 2."""
    parser = argparse.ArgumentParser(prog="python -m flows.pipeline", description=__doc__)
    parser.add_argument("stages", nargs="*", metavar="STAGE", help="a stage (train@cnn) or a group (train)")
    try:
        return run(parser.parse_args().stages)
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
