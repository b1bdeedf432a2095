"""The working tree as a Git ref: what a worker checks out. Neither HEAD nor the index nor a file is touched."""

import os
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from flows import UserError

WHO = {f"GIT_{role}_{what}": "flow" for role in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}


@contextmanager
def snapshot() -> Iterator[tuple[str, str]]:
    """Take one, where the workers' clones fetch from; yield its ref and the folder of dvc.yaml in the repository.

    That is the remote FLOW_GIT_REMOTE of Git, by default `origin`; without such, or with ".", this repository.
    Raises UserError.
    """
    remote = os.environ.get("FLOW_GIT_REMOTE") or ("origin" if "origin" in git("remote").split() else ".")
    folder = git("rev-parse", "--show-prefix").strip().rstrip("/") or "."
    ref = f"refs/flow/{uuid.uuid4().hex}"
    with tempfile.TemporaryDirectory() as temporary:
        index = Path(temporary) / "index"
        with suppress(FileNotFoundError):  # so that Git hashes only the files that have changed
            index.write_bytes(
                Path(git("rev-parse", "--path-format=absolute", "--git-path", "index").strip()).read_bytes()
            )
        git("add", "--all", ":/", GIT_INDEX_FILE=str(index))
        tree = git("write-tree", GIT_INDEX_FILE=str(index)).strip()
        commit = git("rev-parse", "HEAD").strip()
        if tree != git("rev-parse", "HEAD^{tree}").strip():  # else what ran is to be known by a commit that stays
            commit = git("commit-tree", tree, "-p", commit, "-m", "what a stage runs on", **WHO).strip()
    if remote == ".":
        git("update-ref", ref, commit)
        delete = ["update-ref", "-d", ref]
    else:
        git("push", "--quiet", "--no-verify", remote, f"{commit}:{ref}")
        delete = ["push", "--quiet", "--no-verify", "--delete", remote, ref]
    try:
        yield ref, folder
    finally:
        with suppress(UserError):  # it costs nothing but its name
            git(*delete)


def git(*arguments: str, **environment: str) -> str:
    """Return what git prints. Raises UserError."""
    try:
        command = ["git", *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True, env=os.environ | environment).stdout
    except FileNotFoundError:
        raise UserError("git: not found; a worker gets the files by it") from None
    except subprocess.CalledProcessError as error:
        said = [line for line in error.stderr.strip().splitlines() if not line.startswith("To ")]
        why = said[0] if said else f"exit status {error.returncode}"
        hint = "; FLOW_GIT_REMOTE names one that may be written" if arguments[0] == "push" else ""
        raise UserError(f"git {arguments[0]}: {why}{hint}") from None
