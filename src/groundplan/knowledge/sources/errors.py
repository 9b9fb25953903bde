"""What every connector says in the same words."""

from __future__ import annotations

from groundplan.core.errors import NotFound

GONE = "document_gone"


def document_gone(what: str = "it was removed meanwhile") -> NotFound:
    """That a document is not there any more, as `Connector.read` tells it."""
    return NotFound(what, code=GONE, hint="Nothing needs to be done.")
