"""One stage far from its controller: python -m flows.remote_stage STAGE KEY REMOTE [LIVE]

Takes the stage's data from DVC's remote, lets DVC run it, and leaves there what it made and, while it runs, what stands
in the folder LIVE, so that the controller shows it and another worker goes on from its last checkpoint.
"""

import os
import signal
import sys
import threading
import time
from contextlib import closing
from pathlib import Path

from dvc.exceptions import DvcException
from dvc.repo import Repo
from dvc.stage.cache import _get_stage_hash
from dvc.stage.run import _make_cmd, get_executable

from flows import UserError
from flows.pipeline import set_environment
from flows.process import Processes, lines
from flows.project import UNCHANGED, Project, one_line
from flows.remote import Remote, insist

SEND_EVERY = 5.0  # seconds


class Ended(Exception):
    """The stage's command ended with an exit status other than 0; what it printed says why."""


def run(name: str, key: str, remote_name: str, live: Path | None) -> int:
    """Do all of it; return the exit status."""
    set_environment()
    with closing(Project()) as project, closing(Repo()) as repo:
        remote = Remote(repo, remote_name)
        (planned,) = [stage for stage in project.plan([name]) if stage.name == name]
        stage = project.stage(name)
        inputs = project.inputs(name)
        insist(lambda: remote.pull(inputs), say)
        for out in inputs:
            out.checkout(force=True)
        (copy,) = repo.stage.collect(name)  # the project's own is compared with dvc.lock when it is its turn
        copy.save_deps()
        if _get_stage_hash(copy) != key:
            say(
                f"what {name} depends on is not here as it is at the controller; each must be in Git or an output of DVC"
            )
            return 1
        if live:
            insist(lambda: remote.pull_live(key, live, {}), say)
        with open(os.devnull) as nothing, Sender(remote, key, live):
            processes = Processes(nothing.fileno())
            signal.signal(signal.SIGTERM, processes.stop)

            def execute(command: str, cwd: str, env: dict[str, str]) -> float:
                with processes.start(_make_cmd(get_executable(), planned.launched(command)), cwd, env) as process:
                    for line, is_progress in lines(process.stdout):
                        print(line, end="\r" if is_progress else "\n", flush=True)
                    if process.wait():
                        raise Ended
                return process.cpu_seconds

            outcome = project.reproduce(name, execute)
        if _get_stage_hash(stage) != key:
            say(f"what {name} depends on changed while it ran")
            return 1
        if outcome == UNCHANGED:  # the outputs were as they should be, the entry need not be there
            repo.stage_cache.save(stage)
        insist(lambda: remote.push_results([stage]), say)
        return 0


class Sender(threading.Thread):
    """Copies the live files to the remote while the block runs, the load of the machine among them."""

    def __init__(self, remote: Remote, key: str, folder: Path | None):
        super().__init__(daemon=True)
        self._remote, self._key, self._folder = remote, key, folder
        self._sent: dict[str, tuple[int, int]] = {}  # of each file its time and size
        self._done = threading.Event()

    def run(self) -> None:
        failures = 0
        while self._folder:
            done = self._done.wait(SEND_EVERY)
            try:
                if self._folder.is_dir():
                    note_load(self._folder / "system.csv")
                    self._remote.push_live(self._key, self._folder, self._sent)
                failures = 0
            except Exception as error:  # noqa: BLE001  each kind of remote has its own; none costs a training
                failures += 1
                if failures == 1:
                    say(f"DVC's remote: {one_line(error)}; the stage goes on")
            if done:
                return

    def __enter__(self) -> None:
        self.start()

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self.join(timeout=60)


def note_load(path: Path) -> None:
    """Append the load of this machine, under the names that MLflow gives it: time,name,value."""
    import psutil

    memory, disk = psutil.virtual_memory(), psutil.disk_usage("/")
    found = {
        "cpu_utilization_percentage": psutil.cpu_percent(),
        "system_memory_usage_megabytes": memory.used / 1e6,
        "system_memory_usage_percentage": memory.percent,
        "disk_usage_percentage": disk.percent,
        **gpus(),
    }
    now = round(time.time(), 1)
    new = not path.exists()
    with open(path, "a") as file:
        file.write(
            "time,name,value\n" * new + "".join(f"{now},system/{name},{value:.6g}\n" for name, value in found.items())
        )


def gpus() -> dict[str, float]:
    """Return the load of each NVIDIA GPU; nothing where there is none."""
    import pynvml

    found: dict[str, float] = {}
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return found
    for i in range(pynvml.nvmlDeviceGetCount()):
        device = pynvml.nvmlDeviceGetHandleByIndex(i)
        memory = pynvml.nvmlDeviceGetMemoryInfo(device)
        found[f"gpu_{i}_utilization_percentage"] = pynvml.nvmlDeviceGetUtilizationRates(device).gpu
        found[f"gpu_{i}_memory_usage_megabytes"] = memory.used / 1e6
        found[f"gpu_{i}_memory_usage_percentage"] = 100 * memory.used / memory.total
        found[f"gpu_{i}_power_usage_watts"] = pynvml.nvmlDeviceGetPowerUsage(device) / 1e3
    return found


def say(line: str) -> None:
    print(line, flush=True)


def main() -> int:
    """Run the command line; what goes wrong becomes one line and exit status 1."""
    name, key, remote, *live = sys.argv[1:]
    try:
        return run(name, key, remote, Path(live[0]) if live else None)
    except Ended:
        return 1
    except (UserError, DvcException, OSError) as error:
        say(one_line(error))
        return 1


if __name__ == "__main__":
    sys.exit(main())
