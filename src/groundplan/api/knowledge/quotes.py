"""Quotes of documents in findings, only for callers who may read them: all holders of a duty see findings, but not all
may read the documents.

Quotes are shown to the owner of the finding, to people who may read its document now, and for a table that is no
document to holders of data, compliance or security for its source.
"""

from __future__ import annotations

from typing import Any

from psycopg import Connection

from groundplan.api.caller import Caller, require_duty
from groundplan.core.errors import Denied
from groundplan.knowledge.governance import governed_store
from groundplan.ledger import finding_store

DATA_DUTIES = frozenset({"data", "compliance", "security"})
"""Duties for a source, or the company, that decide about its documents besides owner and steward."""


def with_quotes(conn: Connection[Any], caller: Caller, found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The findings, with quotes appended to the messages if the caller may read them."""
    quotes = finding_store.quotes(conn, [row["id"] for row in found])
    if not quotes:
        return found
    quoted = [row for row in found if row["id"] in quotes]
    documents = {row["id"]: document for row in quoted if (document := _document_of(row["subject"])) is not None}
    readable = (
        set()
        if caller.person is None
        else governed_store.readable_at(conn, caller.person, sorted(set(documents.values())))
    )
    may = {
        row["id"]
        for row in quoted
        if (row["owner"] is not None and row["owner"] == caller.email)
        or (documents[row["id"]] in readable if row["id"] in documents else _may_decide_about(caller, row["subject"]))
    }
    return [_with_quote(row, quotes[row["id"]]) if row["id"] in may else row for row in found]


def _with_quote(row: dict[str, Any], quote: str) -> dict[str, Any]:
    return {**row, "message": f"{row['message']}: {quote}"}


def _document_of(subject: str) -> tuple[str, str] | None:
    """(source, path) of the subject; None for a source as a whole."""
    kind, _, rest = subject.partition("/")
    source, slash, path = rest.partition("/")
    return (source, path) if kind == "source" and slash else None


def _may_decide_about(caller: Caller, subject: str) -> bool:
    try:
        require_duty(caller, DATA_DUTIES, subject)
    except Denied:
        return False
    return True
