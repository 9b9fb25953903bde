"""What findings quote of documents, for whoever may read it: all with a duty see findings, and not all may read those.

That is whoever a finding is told to, whoever may read its document at this moment, and for a table that is no document
whoever holds data, compliance or security for its source.
"""

from __future__ import annotations

from typing import Any

from psycopg import Connection

from groundplan.api.caller import Caller, require_duty
from groundplan.core.errors import Denied
from groundplan.knowledge.governance import governed_store
from groundplan.ledger import finding_store

DATA = frozenset({"data", "compliance", "security"})
"""Duties for a source, or the company, that decide about its documents besides owner and steward."""


def with_quotes(conn: Connection[Any], caller: Caller, found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The findings, with what they quote behind their messages where the caller may read that."""
    quotes = finding_store.quotes(conn, [row["id"] for row in found])
    if not quotes:
        return found
    quoted = [row for row in found if row["id"] in quotes]
    places = {row["id"]: place for row in quoted if (place := _place(row["subject"])) is not None}
    readable = (
        set()
        if caller.person is None
        else governed_store.readable_at(conn, caller.person, sorted(set(places.values())))
    )
    may = {
        row["id"]
        for row in quoted
        if (row["owner"] is not None and row["owner"] == caller.email)
        or (places[row["id"]] in readable if row["id"] in places else _answers(caller, row["subject"]))
    }
    return [_quoting(row, quotes[row["id"]]) if row["id"] in may else row for row in found]


def _quoting(row: dict[str, Any], quote: str) -> dict[str, Any]:
    return {**row, "message": f"{row['message']}: {quote}"}


def _place(subject: str) -> tuple[str, str] | None:
    """Source and path; None for a source as a whole."""
    kind, _, rest = subject.partition("/")
    source, found, path = rest.partition("/")
    return (source, path) if kind == "source" and found else None


def _answers(caller: Caller, subject: str) -> bool:
    try:
        require_duty(caller, DATA, subject)
    except Denied:
        return False
    return True
