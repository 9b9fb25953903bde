"""Checks answers against the types of pinned official clients: no field is missing, none is unknown."""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from functools import cache
from typing import Any

from pydantic import BaseModel, TypeAdapter

OUR_FIELDS = frozenset({"groundplan"})
"""The field that the gateway adds to answers."""


def parse_strictly(kind: Any, raw: bytes | str, *, our_fields: AbstractSet[str] = OUR_FIELDS) -> Any:
    """Parse JSON as the SDK's type `kind` and fail on any wrong type, missing field or unknown field.

    `our_fields`: fields that are allowed in addition; nested ones by their full path, such as `.error.hint`.
    """
    parsed = _adapter(kind).validate_json(raw, strict=True)
    _check_known(parsed, "", our_fields)
    return parsed


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    """Cached, since creating one for a union such as the events of Responses takes a fifth of a second."""
    return TypeAdapter(kind)


def _check_known(value: Any, where: str, our_fields: AbstractSet[str]) -> None:
    if isinstance(value, BaseModel):
        unknown = {f"{where}.{name}" if where else name for name in value.model_extra or {}} - our_fields
        assert not unknown, f"{type(value).__name__}{where} has unknown fields {unknown}"
        for name in type(value).model_fields:
            _check_known(getattr(value, name), f"{where}.{name}", our_fields)
    elif isinstance(value, list):
        for each in value:
            _check_known(each, f"{where}[]", our_fields)
