"""The follower, `track --follow`: mirrors trainings while they run, then what is finished, then releases if asked."""

import contextlib
import os
import select
import signal
import sys
from pathlib import Path
from typing import Any

from genai.core.config import UserError
from genai.tracking.finished import History, agree, read_history, read_load, read_started
from genai.tracking.mirror import log_previews, mirror_all, params_of, whose
from genai.tracking.release import release
from genai.tracking.store import Store, alone, one_line_errors, remember, remembered

POLL = 2.0  # seconds


def follow(root: Path, then_release: bool) -> None:
    """Mirror while stages run, until standard input ends; then all that is finished, and release if asked.

    A run whose training did not finish is left KILLED, to be continued should the training be. SIGTERM and
    SIGINT end it at once: what is finished by then is left to the next pass. Raises UserError where the
    store fails in the end.
    """
    reader, writer = os.pipe()
    before = {n: signal.signal(n, lambda *_: os.write(writer, b"!")) for n in (signal.SIGTERM, signal.SIGINT)}
    live = Live(root)
    try:
        live.look()
        while not (ready := select.select([0, reader], [], [], POLL)[0]) or (ready == [0] and os.read(0, 4096)):
            live.look()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        os.close(reader)
        os.close(writer)
    stopped = reader in ready
    with alone(root), one_line_errors(root):
        store = live.store
        if not stopped:
            store, line = mirror_all(root, store)
            print(line)
        if store or remembered(root).get("live"):
            live.end(store or Store(root))
    if then_release and not stopped:
        release(root, None)


class Live:
    """The trainings that run, and the runs that mirror them."""

    def __init__(self, root: Path):
        self.root = root
        self.store: Store | None = None
        self.runs: dict[str, Run] = {}
        self.seen: dict[Path, tuple[int, int]] | None = None
        self.failures = 0

    def look(self) -> None:
        """Mirror what changed since the last look. A failure is told once and tried again; it costs no training."""
        now = {}
        for pattern in ("dvc.lock", ".work/*/history.csv", ".work/*/system.csv", ".work/*/previews"):
            for path in self.root.glob(pattern):
                with contextlib.suppress(FileNotFoundError):
                    now[path] = (path.stat().st_mtime_ns, path.stat().st_size)
        changed = [path for path in now if self.seen is not None and self.seen.get(path) != now[path]]
        if changed:
            try:
                with one_line_errors(self.root), alone(self.root):
                    self.store = self.store or Store(self.root)
                    for name in dict.fromkeys(path.parent.name for path in changed if path.name == "history.csv"):
                        self._curves(self.store, name)
                    for path in changed:
                        if run := self.runs.get(path.parent.name):
                            if path.name == "previews":
                                run.previews = log_previews(self.store, run.id, path.parent, run.previews)
                            elif path.name == "system.csv":
                                run.log_load(self.store, path)
                    if self.root / "dvc.lock" in changed:
                        mirror_all(self.root, self.store)
                        self._forget(self.store)
            except UserError as error:
                self.failures += 1
                if self.failures == 2:  # once may be a dvc.lock that is being written
                    print(f"genai: {error} (training goes on; trying again)", file=sys.stderr)
                return
        self.seen, self.failures = now, 0

    def _curves(self, store: Store, name: str) -> None:
        work = self.root / ".work" / name
        history, started = read_history(work / "history.csv"), read_started(work)
        run = self.runs.get(name)
        if run is None or not agree(history, run.logged) or run.started != started:
            if run:
                run.close()
            # before it is made, so that a follower that is killed leaves no run that the next one knows nothing of
            remember(self.root, experiment_id=store.experiment_id, live=sorted({*self.runs, name}))
            run = self.runs[name] = Run(store, name, history, started)
            run.log_load(store, work / "system.csv")
        store.log_history(run.id, history, run.logged)

    def _forget(self, store: Store) -> None:
        """Stop watching the machine for trainings whose runs are finished."""
        for name in [name for name in self.runs if name in store.new]:
            self.runs.pop(name).close()

    def end(self, store: Store) -> None:
        """Close the runs of trainings that did not finish, or whose models are still to be evaluated."""
        for run in self.runs.values():
            run.close()
        for run in store.runs(live=store.place):
            if run.info.status == "RUNNING":
                made = read_history(self.root / "models" / run.data.tags["genai.experiment"] / "history.csv")
                logged = store.history(run)
                whole = logged.keys() == made.keys() and agree(made, logged)
                store.client.set_terminated(run.info.run_id, "FINISHED" if made and whole else "KILLED")
        remember(self.root, experiment_id=store.experiment_id, live=[])


class Run:
    """The run of one training that is under way, found or made; it shows the load of the machine beside the curves."""

    def __init__(self, store: Store, name: str, history: History, started: dict[str, Any]):
        from mlflow.entities import Param

        self.started = started
        self.previews: set[str] | None = None  # not known yet which are logged
        self.load: dict[str, set[int]] | None = None  # system metric -> the milliseconds that are logged; likewise
        self.monitor: Any = None
        params = params_of(started) if started else {}
        run, self.logged = store.live_run(name, history, params, whole=False)
        if run is None:
            tags = {"genai.experiment": name, "genai.live": store.place} | whose(started)
            tags |= {"mlflow.source.type": "LOCAL", "mlflow.source.name": f"dvc repro train@{name}"}
            began = int(started["started"] * 1000) if started else None
            run = store.client.create_run(store.experiment_id, began, tags, name)
            store.client.log_batch(run.info.run_id, params=[Param(*item) for item in params.items()])
        elif run.info.status != "RUNNING":
            store.client.update_run(run.info.run_id, "RUNNING")
        self.id = run.info.run_id

    def log_load(self, store: Store, path: Path) -> None:
        """Log the load that the machine of this training noted in a file, each row once; without one, watch this machine.

        Rows older than the training are of an earlier one, which another machine did.
        """
        from mlflow.entities import Metric
        from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

        rows = [row for row in read_load(path) if row[0] >= self.started.get("started", 0)]
        if not rows:
            if self.monitor is None:
                self.monitor = SystemMetricsMonitor(self.id, resume_logging=True, tracking_uri=store.uri)
                self.monitor.start()
            return
        self.close()
        load, self.load = self.load, None  # should the store fail, the run is asked again what it has
        if load is None:
            keys = [key for key in store.client.get_run(self.id).data.metrics if key.startswith("system/")]
            load = {key: {m.timestamp for m in store.client.get_metric_history(self.id, key)} for key in keys}
        metrics = []
        for seconds, key, value in rows:
            known, milliseconds = load.setdefault(key, set()), int(seconds * 1000)
            if milliseconds not in known:
                metrics.append(Metric(key, value, milliseconds, len(known)))  # MLflow's own steps: 0, 1, 2 ...
                known.add(milliseconds)
        store.log_metrics(self.id, metrics)
        self.load = load

    def close(self) -> None:
        """Stop watching this machine."""
        if self.monitor:
            self.monitor.finish()
            self.monitor = None
