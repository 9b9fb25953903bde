"""The SQL that finds which rows of a journal have moved from the database to an archive, so as not to write them again.

Queried only for facts old enough to be archived, so recent ones cost nothing. The archive's files are not read: the
database keeps their ids.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import UUID

from psycopg import Connection

from groundplan.core.audit.entry import Entry

Row = tuple[Any, ...]
HOT_WINDOW: Final = timedelta(days=6)
"""No fact newer than this is archived: the hot window is seven days or more."""
_DAY: Final = timedelta(days=1)


class ArchivedFacts:
    """The calls and attempts that are archived."""

    def __init__(self, rows: Iterable[tuple[UUID, int | None]] = ()) -> None:
        self._known = set(rows)

    def call_ids(self) -> set[UUID]:
        """Return the ids of archived calls."""
        return {id for id, number in self._known if number is None}

    def without_archived_calls(self, rows: Sequence[Row]) -> Sequence[Row]:
        """Return rows of `call` without the archived ones."""
        return [row for row in rows if (UUID(row[0]), None) not in self._known] if self._known else rows

    def without_archived_entries(self, entries: Sequence[Entry]) -> Sequence[Entry]:
        """Return audit entries without those of archived calls, which were written with them."""
        return [entry for entry in entries if (entry.id, None) not in self._known] if self._known else entries

    def without_archived_attempts(self, rows: Sequence[Row]) -> Sequence[Row]:
        """Return rows of `attempt`, or of `charge`, without those of archived attempts."""
        return [row for row in rows if (UUID(row[0]), row[1]) not in self._known] if self._known else rows


def archived_facts(
    conn: Connection[Any], calls: Sequence[Row], attempts: Sequence[Row], now: datetime
) -> ArchivedFacts:
    """Return which of these rows of `call` and `attempt` are archived. Locks the days of old ones: nothing more of them
    is archived until the end of the transaction."""
    before = now - HOT_WINDOW
    old = {UUID(row[0]): row[1] for row in calls if row[1] < before}
    old |= {UUID(row[0]): row[2] for row in attempts if row[2] < before}
    if not old:
        return ArchivedFacts()
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
    return ArchivedFacts((row[0], row[1]) for row in rows)
