"""What it costs to hand a stage to a worker: python -m bench.handoff [--workers 1 2 4] (about 5 minutes).

On one machine, a Prefect server over SQLite, workers in clones of their own and a folder as DVC's remote. Prints the
seconds that a stage takes longer than the sleep that it is, for one stage and of many over 1, 2 and 4 workers, the
CPU-seconds of each, and what the controller uses of a core while it waits.
"""

import argparse
import os
import platform
import resource
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from bench.cost import ENVIRONMENT, FLOW, ROOT

DAG = """\
stages:
  train:
    foreach: {stages}
    do:
      cmd: sleep {seconds} && mkdir -p models && echo ${{item}} > models/${{item}}
      deps: [code.py]
      outs: ["models/${{item}}"]
      meta: {{pool: gpu, live: ".work/${{item}}"}}
"""
FEW = 3  # single stages, of which the median is told
WAIT = 60  # seconds of a stage during which the controller is watched
MANY, SHORT = 8, 10  # stages, and seconds of each


@contextmanager
def running(command: list[str], folder: Path, environment: dict[str, str]) -> Iterator[subprocess.Popen]:
    """Run a command while the block runs."""
    with open(folder.with_suffix(".log"), "a") as log, subprocess.Popen(
        command, cwd=folder, env=environment, stdout=log, stderr=log, start_new_session=True
    ) as process:  # fmt: skip
        try:
            yield process
        finally:
            process.terminate()


def server(stack: ExitStack, folder: Path) -> dict[str, str]:
    """Start Prefect's server, with this project's deployments; return the environment of its clients."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    address = f"http://127.0.0.1:{port}/api"
    environment = ENVIRONMENT | {"PREFECT_HOME": str(folder / "prefect"), "PREFECT_SERVER_ANALYTICS_ENABLED": "false"}
    environment |= {"PREFECT_WORKER_QUERY_SECONDS": "2"}  # as in .env
    command = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    stack.enter_context(running(command, folder, environment))
    for _ in range(600):
        with suppress(OSError), urllib.request.urlopen(f"{address}/health"):
            break
        time.sleep(0.2)
    environment |= {"PREFECT_API_URL": address}
    prepare = [sys.executable, "-m", "flows.prepare"]
    subprocess.run(prepare, cwd=ROOT, env=environment, check=True, stdout=subprocess.DEVNULL)
    return environment


def project(folder: Path) -> Path:
    """Make a project with a remote; its stages come later."""
    here = folder / "here"
    here.mkdir()
    (here / ".gitignore").write_text(".work/\n")
    (here / "code.py").write_text("# code\n")
    for command in (
        "git init -q", "dvc init -q", f"dvc remote add -q -d shared {folder / 'store'}", "git add -A",
        "git -c user.name=bench -c user.email=bench commit -qm start",
    ):  # fmt: skip
        subprocess.run(command.split(), cwd=here, env=ENVIRONMENT, check=True)
    return here


def flow(here: Path, environment: dict[str, str], stages: list[str], seconds: float) -> tuple[float, float]:
    """Run these stages; return wall seconds and the controller's CPU-seconds."""
    (here / "dvc.yaml").write_text(DAG.format(stages=stages, seconds=seconds))
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    done = subprocess.run([*FLOW, "--gpu", "require"], check=False, cwd=here, env=environment, capture_output=True)
    assert done.returncode == 0, (done.stdout + done.stderr).decode()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.monotonic() - start, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.handoff", description=__doc__)
    parser.add_argument("--workers", nargs="+", type=int, default=[1, 2, 4])
    arguments = parser.parse_args()
    print(f"{platform.machine()}, {os.cpu_count()} CPUs, Python {platform.python_version()}")
    with tempfile.TemporaryDirectory() as scratch, ExitStack() as stack:
        folder = Path(scratch)
        environment = server(stack, folder)
        here = project(folder)
        number = 0
        for workers in range(1, max(arguments.workers) + 1):
            clone = folder / f"worker{workers}"
            subprocess.run(["git", "clone", "-q", str(here), str(clone)], check=True)
            command = [sys.executable, "-m", "prefect", "worker", "start", "--pool", "gpu", "--limit", "1"]
            stack.enter_context(running([*command, "--name", clone.name], clone, environment))
            time.sleep(15)  # it is up
            if workers == 1:
                walls, cpus = [], []
                for i in range(FEW):
                    wall, cpu = flow(here, environment, [f"one{i}"], SHORT)
                    walls.append(wall - SHORT)
                    cpus.append(cpu)
                beside = statistics.median(walls)
                print(f"one stage of {SHORT} s: {beside:5.1f} s beside it, the flow's start and end among them")
                _, long = flow(here, environment, ["long"], WAIT)
                idle = (long - statistics.median(cpus)) / (WAIT - SHORT)
                print(f"the controller while it waits: {100 * idle:.1f} % of a core")
            if workers in arguments.workers:
                wall, cpu = flow(here, environment, [f"many{number + i}" for i in range(MANY)], SHORT)
                number += MANY
                own = (cpu - statistics.median(cpus)) / (MANY - 1)
                print(
                    f"{MANY} stages of {SHORT} s, {workers} workers: {wall:6.1f} s; the controller {own:.2f} CPU-s a stage"
                )


if __name__ == "__main__":
    main()
