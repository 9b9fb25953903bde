"""Logs a failure that repeats, as while PostgreSQL is away, once: when it begins, not several times a second for hours
on a disk that may be filling up.
"""

from __future__ import annotations

import logging


class FailureLog:
    """Of failures of one kind: `tell` of each, and call `over` after each success."""

    __slots__ = ("_lasts", "_log")

    def __init__(self, log: logging.Logger) -> None:
        self._log = log
        self._lasts = False

    def tell(self, message: str, *about: object) -> None:
        if not self._lasts:
            self._lasts = True
            self._log.warning(message, *about)

    def over(self) -> None:
        self._lasts = False
