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
"""The standing of a document `d` for all workloads: `approved`, or the reason why it is withheld from all, in the words
of `withheld_reason()`."""
_COLUMNS: Final[LiteralString] = f"""{STANDING} AS standing,
  d.id, d.source, d.path, d.title, d.digest, d.version, d.modified_at, d.review_by, d.state, d.sensitivity,
  d.owner, d.steward, d.purposes, d.workloads, d.residency, d.licence, d.valid_from, d.valid_until, d.review_days,
  d.retain_until, d.legal_hold, d.quality, d.scanned_at, d.personal, d.origins, d.decided, d.declared, d.media, d.bytes,
  d.lines, d.notes, d.superseded_by, d.deleted_at, d.supersedes"""


def read_document(conn: Conn, document: UUID, *, lock: bool = False) -> dict[str, Any] | None:
    """A document with its effective values, deleted or not; None if there is none. `lock`: nobody else can change it or
    decide about it until the end of the transaction."""
    if lock:
        # in this order, like every writer of documents: else the two would deadlock
        conn.execute("SELECT pg_advisory_xact_lock(%s)", (CHANGE_LOCK,))
    with conn.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(
            f"SELECT {_COLUMNS} FROM document d WHERE d.id = %s" + (" FOR UPDATE" if lock else ""), (document,)
        ).fetchone()


def put_decisions(conn: Conn, document: UUID, decided: Mapping[str, Any], values: Mapping[str, Any]) -> None:
    """Store the decisions and the columns that apply now, and notify the index. The document must be locked by
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
    """Whether `other` replaces this document, directly or by others in between."""
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
    """The versions of a document, newest first."""
    return select(
        conn,
        """SELECT version, at, title, digest FROM document_version WHERE document_id = %s
               ORDER BY version DESC LIMIT 100""",
        (document,),
    )


MAX_PEOPLE: Final = 500
"""Most people that are listed as readers of a document."""


def who_may_read(conn: Conn, document: UUID, limit: int = MAX_PEOPLE) -> list[dict[str, Any]]:
    """The active people who may read a document, ordered by address: `by`: the matching reader entries; `through`: the
    groups on the path to each; `grants`: the grants on its source that apply. People who are denied are left out."""
    rows = select(
        conn,
        # people in order of their addresses: those beyond the limit cost nothing, and names are computed once a person
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
        (document, limit),
    )
    paths = _group_paths(conn, [row["id"] for row in rows])
    return [
        {
            "email": row["email"], "name": row["name"], "by": row["by"],
            "through": {reader: way for reader in row["by"] if (way := paths.get((row["id"], reader)))},
            "grants": [
                {"to": to, "through": paths.get((row["id"], to), [])}
                for to in row["granted"]
                if any(reader.startswith("source/") for reader in row["by"])
            ],
        }
        for row in rows
    ]  # fmt: skip


def _group_paths(conn: Conn, people: Sequence[UUID]) -> dict[tuple[UUID, str], list[str]]:
    """(person, group) -> the groups on the shortest path from one to the other, the last being that group. Each
    membership is followed once, since heavily nested groups have an exponential number of paths."""
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
    """Name of each reachable group -> the names on the shortest path to it."""
    found: dict[str, list[str]] = {}
    queue: list[tuple[UUID, list[str]]] = [(start, [])]
    known = {start}
    for node, path in queue:
        for group, name in above.get(node, ()):
            if group not in known:
                known.add(group)
                found.setdefault(name, [*path, name])
                queue.append((group, [*path, name]))
    return found


def why_readable(conn: Conn, document: UUID, person: UUID) -> dict[str, Any]:
    """`readable`, and `by`: the reader entries of a document that match a person, allowing or denying, with the groups
    on the path to each; for a grant on its source, the path to its holder."""
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
    paths = _group_paths(conn, [person])
    entries = [
        {"reader": reader, "refuses": deny, "through": paths.get((person, reader if to is None else to), [])}
        | ({} if to is None else {"grant": {"to": to, "until": until.isoformat() if until else None}})
        for reader, deny, to, until in rows
    ]
    return {"readable": bool(entries) and not any(each["refuses"] for each in entries), "by": entries}


def readable_at(conn: Conn, person: UUID, places: Sequence[tuple[str, str]]) -> set[tuple[str, str]]:
    """Those of the (source, path) places whose documents a person may read now."""
    rows = conn.execute(
        """SELECT d.source, d.path FROM unnest(%s::text[], %s::text[]) AS p(source, path)
             JOIN document d ON d.source = p.source AND d.path = p.path AND d.deleted_at IS NULL
           WHERE d.acl = ANY (acls_of(%s))""",
        ([source for source, _ in places], [path for _, path in places], person),
    )
    return set(rows.fetchall())


def withheld_reason(conn: Conn, document: UUID, workload: str) -> str | None:
    """The reason, in one word, why a document is not retrieved for a workload; None if it is."""
    row = conn.execute("SELECT kept_back(d, %s) FROM document d WHERE d.id = %s", (workload, document)).fetchone()
    return None if row is None else row[0]
