"""A process of our own that reads what it is given on its standard input, confined by itself (`confine`).

It is ended, never asked to end: whatever it does then is lost. What is said between the two is not known here.
"""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import suppress
from typing import IO, Final

ENVIRONMENT: Final = {"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
"""All that it finds there."""


class Child:
    """Started when it is made. `close` it."""

    def __init__(self, module: str, *arguments: str, blocking: bool = True) -> None:
        """`blocking`: whether who reads from it or writes to it waits."""
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
        """Whoever waits for it, in another thread, comes to an end."""
        self._process.kill()

    def close(self) -> None:
        """End it."""
        self._process.kill()
        self._process.wait()
        for pipe in (self.input, self.output):
            with suppress(OSError):
                pipe.close()
