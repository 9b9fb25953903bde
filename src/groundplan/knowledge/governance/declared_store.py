"""The SQL of declared sources, as role control: restrictions of a new declaration apply from the next search.

Its extensions apply after an ingestion of the source, document by document: only that knows the declarations of folders
and documents.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec
from psycopg import Connection

from groundplan.blueprint.model import Source
from groundplan.knowledge.model import by_grant
from groundplan.knowledge.store import CHANGE_LOCK, CHANNEL

Conn = Connection[Any]
_UNDECLARED_REASON: Final = (
    "it left the workspace: its documents are kept and given to nobody. Delete them, or declare it again."
)


def put_declared_sources(conn: Conn, sources: Sequence[Source]) -> None:
    """Store the sources of the served blueprint, and only these. In the caller's transaction."""
    conn.execute("SELECT pg_advisory_xact_lock(%s)", (CHANGE_LOCK,))
    names = [source.name for source in sources]
    conn.execute("DELETE FROM source_declared WHERE source <> ALL(%s)", (names,))
    conn.execute(
        "UPDATE source SET health = 'undeclared', health_reason = %s WHERE name <> ALL(%s)", (_UNDECLARED_REASON, names)
    )
    for source in sources:
        stored = _read_declared(conn, source.name)
        if stored != source:
            if stored is None or (stored.connector, stored.path) != (source.connector, source.path):
                # the cursor is of another place: documents of this one would be taken for known
                conn.execute("UPDATE source SET cursor = NULL WHERE name = %s", (source.name,))
            _narrow(conn, source)
            conn.execute(
                """INSERT INTO source_declared (source, said) VALUES (%s, %s)
                   ON CONFLICT (source) DO UPDATE SET said = excluded.said""",
                (source.name, msgspec.json.encode(source).decode()),
            )


def is_declared_differently(conn: Conn, source: Source) -> bool:
    """Whether the served blueprint declares the source differently now; False if none is served."""
    stored = _read_declared(conn, source.name)
    return stored is not None and stored != source


def _read_declared(conn: Conn, name: str) -> Source | None:
    """The stored declaration of a source as this version reads it; fields of later versions are ignored. None if there
    is none."""
    row = conn.execute("SELECT said FROM source_declared WHERE source = %s", (name,)).fetchone()
    try:
        return None if row is None else msgspec.json.decode(row[0], type=Source)
    except msgspec.DecodeError:
        return None


def _narrow(conn: Conn, source: Source) -> None:
    rule = source.governed
    # only documents that inherit the readers of the source have the holders of its grants among them
    conn.execute(
        """WITH gone AS (DELETE FROM document_reader r USING document d
             WHERE r.document_id = d.id AND d.source = %(name)s AND NOT r.deny AND r.reader <> ALL(%(readers)s)
               AND EXISTS (SELECT FROM document_reader g
                 WHERE g.document_id = d.id AND g.reader = %(grant)s AND NOT g.deny)
             RETURNING r.document_id)
           UPDATE document SET settled = '' WHERE id IN (SELECT document_id FROM gone)""",
        {
            "name": source.name, "readers": [*source.readers, by_grant(source.name)], "grant": by_grant(source.name),
        },
    )  # fmt: skip
    # decisions override the source; an approval of other content has lapsed
    conn.execute(
        """UPDATE document d SET settled = '', sensitivity = n.sensitivity, state = n.state, purposes = n.purposes,
             workloads = n.workloads, residency = n.residency,
             noted = CASE WHEN d.sensitivity IS DISTINCT FROM n.sensitivity
               THEN nextval('chunk_change') ELSE d.noted END
           FROM (SELECT o.id,
               CASE WHEN NOT o.decided ? 'sensitivity'
                   AND sensitivity_rank(%(sensitivity)s) > sensitivity_rank(o.sensitivity)
                 THEN %(sensitivity)s ELSE o.sensitivity END AS sensitivity,
               CASE WHEN state_rank(%(state)s) > state_rank(o.state) AND (NOT o.decided ? 'state' OR (
                   o.decided #>> '{state,value}' = 'approved' AND o.decided #>> '{state,digest}' <> o.digest))
                 THEN %(state)s ELSE o.state END AS state,
               CASE WHEN o.decided ? 'purposes' THEN o.purposes
                 ELSE narrower(o.purposes, %(purposes)s::text[]) END AS purposes,
               CASE WHEN o.decided ? 'workloads' THEN o.workloads
                 ELSE narrower(o.workloads, %(workloads)s::text[]) END AS workloads,
               CASE WHEN o.decided ? 'residency' THEN o.residency
                 ELSE narrower(o.residency, %(residency)s::text[]) END AS residency
             FROM document o WHERE o.source = %(name)s AND o.deleted_at IS NULL) n
           WHERE d.id = n.id AND (d.sensitivity, d.state, d.purposes, d.workloads, d.residency)
             IS DISTINCT FROM (n.sensitivity, n.state, n.purposes, n.workloads, n.residency)""",
        {
            "name": source.name, "sensitivity": source.sensitivity, "state": rule.state,
            "purposes": rule.purposes or None, "workloads": rule.workloads or None, "residency": rule.residency or None,
        },
    )  # fmt: skip
    conn.execute("SELECT pg_notify(%s, '')", (CHANNEL,))
    if rule.legal_hold:
        conn.execute("UPDATE source SET legal_hold = true WHERE name = %s", (source.name,))
