"""Parses ids of files and batches as callers write them."""

from __future__ import annotations

from uuid import UUID

from groundplan.core.errors import NotFound
from groundplan.core.ids import parse_id


def known_id(text: str) -> UUID | None:
    """A file's id; None where the text is none."""
    try:
        return parse_id(text, "file-")
    except ValueError:
        return None


def file_id(text: str) -> UUID:
    """Raises `NotFound`."""
    return _id(text, "file-", "file")


def batch_id(text: str) -> UUID:
    """Raises `NotFound`."""
    return _id(text, "batch_", "batch")


def _id(text: str, prefix: str, what: str) -> UUID:
    try:
        return parse_id(text, prefix)
    except ValueError as error:
        hint = f"Use an id of GET /v1/{what}{'es' if what == 'batch' else 's'}."
        raise NotFound(f"there is no such {what}", code=f"{what}_not_found", hint=hint) from error
