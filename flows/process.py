"""A stage's process, which ends with the flow however the flow ends, `kill -9` included."""

import os
import re
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress

# A pipe whose other end the flow holds: when it closes, by intent or by the flow's death, the whole
# process group gets TERM (training writes a checkpoint) and two seconds later KILL.
TETHER = """
exec 3<&0
{ trap "" TERM; cat; kill -TERM 0; sleep 2; kill -KILL 0; } <&3 >/dev/null 2>&1 &
exec "$@" </dev/null 3<&-
"""


@contextmanager
def tethered(command: list[str], keep_open: int) -> Iterator[subprocess.Popen]:
    """Run `command` as a process group of its own; closing its `stdin` ends it. `stdout` holds all it prints.

    keep_open: a file descriptor that stays open until the last of the group is gone.
    """
    process = subprocess.Popen(
        ["/bin/sh", "-c", TETHER, "sh", *command],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        pass_fds=(keep_open,),
    )
    try:
        yield process
        process.wait()
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # the tether itself, and whatever the command left behind
        process.wait()
        process.stdin.close()
        process.stdout.close()


def lines(stream) -> Iterator[tuple[str, bool]]:
    """Yield what is printed as (line, is_progress); a progress bar ends its lines with a carriage return."""
    rest = b""
    while chunk := stream.read1(65536):
        *whole, rest = re.split(rb"(?<=[\r\n])", rest + chunk)
        for line in whole:
            if text := line.decode(errors="replace").strip():
                yield text, line.endswith(b"\r")
    if text := rest.decode(errors="replace").strip():
        yield text, False
