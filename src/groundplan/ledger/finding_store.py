"""The SQL of findings: told, told again, closed because they no longer hold or because somebody says so.

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

_TELL: LiteralString = """INSERT INTO finding
      (id, kind, subject, mark, severity, message, quote, hint, owner, detail, fix, due)
    VALUES (%(id)s, %(kind)s, %(subject)s, %(mark)s, %(severity)s, %(message)s, nullif(%(quote)s, ''), %(hint)s,
      %(owner)s, %(detail)s, %(fix)s, %(due)s)
    ON CONFLICT (kind, subject, mark) WHERE closed_at IS NULL DO UPDATE SET
      severity = excluded.severity, message = excluded.message, quote = excluded.quote, hint = excluded.hint,
      owner = excluded.owner, detail = excluded.detail, fix = excluded.fix, due = excluded.due, seen_at = now()
    RETURNING id, xmax = 0 AS new"""
_SHOWN: LiteralString = """SELECT id, at, kind, severity, subject, mark, message, hint, owner, detail, fix, due,
      seen_at, closed_at, closed_by, closed_reason, quiet_until FROM finding"""
_OVER = len(SEVERITIES) + 1
_RANK: LiteralString = f"""CASE WHEN closed_at IS NULL
      THEN coalesce(array_position(%(order)s::text[], severity), {_OVER}) ELSE {_OVER} END"""


@dataclass(frozen=True, slots=True)
class Told:
    """How the findings changed."""

    opened: int
    kept: int
    closed: int


@dataclass(frozen=True, slots=True)
class Place:
    """Of a finding in the list, as it was shown: whatever becomes of it, what follows is the same."""

    rank: int
    at: datetime
    id: UUID

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> Place:
        """Of one as `findings` has it."""
        is_open = row["closed_at"] is None and row["severity"] in SEVERITIES
        return cls(SEVERITIES.index(row["severity"]) + 1 if is_open else _OVER, row["at"], row["id"])


def tell(conn: Connection[Any], found: Finding) -> tuple[UUID, bool]:
    """Open it, or bring the open one up to date; (its id, whether it is new)."""
    row = conn.execute(
        _TELL,
        {
            "id": new_id(), "kind": found.kind, "subject": found.subject, "mark": found.mark,
            "severity": found.severity, "message": found.message, "quote": found.quote, "hint": found.hint,
            "owner": found.owner, "detail": Jsonb(found.detail), "due": found.due,
            "fix": None if found.fix is None else Jsonb(found.fix),
        },
    ).fetchone()  # fmt: skip
    assert row is not None
    return row[0], row[1]


def tell_each(conn: Connection[Any], found: Iterable[Finding]) -> tuple[list[UUID], int]:
    """As `tell`, one after the other; (their ids, how many are new)."""
    told = [tell(conn, each) for each in found]
    return [id for id, _ in told], sum(new for _, new in told)


def hold(conn: Connection[Any], kind: str) -> None:
    """Until the end of the transaction nobody else who asks for it says what of a kind holds. Before it is read what
    does: whoever read it a moment earlier takes what was found since for what no longer holds."""
    conn.execute("SELECT pg_advisory_xact_lock(42, hashtext(%s))", (kind,))


def tell_all(conn: Connection[Any], found: Iterable[Finding], *, kinds: Collection[str], within: str = "") -> Told:
    """`found` is all that now holds of these kinds, about subjects that begin with `within`: others of them close."""
    still, opened = tell_each(conn, found)
    closed = conn.execute(
        """UPDATE finding SET closed_at = now(), closed_reason = 'no longer holds'
           WHERE closed_at IS NULL AND kind = ANY(%s) AND starts_with(subject, %s) AND NOT id = ANY(%s)""",
        (list(kinds), within, still),
    ).rowcount
    return Told(opened, len(still) - opened, closed)


def withdraw(conn: Connection[Any], kind: str, subject: str, mark: str, reason: str) -> int:
    """One that no longer holds; how many were open."""
    return conn.execute(
        """UPDATE finding SET closed_at = now(), closed_reason = %s
           WHERE closed_at IS NULL AND kind = %s AND subject = %s AND mark = %s""",
        (reason, kind, subject, mark),
    ).rowcount


def close(conn: Connection[Any], finding_id: UUID, by: str, reason: str) -> None:
    """Somebody says that it is settled. Raises `NotFound` (`finding_unknown`) where it is not open."""
    done = conn.execute(
        "UPDATE finding SET closed_at = now(), closed_by = %s, closed_reason = %s WHERE id = %s AND closed_at IS NULL",
        (by, reason, finding_id),
    )
    _one(done.rowcount, finding_id)


def settle(conn: Connection[Any], kind: str, subject: str, by: str, reason: str) -> int:
    """Somebody did what all of a kind about a subject asked for; how many were open."""
    return conn.execute(
        """UPDATE finding SET closed_at = now(), closed_by = %s, closed_reason = %s
           WHERE closed_at IS NULL AND kind = %s AND subject = %s""",
        (by, reason, kind, subject),
    ).rowcount


def quiet(conn: Connection[Any], finding_id: UUID, until: datetime) -> None:
    """It stays open and is not shown before then. Raises `NotFound` (`finding_unknown`)."""
    done = conn.execute("UPDATE finding SET quiet_until = %s WHERE id = %s AND closed_at IS NULL", (until, finding_id))
    _one(done.rowcount, finding_id)


def findings(
    conn: Connection[Any], *, kinds: Sequence[str] = (), subject: str = "", below: str = "", closed: bool = False,
    limit: int = 200, behind: Place | None = None, only: Sequence[UUID] | None = None, since: datetime | None = None,
) -> list[dict[str, Any]]:  # fmt: skip
    """The gravest and newest first, of what is closed the newest. `kinds` are beginnings (`knowledge.`), `subject` is
    exact, `below` one with all that is in it; with `only` those of these ids, with `since` those that came since then,
    with `behind` those that follow that place.

    Quiet ones are left out.
    """
    return select(
        conn,
        _SHOWN
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


def kinds(conn: Connection[Any], kind: str = "", below: str = "", only: Sequence[UUID] | None = None) -> dict[str, int]:
    """How many are open and not quiet of each kind that begins with `kind`; `below` and `only` as above."""
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
    """What findings quote, of those that do: not for everybody who may see them."""
    rows = conn.execute("SELECT id, quote FROM finding WHERE id = ANY(%s) AND quote IS NOT NULL", (list(ids),))
    return dict(rows.fetchall())


def open_marks(conn: Connection[Any], kind: str) -> list[tuple[str, datetime]]:
    """(mark, when it was opened) of every open one of a kind, quiet ones too."""
    return conn.execute("SELECT mark, at FROM finding WHERE kind = %s AND closed_at IS NULL", (kind,)).fetchall()


def one(conn: Connection[Any], finding_id: UUID) -> dict[str, Any]:
    """Open or closed. Raises `NotFound` (`finding_unknown`)."""
    with conn.cursor(row_factory=dict_row) as cursor:
        row = cursor.execute(_SHOWN + " WHERE id = %s", (finding_id,)).fetchone()
    if row is None:
        _one(0, finding_id)
    assert row is not None
    return row


def _one(count: int, finding_id: UUID) -> None:
    if count != 1:
        raise unknown(finding_id)


def unknown(finding_id: UUID) -> NotFound:
    """The same for what is not there and for what somebody must not know of."""
    return NotFound(
        f"no open finding {finding_id}",
        code="finding_unknown",
        hint="`groundplan status` and the inbox list those that are open.",
    )
