"""What runs when: the stages that are to be brought up to date, and which of them are the most urgent."""

import json
from collections import defaultdict
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flows import STATE, UserError, write_atomically

SECONDS = STATE / "cpu_seconds.json"


@dataclass(frozen=True)
class Stage:
    """A stage of dvc.yaml, as the flow needs to know it."""

    name: str  # such as train@cnn
    upstream: list[str]  # the stages whose outputs it reads
    changed: bool  # code, parameters, data or outputs are not those of dvc.lock
    urgency: float = 0.0  # CPU-seconds from its start to the end of the longest path that begins with it
    meta: dict[str, Any] = field(default_factory=dict)  # of dvc.yaml: threads, show, print, pool, live, nproc_per_node
    pool: str | None = None  # Prefect's work pool whose workers run it, where there are such

    @property
    def threads(self) -> int:
        """Cores that it occupies."""
        return self.meta.get("threads", 1)

    def launched(self, command: str) -> str:
        """Return the command as a worker runs it: with `nproc_per_node` under torchrun, a process a device."""
        if "nproc_per_node" not in self.meta:
            return command
        return f"torchrun --standalone --nproc-per-node {self.meta['nproc_per_node']} {command.removeprefix('python ')}"


def check_meta(name: str, meta: Any) -> dict[str, Any]:
    """Return what dvc.yaml says of a stage for the flow. Raises UserError."""
    if not isinstance(meta, dict):  # nothing, or another project's own
        return {}
    threads = meta.get("threads", 1)
    if type(threads) is not int or threads < 1:
        raise UserError(f"dvc.yaml: {name}: meta.threads is {threads!r}; it is a whole number from 1")
    for key, kind in (("show", "path"), ("print", "command"), ("live", "folder")):
        if not isinstance(meta.get(key, ""), str):
            raise UserError(f"dvc.yaml: {name}: meta.{key} is {meta[key]!r}; it is a {kind}")
    processes = meta.get("nproc_per_node", 1)
    if processes != "gpu" and (type(processes) is not int or processes < 1):
        raise UserError(f"dvc.yaml: {name}: meta.nproc_per_node is {processes!r}; it is a whole number from 1, or gpu")
    return meta


def pool_of(name: str, meta: dict[str, Any], deps: list[str]) -> str | None:
    """Return the work pool that dvc.yaml names for a stage. Raises UserError.

    `pool: gpu`, or `pool: {gpu: genai/diffusion}` where it is that of those stages which depend on something there.
    """
    pool = meta.get("pool")
    if isinstance(pool, dict) and all(isinstance(text, str) for item in pool.items() for text in item):
        below = {pool: Path(path) for pool, path in pool.items()}
        return next((pool for pool, path in below.items() if any(Path(dep).is_relative_to(path) for dep in deps)), None)
    if pool is None or isinstance(pool, str):
        return pool
    raise UserError(f"dvc.yaml: {name}: meta.pool is {pool!r}; it is a name, or a map from a name to a path")


def longest_paths(
    upstream: dict[str, list[str]], seconds: dict[str, float], written: Iterable[str]
) -> dict[str, float]:
    """Return for each stage the CPU-seconds from its start to the end of the longest path below it.

    upstream: in an order in which stages come after those that they depend on. seconds: what stages took last time.
    written: the names in the order of dvc.yaml.
    """
    expected = guess([name for name in written if name in upstream], seconds) | seconds
    urgency: dict[str, float] = {}
    below = dict.fromkeys(upstream, 0.0)
    for name in reversed(upstream):
        urgency[name] = below[name] + expected[name]
        for above in upstream[name]:
            below[above] = max(below[above], urgency[name])
    return urgency


def guess(names: list[str], seconds: dict[str, float]) -> dict[str, float]:
    """Return what the stages may take: as long as the longest of their group, the later of a group the longer."""
    longest: dict[str, float] = defaultdict(float)
    for name, took in seconds.items():
        group = name.partition("@")[0]
        longest[group] = max(longest[group], took)
    count: dict[str, int] = defaultdict(int)
    guessed = {}
    for name in names:
        group = name.partition("@")[0]
        count[group] += 1
        guessed[name] = longest[group] + count[group]
    return guessed


def recorded_seconds() -> dict[str, float]:
    """Return the CPU-seconds that each stage's processes took when it last ran."""
    with suppress(FileNotFoundError, ValueError):
        return json.loads(SECONDS.read_text())
    return {}


def record_seconds(seconds: dict[str, float]) -> None:
    """Write them down, atomically."""
    write_atomically(SECONDS, json.dumps(seconds))
