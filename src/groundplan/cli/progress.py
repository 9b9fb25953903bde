"""What `up` says while it starts and serves: short lines on stderr, and a bar for bytes when stderr is a terminal.

What cannot be said, on a full disk or where nobody reads any more, is left out: it serves all the same.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)

_PLAIN_SECONDS = 5.0


class Steps:
    """A context manager. `say` tells a step with its time; `bytes` follows a download by name.

    A bar is drawn only while something is fetched: `up` serves for days in the same terminal.
    """

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._console = Console(stderr=True, highlight=False)
        self._bars = Progress(
            TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn(),
            console=self._console, transient=True, disable=not sys.stderr.isatty(),
        )  # fmt: skip
        self._tasks: dict[str, TaskID] = {}
        self._told: dict[str, float] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()

    def say(self, message: str) -> None:
        """One line with the seconds since the start."""
        line = f"{time.monotonic() - self._began:6.1f} s  {message}"
        with suppress(OSError):
            if self._tasks:
                self._console.print(line, markup=False, soft_wrap=True)
            else:
                print(line, file=sys.stderr, flush=True)

    def bytes(self, name: str, done: int, total: int) -> None:
        """`done` of `total` bytes of `name` are here; both are the same once it is complete."""
        if self._bars.disable:
            now = time.monotonic()
            if done >= total or now - self._told.get(name, 0.0) > _PLAIN_SECONDS:
                self._told[name] = now
                self.say(f"model {name}: {done >> 20} of {total >> 20} MiB")
            return
        if name not in self._tasks:
            self._tasks[name] = self._bars.add_task(name, total=total)
            self._bars.start()
        self._bars.update(self._tasks[name], completed=done, total=total)
        if done >= total:
            self._bars.remove_task(self._tasks.pop(name))
            if not self._tasks:
                self._bars.stop()
            self.say(f"model {name} is ready")


@contextmanager
def counting(name: str) -> Iterator[Callable[[int, int], None]]:
    """A bar on a terminal's stderr for work that is counted; called with how many are done, and of how many."""
    bars = Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
        console=Console(stderr=True, highlight=False), transient=True, disable=not sys.stderr.isatty(),
    )  # fmt: skip
    with bars:
        task = bars.add_task(name, total=None)
        yield lambda done, of: bars.update(task, completed=done, total=of)
