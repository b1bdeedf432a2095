"""What DVC knows: which stages there are, what they wait for, which of them changed; and dvc.lock in DVC's own order."""

import difflib
import json
import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from genai.core.config import PARAMS, UserError, read

LOCK = Path("dvc.lock")


@dataclass(frozen=True)
class Stage:
    """A stage of dvc.yaml, as the flow needs to know it."""

    name: str  # such as train@cnn
    upstream: list[str]  # the stages whose outputs it reads
    changed: bool  # code, parameters, data or outputs are not those of dvc.lock
    threads: int  # cores that it occupies
    urgency: float  # CPU-seconds from its start to the end of the longest path that begins with it


def plan(targets: list[str]) -> list[Stage]:
    """Return the stages that `dvc repro TARGET ...` would visit, in its order; all without targets.

    A target is a stage (train@cnn) or a group of them (train). Raises UserError.
    """
    from dvc.dvcfile import Lockfile
    from dvc.exceptions import DvcException
    from dvc.repo import Repo
    from dvc.repo.reproduce import collect_stages, get_active_graph, plan_repro

    try:
        repo = Repo()
        try:
            Lockfile(repo, str(LOCK)).load()
        except DvcException:  # cut short by a kill, or in conflict
            print(f"{LOCK} was damaged and is made again; what it named comes back from DVC's cache")
            LOCK.unlink()
        graph = get_active_graph(repo.index.graph)
        names = [stage.addressing for stage in repo.index.stages]
        known = names + sorted({name.partition("@")[0] for name in names if "@" in name})
        for target in targets:
            if target not in known:
                close = difflib.get_close_matches(target, known, 1)
                hint = f"did you mean {close[0]}?" if close else f"known: {', '.join(known)}"
                raise UserError(f"{target!r} is not a stage of dvc.yaml; {hint}")
        order = plan_repro(graph, collect_stages(repo, targets or ["dvc.yaml"]))
        changed = repo.status()
    except DvcException as error:
        raise UserError(" ".join(str(error).split())) from None
    upstream = {stage.addressing: [above.addressing for above in graph.successors(stage)] for stage in order}
    experiments = (read(PARAMS) if PARAMS.exists() else {}).get("experiments", {})
    urgency = longest_paths(upstream, list(experiments))

    def threads(name: str) -> int:
        return experiments.get(name.partition("@")[2], {}).get("train", {}).get("threads", 1)

    return [Stage(name, above, name in changed, threads(name), urgency[name]) for name, above in upstream.items()]


def longest_paths(upstream: dict[str, list[str]], experiments: list[str]) -> dict[str, float]:
    """Return for each stage the CPU-seconds from its start to the end of the longest path below it."""
    urgency: dict[str, float] = {}
    below = dict.fromkeys(upstream, 0.0)
    for name in reversed(upstream):  # dependents come before what they depend on
        urgency[name] = below[name] + cpu_seconds(name, experiments)
        for above in upstream[name]:
            below[above] = max(below[above], urgency[name])
    return urgency


def cpu_seconds(name: str, experiments: list[str]) -> float:
    """Return what the stage took last time. Without one: params.yaml goes from small models to large."""
    command, _, key = name.partition("@")
    with suppress(OSError, ValueError, KeyError, TypeError):
        return float(json.loads(Path(".work", key or command, f"{command}.json").read_text())["cpu_seconds"])
    return 10.0 * (1 + experiments.index(key)) if command == "train" and key in experiments else 1.0


def locked_stages() -> list[str]:
    """Return the stages of dvc.lock in its order."""
    from dvc.utils.serialize import load_yaml

    return list(load_yaml(LOCK).get("stages", {})) if LOCK.exists() else []


def sort_lock(names: list[str]) -> None:
    """Rewrite dvc.lock with its stages in this order, atomically: DVC appends them as they complete."""
    from dvc.utils.serialize import dumps_yaml, parse_yaml_for_update

    if not LOCK.exists():
        return
    text = LOCK.read_text(encoding="utf-8")
    data = parse_yaml_for_update(text, LOCK)
    for name in dict.fromkeys(names):
        if name in data["stages"]:
            data["stages"].move_to_end(name)
    if (sorted_text := dumps_yaml(data)) != text:
        temporary = LOCK.with_name(f".{LOCK.name}.{os.getpid()}")
        temporary.write_text(sorted_text, encoding="utf-8")
        os.replace(temporary, LOCK)
