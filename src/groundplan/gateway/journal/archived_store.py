"""The SQL that tells which rows of a journal have left the database for an archive: those are not written again.

Asked only about facts that are old enough to have left, so what comes as it happens costs no question. What is in the
files of an archive is not looked at: the database keeps their ids.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import UUID

from psycopg import Connection

from groundplan.core.audit.entry import Entry

Row = tuple[Any, ...]
NEWEST: Final = timedelta(days=6)
"""No fact leaves that is as new as that: the hot window is seven days or more."""
_DAY: Final = timedelta(days=1)


class Left:
    """Which calls and attempts have left."""

    def __init__(self, rows: Iterable[tuple[UUID, int | None]] = ()) -> None:
        self._known = set(rows)

    def gone(self) -> set[UUID]:
        """The calls."""
        return {id for id, number in self._known if number is None}

    def calls(self, rows: Sequence[Row]) -> Sequence[Row]:
        """Rows of `call` without those that have left."""
        return [row for row in rows if (UUID(row[0]), None) not in self._known] if self._known else rows

    def entries(self, entries: Sequence[Entry]) -> Sequence[Entry]:
        """Audit entries of calls without those of calls that have left: theirs were entered, and may have left, too."""
        return [entry for entry in entries if (entry.id, None) not in self._known] if self._known else entries

    def attempts(self, rows: Sequence[Row]) -> Sequence[Row]:
        """Rows of `attempt`, or of `charge`, without those of attempts that have left."""
        return [row for row in rows if (UUID(row[0]), row[1]) not in self._known] if self._known else rows


def left(conn: Connection[Any], calls: Sequence[Row], attempts: Sequence[Row], now: datetime) -> Left:
    """Of rows of `call` and `attempt`. Of the days of those that are old nothing more leaves until the end of the
    transaction."""
    before = now - NEWEST
    old = {UUID(row[0]): row[1] for row in calls if row[1] < before}
    old |= {UUID(row[0]): row[2] for row in attempts if row[2] < before}
    if not old:
        return Left()
    days = {
        at.astimezone(UTC).date() for at in (*(row[1] for row in calls), *(row[2] for row in attempts)) if at < before
    }
    conn.execute(
        "SELECT pg_advisory_xact_lock_shared(81, day - date '2000-01-01') FROM unnest(%s::date[]) day", (sorted(days),)
    )
    rows = conn.execute(
        """WITH near AS MATERIALIZED (
             SELECT calls, attempts, numbers FROM archived_fact
             WHERE day BETWEEN %(first)s AND %(last)s AND first <= %(most)s AND last >= %(least)s)
           SELECT u.id, NULL::integer FROM near f, unnest(f.calls) u(id) JOIN unnest(%(ids)s::uuid[]) i(id) USING (id)
           UNION ALL
           SELECT u.id, u.number FROM near f, unnest(f.attempts, f.numbers) u(id, number)
             JOIN unnest(%(ids)s::uuid[]) i(id) USING (id)""",
        {
            "ids": list(old),
            "least": min(old),
            "most": max(old),
            "first": (min(old.values()) - _DAY).date(),
            "last": (max(old.values()) + _DAY).date(),
        },
    ).fetchall()
    return Left((row[0], row[1]) for row in rows)
