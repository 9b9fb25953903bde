"""Logs a repeated failure once, when it begins: while PostgreSQL is away for hours, several lines a second might fill
the disk.
"""

from __future__ import annotations

import logging
from time import monotonic

EXCEPTION_INTERVAL_S = 60.0
"""Least time between two logged exceptions of one task."""


class FailureLog:
    """Failures of one kind: call `record_failure` for each, and `record_success` after each success."""

    __slots__ = ("_is_failing", "_log")

    def __init__(self, log: logging.Logger) -> None:
        self._log = log
        self._is_failing = False

    def record_failure(self, message: str, *arguments: object) -> None:
        if not self._is_failing:
            self._is_failing = True
            self._log.warning(message, *arguments)

    def record_success(self) -> None:
        self._is_failing = False


class ExceptionLog:
    """Unexpected exceptions of a task that goes on all the same: one a minute is logged, with its traceback. Call
    `record` while one is handled."""

    __slots__ = ("_log", "_logged_at")

    def __init__(self, log: logging.Logger) -> None:
        self._log = log
        self._logged_at = float("-inf")

    def record(self, message: str) -> None:
        now = monotonic()
        if now >= self._logged_at + EXCEPTION_INTERVAL_S:
            self._logged_at = now
            self._log.exception(message)
