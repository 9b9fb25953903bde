"""The SQL of identity: people, groups, duties, keys, kills, acknowledgements. No rules and no audit (`service.py`).

Every function runs in the caller's transaction. Sign-in has its own statements (`session_store.py`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, LiteralString
from uuid import UUID

from psycopg import Connection
from psycopg.rows import tuple_row

from groundplan.core.ids import new_id
from groundplan.core.money import from_decimal, to_decimal
from groundplan.identity.model import ApiKey, Duty, GatewayState, Group, GroupType, KeyTerms, Person

_KEY: LiteralString = """SELECT id, prefix, workload, person_id, acts_for_others, created_at, created_by, expires_at,
    revoked_at, coalesce(family, id), replaced_by, tags, networks, models, budget_usd, budget_period FROM api_key"""


def fetch_rows(
    conn: Connection[Any], query: LiteralString, parameters: Sequence[Any] | Mapping[str, Any] = ()
) -> list[tuple[Any, ...]]:
    """All rows of a query as tuples, whatever row factory the connection has."""
    with conn.cursor(row_factory=tuple_row) as cursor:
        return cursor.execute(query, parameters).fetchall()


def execute_counted(conn: Connection[Any], query: LiteralString, parameters: Sequence[Any]) -> int:
    """Execute a statement; returns how many rows it changed."""
    with conn.cursor() as cursor:
        return cursor.execute(query, parameters).rowcount


def next_policy_number(conn: Connection[Any], kind: str, subject: str, stops: bool) -> int:
    """Take the next policy number, and with it the lock on live policy until the transaction ends: call it before any
    check."""
    return int(fetch_rows(conn, "SELECT next_policy_number(%s, %s, %s)", (kind, subject, stops))[0][0])


def clear_answers(conn: Connection[Any], workload: str, by: str) -> int:
    """Delete the cached answers of a workload; returns how often that was done so far."""
    conn.execute("DELETE FROM answer WHERE workload = %s", (workload,))
    rows = fetch_rows(
        conn,
        """INSERT INTO answer_clear AS a (workload, number, by) VALUES (%s, 1, %s)
           ON CONFLICT (workload) DO UPDATE SET number = a.number + 1, at = now(), by = EXCLUDED.by RETURNING number""",
        (workload, by),
    )
    return int(rows[0][0])


# people and groups


def insert_person(conn: Connection[Any], id: UUID, email: str, name: str) -> None:
    conn.execute("INSERT INTO person (id, email, name) VALUES (%s, %s, %s)", (id, email, name))


def people(conn: Connection[Any]) -> list[Person]:
    return [Person(*row) for row in fetch_rows(conn, "SELECT id, email, name, active FROM person ORDER BY email")]


def person(conn: Connection[Any], id: UUID) -> Person | None:
    rows = fetch_rows(conn, "SELECT id, email, name, active FROM person WHERE id = %s", (id,))
    return Person(*rows[0]) if rows else None


def active_emails(conn: Connection[Any], emails: Sequence[str]) -> set[str]:
    """Those of these addresses that belong to active people."""
    rows = fetch_rows(conn, "SELECT email FROM person WHERE email = ANY(%s) AND active", (list(emails),))
    return {email for (email,) in rows}


def usable_key_lines(conn: Connection[Any], ids: Sequence[UUID]) -> dict[UUID | None, bool]:
    """For each of these keys that exists or existed: whether any key of its line (made by rotations) may be used."""
    rows = fetch_rows(
        conn,
        """SELECT k.id, EXISTS (SELECT FROM api_key o WHERE coalesce(o.family, o.id) = coalesce(k.family, k.id)
             AND o.revoked_at IS NULL) FROM api_key k WHERE k.id = ANY(%s)""",
        (list(ids),),
    )
    return dict(rows)


def person_by_email(conn: Connection[Any], email: str) -> Person | None:
    rows = fetch_rows(conn, "SELECT id, email, name, active FROM person WHERE email = %s", (email,))
    return Person(*rows[0]) if rows else None


def mark_left(conn: Connection[Any], id: UUID) -> bool:
    return bool(
        execute_counted(conn, "UPDATE person SET active = false, left_at = now() WHERE id = %s AND active", (id,))
    )


def departures(conn: Connection[Any]) -> dict[str, datetime]:
    """When each former member left, by e-mail address."""
    return dict(fetch_rows(conn, "SELECT email, left_at FROM person WHERE NOT active AND left_at IS NOT NULL"))


def insert_group(conn: Connection[Any], name: str, type: GroupType) -> UUID:
    id = new_id()
    conn.execute("INSERT INTO people_group (id, name, type) VALUES (%s, %s, %s)", (id, name, type))
    return id


def group_id(conn: Connection[Any], name: str) -> UUID | None:
    rows = fetch_rows(conn, "SELECT id FROM people_group WHERE name = %s", (name,))
    return rows[0][0] if rows else None


def groups(conn: Connection[Any]) -> list[Group]:
    rows = fetch_rows(
        conn,
        """SELECT g.id, g.name, g.type,
             coalesce(array_agg(p.email ORDER BY p.email) FILTER (WHERE p.id IS NOT NULL), '{}'),
             coalesce(array_agg(c.name ORDER BY c.name) FILTER (WHERE c.id IS NOT NULL), '{}')
           FROM people_group g LEFT JOIN membership m ON m.group_id = g.id
             LEFT JOIN person p ON p.id = m.person_id LEFT JOIN people_group c ON c.id = m.member_group_id
           GROUP BY g.id ORDER BY g.name""",
    )
    return [Group(id, name, type, tuple(emails), tuple(names)) for id, name, type, emails, names in rows]


def insert_membership(conn: Connection[Any], group: UUID, person_id: UUID | None, member: UUID | None) -> UUID | None:
    """Insert a membership; returns its id, or None if it exists already."""
    rows = fetch_rows(
        conn,
        """INSERT INTO membership (id, group_id, person_id, member_group_id) VALUES (%s, %s, %s, %s)
           ON CONFLICT (group_id, person_id, member_group_id) DO NOTHING RETURNING id""",
        (new_id(), group, person_id, member),
    )
    return rows[0][0] if rows else None


def delete_membership(conn: Connection[Any], group: UUID, person_id: UUID | None, member: UUID | None) -> UUID | None:
    rows = fetch_rows(
        conn,
        """DELETE FROM membership WHERE group_id = %s AND person_id IS NOT DISTINCT FROM %s
           AND member_group_id IS NOT DISTINCT FROM %s RETURNING id""",
        (group, person_id, member),
    )
    return rows[0][0] if rows else None


def group_contains(conn: Connection[Any], outer: UUID, inner: UUID) -> bool:
    """Whether the group `inner` is `outer` or a member of it, however deep."""
    return bool(
        fetch_rows(
            conn,
            """WITH RECURSIVE below(id) AS (
                 SELECT %s::uuid
                 UNION SELECT m.member_group_id FROM membership m JOIN below ON m.group_id = below.id
                 WHERE m.member_group_id IS NOT NULL)
               SELECT 1 FROM below WHERE id = %s""",
            (outer, inner),
        )
    )


def reader_names(conn: Connection[Any], person_id: UUID) -> frozenset[str]:
    """The names that permissions may know a person by: groups and teams (nested), `everyone`, the email address."""
    return frozenset(name for (name,) in fetch_rows(conn, "SELECT reader_names(%s)", (person_id,)))


# duties


def duties(conn: Connection[Any], subject: str | None = None, person_id: UUID | None = None) -> list[Duty]:
    rows = fetch_rows(
        conn,
        """SELECT d.subject, d.duty, p.id, p.email, p.name, p.active FROM duty d JOIN person p ON p.id = d.person_id
           WHERE (%s::text IS NULL OR d.subject = %s) AND (%s::uuid IS NULL OR p.id = %s)
           ORDER BY d.subject, d.duty, p.email""",
        (subject, subject, person_id, person_id),
    )
    return [Duty(of, duty, Person(*person_row)) for of, duty, *person_row in rows]


def insert_duty(conn: Connection[Any], subject: str, duty: str, person_id: UUID) -> None:
    conn.execute("INSERT INTO duty (subject, duty, person_id) VALUES (%s, %s, %s)", (subject, duty, person_id))


def save_handover(conn: Connection[Any], person_id: UUID, to_id: UUID, by: str) -> None:
    conn.execute(
        """INSERT INTO handover (person_id, to_id, by) VALUES (%s, %s, %s)
           ON CONFLICT (person_id) DO UPDATE SET to_id = excluded.to_id, by = excluded.by, at = now()""",
        (person_id, to_id, by),
    )


def successor(conn: Connection[Any], email: str) -> str | None:
    """Address of the active person who took over from somebody who has left; None if nobody did or nobody left."""
    rows = fetch_rows(
        conn,
        """SELECT t.email FROM handover h JOIN person p ON p.id = h.person_id JOIN person t ON t.id = h.to_id
           WHERE p.email = %s AND NOT p.active AND t.active""",
        (email,),
    )
    return rows[0][0] if rows else None


def delete_duties(conn: Connection[Any], subject: str) -> None:
    conn.execute("DELETE FROM duty WHERE subject = %s", (subject,))


# keys and kills


def insert_key(conn: Connection[Any], key: ApiKey, hash: bytes) -> None:
    conn.execute(
        """INSERT INTO api_key (id, hash, prefix, workload, person_id, acts_for_others, created_at, created_by,
             expires_at, family, tags, networks, models, budget_usd, budget_period)
           VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)""",
        (
            key.id,
            hash,
            key.prefix,
            key.workload,
            key.person_id,
            key.acts_for_others,
            key.created_at,
            key.created_by,
            key.expires_at,
            key.family,
            list(key.terms.tags),
            list(key.terms.networks),
            list(key.terms.models),
            None if key.terms.budget is None else to_decimal(key.terms.budget),
            key.terms.budget_period,
        ),
    )


def api_key(conn: Connection[Any], id: UUID) -> ApiKey | None:
    rows = fetch_rows(conn, _KEY + " WHERE id = %s", (id,))
    return _api_key(rows[0]) if rows else None


def _api_key(row: tuple[Any, ...]) -> ApiKey:
    tags, networks, models, budget, period = row[11:]
    amount = None if budget is None else from_decimal(budget)
    terms = KeyTerms(row[4], tuple(tags), tuple(networks), tuple(models), amount, period)
    id, prefix, workload, person, acts_for_others, created_at, by, expires, revoked, family, replaced = row[:11]
    return ApiKey(
        id, prefix, workload, person, acts_for_others, created_at, by, expires, revoked, family, replaced, terms
    )


def replace_key(conn: Connection[Any], old: UUID, new: UUID, ends: datetime) -> None:
    """The old key ends at `ends`, or before where it would have ended anyway."""
    conn.execute(
        "UPDATE api_key SET replaced_by = %s, expires_at = least(expires_at, %s) WHERE id = %s", (new, ends, old)
    )


def mark_revoked(conn: Connection[Any], id: UUID) -> bool:
    return bool(
        execute_counted(conn, "UPDATE api_key SET revoked_at = now() WHERE id = %s AND revoked_at IS NULL", (id,))
    )


def revoke_keys_of(conn: Connection[Any], person_id: UUID) -> list[UUID]:
    rows = fetch_rows(
        conn,
        "UPDATE api_key SET revoked_at = now() WHERE person_id = %s AND revoked_at IS NULL RETURNING id",
        (person_id,),
    )
    return [id for (id,) in rows]


def insert_kill(conn: Connection[Any], scope: str, reason: str, by: str, *, streams: bool) -> UUID:
    id = new_id()
    conn.execute(
        "INSERT INTO kill_switch (id, scope, reason, by, streams) VALUES (%s, %s, %s, %s, %s)",
        (id, scope, reason, by, streams),
    )
    return id


def stopped_scopes(conn: Connection[Any]) -> set[str]:
    """Scopes of the kills that are in force."""
    return {scope for (scope,) in fetch_rows(conn, "SELECT DISTINCT scope FROM kill_switch WHERE lifted_at IS NULL")}


def stopped_keys_of_line(conn: Connection[Any], id: UUID) -> list[UUID]:
    """The keys that kills in force name, among this key and all others of its line of rotations."""
    query: LiteralString = """SELECT DISTINCT o.id FROM api_key k
        JOIN api_key o ON coalesce(o.family, o.id) = coalesce(k.family, k.id)
        JOIN kill_switch s ON s.scope = 'key/' || o.id
        WHERE k.id = %s AND s.lifted_at IS NULL ORDER BY o.id"""
    return [stopped for (stopped,) in fetch_rows(conn, query, (id,))]


def lift_kills(conn: Connection[Any], scope: str, by: str) -> list[UUID]:
    """Lift the kills of this scope that are in force; returns their ids."""
    query: LiteralString = """UPDATE kill_switch SET lifted_at = now(), lifted_by = %s
        WHERE scope = %s AND lifted_at IS NULL RETURNING id"""
    return [id for (id,) in fetch_rows(conn, query, (by, scope))]


# gateways


def live_gateways(conn: Connection[Any], lease_s: float, grace_s: float) -> tuple[datetime, list[GatewayState]]:
    """(the database's time, the workers that are neither stopped nor fenced). One whose heartbeat is a minute
    ahead of that time was not heard of since the clock was set back: it may serve as if it had been just now."""
    now: datetime = fetch_rows(conn, "SELECT clock_timestamp()")[0][0]
    rows = fetch_rows(
        conn,
        """SELECT epoch, host, pid, policy_ack, blueprint, heartbeat_at,
             %(now)s - heartbeat_at BETWEEN interval '-1 minute' AND lease, least(heartbeat_at, %(now)s) + lease + grace
           FROM gateway, make_interval(secs => %(lease)s) AS lease, make_interval(secs => %(grace)s) AS grace
           WHERE state = 'live' ORDER BY epoch""",
        {"now": now, "lease": lease_s, "grace": grace_s},
    )
    return now, [GatewayState(*row) for row in rows]


def fence_silent(conn: Connection[Any], seconds: float) -> list[UUID]:
    """Fence the workers without a heartbeat for so long, and free their slots of limits on concurrent calls; returns
    their epochs. A heartbeat that is ahead, since the clock was set back, is taken to be of now: otherwise a worker
    that is gone would be waited for until the clock has caught up."""
    conn.execute("UPDATE gateway SET heartbeat_at = now() WHERE heartbeat_at > now() + interval '2 seconds'")
    rows = fetch_rows(
        conn,
        """UPDATE gateway SET state = 'fenced', ready = false
           WHERE state = 'live' AND heartbeat_at < now() - make_interval(secs => %s) RETURNING epoch""",
        (seconds,),
    )
    epochs = [epoch for (epoch,) in rows]
    # all slots are locked in one order, the one in which workers take several, too
    conn.execute(
        """SELECT FROM limit_span WHERE span = 'now' AND name IN (
             SELECT s.name FROM limit_slice s WHERE s.epoch = ANY(%s) AND s.span = 'now' AND NOT s.closed)
           ORDER BY name COLLATE "C" FOR UPDATE""",
        (epochs,),
    )
    for epoch in epochs:
        conn.execute("SELECT close_limits(%s)", (epoch,))
    return epochs


def person_names(conn: Connection[Any], ids: Sequence[UUID]) -> dict[UUID, str]:
    """The names of these people, also of those who have left."""
    return dict(fetch_rows(conn, "SELECT id, name FROM person WHERE id = ANY(%s)", (list(ids),)))
