"""A finding while the audit log of an installation is not written: its files are another database's, or a disk is full.

Does not find out whether it is: that is told by what writes it. Where another replica does, nothing is wrong.
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
FOR_SECONDS: Final = 60.0
"""How long it stands, or is written again, before that is told: a server that starts anew is nothing to look at."""


class Standing:
    """`problem` tells why this process does not write the log; None: it does, or another one."""

    def __init__(
        self,
        transaction: Callable[[], AbstractContextManager[Connection]],
        problem: Callable[[], str | None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._transaction = transaction
        self._problem = problem
        self._clock = clock
        self._was: bool | None = None
        self._since = 0.0
        self._told: bool | None = None

    def look(self) -> None:
        """Open the finding, or withdraw it, once that is so for a while."""
        problem, now = self._problem(), self._clock()
        stands = problem is not None
        if stands is not self._was:
            self._was, self._since = stands, now
        if stands is self._told or now < self._since + FOR_SECONDS:
            return
        with self._transaction() as conn:
            if problem is None:
                finding_store.withdraw(conn, KIND, "company", "", "it is written again")
            else:
                finding_store.tell(conn, _finding(problem.splitlines()[0]))
        self._told = stands


def _finding(problem: str) -> Finding:
    return Finding(
        kind=KIND,
        subject="company",
        severity="critical",
        message=f"The audit log is not written: {problem}",
        hint="What is to enter it waits in the database meanwhile, so nothing is lost. HOME/logs/control.log of the "
        "replica that says so has since when; another replica writes the log once this one is stopped.",
    )
