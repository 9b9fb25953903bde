"""Ownership of sources and documents: owners and stewards need no duty to see their findings and to decide about them.

They see nothing else; holders of a duty and the operator see everything (`can_read_all`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from psycopg import Connection

from groundplan.api.caller import Caller, can_read_all
from groundplan.api.knowledge import ownership_store, store
from groundplan.knowledge.governance.inherit import DOCUMENT_ORIGINS

Conn = Connection[Any]


def own_findings(conn: Conn, caller: Caller, *, closed: bool = False) -> list[UUID] | None:
    """Ids of the findings that the caller owns; None for callers who may see all."""
    if can_read_all(caller):
        return None
    return _findings_of(conn, caller, closed=closed)


def is_own_finding(conn: Conn, caller: Caller, finding: Mapping[str, Any]) -> bool:
    """Whether the caller may settle the finding without a duty for its subject."""
    if caller.email is None:
        return False
    return finding["owner"] == caller.email or finding["id"] in _findings_of(conn, caller)


def _findings_of(conn: Conn, caller: Caller, *, closed: bool = False) -> list[UUID]:
    if caller.email is None or caller.person is None:
        return []
    return ownership_store.findings_of(conn, caller.email, caller.person, closed=closed)


def answers_for(conn: Conn, caller: Caller, document: Mapping[str, Any]) -> bool:
    """Whether the caller is owner or steward of a document or its source, not only by the document's own metadata."""
    return caller.email is not None and caller.email in answerable_people(document) | store.source_owners(
        conn, document["source"]
    )


def answerable_people(document: Mapping[str, Any]) -> set[str | None]:
    """Owner and steward of a document, unless only its own metadata name them."""
    origins = document["origins"]
    return {
        document[name] for name in ("owner", "steward") if origins.get(name, {}).get("from") not in DOCUMENT_ORIGINS
    }


def owns_anything(conn: Conn, caller: Caller) -> bool:
    """Whether the caller owns any source, document or finding."""
    return caller.email is not None and ownership_store.owns_anything(conn, caller.email)
