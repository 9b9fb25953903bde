"""The JSON Schema of a workspace document, for completion and checks in editors.

It describes form only, and is generated from the models; rules between documents are in `check`.
"""

from __future__ import annotations

from typing import Any

from pydantic.json_schema import models_json_schema

from groundplan.catalog.model import KINDS
from groundplan.catalog.units import format_like


def json_schema() -> dict[str, Any]:
    """JSON Schema 2020-12 of one document: one of the kinds, told apart by `kind`."""
    references, schema = models_json_schema(
        [(doc, "validation") for doc in KINDS.values()], ref_template="#/$defs/{model}"
    )
    definitions: dict[str, Any] = schema["$defs"]
    for definition in definitions.values():
        _tidy(definition)
    for kind, doc in KINDS.items():
        definition = definitions[doc.__name__]
        definition["properties"]["kind"] = {"const": kind}
        definition["required"] = ["kind", *definition.get("required", [])]
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Groundplan declarations",
        "description": "One document of a workspace.",
        "oneOf": [references[doc, "validation"] for doc in KINDS.values()],
        "$defs": dict(sorted(definitions.items())),
    }


def _tidy(definition: dict[str, Any]) -> None:
    """Remove what only says how a value is held in memory: titles of fields, null for left out. Defaults are told as
    they would be written."""
    for name, field in definition.get("properties", {}).items():
        default = field.pop("default", None)
        field.pop("title", None)
        if name == "price":
            item = {"$ref": "#/$defs/Price"}
            field.pop("type", None)
            field.pop("items", None)
            field["anyOf"] = [{"const": "free"}, item, {"type": "array", "items": item}]
        choices = [choice for choice in field.get("anyOf", []) if choice != {"type": "null"}]
        if len(choices) == 1:
            del field["anyOf"]
            field.update({**choices[0], **field})
        elif choices:
            field["anyOf"] = choices
        if isinstance(default, list):
            default = [format_like(value, _example(field.get("items", {}))) for value in default]
        if default not in (None, "", []) and not isinstance(default, dict):
            field["default"] = format_like(default, _example(field))


def _example(field: dict[str, Any]) -> Any:
    return field.get("examples", [None])[0]
