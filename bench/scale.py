"""What a stage costs as experiments become many: python -m bench.scale [--no-repro] [EXPERIMENTS ...] (10 and 50).

Makes projects of that many experiments, each trained and evaluated by a line of shell, runs the flow on one copy
and `dvc repro` on another, and prints CPU-seconds (user + system of all processes) a stage above those of the
stage's own command. 200 experiments take the flow about 2 minutes and `dvc repro` 15: leave that out with --no-repro.
"""

import argparse
import os
import platform
import resource
import shutil
import statistics
import subprocess
import tempfile
from pathlib import Path

from bench.cost import ENVIRONMENT, FLOW, timed

CODE = ["code/__main__.py", "code/core", "code/model.py", "code/commands/train.py", "code/training"]
# The shape of our dvc.yaml: as many dependencies, parameters and outputs a stage.
DAG = """\
stages:
  prepare:
    cmd: mkdir -p data/digits && echo digits > data/digits/x
    deps: [code/core, code/data]
    params: [datasets.digits]
    outs: [data/digits]
  train:
    foreach: ${experiments}
    do:
      cmd: mkdir -p models/${key} && echo ${key} > models/${key}/model && echo ${key} > models/${key}/config
      deps: ["data/${item.data}", code/__main__.py, code/core, code/model.py, code/commands/train.py, code/training]
      params: ["experiments.${key}"]
      outs: ["models/${key}"]
  evaluate:
    foreach: ${experiments}
    do:
      cmd: mkdir -p scores metrics && echo ${key} > scores/${key}.csv && echo '{"accuracy":1}' > metrics/${key}.json
      deps: ["data/${item.data}", "models/${key}", code/__main__.py, code/core, code/model.py, "code/tasks/${item.task}.py"]
      outs: ["scores/${key}.csv"]
      metrics:
        - metrics/${key}.json:
            cache: false
  report:
    cmd: mkdir -p reports && cat metrics/* > reports/leaderboard
    deps: [metrics, models, code/core]
    params: [experiments]
    outs: [reports]
"""
EXPERIMENT = """\
  {name}:
    data: digits
    task: classification
    code: code/cnn/classifier.py
    model: ConvNet
    config: {{width: 16, depth: 3, dropout: 0.1}}
    train: {{method: gradient_descent, seed: 0, threads: 1, steps: 300, batch: 64, learning_rate: 0.003}}
"""
OWN = [
    "mkdir -p models/x && echo x > models/x/model && echo x > models/x/config",
    "mkdir -p scores metrics && echo x > scores/x.csv && echo '{\"accuracy\":1}' > metrics/x.json",
]


def project(folder: Path, experiments: int) -> None:
    """Make the project in an empty folder, under git and DVC."""
    for path in (*CODE, "code/data", "code/tasks/classification.py"):
        file = folder / path if path.endswith(".py") else folder / path / "code.py"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"# {path}\n")
    text = "".join(EXPERIMENT.format(name=f"experiment_{number}") for number in range(experiments))
    (folder / "params.yaml").write_text("datasets:\n  digits: {kind: images, seed: 0}\nexperiments:\n" + text)
    (folder / "dvc.yaml").write_text(DAG)
    (folder / ".gitignore").write_text("/data/\n/models/\n/scores/\n/reports/\n/.prefect/\n/.work/\n")
    for command in (["git", "init", "-q"], ["dvc", "init", "-q"], ["git", "add", "-A"]):
        subprocess.run(command, cwd=folder, env=ENVIRONMENT, check=True)


def own_cpu(folder: Path) -> float:
    """Return the CPU-seconds of a stage's own command, the mean of many."""
    before, repeats = resource.getrusage(resource.RUSAGE_CHILDREN), 50
    for _ in range(repeats):
        for command in OWN:
            subprocess.run(["/bin/sh", "-c", command], cwd=folder, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return used / repeats / len(OWN)


def measure(folder: Path, experiments: int, with_repro: bool) -> None:
    """Print what there is to know about one size."""
    flow, repro, scratch = folder / "flow", folder / "repro", folder / "scratch"
    for made in (flow, scratch):
        made.mkdir()
    project(flow, experiments)
    shutil.copytree(flow, repro)
    stages, own = 2 * experiments + 2, own_cpu(scratch)
    wall, cpu = timed(FLOW, flow)
    lock = (flow / "dvc.lock").read_bytes()
    lines = len(lock.splitlines()) / stages
    print(f"\n{experiments} experiments, {stages} stages, {lines:.0f} lines of dvc.lock a stage")
    print(f"  the flow    {cpu / stages - own:6.3f} CPU-s a stage, {cpu:7.1f} CPU-s and {wall:7.1f} s in all")
    if with_repro:
        wall, cpu = timed(["dvc", "repro"], repro)
        same = lock == (repro / "dvc.lock").read_bytes()
        print(f"  dvc repro   {cpu / stages - own:6.3f} CPU-s a stage, {cpu:7.1f} CPU-s and {wall:7.1f} s in all")
        print(f"  the same dvc.lock: {'yes' if same else 'NO'}")
    for name, command in {"dvc status": ["dvc", "status"], "dvc repro": ["dvc", "repro"], "the flow": FLOW}.items():
        runs = [timed(command, flow) for _ in range(3)]
        wall, cpu = (statistics.median(values) for values in zip(*runs, strict=True))
        print(f"  nothing to do: {name:10} {wall:6.2f} s, {cpu:6.2f} CPU-s")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.scale", description=__doc__)
    parser.add_argument("experiments", nargs="*", type=int, default=[10, 50])
    parser.add_argument("--no-repro", action="store_true", help="do not run `dvc repro` beside the flow")
    arguments = parser.parse_args()
    print(f"{platform.machine()}, {os.cpu_count()} CPUs, Python {platform.python_version()}")
    for experiments in arguments.experiments:
        with tempfile.TemporaryDirectory() as folder:
            measure(Path(folder), experiments, not arguments.no_repro)


if __name__ == "__main__":
    main()
