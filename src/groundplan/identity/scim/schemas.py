"""What SCIM says of its own resources (RFC 7643, section 7): the attributes of users and groups that are kept here."""

from __future__ import annotations

from typing import Any

from groundplan.identity.scim.body import GROUP, USER

SCHEMA = "urn:ietf:params:scim:schemas:core:2.0:Schema"


def schemas() -> list[dict[str, Any]]:
    """Both, in the order of their names."""
    return [
        _schema(GROUP, "Group", "A group of people", [
            _said("displayName", "Its name, which stays", required=True, mutability="immutable"),
            _many("members", "Who is in it", [
                _said("value", "The id of a person", mutability="immutable"),
                _said("$ref", "Where the person is", type="reference", references=["User"], mutability="immutable"),
                _said("type", "Always User", values=["User"], mutability="immutable"),
            ]),
        ]),
        _schema(USER, "User", "A person", [
            _said("userName", "Their name in the directory", required=True, uniqueness="server"),
            _said("displayName", "As they are shown"),
            _attribute("name", "complex", "The parts of their name", subAttributes=[
                _said("formatted", "The whole of it"), _said("familyName", "Family name"),
                _said("givenName", "Given name"),
            ]),
            _many("emails", "Their addresses; the primary one, or the first, is that by which they are known", [
                _said("value", "The address", required=True),
                _attribute("primary", "boolean", "Whether it is the one that is used"),
                _said("type", "Of what kind", values=["work", "home", "other"]),
                _said("display", "As it is shown"),
            ], required=True),
            _attribute("active", "boolean", "false ends what they may do, at once"),
        ]),
    ]  # fmt: skip


def _schema(id: str, name: str, description: str, attributes: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "schemas": [SCHEMA], "id": id, "name": name, "description": description, "attributes": attributes,
        "meta": {"resourceType": "Schema", "location": f"Schemas/{id}"},
    }  # fmt: skip


def _attribute(name: str, type: str, description: str, **more: Any) -> dict[str, Any]:
    return {
        "name": name, "type": type, "multiValued": False, "description": description, "required": False,
        "mutability": "readWrite", "returned": "default", "uniqueness": "none", **more,
    }  # fmt: skip


def _said(
    name: str, description: str, *, values: list[str] | None = None, references: list[str] | None = None, **more: Any
) -> dict[str, Any]:
    made = _attribute(name, str(more.pop("type", "string")), description, caseExact=False, **more)
    if values:
        made["canonicalValues"] = values
    if references:
        made["referenceTypes"] = references
    return made


def _many(name: str, description: str, parts: list[dict[str, Any]], *, required: bool = False) -> dict[str, Any]:
    return _attribute(name, "complex", description, multiValued=True, subAttributes=parts, required=required)
