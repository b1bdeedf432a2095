"""A stage's process, which ends with the flow however the flow ends, `kill -9` included."""

import os
import re
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import IO, Any

# A pipe whose other end the flow holds: when it closes, by intent or by the flow's death, the whole
# process group gets TERM (training writes a checkpoint) and two seconds later KILL.
TETHER = """
exec 3<&0
{ trap "" TERM; cat; kill -TERM 0; sleep 2; kill -KILL 0; } <&3 >/dev/null 2>&1 &
exec "$@" </dev/null 3<&-
"""


class Tethered:
    """A running command: closing `tether` ends it, `output` holds all that it prints."""

    def __init__(self, process: subprocess.Popen[bytes]):
        assert process.stdin and process.stdout
        self.process, self.tether, self.output = process, process.stdin, process.stdout
        self.returncode = 0
        self.cpu_seconds = 0.0  # of it and what it waited for, once it has ended

    def wait(self) -> int:
        """Wait until it ends; return its exit status, negative where a signal ended it."""
        if self.process.returncode is None:
            _, status, used = os.wait4(self.process.pid, 0)  # unlike Popen.wait, it tells the CPU-seconds
            self.returncode = self.process.returncode = os.waitstatus_to_exitcode(status)
            self.cpu_seconds = used.ru_utime + used.ru_stime
        return self.returncode


@contextmanager
def tethered(command: list[str], keep_open: int, **where: Any) -> Iterator[Tethered]:
    """Run `command` as a process group of its own.

    keep_open: a file descriptor that stays open until the last of the group is gone; where: its cwd and env.
    """
    process = subprocess.Popen(
        ["/bin/sh", "-c", TETHER, "sh", *command],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        pass_fds=(keep_open,),
        **where,
    )
    running = Tethered(process)
    try:
        yield running
        running.wait()
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # the tether itself, and whatever the command left behind
        running.wait()
        running.tether.close()
        running.output.close()


def lines(stream: IO[bytes]) -> Iterator[tuple[str, bool]]:
    """Yield what is printed as (line, is_progress); a progress bar ends its lines with a carriage return."""
    rest = b""
    while chunk := stream.read1(65536):  # type: ignore[attr-defined]
        *whole, rest = re.split(rb"(?<=[\r\n])", rest + chunk)
        for line in whole:
            if text := line.decode(errors="replace").strip():
                yield text, line.endswith(b"\r")
    if text := rest.decode(errors="replace").strip():
        yield text, False


def percent(line: str) -> float | None:
    """Return how far a progress bar's line says the work is, such as ` 50%|#####     | 3/6 [00:10<00:10]`."""
    found = re.search(r"(?<![\d.])(\d{1,3}(?:\.\d+)?)%\|", line)
    return float(found[1]) if found else None
