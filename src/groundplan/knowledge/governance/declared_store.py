"""The SQL of sources as they are declared, as role control: what a new declaration narrows holds from the next search.

What it widens holds once the source was looked at with it, document by document: only that look knows what folders and
documents say besides.
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
_LEFT: Final = "it left the workspace: its documents are kept and given to nobody. Delete them, or declare it again."


def put_declared_sources(conn: Conn, sources: Sequence[Source]) -> None:
    """These are the sources of what is served, exactly. In the caller's transaction."""
    conn.execute("SELECT pg_advisory_xact_lock(%s)", (CHANGE_LOCK,))
    names = [source.name for source in sources]
    conn.execute("DELETE FROM source_declared WHERE source <> ALL(%s)", (names,))
    conn.execute("UPDATE source SET health = 'undeclared', health_reason = %s WHERE name <> ALL(%s)", (_LEFT, names))
    for source in sources:
        said = _declared(conn, source.name)
        if said != source:
            if said is None or (said.connector, said.path) != (source.connector, source.path):
                # it says how far another place was read: documents of this one would be taken for known
                conn.execute("UPDATE source SET cursor = NULL WHERE name = %s", (source.name,))
            _narrow(conn, source)
            conn.execute(
                """INSERT INTO source_declared (source, said) VALUES (%s, %s)
                   ON CONFLICT (source) DO UPDATE SET said = excluded.said""",
                (source.name, msgspec.json.encode(source).decode()),
            )


def is_declared_differently(conn: Conn, source: Source) -> bool:
    """Whether what is served declares the source otherwise now; not where nothing is served."""
    said = _declared(conn, source.name)
    return said is not None and said != source


def _declared(conn: Conn, name: str) -> Source | None:
    """As this version reads it: what a later one adds is the same in both that are compared."""
    row = conn.execute("SELECT said FROM source_declared WHERE source = %s", (name,)).fetchone()
    try:
        return None if row is None else msgspec.json.decode(row[0], type=Source)
    except msgspec.DecodeError:
        return None


def _narrow(conn: Conn, source: Source) -> None:
    rule = source.governed
    # only documents whose readers are those of the source have whoever holds a grant on it among them
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
    # what was decided stands above the source; an approval of another content is none
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
