"""Errors that all connectors share."""

from __future__ import annotations

from groundplan.core.errors import NotFound

GONE = "document_gone"


def document_gone(what: str = "it was removed meanwhile") -> NotFound:
    """The error that `Connector.read` raises for a document that does not exist any more."""
    return NotFound(what, code=GONE, hint="Nothing needs to be done.")
