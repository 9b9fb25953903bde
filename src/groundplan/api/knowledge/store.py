"""The SQL of sources and documents for the control API. No text of a document is read here."""

from __future__ import annotations

from typing import Any

from psycopg import Connection

from groundplan.api.knowledge.ownership_store import OWN, ownership_parameters
from groundplan.core.database import select
from groundplan.knowledge.governance.governed_store import STANDING

Conn = Connection[Any]
Row = dict[str, Any]
_PERSONAL = """(d.deleted_at IS NULL AND d.sensitivity IN ('public', 'internal') AND EXISTS (
  SELECT FROM jsonb_object_keys(d.personal) AS k(name) WHERE NOT starts_with(k.name, '!')))"""
"""Kinds that begin with `!` are secrets."""


def sources(conn: Conn) -> list[Row]:
    """Sources with their indexed documents, health, and open findings."""
    return select(
        conn,
        f"""SELECT s.name, s.type, s.path, s.sensitivity, s.owner, s.steward, s.state, s.purposes,
             s.workloads, s.residency, s.licence, s.review_days, s.retain_days, s.legal_hold, s.erase_days,
             s.health, s.health_reason, s.progress,
             s.indexed_at, s.quality, count(d.id) FILTER (WHERE d.deleted_at IS NULL) AS documents,
             count(d.id) FILTER (WHERE d.deleted_at IS NOT NULL) AS deleted,
             count(d.id) FILTER (WHERE {STANDING} NOT IN ('approved', 'deleted')) AS kept_back,
             count(d.id) FILTER (WHERE d.deleted_at IS NULL AND d.scanned_at IS NULL) AS unscanned,
             coalesce(f.findings, 0) AS findings
           FROM source s LEFT JOIN document d ON d.source = s.name LEFT JOIN (
             SELECT split_part(subject, '/', 2) AS source, count(*) AS findings FROM finding
             WHERE closed_at IS NULL AND kind LIKE 'knowledge.%%' AND (quiet_until IS NULL OR quiet_until <= now())
               AND starts_with(subject, 'source/') GROUP BY 1) f ON f.source = s.name
           GROUP BY s.name, f.findings ORDER BY s.name""",
    )


def restricted_documents(conn: Conn, documents: list[str]) -> list[str]:
    """Ids of those documents that are restricted, sorted."""
    query = "SELECT id::text FROM document WHERE id = ANY(%s::uuid[]) AND sensitivity = 'restricted' ORDER BY id"
    return [row["id"] for row in select(conn, query, (documents,))]


def documents(
    conn: Conn, source: str | None = None, state: str | None = None, text: str | None = None, limit: int = 500, *,
    path: str | None = None, after: tuple[str, str] | None = None, who: str | None = None,
    holds: str | None = None,
) -> list[Row]:  # fmt: skip
    """Documents ordered by source and path. Filters: `text` in title or path; `state`, or `kept back`; exact `path`;
    after the document `after` (source, path); `who`: e-mail address of an owner or steward; `holds`: `personal_data`
    for public and internal documents that contain some."""
    holds_condition = "" if holds is None else f"AND {_PERSONAL}"
    owner_condition = "" if who is None else f"AND {OWN}"
    behind = after or (None, None)
    return select(
        conn,
        f"""SELECT d.id, d.source, d.path, d.title, d.version, d.modified_at, d.deleted_at, d.superseded_by, d.state,
             {STANDING} AS standing, d.sensitivity, d.owner, d.steward, d.quality, d.legal_hold, d.review_by,
             d.valid_until, d.media,
             d.scanned_at IS NOT NULL AS scanned,
             ARRAY(SELECT CASE WHEN r.deny THEN 'not ' ELSE '' END || r.reader FROM (
                     SELECT n.reader, n.deny FROM document_reader n
                       WHERE n.document_id = d.id AND n.reader <> 'source/' || d.source
                     UNION SELECT g.reader, false FROM document_reader n
                       JOIN source_grant g ON g.source = d.source AND n.reader = 'source/' || g.source
                       WHERE n.document_id = d.id
                         AND (g.until IS NULL OR g.until >= (now() AT TIME ZONE 'UTC')::date)
                   ) r ORDER BY r.deny, r.reader) AS readers
           FROM document d
           WHERE (%(source)s::text IS NULL OR d.source = %(source)s)
             AND (%(state)s::text IS NULL OR {STANDING} = %(state)s
               OR (%(state)s = 'kept back' AND {STANDING} NOT IN ('approved', 'deleted')))
             AND (%(text)s::text IS NULL OR position(lower(%(text)s) IN lower(d.title || ' ' || d.path)) > 0)
             AND (%(path)s::text IS NULL OR d.path = %(path)s)
             AND (%(behind)s::text IS NULL OR (d.source, d.path) > (%(behind)s, %(behind_path)s))
             {owner_condition} {holds_condition}
           ORDER BY d.source, d.path LIMIT %(limit)s""",
        {
            **({} if who is None else ownership_parameters(who)),
            "source": source,
            "state": state,
            "text": text or None,
            "limit": limit,
            "path": path,
            "behind": behind[0],
            "behind_path": behind[1],
        },
    )


def readers(conn: Conn, document: Any) -> list[Row]:
    return select(
        conn,
        """SELECT reader, deny FROM document_reader WHERE document_id = %(document)s
           UNION ALL SELECT t.reader, false FROM link_reader t JOIN shared_link l ON 'link/' || l.name = t.reader
             WHERE t.document_id = %(document)s AND l.withdrawn_at IS NULL
               AND (l.until IS NULL OR l.until >= (now() AT TIME ZONE 'UTC')::date)
           ORDER BY deny, reader""",
        {"document": document},
    )


def document_title(conn: Conn, document: Any) -> Row | None:
    rows = select(
        conn, "SELECT id, title, path, source FROM document WHERE id = %s AND deleted_at IS NULL", (document,)
    )
    return rows[0] if rows else None


def source_owners(conn: Conn, source: str) -> set[str]:
    """Addresses of the owner and steward of a source."""
    rows = conn.execute("SELECT owner, steward FROM source WHERE name = %s", (source,)).fetchall()
    return {email for row in rows for email in row if email}


def person_emails(conn: Conn, actors: list[str]) -> dict[str, str]:
    """`person:ID` -> e-mail address, for people who exist."""
    ids = [actor.removeprefix("person:") for actor in actors if actor.startswith("person:")]
    rows = select(conn, "SELECT id::text, email FROM person WHERE id = ANY(%s::uuid[])", (ids,))
    return {f"person:{row['id']}": row["email"] for row in rows}
