"""SCIM 2.0 for the company's directory at /api/scim/v2, with a service token of the scope `scim`."""

from __future__ import annotations

from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import APIRouter, Body, Depends, Query, Request, Response

from groundplan.api.caller import SignedIn
from groundplan.api.context import Using
from groundplan.core.errors import TooLarge
from groundplan.identity import scim, scim_bulk

router = APIRouter(prefix="/scim/v2", tags=["scim"])
Document = Annotated[dict[str, Any], Body(max_length=100)]
Filter = Annotated[str | None, Query(max_length=300)]
Start = Annotated[int, Query(alias="startIndex", ge=-1_000_000, le=1_000_000)]
Count = Annotated[int, Query(ge=-1_000_000, le=1_000_000)]
SortBy = Annotated[str | None, Query(alias="sortBy", max_length=100)]
Order = Annotated[Literal["ascending", "descending"], Query(alias="sortOrder")]
BULK_BYTES = 1 << 20


@router.get("/ServiceProviderConfig")
def service_provider() -> dict[str, Any]:
    """What is supported."""
    no = {"supported": False}
    return {
        "schemas": ["urn:ietf:params:scim:schemas:core:2.0:ServiceProviderConfig"],
        "patch": {"supported": True},
        "bulk": {"supported": True, "maxOperations": scim_bulk.MOST, "maxPayloadSize": BULK_BYTES},
        "filter": {"supported": True, "maxResults": scim.MOST},
        "changePassword": no,
        "sort": {"supported": True},
        "etag": no,
        "authenticationSchemes": [
            {
                "type": "oauthbearertoken",
                "name": "Service token",
                "description": "groundplan tokens create --scope scim",
            }
        ],
        "meta": {"resourceType": "ServiceProviderConfig", "location": "ServiceProviderConfig"},
    }


@router.get("/ResourceTypes")
def resource_types() -> dict[str, Any]:
    """Users and groups."""
    items = [
        {
            "schemas": ["urn:ietf:params:scim:schemas:core:2.0:ResourceType"],
            "id": name, "name": name, "endpoint": f"/{name}s", "schema": schema,
            "meta": {"resourceType": "ResourceType", "location": f"ResourceTypes/{name}"},
        }
        for name, schema in (("User", scim.USER), ("Group", scim.GROUP))
    ]  # fmt: skip
    return {
        "schemas": [scim.LIST], "totalResults": 2, "startIndex": 1, "itemsPerPage": 2, "Resources": items,
    }  # fmt: skip


def _page(
    filter: Filter = None, start: Start = 1, count: Count = 100, sort_by: SortBy = None, order: Order = "ascending"
) -> scim.Page:
    return scim.Page(filter, start, count, sort_by, order == "descending")


Paged = Annotated[scim.Page, Depends(_page)]


@router.post("/Bulk")
def bulk(body: Document, request: Request, services: Using, caller: SignedIn) -> dict[str, Any]:
    """Many operations in one request, each with its own outcome; they may refer to each other by bulkId."""
    size = request.headers.get("content-length", "0")
    if not size.isdigit() or int(size) > BULK_BYTES:
        hint = "Send fewer operations at once."
        raise TooLarge(f"a bulk request has at most {BULK_BYTES} bytes", code="scim_bulk_size", hint=hint)
    with services.transaction() as conn:
        return scim_bulk.bulk(conn, caller.actor, body)


@router.get("/Users")
def users(services: Using, page: Paged) -> dict[str, Any]:
    """People, by userName where a filter says so, sorted where that is asked for."""
    with services.transaction() as conn:
        return scim.list_users(conn, page)


@router.post("/Users", status_code=201)
def create_user(body: Document, services: Using, caller: SignedIn) -> dict[str, Any]:
    """A new person."""
    with services.transaction() as conn:
        return scim.create_user(conn, caller.actor, body)


@router.get("/Users/{id}")
def user(id: UUID, services: Using) -> dict[str, Any]:
    """One person."""
    with services.transaction() as conn:
        return scim.user(conn, id)


@router.put("/Users/{id}")
def replace_user(id: UUID, body: Document, services: Using, caller: SignedIn) -> dict[str, Any]:
    """A person as the directory has them now; `active: false` ends what they may do at once."""
    with services.transaction() as conn:
        return scim.replace_user(conn, caller.actor, id, body)


@router.patch("/Users/{id}")
def patch_user(id: UUID, body: Document, services: Using, caller: SignedIn) -> dict[str, Any]:
    """Parts of a person."""
    with services.transaction() as conn:
        return scim.patch_user(conn, caller.actor, id, body)


@router.delete("/Users/{id}", status_code=204, response_class=Response)
def delete_user(id: UUID, services: Using, caller: SignedIn) -> None:
    """The person has left."""
    with services.transaction() as conn:
        scim.delete_user(conn, caller.actor, id)


@router.get("/Groups")
def groups(services: Using, page: Paged) -> dict[str, Any]:
    """Groups and teams, by displayName where a filter says so, sorted where that is asked for."""
    with services.transaction() as conn:
        return scim.list_groups(conn, page)


@router.post("/Groups", status_code=201)
def create_group(body: Document, services: Using, caller: SignedIn) -> dict[str, Any]:
    """A new group."""
    with services.transaction() as conn:
        return scim.create_group(conn, caller.actor, body)


@router.get("/Groups/{id}")
def group(id: UUID, services: Using) -> dict[str, Any]:
    """One group with its members."""
    with services.transaction() as conn:
        return scim.group(conn, id)


@router.put("/Groups/{id}")
def replace_group(id: UUID, body: Document, services: Using, caller: SignedIn) -> dict[str, Any]:
    """A group with the members that it has now."""
    with services.transaction() as conn:
        return scim.replace_group(conn, caller.actor, id, body)


@router.patch("/Groups/{id}")
def patch_group(id: UUID, body: Document, services: Using, caller: SignedIn) -> dict[str, Any]:
    """Members added or taken out."""
    with services.transaction() as conn:
        return scim.patch_group(conn, caller.actor, id, body)


@router.delete("/Groups/{id}", status_code=204, response_class=Response)
def delete_group(id: UUID, services: Using, caller: SignedIn) -> None:
    """Nobody is in it any more."""
    with services.transaction() as conn:
        scim.delete_group(conn, caller.actor, id)
