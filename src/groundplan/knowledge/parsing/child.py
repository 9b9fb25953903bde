"""A child process that reads requests from its standard input and confines itself (`confine`).

It is killed, never asked to end, so unfinished work is lost. The protocol between parent and child is not known here.
"""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import suppress
from typing import IO, Final

ENVIRONMENT: Final = {"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
"""The whole environment of the child."""


class Child:
    """A running child; the constructor starts it, `close` ends it."""

    def __init__(self, module: str, *arguments: str, blocking: bool = True) -> None:
        """`blocking`: whether reading from the child's pipes and writing to them blocks."""
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-m", module, *arguments],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd="/",
            env=ENVIRONMENT,
        )  # fmt: skip
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self.input: IO[bytes] = self._process.stdin
        self.output: IO[bytes] = self._process.stdout
        for pipe in (self.input, self.output):
            os.set_blocking(pipe.fileno(), blocking)

    def kill(self) -> None:
        """Kill the process; a thread that waits for its output then stops waiting."""
        self._process.kill()

    def close(self) -> None:
        """Kill the process, reap it and close its pipes."""
        self._process.kill()
        self._process.wait()
        for pipe in (self.input, self.output):
            with suppress(OSError):
                pipe.close()
