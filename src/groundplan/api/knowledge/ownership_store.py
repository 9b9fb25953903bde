"""The SQL of ownership: sources and documents whose owner or steward a person is, and their findings.

Owners named only by the document itself or the file beside it do not count: anybody who may write these could name
themselves.
"""

from __future__ import annotations

from typing import Any, Final, LiteralString
from uuid import UUID

from psycopg import Connection

from groundplan.api.watch.unconfirmed_passkeys import KIND
from groundplan.knowledge.governance.inherit import DOCUMENT_ORIGINS

Conn = Connection[Any]

_NAMED: Final[LiteralString] = """(d.{role} = %(who)s
  AND NOT starts_with(coalesce(d.origins -> '{role}' ->> 'from', ''), 'source/')
  AND coalesce(d.origins -> '{role}' ->> 'from', '') <> ALL (%(its_own)s))"""
"""An index has exactly this predicate."""
_OWNER, _STEWARD = _NAMED.format(role="owner"), _NAMED.format(role="steward")
_SOURCES: Final[LiteralString] = "SELECT s.name FROM source s WHERE %(who)s IN (s.owner, s.steward)"
OWN: Final[LiteralString] = f"(d.source IN ({_SOURCES}) OR {_OWNER} OR {_STEWARD})"
"""Condition on a document `d`: `who` is its owner or steward, or that of its source."""
_FINDINGS: Final[LiteralString] = f"""SELECT f.id FROM finding f
  WHERE (%(closed)s OR f.closed_at IS NULL)
    AND (f.owner = %(who)s OR (f.detail ? 'holds' AND f.detail -> 'whose' ? %(who)s)
      OR (f.kind = %(of_person)s AND f.subject = 'person/' || %(person)s::text)
      OR (starts_with(f.subject, 'source/') AND (
      split_part(f.subject, '/', 2) IN ({_SOURCES})
      OR EXISTS (SELECT FROM document d WHERE d.source = split_part(f.subject, '/', 2)
        AND d.path = substr(f.subject, length('source/' || split_part(f.subject, '/', 2)) + 2)
        AND ({_OWNER} OR {_STEWARD})))))
    AND CASE WHEN starts_with(f.kind, 'knowledge.') AND f.detail ? 'other' THEN EXISTS (
        SELECT FROM document d WHERE d.id = (f.detail ->> 'other')::uuid
          AND (d.acl = ANY ((SELECT acls_of(%(person)s))::int[]) OR {OWN}))
      ELSE true END"""


def ownership_parameters(who: str, **more: object) -> dict[str, object]:
    """The parameters of `OWN`."""
    return {"who": who, "its_own": list(DOCUMENT_ORIGINS), **more}


def findings_of(conn: Conn, who: str, person: UUID, *, closed: bool = False) -> list[UUID]:
    """Ids of a person's findings: addressed to them, about what they own, or about an unconfirmed passkey in their
    name. A finding that also concerns another document counts only where they may read or own that: its existence
    reveals what is in it."""
    rows = conn.execute(_FINDINGS, ownership_parameters(who, person=person, closed=closed, of_person=KIND))
    return [id for (id,) in rows]


def owns_anything(conn: Conn, email: str) -> bool:
    """Whether a person owns any source or document, or has an open finding."""
    row = conn.execute(
        f"""SELECT EXISTS ({_SOURCES}) OR EXISTS (SELECT FROM document d WHERE {_OWNER})
              OR EXISTS (SELECT FROM document d WHERE {_STEWARD})
              OR EXISTS (SELECT FROM finding f WHERE f.owner = %(who)s AND f.closed_at IS NULL)""",
        ownership_parameters(email),
    ).fetchone()
    return row is not None and bool(row[0])
