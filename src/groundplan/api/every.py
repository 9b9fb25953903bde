"""Work that the control process does beside its requests, again and again, until it stops.

What is done is the caller's; it goes on after a database that is away, and says so in the log.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

import psycopg

from groundplan.core.errors import GroundplanError

log = logging.getLogger("groundplan.api.every")


class Every:
    """Calls `work` every `seconds` in a thread of its own; the first time after `seconds`."""

    def __init__(self, name: str, seconds: float, work: Callable[[], object]) -> None:
        self._name = name
        self._seconds = seconds
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
        while not self._stopping.wait(self._seconds):
            try:
                self._work()
            except (GroundplanError, psycopg.Error) as error:
                log.warning("%s is not possible now: %s", self._name, error.__class__.__name__)
            except Exception:  # the boundary of a thread: later rounds are made all the same
                log.exception("%s failed", self._name)
