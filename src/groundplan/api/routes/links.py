"""Links that share a document: created and withdrawn by people who answer for it, opened by anybody who is signed
in."""

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
    """The last day (UTC) of a link, and the reason for sharing the document."""

    model_config = ConfigDict(extra="forbid")
    until: date
    reason: Reason


class Word(BaseModel):
    """The secret word of a link, which was returned when it was created."""

    model_config = ConfigDict(extra="forbid")
    word: Annotated[str, StringConstraints(min_length=8, max_length=100, strip_whitespace=True)]


@router.get("/knowledge/documents/{document_id}/links")
def links(document_id: UUID, services: ServicesDep, caller: SignedIn) -> dict[str, Any]:
    """List the links of a document, including withdrawn and expired ones, and who has opened each; their secret words
    are not stored. Permitted for holders of a duty and people who answer for the document."""
    with services.transaction() as conn:
        document = require_document(conn, document_id)
        if not can_read_all(caller):
            require_decider(conn, caller, document)
        return {"links": share_store.list_links(conn, document_id)}


@router.post("/knowledge/documents/{document_id}/links", status_code=201)
def make(document_id: UUID, body: Link, services: ServicesDep, caller: SignedIn) -> dict[str, Any]:
    """Share a document by a link: anybody who is signed in and opens it may read the document until that day, or until
    the link is withdrawn. Permitted for owner, steward, and holders of a duty for the source's data. Only this response
    contains `word`, which opens the link."""
    with services.transaction() as conn:
        require_decider(conn, caller, require_document(conn, document_id))
        link = share.create_link(conn, document_id, body.until, body.reason, _author(services, caller))
    return {"name": link.name, "word": link.word, "until": link.until}


@router.post("/knowledge/documents/{document_id}/links/{name}/withdraw")
def withdraw(document_id: UUID, name: str, services: ServicesDep, caller: SignedIn) -> dict[str, Any]:
    """Withdraw a link: from the next query on it grants nothing to anybody who opened it."""
    with services.transaction() as conn:
        require_decider(conn, caller, require_document(conn, document_id))
        share.withdraw_link(conn, document_id, name, _author(services, caller))
    return {"name": name, "withdrawn": True}


@router.post("/knowledge/links/open")
def open_link(body: Word, services: ServicesDep, caller: SignedIn) -> dict[str, Any]:
    """Open a link as the signed-in person; from then on search finds the document for them."""
    if caller.person is None:
        raise Denied(
            "only a person can open a link", code="person_required", hint="Sign in as a person, or act as one."
        )
    with services.transaction() as conn:
        document_id = share.open_link(conn, body.word, _author(services, caller))
        document = require_document(conn, document_id)
    return {"document": document_id, "title": document["title"], "source": document["source"], "path": document["path"]}


def _author(services: Services, caller: Caller) -> share.LinkActor:
    return share.LinkActor(str(caller.actor), caller.person, services.clock.now())
