"""The leaderboard: every experiment beside its baseline, grouped by data set and task, best on test first."""

import contextlib
import json
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open

from genai.core.config import Params, UserError, load_file

Row = dict[str, Any]
# Ends of the names of what a model keeps and no prediction is made of: statistics of batch normalisation that are
# measured, not learned, and what a fit tells of itself
BESIDE = (
    "running_mean", "running_var", "num_batches_tracked",
    "n_features_in_", "n_iter_", "classes_", "labels_", "inertia_", "converged_", "lower_bound_", "lower_bounds_", "dual_gap_",
    "class_count_", "loss_curve_", "train_score_", "validation_score_", "impurity_", "n_node_samples_", "support_", "n_support_",
)  # fmt: skip
CONTROLS = ("_constant", "_floor", "_ceiling", "_real")  # ends of the names of figures that others are held against


def rows(params: Params) -> list[Row]:
    """Return a row for each experiment, and one for each generator's grades, grouped by data set and task.

    Within a group the best on test comes first. `baseline` names what the group is held against: the first of it in
    params.yaml. `recipe` is the first experiment that differs in nothing but `train.seed`. Raises UserError.
    """
    entries = [(name, e.data, e.task, Path("metrics")) for name, e in params.experiments.items()]
    entries += [(name, g.real, g.task, Path("grades")) for name, g in params.generators.items()]
    groups = list(dict.fromkeys((data, task) for data in params.datasets for _, d, task, _ in entries if d == data))
    recipes, found = _recipes(params), []
    for name, data, task_name, folder in entries:
        test, validation = (_metrics(folder / f"{name}.json")[split] for split in ("test", "validation"))
        task: ModuleType = load_file("tasks", task_name, f"experiments.{name}.task")
        metric = next(metric for metric in task.RANKED_BY if metric in test)
        group = [n for n, *of, _ in entries if of == [data, task_name]]
        experiment = params.experiments[name]
        row = {
            "data": data,
            "task": task_name,
            "experiment": name,
            "recipe": next(n for n in group if recipes[n] == recipes[name]),
            "baseline": group[0] if len({recipes[n] for n in group}) > 1 else None,
            "topic": experiment.code.split("/")[1],
            "code": experiment.code,
            "model": experiment.model.rpartition(".")[2],
            "parameters": parameters(Path("models") / name),
            "metric": metric,
            "higher_is_better": task.HIGHER_IS_BETTER,
            "validation": validation[metric],
            "test": test[metric],
            "test_se": test.get(f"{metric}_se"),
            "others": {key: value for key, value in test.items() if key not in (metric, f"{metric}_se")},
        }
        found.append((groups.index((data, task_name)), -test[metric] if task.HIGHER_IS_BETTER else test[metric], row))
    return [row for _, _, row in sorted(found, key=lambda entry: entry[:2])]


def _metrics(path: Path) -> dict[str, dict[str, float]]:
    try:
        metrics = json.loads(path.read_text())
        return {split: dict(metrics[split]) for split in ("validation", "test")}
    except (OSError, ValueError, KeyError, TypeError):
        stage = "evaluate" if path.parent.name == "metrics" else "grade"
        raise UserError(f"{path}: missing or damaged; run: dvc repro {stage}@{path.stem}") from None


def _recipes(params: Params) -> dict[str, str]:
    """Return of each experiment all that made it but the seed of its training."""
    whole = {}
    for name, experiment in params.experiments.items():
        sections: list[Any] = [experiment.model_dump(), params.generators.get(name)]
        sections[0]["train"].pop("seed")
        sections[1] = sections[1] and sections[1].model_dump()
        whole[name] = json.dumps(sections, sort_keys=True)
    return whole


def parameters(folder: Path) -> int:
    """Return of how many numbers in its model.safetensors a model's predictions are made. Raises UserError."""
    path = folder / "model.safetensors"
    try:
        with safe_open(path, "numpy") as arrays:
            learned = [key for key in arrays.keys() if not key.endswith(BESIDE)]  # noqa: SIM118
            return sum(int(np.prod(arrays.get_slice(key).get_shape())) for key in learned)
    except (OSError, SafetensorError):
        raise UserError(f"{path}: missing or damaged; run: dvc repro train@{folder.name}") from None


def groups(board: list[Row]) -> list[list[Row]]:
    """Return the rows of each data set and task; those that differ in the seed alone as one row.

    Of several seeds it holds the mean over them, `seeds`, `names`, and sd's in the place of a standard error.
    """
    of_group: dict[tuple[str, str], dict[str, list[Row]]] = {}
    for row in board:
        of_group.setdefault((row["data"], row["task"]), {}).setdefault(row["recipe"], []).append(row)
    merged = [[_merged(same) for same in recipes.values()] for recipes in of_group.values()]
    return [sorted(g, key=lambda row: -row["test"] if row["higher_is_better"] else row["test"]) for g in merged]


def _merged(same: list[Row]) -> Row:
    row = same[0] | {"names": [one["experiment"] for one in same], "seeds": len(same)}
    if len(same) > 1:
        row |= {"experiment": row["recipe"], "test_se": None}
        for split in ("validation", "test"):
            values = [one[split] for one in same]
            row |= {split: float(np.mean(values)), f"{split}_sd": float(np.std(values, ddof=1))}
        others = {key: [one["others"][key] for one in same] for key in row["others"]}
        row["others"] = {key: v[0] if len(set(v)) == 1 else float(np.mean(v)) for key, v in others.items()}
    return row


def heading(group: list[Row]) -> str:
    """Return what a group's figures are."""
    row = group[0]
    way = "higher" if row["higher_is_better"] else "lower"
    metrics = list(dict.fromkeys(row["metric"] for row in group))
    text = f"{row['data']}: {row['task'].replace('_', ' ')}, {' or '.join(metrics)} ({way} is better)"
    return text + (f", baseline {row['baseline']}" if row["baseline"] else "")


def cells(row: Row, group: list[Row]) -> list[str]:
    """Return name, validation, test and parameters of a row as they are shown."""
    name = row["experiment"] + (f", {row['seeds']} seeds" if row["seeds"] > 1 else "")
    if len({one["metric"] for one in group}) > 1:
        name += f" ({row['metric']})"
    validation, test = number(row["validation"]), number(row["test"])
    if row["seeds"] > 1:
        validation, test = (
            f"{t}, sd {number(row[f'{s}_sd'])}" for t, s in ((validation, "validation"), (test, "test"))
        )
    elif row["test_se"] is not None:
        test += f" ± {number(row['test_se'])}"
    return [name, validation, test, f"{row['parameters']:,}"]


def controls(row: Row) -> str:
    """Return the figures that a row's own is held against, which stand in no other row, and others that have some."""
    others = {key: value for key, value in row["others"].items() if isinstance(value, float)}
    return ", ".join(
        f"{key} {number(value)}"
        for key, value in others.items()
        if key.endswith(CONTROLS) or any(f"{key}{end}" in others for end in CONTROLS)
    )


def number(value: float) -> str:
    """Return a figure with as many digits as carry meaning: counts whole, the rest four decimals at most."""
    if isinstance(value, int):
        return str(value)
    return f"{round(value, 4) + 0.0:.4f}" if abs(value) < 10 else f"{value:.1f}"  # + 0.0: no minus before a zero


def markdown(board: list[Row]) -> str:
    """Return a table for each group."""
    parts = []
    for group in groups(board):
        lines = ["| experiment | validation | test | parameters |", "| --- | ---: | ---: | ---: |"]
        lines += ["| " + " | ".join(cells(row, group)) + " |" for row in group]
        beside = [f"{row['experiment']}: {text}" for row in group if (text := controls(row))]
        parts += [f"**{heading(group)}**", "\n".join(lines), *beside]
    return "\n\n".join(parts) + "\n"


def cpu_seconds(root: Path, names: Iterable[str]) -> float | None:
    """Return what the training of these models took, on average; None where no model of them was trained here.

    It is measured, so that no output of a stage may depend on it. `.work/NAME` is of the model where the training that
    it tells of had the numbers and the environment of the model; where DVC brought the model from elsewhere, it had not.
    """
    took = []
    for name in names:
        with contextlib.suppress(OSError, ValueError, KeyError):
            work = root / ".work" / name
            model, started, done = (
                json.loads(path.read_text())
                for path in (root / "models" / name / "config.json", work / "started.json", work / "train.json")
            )
            if all(started[key] == model[key] for key in ("experiment", "environment")):
                took.append(float(done["cpu_seconds"]))
    return float(np.mean(took)) if took else None
