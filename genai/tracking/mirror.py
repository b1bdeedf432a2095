"""What is finished, mirrored into MLflow: a run with params, curves, figures, samples, data and the model.

A run is known by `genai.content`, a hash of the entries of dvc.lock that made it, and is looked for by it
before it is made. Where MLflow's fluent API (`start_run`, `log_model`) does the same it is not used: it keeps the
current run in the process, one at a time, and the follower has several.
"""

import json
import os
import time
from pathlib import Path
from typing import Any

from genai import page
from genai.core.config import read
from genai.tracking.dvc_experiments import mirror_experiments
from genai.tracking.finished import Finished, finished, flat, hashed, md5, md5s, read_history, read_started
from genai.tracking.logged_model import log_model, sampling
from genai.tracking.note import note
from genai.tracking.store import Store, alone, lock_hash, one_line_errors, remember, remembered, some

CONTEXTS = {"train": "training", "validation": "validation", "test": "testing"}  # MLflow's words


def track(root: Path) -> None:
    """Mirror every finished experiment, and DVC's own, into MLflow; what is there already is left as it is.

    Raises UserError where the store cannot be reached or written.
    """
    with alone(root), one_line_errors(root):
        print(mirror_all(root, None)[1])


def mirror_all(root: Path, store: Store | None) -> tuple[Store | None, str]:
    """Mirror what is finished; return the store, opened if it was needed, and what was done in one line."""
    store, line = _mirror_finished(root, store)
    store, more = mirror_experiments(root, store)
    return store, line + more


def _mirror_finished(root: Path, store: Store | None) -> tuple[Store | None, str]:
    lock, known = lock_hash(root), remembered(root)
    if lock is None:
        return store, "MLflow: 0 runs, none new"
    if known.get("lock") == lock:
        return store, f"MLflow: {len(known['names'])} runs, none new"
    experiments = finished(root)
    if not experiments:
        return store, "MLflow: 0 runs, none new"
    store = store or Store(root)
    stale: dict[str, str] = {}
    for e in experiments.values():
        try:
            changed = _mirror(store, e)
        except FileNotFoundError as error:  # a stage began meanwhile: DVC deletes what it will make
            changed = os.path.relpath(error.filename, root)
        if changed:
            stale[e.name] = changed
    _mirror_page(store)
    done = {"lock": lock} if not stale else {}
    remember(root, experiment_id=store.experiment_id, names=list(experiments), **done)
    line = f"MLflow: {len(experiments) - len(stale)} runs, " + (
        f"new: {', '.join(dict.fromkeys(store.new))}" if store.new else "none new"
    )
    if stale:
        names = sorted(stale, key=lambda name: not (root / "models" / name).exists())  # first what is here in part
        line += f"; left out, run dvc pull or dvc repro ({stale[names[0]]} is not what dvc.lock says): {some(names)}"
    return store, line


def _mirror_page(store: Store) -> None:
    """Keep the page of it all, once the report has run, as an artifact of a run of its own; a later page replaces it.

    The leaderboard is the description of that run, and of MLflow's experiment unless somebody wrote another.
    """
    root, client = store.root, store.client
    entry = (read(root / "dvc.lock") or {}).get("stages", {}).get("report") or {}
    outs = md5s(entry.get("outs", []))
    code = {
        path: h for path, h in md5s(entry.get("deps", [])).items() if path.endswith(".py")
    }  # other code, other tables
    if not outs or any(md5(root / path) != h for path, h in (outs | code).items()):
        return
    run: Any = next(iter(store.runs(page=store.place)), None)
    if run is None:
        tags = {"genai.page": store.place, "mlflow.source.type": "LOCAL", "mlflow.source.name": "dvc repro report"}
        run = client.create_run(store.experiment_id, tags=tags, run_name="report")
        client.set_terminated(run.info.run_id)
    if run.data.tags.get("genai.report") == hashed(outs):
        return
    page.write(root)
    client.log_artifact(run.info.run_id, str(root / page.PAGE))
    text = (root / "reports" / "leaderboard.md").read_text(encoding="utf-8")
    note, before = "mlflow.note.content", run.data.tags.get("mlflow.note.content")
    if client.get_experiment(store.experiment_id).tags.get(note) == before:
        client.set_experiment_tag(store.experiment_id, note, text)
    client.set_tag(run.info.run_id, note, text)
    client.set_tag(run.info.run_id, "genai.report", hashed(outs))


def run_of(store: Store, e: Finished) -> Any:
    """Return the finished run of this content; None where there is none."""
    runs = store.runs(content=e.tags["genai.content"], experiment=e.name)
    return next((run for run in runs if run.info.status == "FINISHED"), None)


def _mirror(store: Store, e: Finished) -> str | None:
    """Mirror one experiment; return a file that is not what dvc.lock says where there is one."""
    client, text = store.client, note(e)
    wanted = e.tags | {"genai.note": text}
    if store.mirrored.get(e.name) == wanted:
        return None
    run: Any = next(iter(store.runs(content=e.tags["genai.content"], experiment=e.name)), None)
    new = run is None or run.info.status != "FINISHED"
    known = {} if new else run.data.tags
    if new:
        if changed := e.changed():
            return changed
        params = params_of(e.config) | flat(sampling(e), "sampling.")
        history = read_history(e.root / "models" / e.name / "history.csv")
        logged = store.history(run) if run else {}
        if run is None:
            run, logged = store.live_run(e.name, history, params, whole=True)
        if run is None:
            run = client.create_run(store.experiment_id, _milliseconds(e), {"genai.experiment": e.name}, e.name)
        elif run.info.status != "RUNNING":
            client.update_run(run.info.run_id, "RUNNING")
        store.log_history(run.info.run_id, history, logged)
        _log_results(store, e, run, params)
    if known.get("mlflow.note.content") == known.get("genai.note") != text:  # else somebody wrote it in the page
        client.set_tag(run.info.run_id, "mlflow.note.content", text)
        client.set_tag(run.info.run_id, "genai.note", text)
    for tag, folder, files in (("genai.samples", "samples", e.samples), ("genai.figures", "figures", e.figures)):
        if tag in e.tags and known.get(tag) != e.tags[tag]:
            for path in files:
                client.log_artifact(run.info.run_id, str(path), folder)
            client.set_tag(run.info.run_id, tag, e.tags[tag])
    if new:
        ended = (e.root / "metrics" / f"{e.name}.json").stat().st_mtime if e.started else time.time()
        client.set_terminated(run.info.run_id, "FINISHED", int(ended * 1000))
        store.new.append(e.name)
    store.mirrored[e.name] = wanted
    return None


def _milliseconds(e: Finished) -> int | None:
    return int(e.started["started"] * 1000) if e.started else None


def _log_results(store: Store, e: Finished, run: Any, params: dict[str, str]) -> None:
    """Give a run all that an experiment has besides curves, samples and figures; doing it twice changes nothing."""
    from mlflow.entities import Metric, Param, RunTag

    client, run_id = store.client, run.info.run_id
    tags = {
        "genai.content": e.tags["genai.content"],  # first: a tracker that dies here is continued by the next
        "topic": e.config["experiment"]["code"].split("/")[1],
        "data_hash": e.data[1],
        "test_hash": e.splits(e.data)["test"],
        "measured_by": e.measured_by,
        "mlflow.source.type": "LOCAL",
        "mlflow.source.name": f"dvc repro evaluate@{e.name}",
        **whose(e.started),
    }
    if e.judge:
        tags |= {"judge": e.judge[0], "judge_hash": e.judge[1]}
    missing = {key: value for key, value in params.items() if key not in run.data.params}
    client.log_batch(
        run_id, params=[Param(*item) for item in missing.items()], tags=[RunTag(*item) for item in tags.items()]
    )
    if "genai.live" in run.data.tags:
        client.delete_tag(run_id, "genai.live")
    datasets = _datasets(e)
    client.log_inputs(run_id, datasets)
    model_id = run.data.tags.get("genai.model_id") or log_model(store, e, run_id, params)
    now, of_split = int(time.time() * 1000), dict(zip(CONTEXTS, (d.dataset for d in datasets), strict=False))
    metrics = []
    for split, values in e.metrics.items():
        data = of_split[split]
        for key, value in values.items():
            if f"{split}/{key}" not in run.data.metrics:
                about = {"dataset_name": data.name, "dataset_digest": data.digest, "run_id": run_id}
                metrics.append(Metric(f"{split}/{key}", value, now, 0, model_id, **about))
    client.log_batch(run_id, metrics=metrics)
    folders = {"metrics": f"metrics/{e.name}.json", "scores": f"scores/{e.name}.csv"}
    if e.grade:
        folders |= {"grades": f"grades/{e.name}.json", "generated": f"generated/{e.name}"}
    for folder, path in folders.items():
        log = client.log_artifacts if (e.root / path).is_dir() else client.log_artifact
        log(run_id, str(e.root / path), folder)


def _datasets(e: Finished) -> list[Any]:
    """Return an input for each split, and of a generator that is graded on other data their test split."""
    from mlflow.entities import Dataset, DatasetInput, InputTag

    inputs = []
    splits = [(e.data, split) for split in CONTEXTS] + ([(e.real, "test")] if e.real != e.data else [])
    for data, split in splits:
        name = data[0]
        source = json.dumps({"uri": f"data/{name}/{split}"})
        dataset = Dataset(name, e.splits(data)[split], source_type="local", source=source)
        inputs.append(DatasetInput(dataset, [InputTag("mlflow.data.context", CONTEXTS[split])]))
    return inputs


def params_of(facts: dict[str, Any]) -> dict[str, str]:
    """Return MLflow's params of an experiment, from the model's config.json or from started.json."""
    return flat(facts["experiment"]) | flat(facts["environment"], "environment.")


def whose(started: dict[str, Any]) -> dict[str, str]:
    """Return the tags that say who trained and from which commit, as far as that is known."""
    tags = {"mlflow.user": started["user"]} if "user" in started else {}
    if "commit" in started:
        tags |= {"git_commit": started["commit"], "mlflow.source.git.commit": started["commit"].removesuffix("-dirty")}
    return tags


def log_previews(store: Store, run_id: str, work: Path, done: set[str] | None) -> set[str]:
    """Log the samples that a generator left while it trains, each once; return the names of all that are logged.

    done: what is known to be logged; None: the run is asked.
    """
    started = read_started(work).get("started", 0.0)  # not the file's own time: a worker's files come in any order
    files = [path for path in (work / "previews").glob("[0-9]*") if path.stat().st_mtime >= started]
    if done is None and files:
        client = store.client
        done = {Path(a.path).name.lstrip("0") for a in client.list_artifacts(run_id, "previews")}
        done |= {f"{a.path.split('+')[2]}.png" for a in client.list_artifacts(run_id, "images") if "+step+" in a.path}
    done = done or set()
    for path in sorted((path for path in files if path.name not in done), key=lambda path: int(path.stem)):
        if path.suffix == ".png":
            from PIL import Image

            with Image.open(path) as image:
                store.client.log_image(run_id, image.copy(), key="samples", step=int(path.stem))
        else:
            store.client.log_text(run_id, path.read_text(encoding="utf-8"), f"previews/{int(path.stem):07d}.txt")
        done.add(path.name)
    return done
