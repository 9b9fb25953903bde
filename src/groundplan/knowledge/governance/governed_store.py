"""The SQL of decisions about documents and sources, as role control."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, LiteralString
from uuid import UUID

from psycopg import Connection
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb

from groundplan.core.database import select
from groundplan.knowledge.store import CHANGE_LOCK

Conn = Connection[Any]

STANDING: Final[LiteralString] = """CASE WHEN d.deleted_at IS NOT NULL THEN 'deleted'
  WHEN d.superseded_by IS NOT NULL THEN 'superseded' WHEN d.state <> 'approved' THEN d.state
  WHEN d.valid_from > (now() AT TIME ZONE 'UTC')::date THEN 'not_yet_valid'
  WHEN d.valid_until < (now() AT TIME ZONE 'UTC')::date THEN 'expired' ELSE 'approved' END"""
"""How a document `d` stands for every workload: `approved`, or why it is given to none, as `withheld_reason()` says
it."""
_COLUMNS: Final[LiteralString] = f"""{STANDING} AS standing,
  d.id, d.source, d.path, d.title, d.digest, d.version, d.modified_at, d.review_by, d.state, d.sensitivity,
  d.owner, d.steward, d.purposes, d.workloads, d.residency, d.licence, d.valid_from, d.valid_until, d.review_days,
  d.retain_until, d.legal_hold, d.quality, d.scanned_at, d.personal, d.origins, d.decided, d.declared, d.media, d.bytes,
  d.lines, d.notes, d.superseded_by, d.deleted_at, d.supersedes"""


def read_document(conn: Conn, document: UUID, *, lock: bool = False) -> dict[str, Any] | None:
    """A document with everything that holds for it, deleted or not. `lock`: nobody changes it, or decides about it,
    until the end of the transaction."""
    if lock:
        # in this order, as whoever writes documents takes them: else the two would wait for each other
        conn.execute("SELECT pg_advisory_xact_lock(%s)", (CHANGE_LOCK,))
    with conn.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(
            f"SELECT {_COLUMNS} FROM document d WHERE d.id = %s" + (" FOR UPDATE" if lock else ""), (document,)
        ).fetchone()


def put_decisions(conn: Conn, document: UUID, decided: Mapping[str, Any], values: Mapping[str, Any]) -> None:
    """What was decided, and the columns that hold now; the index is told. Of a document that was locked by
    `read_document`."""
    sets = ", ".join(f"{name} = %({name})s" for name in values)
    conn.execute(
        f"""UPDATE document SET decided = %(decided)s, noted = nextval('chunk_change'), settled = ''
              {", " if sets else ""}{sets} WHERE id = %(id)s""",
        {**values, "decided": Jsonb(dict(decided)), "id": document},
    )
    conn.execute("SELECT pg_notify('groundplan_chunks', '')")


def put_origin(conn: Conn, document: UUID, name: str, origin: Mapping[str, Any]) -> None:
    conn.execute("UPDATE document SET origins = origins || %s WHERE id = %s", (Jsonb({name: dict(origin)}), document))


def is_replaced_by(conn: Conn, document: UUID, other: UUID) -> bool:
    """Whether another document stands in the place of this one, or of one that does."""
    row = conn.execute(
        """WITH RECURSIVE newer AS (
             SELECT superseded_by AS id FROM document WHERE id = %(document)s
             UNION SELECT d.superseded_by FROM document d JOIN newer n ON d.id = n.id)
           SELECT EXISTS (SELECT FROM newer WHERE id = %(other)s)""",
        {"document": document, "other": other},
    ).fetchone()
    return row is not None and bool(row[0])


def set_superseded(conn: Conn, document: UUID, by: UUID | None) -> None:
    conn.execute("UPDATE document SET superseded_by = %s WHERE id = %s", (by, document))


def list_versions(conn: Conn, document: UUID) -> list[dict[str, Any]]:
    """The newest first."""
    return select(
        conn,
        """SELECT version, at, title, digest FROM document_version WHERE document_id = %s
               ORDER BY version DESC LIMIT 100""",
        (document,),
    )


MAX_PEOPLE: Final = 500
"""Who may read a document: so many are told."""


def who_may_read(conn: Conn, document: UUID, most: int = MAX_PEOPLE) -> list[dict[str, Any]]:
    """Each active person who may read it, by which of its readers, and the groups on the way to each of those; of a
    grant on its source to whom it was given. Refusals are left out. The first `most` by their addresses."""
    rows = select(
        conn,
        # one after the other by their addresses: whoever is not told costs nothing, and nobody's names are worked out
        # twice
        """SELECT p.id, p.email, p.name, x.by, ARRAY(SELECT g.reader FROM source_grant g
                   WHERE g.source = d.source AND g.reader = ANY (mine.names)
                     AND (g.until IS NULL OR g.until >= (now() AT TIME ZONE 'UTC')::date) ORDER BY g.reader) AS granted
               FROM document d
                 CROSS JOIN LATERAL (SELECT * FROM person WHERE active ORDER BY email OFFSET 0) p
                 CROSS JOIN LATERAL (SELECT names_of(p.id) AS names OFFSET 0) mine
                 CROSS JOIN LATERAL (
                   SELECT array_agg(DISTINCT r.reader ORDER BY r.reader) AS by FROM (
                     SELECT reader FROM document_reader WHERE document_id = d.id AND NOT deny
                     UNION ALL SELECT reader FROM link_reader WHERE document_id = d.id) r
                   WHERE (r.reader = 'source/' || d.source OR NOT starts_with(r.reader, 'source/'))
                     AND r.reader = ANY (mine.names)) x
               WHERE d.id = %s AND x.by IS NOT NULL AND NOT EXISTS (SELECT 1 FROM document_reader n
                 WHERE n.document_id = d.id AND n.deny AND n.reader = ANY (mine.names))
               ORDER BY p.email LIMIT %s""",
        (document, most),
    )
    ways = _group_paths(conn, [row["id"] for row in rows])
    return [
        {
            "email": row["email"], "name": row["name"], "by": row["by"],
            "through": {reader: way for reader in row["by"] if (way := ways.get((row["id"], reader)))},
            "grants": [
                {"to": to, "through": ways.get((row["id"], to), [])}
                for to in row["granted"]
                if any(reader.startswith("source/") for reader in row["by"])
            ],
        }
        for row in rows
    ]  # fmt: skip


def _group_paths(conn: Conn, people: Sequence[UUID]) -> dict[tuple[UUID, str], list[str]]:
    """(person, group) -> the groups on the shortest way from one to the other, the last being that group. Each
    membership is followed once: groups that are nested in one another many times over have ways without number."""
    rows = conn.execute(
        """WITH RECURSIVE above(person, member, id) AS (
             SELECT m.person_id, NULL::uuid, m.group_id FROM membership m WHERE m.person_id = ANY(%s)
             UNION
             SELECT NULL, m.member_group_id, m.group_id FROM above a JOIN membership m ON m.member_group_id = a.id)
           SELECT a.person, a.member, a.id, g.name FROM above a JOIN people_group g ON g.id = a.id ORDER BY g.name""",
        (list(people),),
    ).fetchall()
    above: dict[UUID, list[tuple[UUID, str]]] = {}
    for person, member, group, name in rows:
        above.setdefault(person or member, []).append((group, name))
    return {(person, name): way for person in people for name, way in _shortest_paths(above, person).items()}


def _shortest_paths(above: Mapping[UUID, Sequence[tuple[UUID, str]]], start: UUID) -> dict[str, list[str]]:
    """By the name of each group that is reached: the names on the shortest way to it."""
    found: dict[str, list[str]] = {}
    waiting: list[tuple[UUID, list[str]]] = [(start, [])]
    known = {start}
    for at, way in waiting:
        for group, name in above.get(at, ()):
            if group not in known:
                known.add(group)
                found.setdefault(name, [*way, name])
                waiting.append((group, [*way, name]))
    return found


def why_readable(conn: Conn, document: UUID, person: UUID) -> dict[str, Any]:
    """The readers of a document that a person is, allowed and refused, and the groups on the way to each; for a grant
    on its source, to whoever has it."""
    rows = conn.execute(
        """SELECT r.reader, r.deny, g.reader, g.until FROM (
               SELECT document_id, reader, deny FROM document_reader
               UNION ALL SELECT document_id, reader, false FROM link_reader) r
             JOIN document d ON d.id = r.document_id
               AND (NOT starts_with(r.reader, 'source/') OR (r.reader = 'source/' || d.source AND NOT r.deny))
             LEFT JOIN source_grant g ON r.reader = 'source/' || g.source
               AND g.reader IN (SELECT reading_names(%(who)s))
               AND (g.until IS NULL OR g.until >= (now() AT TIME ZONE 'UTC')::date)
             WHERE r.document_id = %(document)s AND r.reader IN (SELECT reading_names(%(who)s))
             ORDER BY r.deny DESC, r.reader, g.reader""",
        {"document": document, "who": person},
    ).fetchall()
    ways = _group_paths(conn, [person])
    told = [
        {"reader": reader, "refuses": deny, "through": ways.get((person, reader if to is None else to), [])}
        | ({} if to is None else {"grant": {"to": to, "until": until.isoformat() if until else None}})
        for reader, deny, to, until in rows
    ]
    return {"readable": bool(told) and not any(each["refuses"] for each in told), "by": told}


def readable_at(conn: Conn, person: UUID, places: Sequence[tuple[str, str]]) -> set[tuple[str, str]]:
    """Those of the (source, path) where a document stands that somebody may read now."""
    rows = conn.execute(
        """SELECT d.source, d.path FROM unnest(%s::text[], %s::text[]) AS p(source, path)
             JOIN document d ON d.source = p.source AND d.path = p.path AND d.deleted_at IS NULL
           WHERE d.acl = ANY (acls_of(%s))""",
        ([source for source, _ in places], [path for _, path in places], person),
    )
    return set(rows.fetchall())


def withheld_reason(conn: Conn, document: UUID, workload: str) -> str | None:
    """In one word why it is not retrieved for a workload; None where it is."""
    row = conn.execute("SELECT kept_back(d, %s) FROM document d WHERE d.id = %s", (workload, document)).fetchone()
    return None if row is None else row[0]
