"""Selects the attributes of a SCIM resource to return: the requested ones, or all except some (RFC 7644, 3.9)."""

from __future__ import annotations

from typing import Any


def select_attributes(resource: dict[str, Any], attributes: str | None, excluded: str | None) -> dict[str, Any]:
    """A resource with only `attributes`, or without `excluded`; `schemas` and `id` are always included. Both are
    comma-separated; `name.familyName` names a sub-attribute."""
    if attributes:
        requested = _paths(attributes)
        selected = {"schemas": resource["schemas"], "id": resource["id"]}
        for name, value in resource.items():
            parts = requested.get(name.lower())
            if parts is not None:
                selected[name] = value if not parts or not isinstance(value, dict) else _select_parts(value, parts)
        return selected
    dropped = _paths(excluded or "")
    selected = {}
    for name, value in resource.items():
        parts = dropped.get(name.lower())
        if parts is None or name in ("schemas", "id"):
            selected[name] = value
        elif parts and isinstance(value, dict):
            selected[name] = {key: inner for key, inner in value.items() if key.lower() not in parts}
    return selected


def _paths(text: str) -> dict[str, set[str]]:
    """Name -> named sub-attributes; empty: the whole attribute."""
    paths: dict[str, set[str]] = {}
    for path in text.lower().split(","):
        name, _, part = path.strip().rpartition(":")[2].partition(".")
        if name:
            paths.setdefault(name, set()).update({part} if part else set())
    return paths


def _select_parts(value: dict[str, Any], parts: set[str]) -> dict[str, Any]:
    return {name: inner for name, inner in value.items() if name.lower() in parts}
