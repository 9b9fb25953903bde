"""Work that the control process does beside its requests, again and again, until it stops.

What is done is the caller's; it goes on after a database that is away, and says so in the log.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Final

import psycopg

from groundplan.core.errors import GroundplanError

log = logging.getLogger("groundplan.api.periodic")


FIRST_SECONDS: Final = 300.0
"""After a start the first round is made after so long at most: work that is done every few hours would never be done
where the process is started again more often."""


class PeriodicTask:
    """Calls `work` every `seconds` in a thread of its own; the first time after `seconds`, or after `first` if that is
    sooner. At most `part` of the time is spent on it: what takes long is done less often."""

    def __init__(
        self, name: str, seconds: float, work: Callable[[], object], *, first: float = FIRST_SECONDS, part: float = 1.0
    ) -> None:
        self._name = name
        self._seconds = seconds
        self._first = min(seconds, first)
        self._rest = 1 / part - 1
        self._work = work
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Waits a few seconds for work that is under way."""
        self._stopping.set()
        self._thread.join(timeout=5)

    def _run(self) -> None:
        wait = self._first
        while not self._stopping.wait(wait):
            began = time.monotonic()
            try:
                self._work()
            except (GroundplanError, psycopg.Error) as error:
                log.warning("%s is not possible now: %s", self._name, error.__class__.__name__)
            except Exception:  # the boundary of a thread: later rounds are made all the same
                log.exception("%s failed", self._name)
            wait = max(self._seconds, (time.monotonic() - began) * self._rest)
