"""Start the process that writes traces, and talk to it over pipes."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from chainops.observe.writer import Orders

PIPE_BYTES = 1_000_000
"""Asked of the system for the pipe, so that a short program can hand over and end before the other side is up."""

_PACKAGE = str(Path(__file__).resolve().parents[1])
_BOOT = (
    "import sys, types; package = types.ModuleType('chainops'); package.__path__ = [sys.argv[1]]; "
    "sys.modules['chainops'] = package; from chainops.observe.writer import main; main()"
)
# Not `python -m`: that puts the working directory first, where any `json.py` would be taken for Python's own, does not
# find a chainops that the parent found through its own path, and runs chainops/__init__.py, which brings in LangChain:
# at least 30 MB that a writer of traces has no use for.


class WriterProcess:
    """A running `chainops.observe.writer`, and how many records it was handed and has accounted for."""

    def __init__(self, orders: Orders) -> None:
        self.sent = self.acknowledged = 0
        self.gone = False
        self._process = subprocess.Popen(  # noqa: S603  # our own interpreter and code
            [sys.executable, "-P", "-c", _BOOT, _PACKAGE],
            bufsize=0,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C in the terminal ends the program, not the delivery
        )
        if sys.platform == "linux":
            import fcntl

            with suppress(OSError):  # the user's share of pipe memory is used up: a smaller pipe works too
                fcntl.fcntl(self._stdin, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        with suppress(OSError):  # dead already: found out by who listens
            self.feed(orders.encode())

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def _stdin(self) -> int:
        assert self._process.stdin is not None
        return self._process.stdin.fileno()

    def feed(self, line: bytes) -> None:
        rest = memoryview(line)
        while rest:
            rest = rest[os.write(self._stdin, rest) :]

    def end_input(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()

    def acknowledgements(self) -> Iterator[bytes]:
        """Lines as they come, until the process ends."""
        assert self._process.stdout is not None
        with os.fdopen(os.dup(self._process.stdout.fileno()), "rb") as lines:
            yield from lines

    def wait(self) -> int:
        return self._process.wait()

    def forget(self) -> None:
        """In a forked process: let go of the parent's pipes, and of a process that is not ours to wait for."""
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
        self._process.returncode = 0
