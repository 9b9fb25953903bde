"""The SQL of stored prompts and answers: added by the content writer, read and deleted by the control process.

Content is sealed; this module does not open it, nor decide who may.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from psycopg import Connection
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb

from groundplan.ledger import retention


@dataclass(frozen=True, slots=True)
class Row:
    """Stored content of a call. `kind` is redacted or full; `found` counts redactions by kind; `cut` says whether it
    was truncated."""

    call: UUID
    at: datetime
    workload: str
    kind: str
    expires_at: datetime
    sealed: str
    found: dict[str, int]
    cut: bool

    def facts(self) -> dict[str, Any]:
        """The metadata, without the content."""
        return {"kind": self.kind, "expires_at": self.expires_at.isoformat(), "found": self.found, "cut": self.cut}


def add(conn: Connection[Any], rows: Sequence[Row]) -> None:
    """Store contents, each call once."""
    with conn.cursor() as cursor:
        cursor.executemany(
            """INSERT INTO content (call_id, at, workload, kind, expires_at, sealed, found, cut)
               VALUES (%s, %s, %s, %s, %s, %s, %s, %s) ON CONFLICT (call_id) DO NOTHING""",
            [(r.call, r.at, r.workload, r.kind, r.expires_at, r.sealed, Jsonb(r.found), r.cut) for r in rows],
        )


def find_content(conn: Connection[Any], call: UUID) -> Row | None:
    """The content of a call that has not expired; None if there is none."""
    with conn.cursor(row_factory=dict_row) as cursor:
        row = cursor.execute(
            """SELECT call_id AS call, at, workload, kind, expires_at, sealed, found, cut FROM content
               WHERE call_id = %s AND expires_at > now()""",
            (call,),
        ).fetchone()
    return None if row is None else Row(**row)


def delete_expired(conn: Connection[Any]) -> dict[str, int]:
    """Delete expired content; return how many by workload."""
    return retention.delete_expired(conn, "content")


def apply_rules(conn: Connection[Any], rules: retention.Rules) -> dict[str, int]:
    """See `retention`."""
    return retention.apply_rules(conn, "content", rules, redacted=True)


def forget_answers(conn: Connection[Any], rules: Sequence[tuple[str, bool, int]]) -> None:
    """Delete the cached answers of workloads that no longer store full content, and those older than their workloads'
    retention."""
    full = [(workload, seconds) for workload, may_be_full, seconds in rules if may_be_full]
    conn.execute(
        b"""DELETE FROM answer a WHERE NOT EXISTS (SELECT 1 FROM unnest(%s::text[], %s::bigint[]) r (workload, seconds)
             WHERE r.workload = a.workload AND a.made_at + make_interval(secs => r.seconds) > now())""",
        ([workload for workload, _ in full], [seconds for _, seconds in full]),
    )
