"""The SQL of stored responses: added, found and deleted by gateways, deleted by the control process when they may not
be kept any more. What is stored is sealed; opening it is elsewhere.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from psycopg import Connection


@dataclass(frozen=True, slots=True)
class Row:
    """`owner` is the key that made it, or the first of its line."""

    id: str
    workload: str
    owner: UUID
    deployment: str
    expires_at: datetime
    sealed: str


def add(conn: Connection[Any], row: Row) -> None:
    conn.execute(
        """INSERT INTO stored_response (id, workload, owner, deployment, expires_at, sealed)
           VALUES (%s, %s, %s, %s, %s, %s) ON CONFLICT (id) DO NOTHING""",
        (row.id, row.workload, row.owner, row.deployment, row.expires_at, row.sealed),
    )


def find(conn: Connection[Any], id: str, owner: UUID, workload: str) -> Row | None:
    """One of this owner's, while its time is not over."""
    found = conn.execute(
        """SELECT id, workload, owner, deployment, expires_at, sealed FROM stored_response
           WHERE id = %s AND owner = %s AND workload = %s AND expires_at > now()""",
        (id, owner, workload),
    ).fetchone()
    return None if found is None else Row(*found)


def delete(conn: Connection[Any], id: str, owner: UUID, workload: str) -> bool:
    """Whether there was one of this owner's."""
    done = conn.execute(
        "DELETE FROM stored_response WHERE id = %s AND owner = %s AND workload = %s AND expires_at > now()",
        (id, owner, workload),
    )
    return done.rowcount > 0


def keep_only(conn: Connection[Any], rules: Sequence[tuple[str, bool, int]]) -> dict[str, int]:
    """Delete what is past its time, or what the rules (workload, full allowed, seconds) no longer allow; how many by
    workload."""
    full = [(workload, seconds) for workload, may_be_full, seconds in rules if may_be_full]
    rows = conn.execute(
        """DELETE FROM stored_response s WHERE (s.expires_at <= now() OR NOT EXISTS (
             SELECT 1 FROM unnest(%s::text[], %s::bigint[]) r (workload, seconds)
             WHERE r.workload = s.workload AND s.at + make_interval(secs => r.seconds) > now()))
           AND NOT EXISTS (SELECT FROM person_hold h WHERE h.ended_at IS NULL
             AND h.person_id::text = sealed_for(s.sealed)) RETURNING s.workload""",
        ([workload for workload, _ in full], [seconds for _, seconds in full]),
    ).fetchall()
    return dict(Counter(row[0] if isinstance(row, tuple) else row["workload"] for row in rows))
