"""What travels between hosts by DVC's remote: a stage's data, its entry of the run-cache, and what it writes as it runs.

`dvc push --run-cache` and `dvc pull --run-cache` copy every entry there is; here it is the one of the stage.
"""

import os
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from dvc.config import RemoteConfigError
from dvc.exceptions import DvcException
from dvc.fs import HTTPFileSystem
from dvc.output import Output
from dvc.repo import Repo
from dvc.stage import Stage as DvcStage
from dvc.stage.cache import _can_hash, _get_stage_hash

from flows import UserError
from flows.project import one_line

PATIENCE = 600.0  # seconds for which a remote may be out of reach
Result = TypeVar("Result")


def insist(what: Callable[[], Result], log: Callable[[str], Any], stopped: Callable[[], Any] = lambda: None) -> Result:
    """Do what needs DVC's remote, again and again while it is out of reach. Raises what `what` raises in the end."""
    started, pause = time.monotonic(), 1.0
    while True:
        try:
            return what()
        except (UserError, PermissionError):  # which time does not mend
            raise
        except Exception as error:  # each kind of remote has exceptions of its own
            if stopped() or time.monotonic() - started > PATIENCE:
                raise
            if pause == 1.0:
                log(f"DVC's remote: {one_line(error)}; trying again for {PATIENCE / 60:.0f} minutes")
            time.sleep(pause)
            pause = min(2 * pause, 30.0)


class Remote:
    """The remote of a DVC repository, by default the default one."""

    def __init__(self, repo: Repo, name: str | None = None):
        """Raises UserError where there is none, or one without a run-cache."""
        self.repo, self.name = repo, name or repo.config["core"].get("remote")
        with suppress(KeyError):
            repo.config["remote"][self.name]["verify"] = True  # what comes is hashed, whoever wrote it
        try:
            # the run-cache lies where DVC 2 had its data
            odb: Any = repo.cloud.get_remote_odb(self.name, hash_name="md5-dos2unix")
        except RemoteConfigError as error:
            raise UserError(f"DVC's remote: {' '.join(str(error).split())}") from None
        if isinstance(odb.fs, HTTPFileSystem):
            raise UserError(f"DVC's remote {self.name}: over HTTP it has no run-cache; a folder, S3 or SSH has")
        self._fs, self._path = odb.fs, odb.path

    def push(self, outs: Iterable[Output]) -> None:
        """Copy outputs from the cache to the remote; what it has is left alone. Raises DvcException."""
        if failed := self.repo.cloud.push(self._objects(outs), remote=self.name).failed:
            raise DvcException(f"{len(failed)} files could not be copied to {self.name}")

    def pull(self, outs: Iterable[Output]) -> None:
        """Copy outputs from the remote to the cache; what it has is left alone. Raises DvcException."""
        objects = self._objects(outs)
        failed = self.repo.cloud.pull(objects, remote=self.name).failed
        # what has another hash than its name DVC has deleted again, without a word
        caches = {"md5": self.repo.cache.local, "md5-dos2unix": self.repo.cache.legacy}
        missing = {each for each in objects if not caches[each.name].exists(each.value)}
        if failed | missing:
            raise DvcException(f"{len(failed | missing)} files are not in {self.name}, or not as they should be")

    def push_results(self, stages: Iterable[DvcStage]) -> None:
        """Copy what stages have made, each with its entry of the run-cache where it has one; what the remote has is left alone."""
        outs: list[Output] = []
        entries: dict[str, Path] = {}
        for stage in stages:
            entry = self.repo.stage_cache._load(stage) if _can_hash(stage) else None
            outs += self._made(stage, entry) if entry else [out for out in stage.outs if out.use_cache]
            if entry:
                key = _get_stage_hash(stage)
                folder = Path(self.repo.stage_cache._get_cache_dir(key))
                entries |= {self._runs(key, file.name): file for file in folder.iterdir()}
        self.push(outs)
        for path, file in entries.items():
            if not self._fs.exists(path):
                self._put(file, path)

    def fetch_entry(self, stage: DvcStage, key: str) -> list[Output] | None:
        """Copy the entry of the run-cache; return the outputs that it names, None where there is none.

        With those in the cache, DVC restores the stage as one that ran here.
        """
        for path in self._find(self._runs(key)):
            self._get(path, Path(self.repo.stage_cache._get_cache_dir(key)) / self._fs.name(path))
        entry = self.repo.stage_cache._load(stage)
        return self._made(stage, entry) if entry else None

    def _made(self, stage: DvcStage, entry: dict[str, Any]) -> list[Output]:
        """Return the outputs that an entry of the run-cache names, metrics that DVC leaves to Git among them."""
        return self.repo.stage_cache._create_stage(entry, wdir=stage.wdir).outs

    def _objects(self, outs: Iterable[Output]) -> set[Any]:
        """Return all objects of outputs; the list of a folder's files is fetched where it is not in the cache."""
        found = (out.get_used_objs(remote=self.name, force=True).values() for out in outs)
        return set().union(*(objects for of_an_out in found for objects in of_an_out))

    def push_live(self, key: str, folder: Path, sent: dict[str, tuple[int, int]]) -> None:
        """Copy the files of a folder that have changed. sent: of each its time and size, brought up to date."""
        for file in sorted(folder.rglob("*")):
            name = file.relative_to(folder).as_posix()
            with suppress(FileNotFoundError):  # replaced or deleted meanwhile
                found = file.stat()
                state = (found.st_mtime_ns, found.st_size)
                if file.is_file() and not file.name.startswith(".") and sent.get(name) != state:
                    self._put(file, self._live(key, *name.split("/")))
                    sent[name] = state

    def pull_live(self, key: str, folder: Path, known: dict[str, Any], largest: float = float("inf")) -> int:
        """Copy what `push_live` copied, files up to `largest` bytes; return how many were new.

        known: of each what tells its version, brought up to date.
        """
        new = 0
        for path, info in self._find(self._live(key)).items():
            version = info.get("ETag") or info.get("mtime"), info["size"]
            if known.get(path) != version and info["size"] <= largest:
                self._get(path, folder / self._fs.relpath(path, self._live(key)))
                known[path] = version
                new += 1
        return new

    def drop_live(self, key: str) -> None:
        """Delete it."""
        with suppress(FileNotFoundError):
            self._fs.remove(self._live(key), recursive=True)

    def _runs(self, key: str, *names: str) -> str:
        return self._fs.join(self._path, "runs", key[:2], key, *names)

    def _live(self, key: str, *names: str) -> str:
        return self._fs.join(self._path, "live", key, *names)

    def _find(self, folder: str) -> dict[str, Any]:
        """Return what is known of each file of a folder of the remote."""
        self._fs.fs.invalidate_cache()
        with suppress(FileNotFoundError):  # deleted meanwhile
            return {path: self._fs.info(path) for path in self._fs.find(folder)}
        return {}

    def _put(self, file: Path, path: str) -> None:
        self._fs.makedirs(self._fs.parent(path), exist_ok=True)
        self._fs.put_file(str(file), path)  # a folder gets it whole or not at all, as S3 does

    def _get(self, path: str, file: Path) -> None:
        file.parent.mkdir(parents=True, exist_ok=True)
        temporary = file.with_name(f".{file.name}.{os.getpid()}")
        self._fs.get_file(path, str(temporary))
        os.replace(temporary, file)
