"""What is somebody's own: who answers for a source or a document needs no duty to see its findings and to decide.

They see that and nothing else; whoever holds a duty, and the operator, see everything (`sees_all`).
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


def findings(conn: Conn, caller: Caller, *, closed: bool = False) -> list[UUID] | None:
    """Those that are theirs; None for whoever sees all."""
    if can_read_all(caller):
        return None
    return _findings(conn, caller, closed=closed)


def is_own(conn: Conn, caller: Caller, finding: Mapping[str, Any]) -> bool:
    """Whether they settle it without a duty for its subject."""
    if caller.email is None:
        return False
    return finding["owner"] == caller.email or finding["id"] in _findings(conn, caller)


def _findings(conn: Conn, caller: Caller, *, closed: bool = False) -> list[UUID]:
    if caller.email is None or caller.person is None:
        return []
    return ownership_store.findings(conn, caller.email, caller.person, closed=closed)


def answers_for(conn: Conn, caller: Caller, document: Mapping[str, Any]) -> bool:
    """Whether they are owner or steward of a document or its source, and not only by the document's own word."""
    return caller.email is not None and caller.email in who_answers(document) | store.answers_for(
        conn, document["source"]
    )


def who_answers(document: Mapping[str, Any]) -> set[str | None]:
    """Owner and steward of a document, as far as others than itself name them."""
    origins = document["origins"]
    return {
        document[name] for name in ("owner", "steward") if origins.get(name, {}).get("from") not in DOCUMENT_ORIGINS
    }


def owns(conn: Conn, caller: Caller) -> bool:
    """Whether anything is theirs."""
    return caller.email is not None and ownership_store.owns(conn, caller.email)
