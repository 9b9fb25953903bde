"""The SQL of kept prompts and answers: added by the content writer, read and deleted by the control process.

What is stored is sealed; opening it, and who may, are elsewhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, LiteralString
from uuid import UUID

from psycopg import Connection
from psycopg.rows import dict_row, tuple_row
from psycopg.types.json import Jsonb

_NOT_HELD = """NOT EXISTS (SELECT FROM person_hold h WHERE h.ended_at IS NULL
  AND h.person_id::text = sealed_for(sealed))"""
"""What belongs to somebody under a legal hold is kept, whatever its time."""


@dataclass(frozen=True, slots=True)
class Row:
    """`kind` is redacted or full; `found` what was taken out, by kind; `cut`: not all of it is there."""

    call: UUID
    at: datetime
    workload: str
    kind: str
    expires_at: datetime
    sealed: str
    found: dict[str, int]
    cut: bool

    def facts(self) -> dict[str, Any]:
        """What is said of it without reading it."""
        return {"kind": self.kind, "expires_at": self.expires_at.isoformat(), "found": self.found, "cut": self.cut}


def add(conn: Connection[Any], rows: Sequence[Row]) -> None:
    """Keep these, each call once."""
    with conn.cursor() as cursor:
        cursor.executemany(
            """INSERT INTO content (call_id, at, workload, kind, expires_at, sealed, found, cut)
               VALUES (%s, %s, %s, %s, %s, %s, %s, %s) ON CONFLICT (call_id) DO NOTHING""",
            [(r.call, r.at, r.workload, r.kind, r.expires_at, r.sealed, Jsonb(r.found), r.cut) for r in rows],
        )


def kept(conn: Connection[Any], call: UUID) -> Row | None:
    """What is kept of a call, while its time is not over."""
    with conn.cursor(row_factory=dict_row) as cursor:
        row = cursor.execute(
            """SELECT call_id AS call, at, workload, kind, expires_at, sealed, found, cut FROM content
               WHERE call_id = %s AND expires_at > now()""",
            (call,),
        ).fetchone()
    return None if row is None else Row(**row)


def expire(conn: Connection[Any]) -> dict[str, int]:
    """Delete what is past its time; how many by workload."""
    return counted(conn, f"DELETE FROM content WHERE expires_at <= now() AND {_NOT_HELD} RETURNING workload", ())


def keep_only(conn: Connection[Any], rules: Sequence[tuple[str, bool, int]]) -> dict[str, int]:
    """Delete what the rules (workload, full allowed, seconds) no longer allow; how many by workload.

    What belongs to a workload without a rule goes, as does what is older than its rule now says.
    """
    workloads = [rule[0] for rule in rules]
    return counted(
        conn,
        f"""DELETE FROM content c WHERE {_NOT_HELD} AND NOT EXISTS (
             SELECT 1 FROM unnest(%s::text[], %s::boolean[], %s::bigint[]) r (workload, may_be_full, seconds)
             WHERE r.workload = c.workload AND (r.may_be_full OR c.kind = 'redacted')
               AND c.at + make_interval(secs => r.seconds) > now()) RETURNING workload""",
        (workloads, [rule[1] for rule in rules], [rule[2] for rule in rules]),
    )


def counted(conn: Connection[Any], deleting: LiteralString, parameters: Sequence[Any]) -> dict[str, int]:
    """What a statement that returns the workload of each row has deleted, by workload. They are counted where they are:
    a long time without this may leave millions."""
    statement = f"WITH gone AS ({deleting}) SELECT workload, count(*) AS count FROM gone GROUP BY workload"
    with conn.cursor(row_factory=tuple_row) as cursor:
        return {workload: count for workload, count in cursor.execute(statement.encode(), parameters).fetchall()}


def forget_answers(conn: Connection[Any], rules: Sequence[tuple[str, bool, int]]) -> None:
    """Delete cached answers of workloads that keep nothing in full now, and those that are older than they keep it."""
    full = [(workload, seconds) for workload, may_be_full, seconds in rules if may_be_full]
    conn.execute(
        b"""DELETE FROM answer a WHERE NOT EXISTS (SELECT 1 FROM unnest(%s::text[], %s::bigint[]) r (workload, seconds)
             WHERE r.workload = a.workload AND a.made_at + make_interval(secs => r.seconds) > now())""",
        ([workload for workload, _ in full], [seconds for _, seconds in full]),
    )
