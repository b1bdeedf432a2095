"""DVC's experiments as runs: each of `refs/exps` below a run of the commit that it began from.

They are read out of git where they lie; nothing is checked out. A run is known by the experiment's commit, and stays
where DVC has removed the experiment. Release and gate see none of them: these runs have no `genai.experiment`.
"""

import json
import re
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML, YAMLError

from genai.core.config import PARAMS
from genai.tracking.finished import flat
from genai.tracking.store import Store, remember, remembered

REF = re.compile(r"(?P<commit>\w+) (?P<ref>refs/exps/(?P<head>[0-9a-f]{2})/(?P<tail>[0-9a-f]{38,})/(?P<name>.+))")
MEASURES = {"evaluate": "metrics", "grade": "grades"}  # stage -> folder
MOST = 100  # params that MLflow takes at once


def mirror_experiments(root: Path, store: Store | None) -> tuple[Store | None, str]:
    """Mirror what is new; return the store, opened if it was needed, and what was done as the end of a line."""
    found = experiments(root)
    known = set(remembered(root).get("experiments", []))
    unknown = [e for e in found if e.commit not in known]
    new = [e for e in unknown if e.is_of_this_folder]
    if new:
        store = store or Store(root)
        remotes = (_git(root, "remote") or "").split()
        new = [e for e in new if _mirror(store, e, found, remotes)]
    if unknown:
        remember(root, experiments=sorted(known | {e.commit for e in found}))
    return store, f"; new of DVC's experiments: {', '.join(e.name for e in new)}" if new else ""


@dataclass(frozen=True)
class Experiment:
    """An experiment of DVC, as git holds it. All is read of this folder, which may lie below the repository's."""

    root: Path
    name: str
    ref: str
    commit: str
    baseline: str  # the commit that it began from

    @property
    def is_of_this_folder(self) -> bool:
        """Whether it ran the stages of this folder, not of another in the repository, as vision/ is one."""
        return bool(self.params) or _lock(self.root, self.commit) != _lock(self.root, self.baseline)

    @cached_property
    def params(self) -> dict[str, tuple[str | None, str]]:
        """Of params.yaml what is not as in the baseline: key -> value there (None: no such key), value here."""
        before, here = (_params(self.root, commit) for commit in (self.baseline, self.commit))
        return {key: (before.get(key), value) for key, value in here.items() if before.get(key) != value}

    @cached_property
    def metrics(self) -> dict[str, dict[str, dict[str, tuple[float | None, float]]]]:
        """What was measured anew: model -> split -> metric -> value in the baseline (None: no such), value here."""
        before, here = (_lock(self.root, commit) for commit in (self.baseline, self.commit))
        found: dict[str, dict[str, dict[str, tuple[float | None, float]]]] = {}
        for stage, entry in here.items():
            command, _, name = stage.partition("@")
            if command not in MEASURES or before.get(stage) == entry:
                continue
            path = f"{MEASURES[command]}/{name}.json"
            old, new = (_parsed(self.root, commit, path, json.loads) for commit in (self.baseline, self.commit))
            for split, values in new.items():
                pairs = {key: (old.get(split, {}).get(key), value) for key, value in values.items()}
                found.setdefault(name, {}).setdefault(split, {}).update(pairs)
        return found

    @property
    def code(self) -> list[str]:
        """The files that are not as in the baseline, besides what the stages and params.yaml tell."""
        changed = (_git(self.root, "diff", "--name-only", self.baseline, self.commit) or "").splitlines()
        told = re.compile(r"(^|/)(dvc\.lock|params\.yaml|(metrics|grades)/\w+\.json)$")
        return [path for path in changed if not told.search(path)]


def experiments(root: Path) -> list[Experiment]:
    """Return DVC's experiments in this repository; none outside of git."""
    refs = _git(root, "for-each-ref", "--format=%(objectname) %(refname)", "refs/exps") or ""
    matches = [match for line in refs.splitlines() if (match := REF.fullmatch(line))]  # others are DVC's own business
    return [Experiment(root, m["name"], m["ref"], m["commit"], m["head"] + m["tail"]) for m in matches]


def note(e: Experiment, others: list[Experiment], remotes: list[str]) -> str:
    """Return the description of a run: what is other than in the baseline, and what brings it back."""
    lines = [f"DVC's experiment `{e.name}` on {e.baseline[:7]}, {_about(e.root, e.baseline)['subject']}"]
    changes = [
        f"`{key}`: " + (f"{old[:100]} → " if old is not None else "") + new[:100]
        for key, (old, new) in e.params.items()
    ]
    lines += changes[:10] + [f"and {len(changes) - 10} more params"] * (len(changes) > 10)
    lines += [f"changed files: {', '.join(e.code[:10])}"] if e.code else []
    for name, splits in e.metrics.items():
        for key, (old, new) in [*splits.get("test", {}).items()][:1]:  # a task's first is what it is ranked by
            lines.append(f"{name}: {key} {new:.4g} on test" + (f", baseline {old:.4g}" if old is not None else ""))
    name = e.name if [one.name for one in others].count(e.name) == 1 else e.commit[:7]
    lines += [f"to restore it: `dvc exp apply {name}`"]
    if remotes:
        remote = "origin" if "origin" in remotes else remotes[0]
        there = f"{remote} {e.name}"
        lines += [f"in another clone first `dvc exp pull {there}`, once `dvc exp push {there}` was run in this one"]
    return "  \n".join(lines)  # two spaces: markdown's line break


def _mirror(store: Store, e: Experiment, others: list[Experiment], remotes: list[str]) -> bool:
    """Make the run of an experiment where there is none that is whole; say whether it was made."""
    from mlflow.entities import Metric, Param

    client, about = store.client, _about(e.root, e.commit)
    run: Any = next(iter(store.runs(exp_commit=e.commit)), None)
    if run and run.info.status == "FINISHED":
        return False
    if run is None:
        tags = {"genai.exp": e.name, "genai.exp_ref": e.ref, "genai.exp_commit": e.commit}
        tags |= {"mlflow.parentRunId": _baseline(store, e), "mlflow.note.content": note(e, others, remotes)}
        run = _create(store, e.name, e.commit, about, tags | {"mlflow.source.name": "dvc exp run"})
    params = [Param(key, new) for key, (_, new) in e.params.items()]
    for i in range(0, len(params), MOST):
        client.log_batch(run.info.run_id, params=params[i : i + MOST])
    time, metrics = int(about["time"]) * 1000, []
    for name, splits in e.metrics.items():
        for split, values in splits.items():
            # of one model as those of any run of it; of several each with its name
            prefix = f"{split}/" if len(e.metrics) == 1 else f"{split}/{name}/"
            metrics += [Metric(f"{prefix}{key}", value, time, 0) for key, (_, value) in values.items()]
    store.log_metrics(run.info.run_id, [m for m in metrics if m.key not in run.data.metrics])
    client.set_terminated(run.info.run_id, "FINISHED", time)
    return True


def _baseline(store: Store, e: Experiment) -> str:
    """Return the id of the run of an experiment's baseline, made where there is none."""
    if found := store.runs(baseline=e.baseline):
        return found[0].info.run_id
    about = _about(e.root, e.baseline)
    text = f"{about['subject']}  \nwhat DVC's experiments below began from: `git checkout {e.baseline[:7]}`"
    tags = {"genai.baseline": e.baseline, "mlflow.note.content": text, "mlflow.source.name": "git commit"}
    run = _create(store, e.baseline[:7], e.baseline, about, tags)
    store.client.set_terminated(run.info.run_id, "FINISHED", int(about["time"]) * 1000)
    return run.info.run_id


def _create(store: Store, name: str, commit: str, about: dict[str, str], tags: dict[str, str]) -> Any:
    tags |= {"mlflow.user": about["author"], "mlflow.source.git.commit": commit, "mlflow.source.type": "LOCAL"}
    return store.client.create_run(store.experiment_id, int(about["time"]) * 1000, tags, name)


# --- git --------------------------------------------------------------------------------------------


def _git(root: Path, *arguments: str) -> str | None:
    """Return what git prints; None where it fails, or is not there."""
    try:
        done = subprocess.run(
            ["git", *arguments], check=False, cwd=root, capture_output=True, encoding="utf-8", errors="replace"
        )
    except OSError:
        return None
    return done.stdout if done.returncode == 0 else None


def _about(root: Path, commit: str) -> dict[str, str]:
    """Return author, time in unix seconds and subject of a commit."""
    text = _git(root, "log", "-1", "--format=%an%n%ct%n%s", commit) or "unknown\n0\na commit that is not here\n"
    return dict(zip(("author", "time", "subject"), text.split("\n"), strict=False))


def _parsed(root: Path, commit: str, path: str, parse: Callable[[str], Any]) -> dict[str, Any]:
    """Return the content of a file of this folder at a commit; empty where there is none that can be read."""
    try:
        content = parse(_git(root, "show", f"{commit}:./{path}") or "")
    except (ValueError, YAMLError):
        return {}
    return content if isinstance(content, dict) else {}


@cache  # many experiments share a baseline
def _lock(root: Path, commit: str) -> dict[str, Any]:
    return _parsed(root, commit, "dvc.lock", YAML(typ="safe").load).get("stages") or {}


@cache
def _params(root: Path, commit: str) -> dict[str, str]:
    return flat(_parsed(root, commit, str(PARAMS), YAML(typ="safe").load))
