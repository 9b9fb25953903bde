"""A finding about kills, revocations and withdrawals that the database lost when it was restored to an earlier moment;
the files of the audit log still have them. Nothing is decided again here: the decision may have been undone since.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, Final

from psycopg import Connection

from groundplan.core.audit.entry import Entry
from groundplan.ledger import finding_store
from groundplan.ledger.finding import Finding

KIND: Final = "decisions.lost"
_REVOKING_VERBS: Final = frozenset({"kill", "revoked", "left", "withdrawn", "removed"})
"""Last parts of the names of actions that take something away."""
_MAX_NAMED = 20
log = logging.getLogger("groundplan.api.audit.lost_revocations")


def report_lost_decisions(conn: Connection[Any], lost: Sequence[Entry]) -> None:
    """Open a finding about lost entries that revoked something. In the caller's transaction."""
    stops = [entry for entry in lost if entry.action.rpartition(".")[2] in _REVOKING_VERBS]
    if not stops:
        return
    listed = ", ".join(f"{entry.action} {entry.subject}" for entry in stops[:_MAX_NAMED])
    more = f" and {len(stops) - _MAX_NAMED} more" if len(stops) > _MAX_NAMED else ""
    message = (
        f"The database went back to an earlier moment, and what was decided since is not in force: {listed}{more}."
    )
    log.error("%s", message)
    finding = Finding(
        kind=KIND,
        subject="company",
        severity="critical",
        mark=str(stops[0].id),
        message=message,
        hint="Repeat the decisions that are still wanted, first with `groundplan keys revoke` and `groundplan kill`. "
        "`groundplan audit list` has all of them, and who made each.",
        detail={"entries": [str(entry.id) for entry in stops]},
    )
    finding_store.report(conn, finding)
