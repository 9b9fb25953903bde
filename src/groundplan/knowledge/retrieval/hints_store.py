"""The SQL of what is told besides passages, as role `search`: documents in conflict, and newer ones than what matches.

In the transaction of the search, so under the same row-level security: nobody is told of a document that they may not
read, or that is of none of the sources that are searched, and of a newer one only where the workload may use it, or
could if it held now.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from psycopg import Connection
from psycopg.rows import class_row

from groundplan.knowledge.retrieval.search_store import WHERE_SQL, where_parameters
from groundplan.knowledge.retrieval.wire import Conflict, Newer, Where

Conn = Connection[Any]


def conflicts(conn: Conn, documents: Sequence[UUID], sources: Sequence[str]) -> list[Conflict]:
    """What these documents and others of these sources that the person may read say differently, `document` being one
    of them."""
    with conn.cursor(row_factory=class_row(Conflict)) as cursor:
        return cursor.execute(
            """SELECT c.document::text, a.path, a.title, a.source, c.says,
                 c.against::text AS other_document, b.path AS other_path, b.title AS other_title,
                 b.source AS other_source, c.against_says AS other_says
               FROM (
                 SELECT one AS document, one_says AS says, other AS against, other_says AS against_says, number
                   FROM document_conflict WHERE one = ANY(%(documents)s)
                 UNION ALL
                 SELECT other, other_says, one, one_says, number
                   FROM document_conflict WHERE other = ANY(%(documents)s) AND NOT one = ANY(%(documents)s)) AS c
               JOIN document a ON a.id = c.document
               JOIN document b ON b.id = c.against AND b.source = ANY(%(sources)s)
               ORDER BY array_position(%(documents)s, c.document), b.path, c.number LIMIT 50""",
            {"documents": list(documents), "sources": list(sources)},
            prepare=True,
        ).fetchall()


def newer(conn: Conn, chunks: Sequence[UUID], workload: str, where: Where, sources: Sequence[str]) -> list[Newer]:
    """Of chunks that may not be used because their documents are superseded: the documents that the person may read and
    that were asked about, with the newer one, where that is of these sources, they may read it and nothing but its
    state and days keeps it from the workload."""
    conn.execute("SELECT set_config('groundplan.explain', 'on', true)")
    found = conn.execute(
        f"""SELECT DISTINCT d.id, d.path, d.title, d.superseded_by FROM chunk c JOIN document d ON d.id = c.document_id
            WHERE c.id = ANY(%(chunks)s) AND d.superseded_by IS NOT NULL AND kept_back(d, %(workload)s) = 'superseded'
              AND {WHERE_SQL} ORDER BY d.path LIMIT 20""",
        {"chunks": list(chunks), "workload": workload, **where_parameters(where)},
    ).fetchall()
    told = {"workload": workload, "sources": list(sources), "ids": [row[3] for row in found]}
    rows = conn.execute(_NEWER, told).fetchall() if found else []
    conn.execute("SELECT set_config('groundplan.explain', 'off', true)")
    usable = {id: (path, title, source, reason) for id, path, title, source, reason in rows}
    return [
        Newer(
            document=str(id), path=path, title=title, newer_document=str(by), newer_path=usable[by][0],
            newer_title=usable[by][1], newer_source=usable[by][2], reason=usable[by][3],
        )
        for id, path, title, by in found
        if by in usable
    ]  # fmt: skip


_NEWER = """SELECT d.id, d.path, d.title, d.source, coalesce(kept_back(d, %(workload)s), '')
  FROM document d WHERE d.id = ANY(%(ids)s) AND d.source = ANY(%(sources)s) AND kept_back(jsonb_populate_record(d,
    '{"state": "approved", "valid_from": null, "valid_until": null, "superseded_by": null}'), %(workload)s) IS NULL"""
