"""SCIM 2.0 for the company's directory, at /api/scim/v2, with a service token of the scope `scim`."""

from __future__ import annotations

from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import Body, Depends, Query, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from groundplan.api.access.protected_routes import protected_router
from groundplan.api.caller import SignedIn
from groundplan.api.context import ServicesDep
from groundplan.api.errors import INFRASTRUCTURE_ERRORS, translate_error
from groundplan.core.errors import GroundplanError, NotFound, TooLarge
from groundplan.identity.scim import bulk as scim_bulk
from groundplan.identity.scim import resources as scim
from groundplan.identity.scim import schemas as scim_schemas
from groundplan.identity.scim.attribute_selection import select_attributes
from groundplan.identity.scim.body import GROUP, MAX_ITEMS, USER


class ScimResponse(JSONResponse):
    """JSON with the media type of SCIM."""

    media_type = scim.MEDIA_TYPE


router = protected_router("scim", prefix="/scim/v2", default_response_class=ScimResponse)
Document = Annotated[dict[str, Any], Body(max_length=100)]
Id = Annotated[UUID, BeforeValidator(scim_bulk.parse_target)]
"""Responds to an invalid id with 404, which directories take for a deleted resource; other errors they take for a
failure."""
Filter = Annotated[str | None, Query(max_length=300)]
Start = Annotated[int, Query(alias="startIndex", ge=-1_000_000, le=1_000_000)]
Count = Annotated[int, Query(ge=-1_000_000, le=1_000_000)]
SortBy = Annotated[str | None, Query(alias="sortBy", max_length=100)]
Order = Annotated[Literal["ascending", "descending"], Query(alias="sortOrder")]
Names = Annotated[str | None, Query(max_length=1000)]
Excluded = Annotated[str | None, Query(alias="excludedAttributes", max_length=1000)]
BULK_BYTES = 1 << 20


class Search(BaseModel):
    """The body of `.search`: the query parameters of a list request."""

    model_config = ConfigDict(extra="ignore")
    filter: Annotated[str | None, Field(max_length=300)] = None
    startIndex: Annotated[int, Field(ge=-1_000_000, le=1_000_000)] = 1  # noqa: N815 -- SCIM's own name
    count: Annotated[int, Field(ge=-1_000_000, le=1_000_000)] = 100
    sortBy: Annotated[str | None, Field(max_length=100)] = None  # noqa: N815 -- SCIM's own name
    sortOrder: Literal["ascending", "descending"] = "ascending"  # noqa: N815 -- SCIM's own name
    attributes: Annotated[list[str], Field(max_length=50)] = []
    excludedAttributes: Annotated[list[str], Field(max_length=50)] = []  # noqa: N815 -- SCIM's own name

    def page(self) -> scim.Page:
        return scim.Page(
            self.filter, self.startIndex, self.count, self.sortBy, self.sortOrder == "descending",
            ",".join(self.attributes) or None, ",".join(self.excludedAttributes) or None,
        )  # fmt: skip


@router.get("/ServiceProviderConfig")
def service_provider() -> dict[str, Any]:
    """The supported SCIM features."""
    no = {"supported": False}
    return {
        "schemas": ["urn:ietf:params:scim:schemas:core:2.0:ServiceProviderConfig"],
        "patch": {"supported": True},
        "bulk": {"supported": True, "maxOperations": scim_bulk.MAX_OPERATIONS, "maxPayloadSize": BULK_BYTES},
        "filter": {"supported": True, "maxResults": MAX_ITEMS},
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


@router.get("/Schemas")
def list_schemas() -> dict[str, Any]:
    """The schemas of users and groups, with the attributes that are stored."""
    items = scim_schemas.schemas()
    return scim.list_response(items, len(items))


@router.get("/Schemas/{id}")
def one_schema(id: str) -> dict[str, Any]:
    """One schema."""
    for schema in scim_schemas.schemas():
        if schema["id"] == id:
            return schema
    raise NotFound(f"there is no schema {id[:80]}", code="scim_schema", hint="GET /Schemas lists them.")


@router.get("/ResourceTypes/{id}")
def one_resource_type(id: str) -> dict[str, Any]:
    """One resource type."""
    for resource_type in resource_types()["Resources"]:
        if resource_type["id"] == id:
            found: dict[str, Any] = resource_type
            return found
    raise NotFound(f"there is no resource type {id[:80]}", code="scim_type", hint="GET /ResourceTypes lists them.")


@router.get("/ResourceTypes")
def resource_types() -> dict[str, Any]:
    """The resource types: users and groups."""
    items = [
        {
            "schemas": ["urn:ietf:params:scim:schemas:core:2.0:ResourceType"],
            "id": name, "name": name, "endpoint": f"/{name}s", "schema": schema,
            "meta": {"resourceType": "ResourceType", "location": f"ResourceTypes/{name}"},
        }
        for name, schema in (("User", USER), ("Group", GROUP))
    ]  # fmt: skip
    return scim.list_response(items, len(items))


def _attribute_selection(attributes: Names = None, excluded: Excluded = None) -> tuple[str | None, str | None]:
    """(requested attributes, excluded attributes) of the query."""
    return attributes, excluded


Parted = Annotated[tuple[str | None, str | None], Depends(_attribute_selection)]


def _page(
    part: Parted, filter: Filter = None, start: Start = 1, count: Count = 100, sort_by: SortBy = None,
    order: Order = "ascending",
) -> scim.Page:  # fmt: skip
    return scim.Page(filter, start, count, sort_by, order == "descending", *part)


Paged = Annotated[scim.Page, Depends(_page)]


def _bulk_problem(error: Exception) -> GroundplanError | None:
    """The error that a single request would get; None for an unexpected exception."""
    if isinstance(error, GroundplanError):
        return error
    return translate_error(error) if isinstance(error, INFRASTRUCTURE_ERRORS) else None


@router.post("/Bulk")
def bulk(body: Document, request: Request, services: ServicesDep, caller: SignedIn) -> dict[str, Any]:
    """Execute several operations in one request, each with its own result; operations may refer to each other by
    `bulkId`."""
    size = request.headers.get("content-length", "0")
    if not size.isdigit() or int(size) > BULK_BYTES:
        hint = "Send fewer operations at once."
        raise TooLarge(f"a bulk request has at most {BULK_BYTES} bytes", code="scim_bulk_size", hint=hint)
    with services.transaction() as conn:
        return scim_bulk.run_bulk(conn, caller.actor, body, _bulk_problem)


@router.post("/.search")
def search(body: Search, services: ServicesDep) -> dict[str, Any]:
    """List people and groups together; filters and sorting are not supported."""
    with services.transaction() as conn:
        return scim.list_all(conn, body.page())


@router.get("/Users")
def users(services: ServicesDep, page: Paged) -> dict[str, Any]:
    """List people, optionally filtered by userName and sorted."""
    with services.transaction() as conn:
        return scim.list_users(conn, page)


@router.post("/Users", status_code=201)
def create_user(body: Document, services: ServicesDep, caller: SignedIn) -> dict[str, Any]:
    """Create a person."""
    with services.transaction() as conn:
        return scim.create_user(conn, caller.actor, body)


@router.post("/Users/.search")
def search_users(body: Search, services: ServicesDep) -> dict[str, Any]:
    """As GET, with the query in the body."""
    with services.transaction() as conn:
        return scim.list_users(conn, body.page())


@router.get("/Users/{id}")
def user(id: Id, services: ServicesDep, part: Parted) -> dict[str, Any]:
    """One person."""
    with services.transaction() as conn:
        return select_attributes(scim.get_user(conn, id), *part)


@router.put("/Users/{id}")
def replace_user(id: Id, body: Document, services: ServicesDep, caller: SignedIn) -> dict[str, Any]:
    """Replace a person's attributes; `active: false` deactivates them, which ends their permissions at once."""
    with services.transaction() as conn:
        return scim.replace_user(conn, caller.actor, id, body)


@router.patch("/Users/{id}")
def patch_user(id: Id, body: Document, services: ServicesDep, caller: SignedIn) -> dict[str, Any]:
    """Change attributes of a person."""
    with services.transaction() as conn:
        return scim.patch_user(conn, caller.actor, id, body)


@router.delete("/Users/{id}", status_code=204, response_class=Response)
def delete_user(id: Id, services: ServicesDep, caller: SignedIn) -> None:
    """Deactivate a person and mark them as deleted by the directory."""
    with services.transaction() as conn:
        scim.delete_user(conn, caller.actor, id)


@router.get("/Groups")
def groups(services: ServicesDep, page: Paged) -> dict[str, Any]:
    """List groups and teams, optionally filtered by displayName and sorted."""
    with services.transaction() as conn:
        return scim.list_groups(conn, page)


@router.post("/Groups", status_code=201)
def create_group(body: Document, services: ServicesDep, caller: SignedIn) -> dict[str, Any]:
    """Create a group."""
    with services.transaction() as conn:
        return scim.create_group(conn, caller.actor, body)


@router.post("/Groups/.search")
def search_groups(body: Search, services: ServicesDep) -> dict[str, Any]:
    """As GET, with the query in the body."""
    with services.transaction() as conn:
        return scim.list_groups(conn, body.page())


@router.get("/Groups/{id}")
def group(id: Id, services: ServicesDep, part: Parted) -> dict[str, Any]:
    """One group with its members."""
    with services.transaction() as conn:
        return select_attributes(scim.get_group(conn, id), *part)


@router.put("/Groups/{id}")
def replace_group(id: Id, body: Document, services: ServicesDep, caller: SignedIn) -> dict[str, Any]:
    """Replace the members of a group."""
    with services.transaction() as conn:
        return scim.replace_group(conn, caller.actor, id, body)


@router.patch("/Groups/{id}")
def patch_group(id: Id, body: Document, services: ServicesDep, caller: SignedIn) -> dict[str, Any]:
    """Add or remove members."""
    with services.transaction() as conn:
        return scim.patch_group(conn, caller.actor, id, body)


@router.delete("/Groups/{id}", status_code=204, response_class=Response)
def delete_group(id: Id, services: ServicesDep, caller: SignedIn) -> None:
    """Remove all members of a group and mark it as deleted by the directory."""
    with services.transaction() as conn:
        scim.delete_group(conn, caller.actor, id)
