"""A finding while the audit log is not written: its files belong to another database, or a disk is full.

The sequencer reports whether the log is written; if another replica writes it, that is no problem.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Final

from psycopg import Connection

from groundplan.ledger import finding_store
from groundplan.ledger.finding import Finding

KIND: Final = "audit.stands"
LOOK_SECONDS: Final = 10.0
MIN_DURATION_SECONDS: Final = 60.0
"""How long a state lasts before the finding opens or closes: a restarting server is no problem."""


class UnwrittenLogWatch:
    """`problem` returns why this process does not write the log; None if it does, or another process does."""

    def __init__(
        self,
        transaction: Callable[[], AbstractContextManager[Connection]],
        problem: Callable[[], str | None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._transaction = transaction
        self._problem = problem
        self._clock = clock
        self._is_unwritten: bool | None = None
        self._since = 0.0
        self._reported: bool | None = None

    def update_finding(self) -> None:
        """Open or withdraw the finding once the state has lasted long enough."""
        problem, now = self._problem(), self._clock()
        is_unwritten = problem is not None
        if is_unwritten is not self._is_unwritten:
            self._is_unwritten, self._since = is_unwritten, now
        if is_unwritten is self._reported or now < self._since + MIN_DURATION_SECONDS:
            return
        with self._transaction() as conn:
            if problem is None:
                finding_store.withdraw(conn, KIND, "company", "", "it is written again")
            else:
                finding_store.report(conn, _finding(problem.splitlines()[0]))
        self._reported = is_unwritten


def _finding(problem: str) -> Finding:
    return Finding(
        kind=KIND,
        subject="company",
        severity="critical",
        message=f"The audit log is not written: {problem}",
        hint="Entries wait in the database, so nothing is lost. HOME/logs/control.log of that replica says since when; "
        "once it is stopped, another replica writes the log.",
    )
