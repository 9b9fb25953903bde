"""Requests to erase a person, decisions about them, signed receipts, and legal holds on a person's stored data."""

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
    """The person to erase (e-mail address), and further texts (`also`) that name them. `dry_run`: only report what
    would be erased and what would be kept."""

    model_config = ConfigDict(extra="forbid")
    person: Text
    also: Annotated[list[Text], Field(max_length=20)] = []
    reason: Reason
    keep_documents: bool = False
    dry_run: bool = False


class Reasoned(BaseModel):
    """The reason of a decision."""

    model_config = ConfigDict(extra="forbid")
    reason: Reason


class Hold(BaseModel):
    """A legal hold and its reason. `end`: end the hold instead."""

    model_config = ConfigDict(extra="forbid")
    reason: Reason
    end: bool = False


class Given(BaseModel):
    """The text of a signed receipt."""

    model_config = ConfigDict(extra="forbid")
    receipt: Annotated[str, StringConstraints(min_length=1, max_length=1_000_000)]


@router.get("/erasures")
def requests(services: ServicesDep, _: Reader) -> dict[str, Any]:
    """List erasure requests: pending ones with their content, decided ones with who decided, and their receipts."""
    with services.transaction() as conn:
        return {"erasures": [asdict(stored_request) for stored_request in erasure_store.list_requests(conn)]}


@router.post("/erasures")
def ask(body: Erasure, services: ServicesDep, caller: SignedIn) -> dict[str, Any]:
    """Request the erasure of a person from documents, stored calls, reviews, caches, files and their account.

    Somebody with the duty compliance must confirm it. The response lists what would be erased, and what would be kept
    and why.
    """
    erasure_request = erasure.ErasureRequest(body.person, tuple(body.also), body.reason, body.keep_documents)
    if body.dry_run:
        return {
            "id": None,
            "state": "dry run",
            **erasure.erase_person(services, erasure_request, caller.actor, dry=True),
        }
    return erasure.request_erasure(services, erasure_request, caller.actor)


@router.get("/erasures/{erasure_id}")
def request(erasure_id: UUID, services: ServicesDep, caller: SignedIn) -> dict[str, Any]:
    """An erasure request; if it is pending, with what would be erased and kept now."""
    stored_request = erasure.find_request(services, erasure_id)
    if stored_request.asked is None:
        return {**asdict(stored_request), "erased": [], "kept": []}
    return {
        **erasure.erase_person(services, erasure.ErasureRequest.of(stored_request.asked), caller.actor, dry=True),
        **asdict(stored_request),
    }


@router.post("/erasures/{erasure_id}/confirm")
def confirm(erasure_id: UUID, services: ServicesDep, caller: SignedIn) -> dict[str, Any]:
    """Confirm a request and erase the person. The signed receipt lists what was erased, and what was kept and why."""
    authorize(caller, "erase", COMPANY)
    return erasure.confirm_erasure(services, erasure_id, caller.actor)


@router.post("/erasures/{erasure_id}/refuse")
def refuse(erasure_id: UUID, body: Reasoned, services: ServicesDep, caller: SignedIn) -> dict[str, Any]:
    """Refuse a request, with the reason; nothing is erased."""
    authorize(caller, "erase", COMPANY)
    erasure.refuse_erasure(services, erasure_id, body.reason, caller.actor)
    return {"id": erasure_id, "state": "refused"}


@router.post("/erasures/verify")
def verify(body: Given, services: ServicesDep, _: Reader) -> dict[str, Any]:
    """The content of a receipt, after checking that it was signed by this installation."""
    public = load_public(services.home, "checkpoint").public_bytes_raw()
    receipt = receipts.read_receipt(body.receipt.encode(), public)
    return {"receipt": receipt.body, "digest": receipt.digest}


@router.post("/people/{person}/hold")
def hold(person: str, body: Hold, services: ServicesDep, caller: SignedIn) -> dict[str, Any]:
    """Put a person's stored data under a legal hold, or end the hold. While it lasts, the data is erased neither by
    request nor when its retention ends."""
    authorize(caller, "erase", COMPANY)
    with services.transaction() as conn:
        who = find_person_id(conn, person)
    erasure.set_hold(services, who, body.reason, caller.actor, end=body.end)
    return {"person": person, "held": not body.end}
