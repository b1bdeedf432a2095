"""A stage's processes, which end with the flow however the flow ends, `kill -9` included."""

import os
import re
import signal
import subprocess
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from types import FrameType
from typing import IO, Self

# A pipe whose other end the flow holds: when it closes, by intent or by the flow's death, the whole
# process group gets TERM (training writes a checkpoint) and two seconds later KILL.
TETHER = """
exec 3<&0
{ trap "" TERM; cat; kill -TERM 0; sleep 2; kill -KILL 0; } <&3 >/dev/null 2>&1 &
exec "$@" </dev/null 3<&-
"""


class Tethered:
    """A command as a process group of its own, which ends when `let_go` is called or the flow is gone."""

    def __init__(
        self, command: list[str], keep_open: int, cwd: str | None = None, env: Mapping[str, str] | None = None
    ):
        """keep_open: a file descriptor that stays open until the last of the group is gone."""
        self._process = subprocess.Popen(
            ["/bin/sh", "-c", TETHER, "sh", *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            pass_fds=(keep_open,),
            cwd=cwd,
            env=env,
        )
        assert self._process.stdin and self._process.stdout
        self._stdin, self.stdout = self._process.stdin, self._process.stdout  # `stdout` holds all that it prints
        self.cpu_seconds = 0.0  # once it has ended: its own and those of the children that it waited for

    def let_go(self) -> None:
        """End it."""
        self._stdin.close()

    def wait(self) -> int:
        """Wait for its end; return its exit status, -N where signal N ended it."""
        if self._process.returncode is None:
            _, status, usage = os.wait4(self._process.pid, 0)
            self._process.returncode = os.waitstatus_to_exitcode(status)
            self.cpu_seconds = usage.ru_utime + usage.ru_stime
        return self._process.returncode

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)  # the tether itself, and whatever the command left behind
        self.wait()
        self._stdin.close()
        self.stdout.close()


class Processes:
    """The stages' processes that run now, so that a signal can end them all."""

    def __init__(self, keep_open: int):
        self._keep_open = keep_open  # a file descriptor that every one of them inherits
        self.stopped_by: signal.Signals | None = None
        self._running: set[Tethered] = set()
        self._lock = threading.RLock()  # a second signal may find the first one's handler inside

    @contextmanager
    def start(self, command: list[str], cwd: str, env: Mapping[str, str]) -> Iterator[Tethered]:
        """Start one; whatever it leaves behind ends with the block."""
        with Tethered(command, self._keep_open, cwd, env) as process:
            with self._lock:
                self._running.add(process)
                if self.stopped_by:
                    process.let_go()
            try:
                yield process
            finally:
                with self._lock:
                    self._running.discard(process)

    def stop(self, signum: int, frame: FrameType | None) -> None:
        """End every stage; the flow starts no other."""
        with self._lock:
            self.stopped_by = signal.Signals(signum)
            for process in self._running:
                process.let_go()

    @contextmanager
    def stop_at_signals(self) -> Iterator[None]:
        """Let INT, TERM and HUP stop the stages: without a handler, the flow would wait until they are done."""
        before = {signum: signal.signal(signum, self.stop) for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
        try:
            yield
        finally:
            for signum, handler in before.items():
                signal.signal(signum, handler)


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
