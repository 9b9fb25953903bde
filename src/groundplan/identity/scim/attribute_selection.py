"""Which attributes of a SCIM resource are given: those that are asked for, or all but some (RFC 7644, section 3.9)."""

from __future__ import annotations

from typing import Any


def selected(resource: dict[str, Any], attributes: str | None, excluded: str | None) -> dict[str, Any]:
    """A resource with the attributes that are asked for (section 3.9), or without those that are not; `schemas` and
    `id` are always there. Both are lists with commas; `name.familyName` is a part."""
    if attributes:
        wanted = _paths(attributes)
        kept = {"schemas": resource["schemas"], "id": resource["id"]}
        for name, value in resource.items():
            parts = wanted.get(name.lower())
            if parts is not None:
                kept[name] = value if not parts or not isinstance(value, dict) else _some(value, parts)
        return kept
    dropped = _paths(excluded or "")
    kept = {}
    for name, value in resource.items():
        parts = dropped.get(name.lower())
        if parts is None or name in ("schemas", "id"):
            kept[name] = value
        elif parts and isinstance(value, dict):
            kept[name] = {each: inner for each, inner in value.items() if each.lower() not in parts}
    return kept


def _paths(text: str) -> dict[str, set[str]]:
    """Name -> the parts of it that are named; empty: the whole."""
    found: dict[str, set[str]] = {}
    for path in text.lower().split(","):
        name, _, part = path.strip().rpartition(":")[2].partition(".")
        if name:
            found.setdefault(name, set()).update({part} if part else set())
    return found


def _some(value: dict[str, Any], parts: set[str]) -> dict[str, Any]:
    return {name: inner for name, inner in value.items() if name.lower() in parts}
