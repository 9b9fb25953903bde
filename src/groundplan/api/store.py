"""The SQL of the control API's own views, which read across the tables of several domains.

It changes nothing but findings: those about duties of people who left, and about crossed budgets.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, date
from typing import Any
from uuid import NAMESPACE_OID, UUID, uuid5

from psycopg import Connection

from groundplan.core.database import select
from groundplan.core.errors import NotFound
from groundplan.core.ids import new_id
from groundplan.identity.model import SUCCESSION

Row = dict[str, Any]
Db = Connection[Any]


def gateways(conn: Db) -> list[Row]:
    """Gateway workers that were heard of within the last ten seconds, oldest first."""
    return select(
        conn,
        """SELECT g.epoch, g.pid, g.blueprint, g.ready, g.policy_ack, g.health,
                  extract(epoch FROM now() - g.heartbeat_at)::float AS silent_s, s.segment, s.position
           FROM gateway g LEFT JOIN shipped s USING (epoch)
           WHERE g.state = 'live' AND g.heartbeat_at > now() - interval '10 seconds' ORDER BY g.started_at, g.epoch""",
    )


def database_problems(conn: Db) -> list[str]:
    """Problems of a database that answers: it is read-only."""
    row = conn.execute("SELECT current_setting('transaction_read_only') = 'on'").fetchone()
    return ["PostgreSQL may not be written to (`groundplan doctor` tells why)"] if row and row[0] else []


def blueprints(conn: Db, limit: int = 100) -> list[Row]:
    """Stored blueprints, newest first, without bodies."""
    return select(
        conn,
        """SELECT number, digest, created_at, created_by, reason, rollback_of, genesis FROM blueprint
           ORDER BY number DESC LIMIT %s""",
        (limit,),
    )


def current_number(conn: Db) -> int | None:
    """The number of the newest blueprint; None before genesis."""
    row = select(conn, "SELECT max(number) AS number FROM blueprint")[0]
    return None if row["number"] is None else int(row["number"])


def blueprint(conn: Db, number: int) -> Row:
    """One blueprint with its body, signature and declared files. Raises `NotFound`."""
    rows = select(conn, "SELECT * FROM blueprint WHERE number = %s", (number,))
    if not rows:
        raise NotFound(
            f"there is no blueprint {number}",
            code="blueprint_unknown",
            hint="`groundplan status` names the one that is served; earlier ones have lower numbers.",
        )
    return rows[0]


def blueprint_days(conn: Db) -> list[Row]:
    """(day, number) of the last blueprint of each day on which one was made, UTC, the oldest first."""
    return select(
        conn,
        """SELECT (created_at AT TIME ZONE 'UTC')::date AS day, max(number) AS number FROM blueprint
           GROUP BY 1 ORDER BY 1""",
    )


def blueprint_digests(conn: Db, numbers: list[int]) -> dict[int, str]:
    """Number -> digest of the blueprints that exist."""
    rows = select(conn, "SELECT number, digest FROM blueprint WHERE number = ANY(%s)", (numbers,))
    return {row["number"]: row["digest"] for row in rows}


def blueprint_file_digests(conn: Db, numbers: list[int]) -> dict[int, str]:
    """Number -> digest of the declared files of a blueprint: the same as before where only a price began."""
    rows = select(conn, "SELECT number, md5(sources::text) AS digest FROM blueprint WHERE number = ANY(%s)", (numbers,))
    return {row["number"]: row["digest"] for row in rows}


def blueprint_bodies(conn: Db, numbers: list[int]) -> Iterator[tuple[str, bytes]]:
    """Yield (digest, body), reading one after another: the blueprints of a year may be gigabytes."""
    for number in numbers:
        for row in select(conn, "SELECT digest, body FROM blueprint WHERE number = %s", (number,)):
            yield row["digest"], row["body"]


def changes(conn: Db, state: str | None = None, limit: int = 100, before: UUID | None = None) -> list[Row]:
    """Requested changes, newest first, without their files; only those requested before the change `before`, if
    given."""
    return select(
        conn,
        """SELECT id, digest, type, base, summary, needs, requested_by, requested_at, state, decided_at, blueprint,
                  expires_on, grace_until, seats, reason, renews
           FROM change WHERE (%(state)s::text IS NULL OR state = %(state)s) AND (%(before)s::uuid IS NULL
             OR (requested_at, id) < (SELECT requested_at, id FROM change WHERE id = %(before)s))
           ORDER BY requested_at DESC, id DESC LIMIT %(limit)s""",
        {"state": state, "before": before, "limit": limit},
    )


def change(conn: Db, change_id: UUID) -> Row:
    """One change with its files. Raises `NotFound`."""
    row = change_or_none(conn, change_id)
    if row is None:
        raise NotFound(
            f"there is no change {change_id}", code="change_unknown", hint="List them: `groundplan changes list`."
        )
    return row


def change_or_none(conn: Db, change_id: UUID) -> Row | None:
    rows = select(conn, "SELECT * FROM change WHERE id = %s", (change_id,))
    return rows[0] if rows else None


def approvals(conn: Db, change_ids: Sequence[UUID]) -> list[Row]:
    """Approvals and refusals of these changes, withdrawn ones included, oldest first, with the person who decided."""
    return select(
        conn,
        """SELECT a.id, a.change_id, a.digest, a.duty, a.subject, a.decision, a.comment, a.unseparated, a.demo, a.at,
                  a.proof, a.withdrawn_at, p.email, p.name, p.active AS here
           FROM approval a JOIN person p ON p.id = a.person_id WHERE a.change_id = ANY(%s) ORDER BY a.at""",
        (list(change_ids),),
    )


_SELECT_KEYS = """SELECT k.id, k.prefix, k.workload, k.acts_for_others, k.created_at, k.created_by,
    k.expires_at, k.revoked_at, k.replaced_by, k.tags, k.networks, k.models, k.budget_usd::text, k.budget_period,
    p.email AS "user",
    CASE WHEN k.revoked_at IS NOT NULL THEN 'revoked' WHEN k.expires_at <= now() THEN 'expired' ELSE 'active' END
      AS state
  FROM api_key k LEFT JOIN person p ON p.id = k.person_id"""


@dataclass(frozen=True, slots=True)
class KeyFilter:
    """Which API keys are listed: `user` is an e-mail address, `active`: only those that are neither revoked nor
    expired."""

    tag: str | None = None
    workload: str | None = None
    user: str | None = None
    active: bool = False


def keys(conn: Db, wanted: KeyFilter, before: UUID | None, limit: int) -> list[Row]:
    """API keys, newest first, without secret and hash, that were created before the key `before`."""
    return select(
        conn,
        _SELECT_KEYS
        + """ WHERE (%(tag)s::text IS NULL OR %(tag)s = ANY(k.tags))
              AND (%(workload)s::text IS NULL OR k.workload = %(workload)s)
              AND (NOT %(active)s OR k.revoked_at IS NULL AND (k.expires_at IS NULL OR k.expires_at > now()))
              AND (%(user)s::text IS NULL OR p.email = lower(%(user)s)) AND (%(before)s::uuid IS NULL
                OR (k.created_at, k.id) < (SELECT created_at, id FROM api_key WHERE id = %(before)s))
              ORDER BY k.created_at DESC, k.id DESC LIMIT %(limit)s""",
        {**asdict(wanted), "before": before, "limit": limit},
    )


def key(conn: Db, key_id: UUID) -> Row:
    """One key as in `keys`. Raises `NotFound`."""
    row = key_or_none(conn, key_id)
    if row is None:
        raise NotFound(f"there is no key {key_id}", code="key_unknown", hint="List them: `groundplan keys list`.")
    return row


def key_or_none(conn: Db, key_id: UUID) -> Row | None:
    rows = select(conn, _SELECT_KEYS + " WHERE k.id = %s", (key_id,))
    return rows[0] if rows else None


def rotated_keys(conn: Db, key_id: UUID) -> list[str]:
    """Ids of the other keys that this key was rotated to or from and that have not ended, also if they are stopped."""
    rows = select(
        conn,
        """SELECT o.id FROM api_key k JOIN api_key o ON coalesce(o.family, o.id) = coalesce(k.family, k.id)
           WHERE k.id = %s AND o.id <> k.id AND o.revoked_at IS NULL AND (o.expires_at IS NULL OR o.expires_at > now())
           ORDER BY o.created_at, o.id""",
        (key_id,),
    )
    return [str(row["id"]) for row in rows]


def kills(conn: Db) -> list[Row]:
    """The kills that are in force, newest first."""
    return select(
        conn,
        "SELECT id, scope, reason, by, at, streams FROM kill_switch WHERE lifted_at IS NULL ORDER BY at DESC, id DESC",
    )


def people(conn: Db, search: str = "", after: str = "", limit: int | None = None) -> list[Row]:
    """People with their groups (transitively) and duties (`duty of subject`), ordered by e-mail address; filtered by
    the words of `search` in address, name or group; at most `limit` that follow the address `after`."""
    return select(
        conn,
        """WITH RECURSIVE mine(person, id) AS (
             SELECT person_id, group_id FROM membership WHERE person_id IS NOT NULL
             UNION SELECT mine.person, m.group_id FROM membership m JOIN mine ON m.member_group_id = mine.id),
           named AS (
             SELECT mine.person, array_agg(g.name ORDER BY g.name) AS groups FROM mine JOIN people_group g USING (id)
             GROUP BY 1),
           held AS (
             SELECT person_id, array_agg(duty || ' of ' || subject ORDER BY subject, duty) AS duties FROM duty
             GROUP BY 1)
           SELECT p.id, p.email, p.name, p.active, p.left_at, coalesce(named.groups, '{}') AS groups,
             coalesce(held.duties, '{}') AS duties
           FROM person p LEFT JOIN named ON named.person = p.id LEFT JOIN held ON held.person_id = p.id
           WHERE p.email > %(after)s AND NOT EXISTS (SELECT 1 FROM unnest(%(words)s::text[]) word
             WHERE strpos(lower(p.email || ' ' || p.name || ' ' || coalesce(array_to_string(named.groups, ' '), '')),
               word) = 0)
           ORDER BY p.email LIMIT %(limit)s""",
        {"words": search.lower().split(), "after": after, "limit": limit},
    )


def person(conn: Db, person_id: UUID) -> Row | None:
    """One person by id, or None."""
    rows = select(conn, "SELECT id, email, name, active FROM person WHERE id = %s", (person_id,))
    return rows[0] if rows else None


def duties_of(conn: Db, person_id: UUID) -> list[tuple[str, str]]:
    """(subject, duty) pairs that a person holds."""
    rows = select(conn, "SELECT subject, duty FROM duty WHERE person_id = %s ORDER BY subject, duty", (person_id,))
    return [(row["subject"], row["duty"]) for row in rows]


def groups(conn: Db) -> list[Row]:
    """Groups and teams with their direct members (e-mail addresses, names of groups)."""
    return select(
        conn,
        """SELECT g.id, g.name, g.type,
                  ARRAY(SELECT coalesce(p.email, m2.name) FROM membership m LEFT JOIN person p ON p.id = m.person_id
                        LEFT JOIN people_group m2 ON m2.id = m.member_group_id
                        WHERE m.group_id = g.id ORDER BY 1) AS members
           FROM people_group g ORDER BY g.name""",
    )


def limit_spans(conn: Db, near: float | None = None) -> list[Row]:
    """The amounts that gateways have taken of each limit in the current spans, without those of the next spans. With
    `near`, spans of single users and keys (whose names end with their ids) are included only from that used share
    on."""
    return select(
        conn,
        """SELECT name, span, amount, granted, CASE WHEN isfinite(ends) THEN ends END AS ends FROM limit_span s
           WHERE ends > now()
             AND (%(near)s::float8 IS NULL OR name NOT LIKE '%%/%%/%%' OR granted >= %(near)s * amount)
             AND NOT EXISTS (SELECT FROM limit_span e WHERE e.name = s.name AND length(e.span) = length(s.span)
                             AND e.ends > now() AND e.ends < s.ends)
           ORDER BY name, span""",
        {"near": near},
    )


def actor_names(conn: Db, ids: Iterable[str]) -> dict[str, str]:
    """Id -> e-mail address of the person, `key PREFIX...` or `experiment NAME`, of the ids that exist."""
    uuids = []
    for id in ids:
        with suppress(ValueError):
            uuids.append(UUID(id))
    rows = select(
        conn,
        """SELECT id::text AS id, email AS name FROM person WHERE id = ANY(%s)
           UNION ALL SELECT id::text, 'key ' || prefix || '...' FROM api_key WHERE id = ANY(%s)
           UNION ALL SELECT id::text, 'experiment ' || name FROM experiment WHERE id = ANY(%s)""",
        (uuids, uuids, uuids),
    )
    return {row["id"]: row["name"] for row in rows}


def update_crossed_budget_findings(conn: Db, crossed: Sequence[tuple[str, str, str]]) -> int:
    """Open or update a finding for each (budget, period, message) and return how many are new. Findings about other
    budgets are closed: their period is over, or their limit was raised."""
    new, finding_ids = 0, []
    for budget, period, message in crossed:
        finding_ids.append(uuid5(NAMESPACE_OID, f"budget_crossed {budget} {period}"))
        row = conn.execute(
            """INSERT INTO finding AS f (id, kind, severity, subject, message, hint)
               VALUES (%s, 'budget_crossed', 'medium', %s, %s, %s)
               ON CONFLICT (id) DO UPDATE SET message = excluded.message, seen_at = now(), closed_at = NULL,
                 closed_reason = NULL
               WHERE f.closed_by IS NULL AND (f.closed_at IS NOT NULL OR f.message <> excluded.message)
               RETURNING xmax = 0""",
            (
                finding_ids[-1],
                f"budget/{budget}",
                message,
                "It is not hard, so nothing is refused. Raise it, make it hard, or ask its owner.",
            ),
        ).fetchone()
        new += row is not None and row[0]
    conn.execute(
        """UPDATE finding SET closed_at = now(), closed_reason = 'no longer holds'
           WHERE closed_at IS NULL AND kind = 'budget_crossed' AND NOT id = ANY(%s)""",
        (finding_ids,),
    )
    return new


def sources(conn: Db) -> list[Row]:
    """Sources with the number of their indexed documents."""
    return select(
        conn,
        """SELECT s.name, s.sensitivity, s.owner, s.path, s.indexed_at,
                  count(d.id) FILTER (WHERE d.deleted_at IS NULL) AS documents,
                  count(d.id) FILTER (WHERE d.deleted_at IS NOT NULL) AS deleted
           FROM source s LEFT JOIN document d ON d.source = s.name GROUP BY s.name ORDER BY s.name""",
    )


def policy_number(conn: Db) -> int:
    """The number of the newest live policy; it is effective once every gateway has acknowledged it."""
    return int(select(conn, "SELECT number FROM policy_epoch")[0]["number"])


def update_departed_owner_findings(conn: Db, today: date) -> int:
    """Bring the findings `owner.left` up to date: one for each duty that only people hold who have left, critical once
    the time to name a successor is over on `today` (UTC). Returns how many changed."""
    rows = select(
        conn,
        """SELECT d.subject, d.duty, p.email, max(p.left_at) OVER (PARTITION BY d.subject, d.duty) AS since
           FROM duty d JOIN person p ON p.id = d.person_id WHERE NOT p.active AND NOT EXISTS (
             SELECT 1 FROM duty o JOIN person q ON q.id = o.person_id AND q.active
             WHERE o.subject = d.subject AND o.duty = d.duty) ORDER BY d.subject, d.duty, p.email""",
    )
    findings = dict(_departure_finding(row, today) for row in rows)
    changed = 0
    opened = {row["message"]: row for row in select(conn, _OPEN_DEPARTURES)}
    for message, (subject, severity, hint) in findings.items():
        finding = opened.get(message)
        if finding is None:
            conn.execute(
                "INSERT INTO finding (id, kind, severity, subject, message, hint) VALUES (%s, %s, %s, %s, %s, %s)",
                (new_id(), "owner.left", severity, subject, message, hint),
            )
        elif finding["severity"] != severity:
            conn.execute("UPDATE finding SET severity = %s, hint = %s WHERE id = %s", (severity, hint, finding["id"]))
        changed += finding is None or finding["severity"] != severity
    closed = [row["id"] for message, row in opened.items() if message not in findings]
    conn.execute("UPDATE finding SET closed_at = now() WHERE id = ANY(%s)", (closed,))
    return changed + len(closed)


_OPEN_DEPARTURES = "SELECT id, message, severity FROM finding WHERE kind = 'owner.left' AND closed_at IS NULL"


def _departure_finding(row: Row, today: date) -> tuple[str, tuple[str, str, str]]:
    """(message, (subject, severity, hint))"""
    subject, duty, last = row["subject"], row["duty"], row["since"].astimezone(UTC).date() + SUCCESSION
    message = f"{row['email']} has left and nobody else holds the duty {duty} of {subject}."
    if last < today:
        hint = f"Since {last} it changes only together with a new owner; it goes on serving. Name one and apply."
        return message, (subject, "critical", hint)
    return message, (subject, "medium", f"It goes on serving. Name somebody else in its owners and apply, by {last}.")
