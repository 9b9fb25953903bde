"""SCIM schema resources (RFC 7643, section 7): the attributes of users and groups that are stored here."""

from __future__ import annotations

from typing import Any

from groundplan.identity.scim.body import GROUP, USER

SCHEMA = "urn:ietf:params:scim:schemas:core:2.0:Schema"


def schemas() -> list[dict[str, Any]]:
    """The schemas of groups and users, ordered by name."""
    return [
        _schema(GROUP, "Group", "A group of people", [
            _string("displayName", "Its name, which stays", required=True, mutability="immutable"),
            _complex_list("members", "Who is in it", [
                _string("value", "The id of a person", mutability="immutable"),
                _string("$ref", "Where the person is", type="reference", references=["User"], mutability="immutable"),
                _string("type", "Always User", values=["User"], mutability="immutable"),
            ]),
        ]),
        _schema(USER, "User", "A person", [
            _string("userName", "Their name in the directory", required=True, uniqueness="server"),
            _string("displayName", "As they are shown"),
            _attribute("name", "complex", "The parts of their name", subAttributes=[
                _string("formatted", "The whole of it"), _string("familyName", "Family name"),
                _string("givenName", "Given name"),
            ]),
            _complex_list("emails", "Their addresses; the primary one, or the first, is that by which they are known", [
                _string("value", "The address", required=True),
                _attribute("primary", "boolean", "Whether it is the one that is used"),
                _string("type", "Of what kind", values=["work", "home", "other"]),
                _string("display", "As it is shown"),
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


def _string(
    name: str, description: str, *, values: list[str] | None = None, references: list[str] | None = None, **more: Any
) -> dict[str, Any]:
    attribute = _attribute(name, str(more.pop("type", "string")), description, caseExact=False, **more)
    if values:
        attribute["canonicalValues"] = values
    if references:
        attribute["referenceTypes"] = references
    return attribute


def _complex_list(
    name: str, description: str, parts: list[dict[str, Any]], *, required: bool = False
) -> dict[str, Any]:
    return _attribute(name, "complex", description, multiValued=True, subAttributes=parts, required=required)
