"""Periodic background tasks of the control process.

A task continues after a database outage, which it logs.
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
"""The longest time from a start to the first round: tasks that run every few hours would never run where the process is
restarted more often."""


class PeriodicTask:
    """Calls `work` every `seconds` in a thread of its own, the first time after the sooner of `seconds` and `first`.
    Spends at most the share `part` of all time on it: slow work runs less often."""

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
        """Stop, waiting a few seconds for running work."""
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
