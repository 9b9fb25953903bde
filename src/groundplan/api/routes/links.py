"""Links to documents: made and withdrawn by whoever answers for the document, opened by whoever is signed in."""

from __future__ import annotations

from datetime import date
from typing import Annotated, Any
from uuid import UUID

from pydantic import BaseModel, ConfigDict, StringConstraints

from groundplan.api.access.protected_routes import protected_router
from groundplan.api.caller import Caller, SignedIn, can_read_all
from groundplan.api.context import Services, ServicesDep
from groundplan.api.routes.documents import Reason, require_decider, require_document
from groundplan.core.errors import Denied
from groundplan.knowledge.governance import share, share_store

router = protected_router("knowledge")


class Link(BaseModel):
    """Until which day (UTC) a document is shared, and why."""

    model_config = ConfigDict(extra="forbid")
    until: date
    reason: Reason


class Word(BaseModel):
    """What opens a link: the word that was told when it was made."""

    model_config = ConfigDict(extra="forbid")
    word: Annotated[str, StringConstraints(min_length=8, max_length=100, strip_whitespace=True)]


@router.get("/knowledge/documents/{document_id}/links")
def links(document_id: UUID, services: ServicesDep, caller: SignedIn) -> dict[str, Any]:
    """The links of a document, those that are over too, with who has opened each. What opens them is not known. For who
    holds a duty, or answers for the document."""
    with services.transaction() as conn:
        found = require_document(conn, document_id)
        if not can_read_all(caller):
            require_decider(conn, caller, found)
        return {"links": share_store.list_links(conn, document_id)}


@router.post("/knowledge/documents/{document_id}/links", status_code=201)
def make(document_id: UUID, body: Link, services: ServicesDep, caller: SignedIn) -> dict[str, Any]:
    """Share a document: whoever is signed in and opens the link may read it, until that day or until it is withdrawn.
    By its owner, steward, or who holds a duty for the source's data. `word` is told once."""
    with services.transaction() as conn:
        require_decider(conn, caller, require_document(conn, document_id))
        made = share.create_link(conn, document_id, body.until, body.reason, _author(services, caller))
    return {"name": made.name, "word": made.word, "until": made.until}


@router.post("/knowledge/documents/{document_id}/links/{name}/withdraw")
def withdraw(document_id: UUID, name: str, services: ServicesDep, caller: SignedIn) -> dict[str, Any]:
    """End a link: from the next query on nobody reads by it, whoever has opened it."""
    with services.transaction() as conn:
        require_decider(conn, caller, require_document(conn, document_id))
        share.withdraw_link(conn, document_id, name, _author(services, caller))
    return {"name": name, "withdrawn": True}


@router.post("/knowledge/links/open")
def open_link(body: Word, services: ServicesDep, caller: SignedIn) -> dict[str, Any]:
    """Open a link as the person that you are; from now on search finds the document for you."""
    if caller.person is None:
        raise Denied(
            "only a person can open a link", code="person_required", hint="Sign in as a person, or act as one."
        )
    with services.transaction() as conn:
        document = share.open_link(conn, body.word, _author(services, caller))
        found = require_document(conn, document)
    return {"document": document, "title": found["title"], "source": found["source"], "path": found["path"]}


def _author(services: Services, caller: Caller) -> share.LinkActor:
    return share.LinkActor(str(caller.actor), caller.person, services.clock.now())
