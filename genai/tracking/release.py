"""Registering: a version for each finished model, and the alias `champion` for the one that the gate prefers.

`challenger` is the version that is under test or was tested last; one that becomes champion loses it.
"""

import contextlib
import os
import re
import socket
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from genai.core.config import UserError, pick
from genai.tracking.compare import Gone, compare, download
from genai.tracking.finished import Finished, finished
from genai.tracking.mirror import mirror_all, run_of
from genai.tracking.store import (
    Store,
    alone,
    lock_hash,
    one_line_errors,
    registered_name,
    remember,
    remembered,
    shown,
    some,
    store_uri,
)

CHAMPION, CHALLENGER = "champion", "challenger"
PATIENCE = 120.0  # seconds that a release waits for another one of the same model
STALE = 1800.0  # seconds after which a lock is taken to be left by a dead holder


def release(root: Path, names: list[str] | None) -> None:
    """Register the models of the named experiments, of all where none is named; the better become champion.

    A model is registered once: a version with the same weights and config is found, not made again. The
    first version becomes champion, a later one where the gate says so. Raises UserError where a name is
    unknown, another release holds a model for too long or the store fails.
    """
    registered_name("")
    known, content = remembered(root), lock_hash(root)
    if names is None and content and known.get("released") == content:
        print(f"released already: {', '.join(known['names'])}")
        return
    experiments = finished(root)
    chosen = {name: pick(experiments, name, "the finished experiments") for name in names or experiments}
    if not chosen:
        print("nothing to release: no experiment is trained and evaluated")
        return
    before: list[str] = []
    elsewhere: list[str] = []
    failed: list[str] = []
    with one_line_errors(root):
        with alone(root):
            store, line = mirror_all(root, None)
        if store and store.new:
            print(line)
        store = store or Store(root)
        for name, e in chosen.items():
            if (run := run_of(store, e)) is None:
                elsewhere.append(name)
                continue
            try:
                decision = _release(store, e, run)
            except UserError as error:  # of this model: the others go on
                decision = f"not released; {error}"
                failed.append(name)
            if decision is None:
                before.append(name)
            else:
                print(f"{name}: {decision}", flush=True)
        if names is None and not failed and not elsewhere:
            with alone(root):
                remember(root, experiment_id=store.experiment_id, names=list(experiments), released=content)
    if before:
        print(f"released already: {', '.join(before)}")
    if elsewhere:
        print(f"not released, since their files are not what dvc.lock says: {some(elsewhere)}")


def _release(store: Store, e: Finished, run: Any) -> str | None:
    """Register one model, decide on its alias and return the decision; None where that was done before."""
    client, name = store.client, registered_name(e.name)

    def known() -> tuple[list[Any], Any]:
        versions = list(client.search_model_versions(f"name = '{name}'"))
        return versions, next((v for v in versions if v.tags.get("genai.model") == e.model_hash), None)

    if (version := known()[1]) and "genai.released" in version.tags:
        return None
    with lock(store, name) as still_ours:
        versions, version = known()
        if version and "genai.released" in version.tags:  # by the release that this one waited for
            return None
        if version is None:
            version = _register(store, e, run, name)
        number = str(version.version)
        champion = client.get_registered_model(name).aliases.get(CHAMPION)
        if champion is None or str(champion) == number:
            better, line = True, "there is no other"
        else:
            champion = str(champion)
            client.set_registered_model_alias(name, CHALLENGER, number)
            # counted before it is looked at: a look that dies half-way has been taken
            client.set_model_version_tag(name, number, "genai.compared_with", champion)
            looks = [v for v in versions if v.tags.get("genai.compared_with") == champion and str(v.version) != number]
            decision = compare(store, e, client.get_model_version(name, champion), 1 + len(looks))
            better, line = decision.better, decision.line
        still_ours()
        line = f"version {number} {'becomes' if better else 'does not become'} {CHAMPION}: {line}"
        client.update_model_version(name, number, line)  # the description
        if better:
            client.set_registered_model_alias(name, CHAMPION, number)
            if champion is not None and champion != number:
                client.delete_registered_model_alias(name, CHALLENGER)
        client.set_model_version_tag(name, number, "genai.released", e.model_hash)
    return line


def _register(store: Store, e: Finished, run: Any, name: str) -> Any:
    """Make a version of a run's model."""
    from mlflow.exceptions import RESOURCE_ALREADY_EXISTS, ErrorCode, MlflowException

    try:
        store.client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != ErrorCode.Name(RESOURCE_ALREADY_EXISTS):
            raise
    keys = ("data_hash", "test_hash", "measured_by", "git_commit", "judge", "judge_hash")
    tags = {key: run.data.tags[key] for key in keys if key in run.data.tags} | {"genai.model": e.model_hash}
    tags |= {f"test.{key}": f"{value:.6g}" for key, value in e.metrics["test"].items()}
    model_id = run.data.tags["genai.model_id"]
    return store.client.create_model_version(name, f"models:/{model_id}", run.info.run_id, tags, model_id=model_id)


@contextlib.contextmanager
def lock(store: Store, name: str) -> Iterator[Any]:
    """Keep other releases of a model waiting, on this host and on others; yield what raises where the lock is lost.

    MLflow has no compare-and-set on an alias. It does refuse a second registered model of one name, in its
    database: a model NAME.lock exists while a release is under way. One whose holder is a dead process of this host,
    or older than STALE, is taken over. Raises UserError after PATIENCE.
    """
    from mlflow.exceptions import RESOURCE_ALREADY_EXISTS, RESOURCE_DOES_NOT_EXIST, ErrorCode, MlflowException

    client, path, ticket = store.client, f"{name}.lock", uuid.uuid4().hex
    mine = {"holder": f"{socket.gethostname()}:{os.getpid()}", "since": str(time.time()), "ticket": ticket}
    exists, gone = ErrorCode.Name(RESOURCE_ALREADY_EXISTS), ErrorCode.Name(RESOURCE_DOES_NOT_EXIST)

    def holder() -> dict[str, str]:
        try:
            return client.get_registered_model(path).tags
        except MlflowException as error:
            if error.error_code != gone:
                raise
            return {}

    def give_up(ticket: str) -> None:
        if holder().get("ticket") == ticket:
            with contextlib.suppress(MlflowException):  # another took it over
                client.delete_registered_model(path)

    def still_ours() -> None:
        if holder().get("ticket") != ticket:
            raise UserError(f"another release took over the lock of {name}, after {STALE:.0f} s; run it again")

    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            client.create_registered_model(path, mine, "held while a release of the model is under way")
            break
        except MlflowException as error:
            if error.error_code != exists:
                raise
        theirs = holder()
        if theirs and (time.time() - float(theirs["since"]) > STALE or _is_dead(theirs["holder"])):
            give_up(theirs["ticket"])
        elif time.monotonic() > deadline:
            since = time.strftime("%H:%M", time.localtime(float(theirs.get("since", time.time()))))
            raise UserError(f"{theirs.get('holder')} has been releasing {name} since {since}; run it again later")
        else:
            time.sleep(0.5)
    try:
        yield still_ours
    finally:
        give_up(ticket)


def _is_dead(holder: str) -> bool:
    """Say whether a holder is a process of this host that has ended."""
    host, _, number = holder.rpartition(":")
    if host != socket.gethostname():
        return False
    try:
        os.kill(int(number), 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        pass
    return False


def local_copy(uri: str, into: Path) -> Path:
    """Download the model at `models:/NAME@ALIAS` or `models:/NAME/VERSION`; return its folder below `into`.

    Raises UserError where there is none.
    """
    if not re.fullmatch(r"models:/[^/@]+(@[^/@]+|/\d+)", uri):
        raise UserError(f"{uri!r} should be like models:/text_diffusion@champion or models:/text_diffusion/3")
    root = Path.cwd()
    address = store_uri(root)
    if address.startswith("sqlite:///") and not Path(address.removeprefix("sqlite:///")).exists():
        raise UserError(f"{shown(address)}: no model is registered; run: python -m genai release")
    with one_line_errors(root):
        try:
            return download(Store(root), uri, into)[0]
        except Gone as reason:
            raise UserError(f"{uri}: {reason}") from None
