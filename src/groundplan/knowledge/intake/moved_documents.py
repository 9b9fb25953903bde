"""What was decided about a document that now stands at another place: a file that was renamed, a folder that was moved,
a source that is declared under another name.

A document is moved where its very bytes appear at a new place and are gone from the one before, or where its source
left the workspace. Only what narrows goes with it, and only so far as it narrows what holds at the new place: whoever
may write files must neither end a rejection by a new name, nor carry an approval to where another folder asks for one.
What was deleted stays deleted under its new name. A copy is another document.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, date, datetime
from pathlib import PurePosixPath
from typing import Any, Final
from uuid import UUID

from groundplan.core.audit.entry import SYSTEM
from groundplan.core.errors import Invalid
from groundplan.knowledge.governance.inherit import SETS, narrowed
from groundplan.knowledge.intake.intake_store import Known

_DAYS: Final = ("valid_from", "valid_until")
_NARROWS: Final = ("state", "sensitivity", *SETS, *_DAYS, "legal_hold")


class Moved:
    """The documents of a source about which something was decided, that are replaced, or that were deleted, and those
    with the same bytes, by the digests of what they are or were."""

    def __init__(
        self,
        known: Mapping[str, Known],
        left: Sequence[Known],
        deleted: Mapping[str, Sequence[str | None]],
        is_gone: Callable[[str], bool],
    ) -> None:
        """`left`: of sources that left the workspace; `deleted`: digest -> places, None where the name is not known;
        `is_gone`: whether nothing stands at a path any more."""
        self._is_gone, self._deleted = is_gone, deleted
        self._left: dict[str, list[Known]] = defaultdict(list)
        for one in left:
            self._left[one.digest].append(one)
        self._was: dict[str, list[Known]] = defaultdict(list)
        self._is: dict[str, list[Known]] = defaultdict(list)
        decided = [one for one in known.values() if one.decided or one.superseded_by]
        for one in decided:
            if not one.live and (digest := str(one.decided.get("state", {}).get("digest") or "")):
                self._was[digest].append(one)
        wanted = {*deleted, *self._was, *(one.digest for one in decided if one.live)}
        for one in known.values():
            if one.live and one.digest in wanted:
                self._is[one.digest].append(one)

    def check(self, key: str, digest: str) -> None:
        """Raises `Invalid` (document_deleted) for what was deleted here under another name, which its source has no
        more; not where another document with the same bytes was left."""
        places = () if digest in self._is else self._deleted.get(digest, ())
        if any(place is None or (place != key and self._is_gone(place)) for place in places):
            raise Invalid(
                "what it says was deleted here under another name", code="document_deleted",
                hint="Delete it in its source too, or readmit it by its old name: `groundplan knowledge readmit`.",
            )  # fmt: skip

    def before(self, key: str, digest: str) -> Known | None:
        """The document that was moved to this key, where its digest is new; None where it is no moved one. Of several
        with the same bytes the one with the same name, else with the most decisions; first those of this source."""
        if twins := self._is.get(digest):
            gone = [one for one in twins if one.path != key and self._is_gone(one.path)]
            name = PurePosixPath(key).name
            return max(gone, key=lambda one: (PurePosixPath(one.path).name == name, len(one.decided)), default=None)
        was = next((one for one in self._was.get(digest, ()) if one.path != key), None)
        left = self._left.get(digest, ())
        return was or max(left, key=lambda one: (one.path == key, len(one.decided)), default=None)


def carried(before: Known, holds: Mapping[str, Any], digest: str) -> dict[str, Mapping[str, Any]]:
    """Those of the decisions that narrow what `holds` for the document at its new place, by itself; and that it was
    replaced, which the newer one says of the old place alone."""
    decided = before.decided
    found: dict[str, Mapping[str, Any]] = {}
    for name in _NARROWS:
        if name not in decided or decided[name]["value"] is None:
            continue
        value = _value(name, decided[name]["value"])
        strict = narrowed(name, holds.get(name), value)
        if strict != holds.get(name):
            shown = strict.isoformat() if isinstance(strict, date) else strict
            found[name] = {**decided[name], "value": shown, **({"digest": digest} if name == "state" else {})}
    newer = decided.get("superseded_by", {})
    if newer.get("value"):
        found["superseded_by"] = newer
        if "state" not in found and narrowed("state", holds["state"], "superseded") != holds["state"]:
            # the newer one may have been moved as well: then nothing has that id
            found["state"] = {**newer, "value": "superseded", "digest": digest}
    elif before.superseded_by:
        found["superseded_by"] = replaced(before.superseded_by, "it was replaced where it stood before")
    return found


def replaced(by: UUID, reason: str) -> dict[str, Any]:
    """That something is replaced, as a decision that nobody made and that can be taken back."""
    at = datetime.now(UTC).isoformat(timespec="seconds")
    return {"value": str(by), "by": SYSTEM, "at": at, "reason": reason}


def _value(name: str, value: Any) -> Any:
    return date.fromisoformat(value) if name in _DAYS and isinstance(value, str) else value
