"""The SQL of temporary rights, service tokens, requests to lift a stop, and access reviews. No rules (`rights.py`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date, datetime
from typing import Any, LiteralString
from uuid import UUID

from psycopg import Connection
from psycopg.types.json import Jsonb

from groundplan.core.audit.entry import person_actor
from groundplan.core.ids import new_id
from groundplan.identity.model import Appointment, Role, ServiceToken
from groundplan.identity.store import execute_counted, fetch_rows

_APPOINTMENT: LiteralString = """SELECT id, person_id, role, reason, begins, ends, made_by, ended_at, ended_by,
    reviewed_at, reviewed_by, review FROM appointment"""
_LIFT_REQUEST: LiteralString = """SELECT w.scope, w.by, w.proven FROM lift_wish w WHERE w.at > ALL (
    SELECT k.at FROM kill_switch k WHERE k.scope = w.scope AND k.lifted_at IS NULL)"""
"""A request to lift counts only if it is newer than every kill in force: its author did not know of later ones."""
_TOKEN: LiteralString = """SELECT id, name, scopes, created_at, created_by, expires_at, revoked_at, used_at
    FROM service_token"""


def insert_appointment(conn: Connection[Any], appointment: Appointment) -> None:
    conn.execute(
        """INSERT INTO appointment (id, person_id, role, reason, begins, ends, made_by)
           VALUES (%s, %s, %s, %s, %s, %s, %s)""",
        (
            appointment.id,
            appointment.person_id,
            appointment.role,
            appointment.reason,
            appointment.begins,
            appointment.ends,
            appointment.made_by,
        ),
    )


def find_appointment(conn: Connection[Any], id: UUID) -> Appointment | None:
    rows = fetch_rows(conn, _APPOINTMENT + " WHERE id = %s FOR UPDATE", (id,))
    return Appointment(*rows[0]) if rows else None


def appointments(conn: Connection[Any], limit: int = 200) -> list[Appointment]:
    """Newest first."""
    return [Appointment(*row) for row in fetch_rows(conn, _APPOINTMENT + " ORDER BY begins DESC LIMIT %s", (limit,))]


def roles_of(conn: Connection[Any], person_id: UUID, now: datetime) -> list[Role]:
    """Roles to which an active person is appointed now."""
    rows = fetch_rows(
        conn,
        """SELECT DISTINCT role FROM appointment WHERE person_id = %s AND begins <= %s AND ends > %s
           AND (ended_at IS NULL OR ended_at > %s) ORDER BY role""",
        (person_id, now, now, now),
    )
    return [role for (role,) in rows]


def end_appointment(conn: Connection[Any], id: UUID, by: str, at: datetime) -> bool:
    query = "UPDATE appointment SET ended_at = %s, ended_by = %s WHERE id = %s AND ended_at IS NULL AND ends > %s"
    return bool(execute_counted(conn, query, (at, by, id, at)))


def save_emergency_review(conn: Connection[Any], id: UUID, by: str, text: str, at: datetime) -> bool:
    query = """UPDATE appointment SET reviewed_at = %s, reviewed_by = %s, review = %s
               WHERE id = %s AND reviewed_at IS NULL"""
    return bool(execute_counted(conn, query, (at, by, text, id)))


def is_present_or_program(conn: Connection[Any], actor: str) -> bool:
    """Whether an actor is no person, or an active one; the person is locked, so that they can leave only after this
    transaction, which ends what it made."""
    kind, _, id = actor.partition(":")
    query: LiteralString = "SELECT FROM person WHERE id = %s::uuid AND active FOR SHARE"
    return kind != "person" or bool(fetch_rows(conn, query, (id,)))


def insert_token(conn: Connection[Any], token: ServiceToken, hash: bytes) -> None:
    conn.execute(
        """INSERT INTO service_token (id, hash, name, scopes, created_at, created_by, expires_at)
           VALUES (%s, %s, %s, %s, %s, %s, %s)""",
        (token.id, hash, token.name, list(token.scopes), token.created_at, token.created_by, token.expires_at),
    )


def tokens(conn: Connection[Any]) -> list[ServiceToken]:
    """Newest first, also those that have ended."""
    return [_token(row) for row in fetch_rows(conn, _TOKEN + " ORDER BY created_at DESC LIMIT 500")]


def responsible_actor(conn: Connection[Any], actor: str) -> str:
    """The actor who is responsible: for a program, the person who made its token; else the actor itself."""
    kind, _, id = actor.partition(":")
    rows = (
        fetch_rows(conn, "SELECT created_by FROM service_token WHERE id::text = %s", (id,)) if kind == "service" else []
    )
    return str(rows[0][0]) if rows else actor


def use_token(conn: Connection[Any], hash: bytes, now: datetime) -> ServiceToken | None:
    """The token with this hash unless it is revoked or expired; `used_at` is updated at most once a minute."""
    rows = fetch_rows(conn, _TOKEN + " WHERE hash = %s AND revoked_at IS NULL AND expires_at > %s", (hash, now))
    if not rows:
        return None
    token = _token(rows[0])
    if token.used_at is None or (now - token.used_at).total_seconds() > 60:
        conn.execute("UPDATE service_token SET used_at = %s WHERE id = %s", (now, token.id))
    return token


def revoke_token(conn: Connection[Any], id: UUID, by: str, at: datetime) -> bool:
    query = "UPDATE service_token SET revoked_at = %s, revoked_by = %s WHERE id = %s AND revoked_at IS NULL"
    return bool(execute_counted(conn, query, (at, by, id)))


def _token(row: tuple[Any, ...]) -> ServiceToken:
    return ServiceToken(row[0], row[1], tuple(row[2]), *row[3:])


def end_rights_of(conn: Connection[Any], person_id: UUID, by: str) -> list[UUID]:
    """End everything that a person who leaves could still use: appointments, requests to lift, and tokens of programs,
    whose secret they know. Returns the ids of those tokens."""
    conn.execute(
        """UPDATE appointment SET ended_at = now(), ended_by = %s
           WHERE person_id = %s AND ended_at IS NULL AND ends > now()""",
        (by, person_id),
    )
    conn.execute("DELETE FROM lift_wish WHERE by = %s", (person_actor(person_id),))
    rows = fetch_rows(
        conn,
        """UPDATE service_token SET revoked_at = now(), revoked_by = %s
           WHERE created_by = %s AND revoked_at IS NULL RETURNING id""",
        (by, person_actor(person_id)),
    )
    return [id for (id,) in rows]


def lift_wish(conn: Connection[Any], scope: str) -> tuple[str, bool] | None:
    """(actor who requested that a scope runs again, whether they proved to be present); None if nobody did."""
    rows = fetch_rows(conn, _LIFT_REQUEST + " AND w.scope = %s", (scope,))
    return (rows[0][1], rows[0][2]) if rows else None


def lift_wishes(conn: Connection[Any]) -> dict[str, tuple[str, bool]]:
    """Scope -> (actor who requested that it runs again, whether they proved to be present)."""
    return {scope: (by, proven) for scope, by, proven in fetch_rows(conn, _LIFT_REQUEST)}


def save_lift_wish(conn: Connection[Any], scope: str, by: str, proven: bool, reason: str) -> None:
    conn.execute(
        """INSERT INTO lift_wish (scope, by, proven, reason) VALUES (%s, %s, %s, %s) ON CONFLICT (scope) DO UPDATE
           SET by = excluded.by, proven = excluded.proven, reason = excluded.reason, at = now()""",
        (scope, by, proven, reason),
    )


def delete_lift_wish(conn: Connection[Any], scope: str) -> None:
    conn.execute("DELETE FROM lift_wish WHERE scope = %s", (scope,))


def insert_access_review(
    conn: Connection[Any], by: str, rights: Sequence[Mapping[str, Any]], removed: Sequence[str], comment: str,
    at: datetime, next: date,
) -> UUID:  # fmt: skip
    id = new_id()
    conn.execute(
        """INSERT INTO access_review (id, at, by, rights, removed, comment, next)
           VALUES (%s, %s, %s, %s, %s, %s, %s)""",
        (id, at, by, Jsonb(list(rights)), Jsonb(list(removed)), comment, next),
    )
    return id


def last_access_review(conn: Connection[Any]) -> tuple[datetime, str, date] | None:
    """(time, reviewer, when the next is due) of the last access review; None if there was none."""
    rows = fetch_rows(conn, "SELECT at, by, next FROM access_review ORDER BY at DESC LIMIT 1")
    return (rows[0][0], rows[0][1], rows[0][2]) if rows else None


def first_person_at(conn: Connection[Any]) -> datetime | None:
    """When the company's first person was added."""
    return fetch_rows(conn, "SELECT min(created_at) FROM person")[0][0]  # type: ignore[no-any-return]


def has_proven_person(conn: Connection[Any]) -> bool:
    """Whether anybody could ever prove to be present, including by a passkey that was removed since, as the operator's
    token can remove all of them."""
    return bool(
        fetch_rows(
            conn,
            """SELECT 1 WHERE EXISTS (SELECT 1 FROM passkey WHERE confirmed_at IS NOT NULL)
                 OR EXISTS (SELECT 1 FROM directory_person WHERE oidc_subject IS NOT NULL)""",
        )
    )
