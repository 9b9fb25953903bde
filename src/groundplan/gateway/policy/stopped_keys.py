"""Extends the stop of a key to all other keys of its line of rotations: whoever is stopped has both keys while one
replaces the other, and a batch that was ordered with one goes on with its successor. Pure.

To end a leaked secret alone, a key is revoked.
"""

from __future__ import annotations

from collections.abc import Mapping

from groundplan.gateway.policy.snapshot import KeyEntry
from groundplan.identity.model import canonical_scope

_PREFIX = "key/"


def with_lines(scopes: frozenset[str], keys: Mapping[bytes, KeyEntry]) -> frozenset[str]:
    """The scopes of kills, with `key/ID` for every key of the line of each key that they name; the same object if they
    name none."""
    named = {scope.removeprefix(_PREFIX) for scope in map(canonical_scope, scopes) if scope.startswith(_PREFIX)}
    if not named:
        return scopes
    lines = {key.line for key in keys.values() if key.line and not named.isdisjoint(key.line)}
    return scopes.union(f"{_PREFIX}{id}" for id in named.union(*lines))


class StoppedKeys:
    """Remembers the last result of `with_lines`: a worker asks ten times a second, and may have a hundred thousand
    keys."""

    __slots__ = ("_found", "_keys", "_scopes")

    def __init__(self) -> None:
        self._scopes = self._found = frozenset[str]()
        self._keys: Mapping[bytes, KeyEntry] = {}

    def with_lines(self, scopes: frozenset[str], keys: Mapping[bytes, KeyEntry]) -> frozenset[str]:
        """As the function."""
        if keys is not self._keys or scopes != self._scopes:
            self._found = with_lines(scopes, keys)
            self._scopes, self._keys = scopes, keys
        return self._found
