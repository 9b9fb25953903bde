"""The SQL of findings: opening and updating them, and closing them because they no longer hold or a person says so.

Each function is part of the caller's transaction. Findings are never deleted here; the closed ones are the history.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, LiteralString
from uuid import UUID

from psycopg import Connection
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb

from groundplan.core.database import select
from groundplan.core.errors import NotFound
from groundplan.core.ids import new_id
from groundplan.ledger.finding import SEVERITIES, Finding

_UPSERT: LiteralString = """INSERT INTO finding
      (id, kind, subject, mark, severity, message, quote, hint, owner, detail, fix, due)
    VALUES (%(id)s, %(kind)s, %(subject)s, %(mark)s, %(severity)s, %(message)s, nullif(%(quote)s, ''), %(hint)s,
      %(owner)s, %(detail)s, %(fix)s, %(due)s)
    ON CONFLICT (kind, subject, mark) WHERE closed_at IS NULL DO UPDATE SET
      severity = excluded.severity, message = excluded.message, quote = excluded.quote, hint = excluded.hint,
      owner = excluded.owner, detail = excluded.detail, fix = excluded.fix, due = excluded.due, seen_at = now()
    RETURNING id, xmax = 0 AS new"""
_SELECT: LiteralString = """SELECT id, at, kind, severity, subject, mark, message, hint, owner, detail, fix, due,
      seen_at, closed_at, closed_by, closed_reason, quiet_until FROM finding"""
_CLOSED_RANK = len(SEVERITIES) + 1
_RANK: LiteralString = f"""CASE WHEN closed_at IS NULL
      THEN coalesce(array_position(%(order)s::text[], severity), {_CLOSED_RANK}) ELSE {_CLOSED_RANK} END"""


@dataclass(frozen=True, slots=True)
class FindingChanges:
    """Numbers of findings that were opened, kept open (updated) and closed."""

    opened: int
    kept: int
    closed: int


@dataclass(frozen=True, slots=True)
class ListPosition:
    """The position of a finding in the list as it was shown, so that the next page does not depend on later changes of
    the finding."""

    rank: int
    at: datetime
    id: UUID

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> ListPosition:
        """The position of a row of `list_findings`."""
        is_open = row["closed_at"] is None and row["severity"] in SEVERITIES
        return cls(SEVERITIES.index(row["severity"]) + 1 if is_open else _CLOSED_RANK, row["at"], row["id"])


def report(conn: Connection[Any], found: Finding) -> tuple[UUID, bool]:
    """Open a finding, or update it if it is open; return its id and whether it is new."""
    row = conn.execute(
        _UPSERT,
        {
            "id": new_id(), "kind": found.kind, "subject": found.subject, "mark": found.mark,
            "severity": found.severity, "message": found.message, "quote": found.quote, "hint": found.hint,
            "owner": found.owner, "detail": Jsonb(found.detail), "due": found.due,
            "fix": None if found.fix is None else Jsonb(found.fix),
        },
    ).fetchone()  # fmt: skip
    assert row is not None
    return row[0], row[1]


def report_each(conn: Connection[Any], found: Iterable[Finding]) -> tuple[list[UUID], int]:
    """`report` each finding; return their ids and the number of new ones."""
    told = [report(conn, each) for each in found]
    return [id for id, _ in told], sum(new for _, new in told)


def lock_kind(conn: Connection[Any], kind: str) -> None:
    """Lock a kind of findings until the end of the transaction, against other callers of this function. Call it before
    reading the present state: a `replace_findings` from older data would close findings opened since."""
    conn.execute("SELECT pg_advisory_xact_lock(42, hashtext(%s))", (kind,))


def replace_findings(
    conn: Connection[Any], found: Iterable[Finding], *, kinds: Collection[str], within: str = ""
) -> FindingChanges:
    """Report all findings of these kinds that hold now for subjects that begin with `within`, and close all others."""
    still, opened = report_each(conn, found)
    closed = conn.execute(
        """UPDATE finding SET closed_at = now(), closed_reason = 'no longer holds'
           WHERE closed_at IS NULL AND kind = ANY(%s) AND starts_with(subject, %s) AND NOT id = ANY(%s)""",
        (list(kinds), within, still),
    ).rowcount
    return FindingChanges(opened, len(still) - opened, closed)


def withdraw(conn: Connection[Any], kind: str, subject: str, mark: str, reason: str) -> int:
    """Close a finding that no longer holds; return the number closed (0 or 1)."""
    return conn.execute(
        """UPDATE finding SET closed_at = now(), closed_reason = %s
           WHERE closed_at IS NULL AND kind = %s AND subject = %s AND mark = %s""",
        (reason, kind, subject, mark),
    ).rowcount


def close(conn: Connection[Any], finding_id: UUID, by: str, reason: str) -> None:
    """Close an open finding because a person says that it is settled. Raises `NotFound` (`finding_unknown`)."""
    done = conn.execute(
        "UPDATE finding SET closed_at = now(), closed_by = %s, closed_reason = %s WHERE id = %s AND closed_at IS NULL",
        (by, reason, finding_id),
    )
    _require_one(done.rowcount, finding_id)


def close_about(conn: Connection[Any], kind: str, subject: str, by: str, reason: str) -> int:
    """Close all findings of a kind about a subject because a person has fixed them; return the number closed."""
    return conn.execute(
        """UPDATE finding SET closed_at = now(), closed_by = %s, closed_reason = %s
           WHERE closed_at IS NULL AND kind = %s AND subject = %s""",
        (by, reason, kind, subject),
    ).rowcount


def snooze(conn: Connection[Any], finding_id: UUID, until: datetime) -> None:
    """Hide an open finding until then. Raises `NotFound` (`finding_unknown`)."""
    done = conn.execute("UPDATE finding SET quiet_until = %s WHERE id = %s AND closed_at IS NULL", (until, finding_id))
    _require_one(done.rowcount, finding_id)


def list_findings(
    conn: Connection[Any], *, kinds: Sequence[str] = (), subject: str = "", below: str = "", closed: bool = False,
    limit: int = 200, behind: ListPosition | None = None, only: Sequence[UUID] | None = None,
    since: datetime | None = None,
) -> list[dict[str, Any]]:  # fmt: skip
    """List findings, the most severe and newest first; closed ones (with `closed`) last.

    Filters: `kinds` are prefixes (`knowledge.`), `subject` is exact, `below` also matches subjects within it, `only`
    lists ids, `since` is the earliest opening, `behind` the position to continue after. Open findings that are snoozed
    are left out.
    """
    return select(
        conn,
        _SELECT
        + """ WHERE (%(closed)s OR (closed_at IS NULL AND (quiet_until IS NULL OR quiet_until <= now())))
               AND (%(kinds)s::text[] = '{}' OR EXISTS (
                 SELECT 1 FROM unnest(%(kinds)s::text[]) k WHERE starts_with(kind, k)))
               AND (%(subject)s = '' OR subject = %(subject)s)
               AND (%(below)s = '' OR subject = %(below)s OR starts_with(subject, %(below)s || '/'))
               AND (%(only)s::uuid[] IS NULL OR id = ANY (%(only)s::uuid[]))
               AND (%(since)s::timestamptz IS NULL OR at >= %(since)s)
               AND (%(rank)s::int IS NULL
                 OR ("""
        + _RANK
        + """, %(at)s::timestamptz, id) > (%(rank)s, at, %(id)s::uuid))
               ORDER BY """
        + _RANK
        + """, at DESC, id LIMIT %(limit)s""",
        {
            "closed": closed,
            "kinds": list(kinds),
            "subject": subject,
            "below": below,
            "order": list(SEVERITIES),
            "limit": limit,
            "rank": None if behind is None else behind.rank,
            "at": None if behind is None else behind.at,
            "id": None if behind is None else behind.id,
            "only": None if only is None else list(only),
            "since": since,
        },
    )


def count_by_kind(
    conn: Connection[Any], kind: str = "", below: str = "", only: Sequence[UUID] | None = None
) -> dict[str, int]:
    """Count open findings that are not snoozed by kind, for kinds that begin with `kind`; `below` and `only` as in
    `list_findings`."""
    found = select(
        conn,
        """SELECT kind, count(*) AS open FROM finding
           WHERE closed_at IS NULL AND (quiet_until IS NULL OR quiet_until <= now()) AND starts_with(kind, %(kind)s)
             AND (%(below)s = '' OR subject = %(below)s OR starts_with(subject, %(below)s || '/'))
             AND (%(only)s::uuid[] IS NULL OR id = ANY (%(only)s::uuid[]))
           GROUP BY kind ORDER BY kind""",
        {"kind": kind, "below": below, "only": None if only is None else list(only)},
    )
    return {row["kind"]: row["open"] for row in found}


def quotes(conn: Connection[Any], ids: Sequence[UUID]) -> dict[UUID, str]:
    """The quotes of findings that have one; not everybody who may see a finding may see its quote."""
    rows = conn.execute("SELECT id, quote FROM finding WHERE id = ANY(%s) AND quote IS NOT NULL", (list(ids),))
    return dict(rows.fetchall())


def open_marks(conn: Connection[Any], kind: str) -> list[tuple[str, datetime]]:
    """(mark, time of opening) of every open finding of a kind, including snoozed ones."""
    return conn.execute("SELECT mark, at FROM finding WHERE kind = %s AND closed_at IS NULL", (kind,)).fetchall()


def get_finding(conn: Connection[Any], finding_id: UUID) -> dict[str, Any]:
    """An open or closed finding. Raises `NotFound` (`finding_unknown`)."""
    with conn.cursor(row_factory=dict_row) as cursor:
        row = cursor.execute(_SELECT + " WHERE id = %s", (finding_id,)).fetchone()
    if row is None:
        _require_one(0, finding_id)
    assert row is not None
    return row


def _require_one(count: int, finding_id: UUID) -> None:
    if count != 1:
        raise finding_unknown(finding_id)


def finding_unknown(finding_id: UUID) -> NotFound:
    """The error for a finding that does not exist, or that the caller may not know of."""
    return NotFound(
        f"no open finding {finding_id}",
        code="finding_unknown",
        hint="`groundplan status` and the inbox list those that are open.",
    )
