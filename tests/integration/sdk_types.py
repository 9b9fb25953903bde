"""Answers held against the types of pinned official clients: nothing is missing, nothing is unknown."""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from functools import cache
from typing import Any

from pydantic import BaseModel, TypeAdapter

OUR_FIELDS = frozenset({"groundplan"})
"""The one field that is added to answers."""


def parse_strictly(kind: Any, raw: bytes | str, *, our_fields: AbstractSet[str] = OUR_FIELDS) -> Any:
    """`raw` JSON as the SDK's type `kind`, strictly: types as declared, required fields there, no field unknown.

    `ours`: what may be there beside it; within another field as its whole place, such as `.error.hint`.
    """
    parsed = _adapter(kind).validate_json(raw, strict=True)
    _check_known(parsed, "", our_fields)
    return parsed


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    """Of a union such as the events of Responses it takes a fifth of a second to make."""
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
