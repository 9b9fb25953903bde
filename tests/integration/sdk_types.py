"""Answers held against the types of pinned official clients: nothing is missing, nothing is unknown."""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from functools import cache
from typing import Any

from pydantic import BaseModel, TypeAdapter

OURS = frozenset({"groundplan"})
"""The one field that is added to answers."""


def strict(kind: Any, raw: bytes | str, *, ours: AbstractSet[str] = OURS) -> Any:
    """`raw` JSON as the SDK's type `kind`, strictly: types as declared, required fields there, no field unknown.

    `ours`: what may be there beside it; within another field as its whole place, such as `.error.hint`.
    """
    found = _adapter(kind).validate_json(raw, strict=True)
    _known(found, "", ours)
    return found


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    """Of a union such as the events of Responses it takes a fifth of a second to make."""
    return TypeAdapter(kind)


def _known(value: Any, where: str, ours: AbstractSet[str]) -> None:
    if isinstance(value, BaseModel):
        unknown = {f"{where}.{name}" if where else name for name in value.model_extra or {}} - ours
        assert not unknown, f"{type(value).__name__}{where} has unknown fields {unknown}"
        for name in type(value).model_fields:
            _known(getattr(value, name), f"{where}.{name}", ours)
    elif isinstance(value, list):
        for each in value:
            _known(each, f"{where}[]", ours)
