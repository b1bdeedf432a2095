"""Fetch one published file: from a mirror folder or the network, resumable, refused when a byte is wrong."""

import fcntl
import hashlib
import os
import shutil
from pathlib import Path

from genai.core.config import UserError

MIRROR = "GENAI_DATA_MIRROR"
CACHE = Path(".cache")
ATTEMPTS = 3  # per address; each goes on where the one before was cut off
CHUNK = 1 << 14  # bytes; the most that a cut connection loses
TIMEOUT = (10, 30)  # seconds to connect, seconds without a byte


def fetch(
    addresses: list[str], mirror_path: str, *, sha256: str | None = None, md5: str | None = None, into: Path = CACHE
) -> Path:
    """Return the path `into / mirror_path` of a file whose bytes have the published checksum.

    Looked for there, then at `mirror_path` below the folder that the environment variable
    GENAI_DATA_MIRROR names, then at each of `addresses`. What was received before a connection was
    cut stays beside the file with the suffix .part, and the next call asks for the rest (HTTP Range).
    Raises UserError in one line: wrong checksum, no network, no space, no permission.
    """
    algorithm, expected = ("sha256", sha256) if sha256 else ("md5", md5)
    assert expected and not (sha256 and md5), "exactly one published checksum"
    target = Path(into) / mirror_path
    try:
        if target.is_file() and checksum(target, algorithm) == expected:
            return target
        target.parent.mkdir(parents=True, exist_ok=True)
        part = target.with_name(target.name + ".part")
        with open(target.with_name(target.name + ".lock"), "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # two stages may want the same file at once
            if target.is_file() and checksum(target, algorithm) == expected:
                return target
            if mirrored := _in_mirror(mirror_path):
                found = checksum(mirrored, algorithm)
                if found != expected:
                    raise UserError(f"{mirrored}: wrong {algorithm}: expected {expected}, found {found}")
                shutil.copyfile(mirrored, part)
            else:
                _download(addresses, part, algorithm, expected, mirror_path)
            with open(part, "rb") as file:
                os.fsync(file.fileno())
            os.replace(part, target)
    except OSError as error:
        raise UserError(f"{target}: {error.strerror or error}") from None
    return target


def checksum(path: Path, algorithm: str = "sha256") -> str:
    """Return the hexadecimal digest of a file's bytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()


def mirror() -> Path | None:
    """Return the folder that GENAI_DATA_MIRROR names, None where it is unset. Raises UserError where it is no folder."""
    folder = os.environ.get(MIRROR)
    if folder and not Path(folder).is_dir():
        raise UserError(f"{MIRROR}: {folder!r} should be a folder")
    return Path(folder) if folder else None


def _in_mirror(mirror_path: str) -> Path | None:
    folder = mirror()
    return folder / mirror_path if folder and (folder / mirror_path).is_file() else None


def _download(addresses: list[str], part: Path, algorithm: str, expected: str, mirror_path: str) -> None:
    """Leave the whole, right file at `part`, or raise UserError that says what went wrong at each address."""
    import requests

    problems = []
    for address in addresses:
        for _ in range(ATTEMPTS):
            resumed = part.is_file() and part.stat().st_size > 0
            try:
                _receive(address, part)
            except requests.RequestException as error:
                problem = f"{address}: {_reason(error)}"
                if getattr(error, "response", None) is not None:
                    break  # the server answered, and will answer the same again
                continue
            found = checksum(part, algorithm)
            if found == expected:
                return
            part.unlink()
            problem = f"{address}: wrong {algorithm}: expected {expected}, found {found}"
            if not resumed:  # otherwise the part may have been of another file: once more from its first byte
                break
        problems.append(problem)
    raise UserError(f"{'; '.join(problems)}; put the file at {mirror_path} in a folder and name the folder in {MIRROR}")


def _receive(address: str, part: Path) -> None:
    """Append to `part` what is missing of it. Raises requests.RequestException."""
    import requests

    have = part.stat().st_size if part.is_file() else 0
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
    with requests.get(address, headers=headers, stream=True, timeout=TIMEOUT) as response:
        if have and response.status_code == 416:  # nothing is left after `have`: whole, or not this file
            return
        response.raise_for_status()
        continues = response.headers.get("Content-Range", "").startswith(f"bytes {have}-")
        with open(part, "ab" if response.status_code == 206 and continues else "wb") as file:
            file.writelines(response.iter_content(CHUNK))


def _reason(error: Exception) -> str:
    """The innermost cause, without the addresses of objects that requests and urllib3 put around it."""
    response = getattr(error, "response", None)
    if response is not None:
        return f"HTTP status {response.status_code}"
    names = {
        "ConnectTimeout": "no connection in time",
        "ReadTimeout": "no answer in time",
        "SSLError": "certificate refused",
    }
    if type(error).__name__ in names:
        return names[type(error).__name__]
    return "connection cut" if type(error).__name__ == "ChunkedEncodingError" else "no connection"
