"""Requests to erase somebody, deciding them, their receipts; and legal holds on what is kept of a person."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from groundplan.api.access.authorization import authorize
from groundplan.api.access.protected_routes import protected_router
from groundplan.api.caller import Reader, SignedIn
from groundplan.api.context import ServicesDep
from groundplan.api.erasure import service as erasure
from groundplan.api.erasure import store as erasure_store
from groundplan.api.people import find_person_id
from groundplan.core.audit import receipt as receipts
from groundplan.core.audit.keys import load_public
from groundplan.identity.model import COMPANY

router = protected_router("people")
Text = Annotated[str, StringConstraints(min_length=1, max_length=320, strip_whitespace=True)]
Reason = Annotated[str, StringConstraints(min_length=1, max_length=500, strip_whitespace=True)]


class Erasure(BaseModel):
    """Whom: an address, and other texts that name them. `dry_run`: only say what would go and what would stay."""

    model_config = ConfigDict(extra="forbid")
    person: Text
    also: Annotated[list[Text], Field(max_length=20)] = []
    reason: Reason
    keep_documents: bool = False
    dry_run: bool = False


class Reasoned(BaseModel):
    """Why."""

    model_config = ConfigDict(extra="forbid")
    reason: Reason


class Hold(BaseModel):
    """Why; `end`: the hold is over."""

    model_config = ConfigDict(extra="forbid")
    reason: Reason
    end: bool = False


class Given(BaseModel):
    """A receipt as it was written."""

    model_config = ConfigDict(extra="forbid")
    receipt: Annotated[str, StringConstraints(min_length=1, max_length=1_000_000)]


@router.get("/erasures")
def requests(services: ServicesDep, _: Reader) -> dict[str, Any]:
    """Requests to erase somebody: those that wait with what was asked, others with who decided, and their receipt."""
    with services.transaction() as conn:
        return {"erasures": [asdict(one) for one in erasure_store.list_requests(conn)]}


@router.post("/erasures")
def ask(body: Erasure, services: ServicesDep, caller: SignedIn) -> dict[str, Any]:
    """Ask for somebody to be erased from documents, kept calls, reviews, caches, files and their account. It waits for
    a person with the duty compliance; the answer says what would go, and what would stay and why."""
    asked = erasure.ErasureRequest(body.person, tuple(body.also), body.reason, body.keep_documents)
    if body.dry_run:
        return {"id": None, "state": "dry run", **erasure.erase_person(services, asked, caller.actor, dry=True)}
    return erasure.request_erasure(services, asked, caller.actor)


@router.get("/erasures/{erasure_id}")
def request(erasure_id: UUID, services: ServicesDep, caller: SignedIn) -> dict[str, Any]:
    """A request, and while it waits what would go and stay now."""
    found = erasure.find_request(services, erasure_id)
    if found.asked is None:
        return {**asdict(found), "erased": [], "kept": []}
    return {
        **erasure.erase_person(services, erasure.ErasureRequest.of(found.asked), caller.actor, dry=True),
        **asdict(found),
    }


@router.post("/erasures/{erasure_id}/confirm")
def confirm(erasure_id: UUID, services: ServicesDep, caller: SignedIn) -> dict[str, Any]:
    """Do it. The receipt is signed and lists what went, and what stayed and why."""
    authorize(caller, "erase", COMPANY)
    return erasure.confirm_erasure(services, erasure_id, caller.actor)


@router.post("/erasures/{erasure_id}/refuse")
def refuse(erasure_id: UUID, body: Reasoned, services: ServicesDep, caller: SignedIn) -> dict[str, Any]:
    """Erase nothing, and say why."""
    authorize(caller, "erase", COMPANY)
    erasure.refuse_erasure(services, erasure_id, body.reason, caller.actor)
    return {"id": erasure_id, "state": "refused"}


@router.post("/erasures/verify")
def verify(body: Given, services: ServicesDep, _: Reader) -> dict[str, Any]:
    """What a receipt says, where its signature is this installation's."""
    public = load_public(services.home, "checkpoint").public_bytes_raw()
    found = receipts.read_receipt(body.receipt.encode(), public)
    return {"receipt": found.body, "digest": found.digest}


@router.post("/people/{person}/hold")
def hold(person: str, body: Hold, services: ServicesDep, caller: SignedIn) -> dict[str, Any]:
    """A legal hold: what is kept of their calls is not erased, by request or by its time, until it ends."""
    authorize(caller, "erase", COMPANY)
    with services.transaction() as conn:
        who = find_person_id(conn, person)
    erasure.set_hold(services, who, body.reason, caller.actor, end=body.end)
    return {"person": person, "held": not body.end}
