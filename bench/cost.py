"""What the pipeline costs, cold and with nothing to do: python -m bench.cost [REPEATS] (about 15 minutes a repeat).

Each repeat clones the last commit twice and runs the flow in one and `dvc repro` in the other, one after
the other; figures are medians over the repeats. CPU-seconds are user + system of all processes.
"""

import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
FLOW = [sys.executable, "-m", "flows.pipeline"]
CHECK = [sys.executable, "-m", "genai", "check"]
ENVIRONMENT = os.environ | {
    "PYTHONPATH": str(ROOT),  # so that the flow is found from any folder
    "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    "DVC_NO_ANALYTICS": "1",
    "DO_NOT_TRACK": "1",
}
NOOPS = 7


def timed(command: list[str], folder: Path) -> tuple[float, float]:
    """Run a command to its end; return wall seconds and CPU-seconds, its children's included."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    subprocess.run(
        command, cwd=folder, env=ENVIRONMENT, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.monotonic() - start, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def records(folder: Path) -> dict[str, dict]:
    """Return what each stage noted of itself: cpu_seconds, and work_cpu_seconds without start and imports."""
    return {f"{p.stem}@{p.parent.name}": json.loads(p.read_text()) for p in sorted(folder.glob(".work/*/*.json"))}


def repeat(folder: Path) -> dict[str, float]:
    """Measure one cold run of each kind and what a run with nothing to do takes."""
    flow, repro = folder / "flow", folder / "repro"
    for clone in (flow, repro):
        subprocess.run(["git", "clone", "-q", str(ROOT), str(clone)], check=True)
    flow_wall, flow_cpu = timed(FLOW, flow)
    repro_wall, repro_cpu = timed(["dvc", "repro"], repro)
    same = (flow / "dvc.lock").read_bytes() == (repro / "dvc.lock").read_bytes()
    stages = {name: record for name, record in records(flow).items() if "work_cpu_seconds" in record}
    work = sum(record["work_cpu_seconds"] for record in stages.values())
    processes = sum(json.loads((flow / ".dvc/tmp/flow/cpu_seconds.json").read_text()).values())  # to their very end
    check = statistics.median(timed(CHECK, flow)[1] for _ in range(3))
    track = json.loads((flow / ".work" / "track.json").read_text())["cpu_seconds"]
    noop = {
        name: statistics.median(timed(command, repro if "dvc" in command else flow)[0] for _ in range(NOOPS))
        for name, command in {"dvc status": ["dvc", "status"], "dvc repro": ["dvc", "repro"], "flow": FLOW}.items()
    }
    for name, record in sorted(stages.items(), key=lambda item: -item[1]["cpu_seconds"]):
        print(f"  {name:32} {record['cpu_seconds']:8.1f} CPU-s, {record['work_cpu_seconds']:8.1f} of them work")
    return {
        "cold run under the flow, CPU-seconds": flow_cpu,
        "cold run under the flow, wall seconds": flow_wall,
        "cold run under dvc repro, CPU-seconds": repro_cpu,
        "dvc repro / flow, wall": repro_wall / flow_wall,
        "same dvc.lock (1: byte for byte)": same,
        "work: data, training, evaluating, sampling, CPU-seconds": work,
        "machinery: starts and ends of the stages' processes, CPU-seconds": processes - work,
        "machinery: checking params.yaml, CPU-seconds": check,
        "machinery: tracking in MLflow, CPU-seconds": track,
        "machinery: the flow, Prefect and DVC, CPU-seconds": flow_cpu - processes - check - track,
        "machinery: the flow, CPU-seconds a stage": (flow_cpu - processes - check - track) / len(stages),
        "machinery: dvc repro, CPU-seconds a stage": (repro_cpu - processes) / len(stages),
        "machinery / cold run": 1 - work / flow_cpu,
        "nothing to do: dvc repro / dvc status, wall": noop["dvc repro"] / noop["dvc status"],
        "nothing to do: flow, wall seconds": noop["flow"],
    }


def main() -> None:
    repeats = int(sys.argv[1]) if len(sys.argv) > 1 else 1
    print(
        f"{platform.machine()}, {os.cpu_count()} CPUs, Python {platform.python_version()}, load {os.getloadavg()[0]:.1f}"
    )
    rows = []
    for _ in range(repeats):
        with tempfile.TemporaryDirectory() as folder:
            rows.append(repeat(Path(folder)))
    for name in rows[0]:
        values = [row[name] for row in rows]
        print(
            f"{name:64} {statistics.median(values):9.2f}"
            + (f"   {min(values):.2f} to {max(values):.2f}" if repeats > 1 else "")
        )


if __name__ == "__main__":
    main()
