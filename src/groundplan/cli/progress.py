"""Progress that `up` prints while it starts and serves: short lines on stderr, and bars for downloads on a terminal.

Lines that cannot be written, as on a full disk or a closed pipe, are dropped: `up` serves all the same.
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

_PLAIN_INTERVAL_SECONDS = 5.0


class StartupProgress:
    """A context manager that reports steps with `report` and downloads with `update_download`.

    A bar is drawn only during a download: `up` serves for days in the same terminal.
    """

    def __init__(self) -> None:
        self._started_at = time.monotonic()
        self._console = Console(stderr=True, highlight=False)
        self._bars = Progress(
            TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn(),
            console=self._console, transient=True, disable=not sys.stderr.isatty(),
        )  # fmt: skip
        self._downloads: dict[str, TaskID] = {}
        self._printed_at: dict[str, float] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()

    def report(self, message: str) -> None:
        """Print one line with the seconds since the start."""
        line = f"{time.monotonic() - self._started_at:6.1f} s  {message}"
        with suppress(OSError):
            if self._downloads:
                self._console.print(line, markup=False, soft_wrap=True)
            else:
                print(line, file=sys.stderr, flush=True)

    def update_download(self, name: str, done: int, total: int) -> None:
        """Show that `done` of `total` bytes of the model `name` are fetched; equal numbers complete the download."""
        if self._bars.disable:
            now = time.monotonic()
            if done >= total or now - self._printed_at.get(name, 0.0) > _PLAIN_INTERVAL_SECONDS:
                self._printed_at[name] = now
                self.report(f"model {name}: {done >> 20} of {total >> 20} MiB")
            return
        if name not in self._downloads:
            self._downloads[name] = self._bars.add_task(name, total=total)
            self._bars.start()
        self._bars.update(self._downloads[name], completed=done, total=total)
        if done >= total:
            self._bars.remove_task(self._downloads.pop(name))
            if not self._downloads:
                self._bars.stop()
            self.report(f"model {name} is ready")


@contextmanager
def progress_bar(name: str) -> Iterator[Callable[[int, int], None]]:
    """A progress bar on stderr, if that is a terminal; call the yielded function with (number done, total)."""
    bars = Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
        console=Console(stderr=True, highlight=False), transient=True, disable=not sys.stderr.isatty(),
    )  # fmt: skip
    with bars:
        task = bars.add_task(name, total=None)
        yield lambda done, total: bars.update(task, completed=done, total=total)
