"""The contract test of connectors, for any implementation. Pass it a `Place` in which it may create documents:

    async def test_mine(tmp_path):
        check(Mine(tmp_path))

`check` raises `AssertionError` that names what is violated. The shipped connectors are tested with it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, Protocol

from groundplan.core.errors import NotFound
from groundplan.knowledge.model import Readers
from groundplan.knowledge.sources.model import Change, Connector, Cursor, FolderRules

READER: Final = "reader@acme.example"


class Place(Protocol):
    """A store of documents that a connector reads. Keys are those that the connector gives to the documents.

    If it also has `restrict(name, reader)`, which grants `reader` (an e-mail address) access to a document by the
    store's own means, permissions are checked too; otherwise all documents must have the same readers.
    """

    def put(self, name: str, text: str) -> str:
        """Write a document and return its key."""
        ...

    def remove(self, name: str) -> None: ...

    def connector(self) -> Connector:
        """A new connector, as after a restart."""
        ...


def list_changes(place: Place, cursor: Cursor | None = None) -> tuple[dict[str, Change], bool, Cursor | None]:
    """Return every change by key, whether the listing is complete, and the last cursor."""
    connector = place.connector()
    try:
        found: dict[str, Change] = {}
        for change in connector.changes(cursor):
            found[change.key] = change
            cursor = change.cursor or cursor
        return found, connector.is_complete, cursor
    finally:
        connector.close()


def check(place: Place) -> None:
    """Create, change and remove documents, and check what the connector reports."""
    keys = [place.put(name, f"The {name} text.") for name in ("a", "b", "c")]
    first, whole, cursor = list_changes(place)
    assert set(first) == set(keys), f"told {sorted(first)}, not {sorted(keys)}"
    assert whole, "the first run tells everything there is"
    assert not any(change.is_deleted for change in first.values())
    _check_reading(place, dict(zip(keys, ("a", "b", "c"), strict=True)))
    again, _, _ = list_changes(place)
    versions = {key: change.version for key, change in first.items()}
    assert {key: change.version for key, change in again.items()} == versions, "a version stays while nothing changes"
    _check_resumption(place, keys)
    _check_permissions(place, keys)
    _, _, cursor = list_changes(place, cursor)
    versions = {key: change.version for key, change in list_changes(place)[0].items()}
    place.put("b", "The other b text.")
    changed, whole, cursor = list_changes(place, cursor)
    assert keys[1] in changed, "a change is told"
    assert changed[keys[1]].version != versions[keys[1]], "a changed document has another version"
    assert whole or set(changed) <= {keys[1]}, "what did not change is not told, or all is told"
    place.remove("c")
    after, whole, _ = list_changes(place, cursor)
    gone = {key for key, change in after.items() if change.is_deleted}
    assert keys[2] in gone or (whole and keys[2] not in after), "what is gone is told, or missing in all that is told"


def _check_reading(place: Place, expected: dict[str, str]) -> None:
    connector = place.connector()
    try:
        seen = []
        for change in connector.changes(None):
            content = connector.read(change.key)
            assert f"The {expected[change.key]} text." in content.data.decode("utf-8", "replace")
            for level in connector.folder_rules(change.key):
                assert isinstance(level, FolderRules) and level.origin, "a level says what it is"
            seen.append(change.key)
        assert sorted(seen) == sorted(expected)
        try:
            connector.read("there-is-no-such-document")
        except NotFound:
            return
        raise AssertionError("what is not there is `NotFound`")
    finally:
        connector.close()


def _check_permissions(place: Place, keys: list[str]) -> None:
    """Check that readers are reported for each document separately, and that its version or levels change with them."""
    before = _governance_of(place, keys)
    restrict: Callable[[str, str], None] | None = getattr(place, "restrict", None)
    if restrict is None:
        assert len({readers for _, readers, _ in before.values()}) == 1, "readers differ: give the place a `restrict`"
        return
    restrict("a", READER)
    after = _governance_of(place, keys)
    levels, readers, version = after[keys[0]]
    assert readers is not None and READER in readers.allow - readers.deny, f"{READER} may read {keys[0]} now"
    assert (levels, version) != (before[keys[0]][0], before[keys[0]][2]), "neither a level nor the version changed"
    for key in keys[1:]:
        assert after[key] == before[key], f"who may read {key} did not change"


def _governance_of(place: Place, keys: list[str]) -> dict[str, tuple[Sequence[FolderRules], Readers | None, str]]:
    """Key -> (levels, readers from the innermost declaration, version)."""
    connector = place.connector()
    found = {}
    try:
        for change in connector.changes(None):
            levels, own = connector.folder_rules(change.key), connector.read(change.key).governed_values
            words = [level.readers for level in levels if level.readers is not None]
            if "readers" in own or "deny" in own:
                words.append(Readers(frozenset(own.get("readers", ())), frozenset(own.get("deny", ()))))
            found[change.key] = (levels, words[-1] if words else None, change.version)
    finally:
        connector.close()
    assert set(found) == set(keys)
    return found


def _check_resumption(place: Place, keys: list[str]) -> None:
    """Check that nothing is missed when a listing is cut off after any change and resumed with its cursor."""
    for cut in range(1, len(keys) + 1):
        connector = place.connector()
        seen: set[str] = set()
        cursor: Cursor | None = None
        changes = connector.changes(None)
        for _ in range(cut):
            change = next(changes)
            connector.read(change.key)
            seen.add(change.key)
            cursor = change.cursor or cursor
        connector.close()
        rest, _, _ = list_changes(place, cursor)
        assert seen | set(rest) == set(keys), f"cut off after {cut}, {set(keys) - seen - set(rest)} is missed"
