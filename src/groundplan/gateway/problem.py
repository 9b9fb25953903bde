"""Something that fails at every try for as long as PostgreSQL is away: it is logged when it begins, not several times a
second for hours, on a disk that may be filling up.
"""

from __future__ import annotations

import logging


class Problem:
    """Of one kind; `tell` of each failure, and that it is `over` where it succeeds."""

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
