"""The SQL of changes and approvals. No rules: `decide` and `service` have them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import date, datetime
from typing import Any, LiteralString
from uuid import UUID

from psycopg import Connection
from psycopg.rows import tuple_row
from psycopg.types.json import Jsonb

from groundplan.core.database import select
from groundplan.governance.model import Approval, Change, Holder, Need
from groundplan.identity.model import COMPANY

_REQUEST_LOCK = 0x6770_6173_6B65_6401
"""Advisory lock key: one transaction at a time looks up existing requests and adds one."""
_CHANGE: LiteralString = """SELECT id, digest, type, base, summary, needs, requested_by, requested_at, state,
  decided_at, blueprint, expires_on, grace_until, seats, reason, renews FROM change"""


def lock_requests(conn: Connection[Any]) -> None:
    """Take the lock on requests for approval; held until the transaction ends."""
    conn.execute("SELECT pg_advisory_xact_lock(%s)", (_REQUEST_LOCK,))


def insert_change(conn: Connection[Any], change: Change, sources: Mapping[str, str]) -> None:
    """Store a change with the files that it belongs to."""
    conn.execute(
        """INSERT INTO change (id, digest, type, base, sources, summary, needs, requested_by, requested_at, state,
             seats, reason, renews)
           VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)""",
        (
            change.id,
            change.digest,
            change.type,
            change.base,
            Jsonb(dict(sources)),
            Jsonb({**change.summary, "subject": change.subject}),
            Jsonb([{"subject": need.subject, "duty": need.duty} for need in change.needs]),
            change.requested_by,
            change.requested_at,
            change.state,
            change.seats,
            change.reason,
            change.renews,
        ),
    )


def update_change(conn: Connection[Any], change: UUID, needs: tuple[Need, ...], sources: Mapping[str, str]) -> None:
    """Update a change that was requested again with the same content: its newer files, and its needs by today's
    rules."""
    conn.execute(
        "UPDATE change SET sources = %s, needs = %s WHERE id = %s",
        (
            Jsonb(dict(sources)),
            Jsonb([{"subject": need.subject, "duty": need.duty} for need in needs]),
            change,
        ),
    )


def set_state(
    conn: Connection[Any], changes: Iterable[UUID], state: str, at: datetime, blueprint: int | None = None
) -> None:
    """Settle changes; `blueprint` is the one that serves them."""
    conn.execute(
        "UPDATE change SET state = %s, decided_at = %s, blueprint = coalesce(%s, blueprint) WHERE id = ANY(%s)",
        (state, at, blueprint, list(changes)),
    )


def set_term(conn: Connection[Any], change: UUID, expires_on: date, grace_until: date) -> None:
    """Store until when an applied change is valid."""
    conn.execute("UPDATE change SET expires_on = %s, grace_until = %s WHERE id = %s", (expires_on, grace_until, change))


def policy_number(conn: Connection[Any]) -> int:
    """Number of the newest live policy."""
    with conn.cursor(row_factory=tuple_row) as cursor:
        row = cursor.execute("SELECT number FROM policy_epoch").fetchone()
    return int(row[0]) if row else 0


def expiring_changes(conn: Connection[Any], before: date) -> list[Change]:
    """Applied changes whose approval ends before this day or has ended, the earliest first."""
    rows = select(conn, _CHANGE + " WHERE state = 'applied' AND expires_on <= %s ORDER BY expires_on, id", (before,))
    return _changes(conn, rows)


def change_by_id(conn: Connection[Any], id: UUID, *, lock: bool = True) -> Change | None:
    """One change with its approvals, locked against other decisions unless `lock` is false; None where there is
    none."""
    rows = select(conn, _CHANGE + " WHERE id = %s" + (" FOR UPDATE" if lock else ""), (id,))
    return _changes(conn, rows)[0] if rows else None


def changes(conn: Connection[Any], states: Iterable[str] | None = None) -> list[Change]:
    """Changes in these states (None: all) with their approvals, oldest first."""
    rows = select(
        conn,
        _CHANGE + " WHERE %s::text[] IS NULL OR state = ANY(%s) ORDER BY requested_at, id",
        (wanted := list(states) if states is not None else None, wanted),
    )
    return _changes(conn, rows)


def change_sources(conn: Connection[Any], change: UUID) -> dict[str, str]:
    """The files with which a change was last requested."""
    row = conn.execute("SELECT sources FROM change WHERE id = %s", (change,)).fetchone()
    return dict(row[0]) if row else {}


def insert_approval(conn: Connection[Any], approval: Approval) -> None:
    """Store a decision, or replace the same person's earlier one on the same need."""
    conn.execute(
        """INSERT INTO approval
             (id, change_id, digest, duty, subject, person_id, decision, comment, unseparated, demo, at, proof)
           VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)
           ON CONFLICT (change_id, subject, duty, person_id) DO UPDATE SET decision = excluded.decision,
             digest = excluded.digest, comment = excluded.comment, unseparated = excluded.unseparated,
             demo = excluded.demo, at = excluded.at, proof = excluded.proof, withdrawn_at = NULL""",
        (
            approval.id,
            approval.change_id,
            approval.digest,
            approval.duty,
            approval.subject,
            approval.person_id,
            approval.decision,
            approval.comment,
            approval.unseparated,
            approval.demo,
            approval.at,
            approval.proof,
        ),
    )


def withdraw_approvals(conn: Connection[Any], change: UUID, person: UUID, at: datetime) -> int:
    """Withdraw a person's approvals of a change; returns how many there were."""
    return conn.execute(
        """UPDATE approval SET withdrawn_at = %s
           WHERE change_id = %s AND person_id = %s AND decision = 'approved' AND withdrawn_at IS NULL""",
        (at, change, person),
    ).rowcount


def holders(conn: Connection[Any], subject: str, duty: str) -> list[Holder]:
    """Active people who hold a duty for a subject; where nobody does, those who hold it for the company.

    For the company itself, where nobody holds the duty for it: everybody who holds the duty for any subject.
    """
    return holders_of(conn, [(subject, duty)])[subject, duty]


def holders_of(conn: Connection[Any], wanted: Iterable[tuple[str, str]]) -> dict[tuple[str, str], list[Holder]]:
    """As `holders`, for many subjects and duties in one query, since each of thousands of workloads has its own."""
    pairs = set(wanted)
    rows = conn.execute(
        """SELECT d.subject, d.duty, p.id, p.email, p.name FROM duty d JOIN person p ON p.id = d.person_id
           WHERE p.active AND (d.duty = ANY(%(anywhere)s) OR d.duty = ANY(%(duties)s) AND d.subject = ANY(%(subjects)s))
           ORDER BY p.email""",
        {
            "anywhere": sorted({duty for subject, duty in pairs if subject == COMPANY}),
            "duties": sorted({duty for _, duty in pairs}),
            "subjects": sorted({subject for subject, _ in pairs} | {COMPANY}),
        },
    ).fetchall()
    by_subject: dict[tuple[str, str], dict[Holder, None]] = {}
    anywhere: dict[str, dict[Holder, None]] = {}
    for subject, duty, person, email, name in rows if pairs else ():
        holder = Holder(person, email, name)
        by_subject.setdefault((subject, duty), {})[holder] = None
        anywhere.setdefault(duty, {})[holder] = None
    return {
        (subject, duty): list(
            by_subject.get((subject, duty))
            or (anywhere.get(duty) if subject == COMPANY else by_subject.get((COMPANY, duty)))
            or ()
        )
        for subject, duty in pairs
    }


def count_active_people(conn: Connection[Any]) -> int:
    """Number of active people."""
    row = conn.execute("SELECT count(*) FROM person WHERE active").fetchone()
    return int(row[0]) if row else 0


def _changes(conn: Connection[Any], rows: list[dict[str, Any]]) -> list[Change]:
    found = _approvals(conn, [row["id"] for row in rows])
    return [
        Change(
            id=row["id"],
            digest=row["digest"],
            type=row["type"],
            subject=str(row["summary"].get("subject", "")),
            base=row["base"],
            summary=row["summary"],
            needs=tuple(Need(need["subject"], need["duty"]) for need in row["needs"]),
            requested_by=row["requested_by"],
            requested_at=row["requested_at"],
            state=row["state"],
            decided_at=row["decided_at"],
            blueprint=row["blueprint"],
            approvals=tuple(item for item in found if item.change_id == row["id"]),
            expires_on=row["expires_on"],
            grace_until=row["grace_until"],
            seats=row["seats"],
            reason=row["reason"],
            renews=row["renews"],
        )
        for row in rows
    ]


def _approvals(conn: Connection[Any], changes: list[UUID]) -> list[Approval]:
    rows = select(
        conn,
        """SELECT a.id, a.change_id, a.digest, a.duty, a.subject, a.person_id, p.email AS person, a.decision,
                 a.comment, a.unseparated, a.demo, a.at, a.withdrawn_at, a.proof, p.active AS is_active
               FROM approval a JOIN person p ON p.id = a.person_id WHERE a.change_id = ANY(%s) ORDER BY a.at, a.id""",
        (changes,),
    )
    return [Approval(**row) for row in rows]
