"""The SQL of evidence, which is never deleted, only withdrawn. No rules."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from typing import Any, LiteralString
from uuid import UUID

from psycopg import Connection
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb

from groundplan.core.database import select
from groundplan.governance.controls.model import Evidence

_COLUMNS: LiteralString = """id, what, subject, type, collector, at, valid_until, holds, says, detail, digest,
  audit_entry, link, approval"""
_COUNTS: LiteralString = """collector = 'groundplan' OR CASE WHEN approval IS NULL THEN NOT %(demanded)s ELSE EXISTS (
  SELECT 1 FROM change c WHERE c.type = 'evidence' AND c.digest = evidence.approval AND c.expires_on IS NOT NULL
    AND (c.state = 'applied' OR c.decided_at > %(at)s) AND %(at)s >= (
      SELECT max(a.at) FROM approval a WHERE a.change_id = c.id AND a.decision = 'approved')) END"""
"""Whether evidence counts: collected from facts always; given by people if no approval is demanded, or while it is
approved."""


def insert_evidence(conn: Connection[Any], found: Evidence) -> None:
    """Store one piece of evidence."""
    conn.execute(
        """INSERT INTO evidence (id, what, subject, type, collector, at, valid_until, holds, says, detail, digest,
             audit_entry, link, approval) VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)""",
        (
            found.id, found.what, found.subject, found.type, found.collector, found.at, found.valid_until, found.holds,
            found.says, Jsonb(dict(found.detail)), found.digest, found.audit_entry, found.link, found.approval,
        ),
    )  # fmt: skip


def newest_evidence(
    conn: Connection[Any],
    at: datetime,
    *,
    demanded: bool,
    what: str | None = None,
    subjects: Collection[str] | None = None,
) -> list[Evidence]:
    """For each (subject, what) the newest evidence as of `at` that was not withdrawn and counts, else the newest that
    does not count; optionally only of one `what` or of these subjects, since thousands of workloads have tens of
    thousands of rows. `demanded`: the company demands approval of evidence that people give.
    """
    rows = select(
        conn,
        "SELECT DISTINCT ON (subject, what) * FROM (SELECT "
        + _COLUMNS
        + ", "
        + _COUNTS
        + " AS counts FROM evidence WHERE at <= %(at)s AND (withdrawn_at IS NULL OR withdrawn_at > %(at)s)"
        + " AND (%(what)s::text IS NULL OR what = %(what)s)"
        + " AND (%(subjects)s::text[] IS NULL OR subject = ANY(%(subjects)s))) e"
        + " ORDER BY subject, what, counts DESC, at DESC, id DESC",
        {"demanded": demanded, "at": at, "what": what, "subjects": None if subjects is None else list(subjects)},
    )
    return [Evidence(**row) for row in rows]


def list_evidence(
    conn: Connection[Any], *, subject: str = "", what: str = "", before: datetime | None = None, limit: int = 200
) -> list[dict[str, Any]]:
    """Evidence, newest first, withdrawn included; with `leaf_index` once it is in the log, and the `change` that
    requests its approval with its state (`approval`), if the company demands one."""
    return select(
        conn,
        """SELECT e.id, e.what, e.subject, e.type, e.collector, e.at, e.valid_until, e.holds, e.says, e.detail,
                 e.digest, e.audit_entry, e.link, e.withdrawn_at, e.withdrawn_by, a.leaf_index, c.id AS change,
                 c.state AS approval
               FROM evidence e JOIN audit_entry a ON a.id = e.audit_entry
               LEFT JOIN LATERAL (SELECT id, state FROM change WHERE type = 'evidence' AND digest = e.approval
                 ORDER BY state = 'applied' DESC, requested_at DESC LIMIT 1) c ON true
               WHERE (%(subject)s = '' OR e.subject = %(subject)s) AND (%(what)s = '' OR e.what = %(what)s)
                 AND (%(before)s::timestamptz IS NULL OR e.at < %(before)s)
               ORDER BY e.at DESC, e.id DESC LIMIT %(limit)s""",
        {"subject": subject, "what": what, "before": before, "limit": limit},
    )


def withdraw_evidence(conn: Connection[Any], id: UUID, by: str, at: datetime) -> dict[str, Any] | None:
    """Withdraw evidence; returns its `what`, `subject` and `approval`, or None if there is none to withdraw."""
    with conn.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(
            """UPDATE evidence SET withdrawn_at = %s, withdrawn_by = %s WHERE id = %s AND withdrawn_at IS NULL
               RETURNING what, subject, approval""",
            (at, by, id),
        ).fetchone()
