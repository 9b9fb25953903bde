"""Closed paths of deleted documents: by name, or by a salted digest where the name was erased with a person. Pure.

A digest keeps a path closed without revealing the name; somebody who guesses the name can confirm it by the digest.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable


def path_digest(path: str, salt: bytes) -> str:
    """The salted digest that replaces a path; `deletion_store` has the same in SQL."""
    return hashlib.sha256(salt + path.encode("utf-8", "surrogatepass")).hexdigest()


class ClosedPlaces:
    """The closed paths of a source: `path in closed_places`."""

    def __init__(self, places: Iterable[tuple[str, bytes | None]]) -> None:
        """(path, or its digest; the salt of a digest)"""
        self._names: set[str] = set()
        self._digests: dict[bytes, set[str]] = {}
        for path, salt in places:
            (self._names if salt is None else self._digests.setdefault(salt, set())).add(path)

    def __contains__(self, path: str) -> bool:
        return path in self._names or any(path_digest(path, salt) in digests for salt, digests in self._digests.items())
