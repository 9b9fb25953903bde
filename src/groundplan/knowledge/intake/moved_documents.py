"""Decisions about documents that moved: a renamed file, a moved folder, a source declared under another name.

A document counts as moved where the same bytes appear at a new path and are gone from the former one, or where its
source left the workspace. Only decisions that narrow what applies at the new path move along: somebody who may write
files must neither end a rejection by renaming, nor carry an approval into a folder that asks for another one. A deleted
document stays deleted under its new name. A copy is another document.
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
from groundplan.knowledge.governance.inherit import SET_FIELDS, stricter
from groundplan.knowledge.intake.intake_store import StoredDocument

_DATE_FIELDS: Final = ("valid_from", "valid_until")
_NARROWING_FIELDS: Final = ("state", "sensitivity", *SET_FIELDS, *_DATE_FIELDS, "legal_hold")


class MovedDocuments:
    """Finds where a document was moved from: by content digest, the documents of a source that have decisions, were
    replaced or were deleted, and those with the same bytes."""

    def __init__(
        self,
        known: Mapping[str, StoredDocument],
        undeclared: Sequence[StoredDocument],
        deleted: Mapping[str, Sequence[str | None]],
        is_absent: Callable[[str], bool],
    ) -> None:
        """`undeclared`: documents of sources that left the workspace; `deleted`: digest -> paths (None: name erased);
        `is_absent`: whether the source has nothing at a path any more."""
        self._is_absent, self._deleted = is_absent, deleted
        self._undeclared: dict[str, list[StoredDocument]] = defaultdict(list)
        for document in undeclared:
            self._undeclared[document.digest].append(document)
        self._former: dict[str, list[StoredDocument]] = defaultdict(list)
        self._current: dict[str, list[StoredDocument]] = defaultdict(list)
        decided = [document for document in known.values() if document.decided or document.superseded_by]
        for document in decided:
            if not document.live and (digest := str(document.decided.get("state", {}).get("digest") or "")):
                self._former[digest].append(document)
        wanted = {*deleted, *self._former, *(document.digest for document in decided if document.live)}
        for document in known.values():
            if document.live and document.digest in wanted:
                self._current[document.digest].append(document)

    def check_not_deleted(self, key: str, digest: str) -> None:
        """Raise `Invalid` (document_deleted) for content that was deleted here under another name which its source no
        longer has; not where another document with the same bytes is still there."""
        places = () if digest in self._current else self._deleted.get(digest, ())
        if any(place is None or (place != key and self._is_absent(place)) for place in places):
            raise Invalid(
                "what it says was deleted here under another name", code="document_deleted",
                hint="Delete it in its source too, or readmit it by its old name: `groundplan knowledge readmit`.",
            )  # fmt: skip

    def find_origin(self, key: str, digest: str) -> StoredDocument | None:
        """The document that was moved to this key; None where it is not a moved one. Of several with the same bytes,
        the one with the same file name, else the one with the most decisions; those of this source come first."""
        if twins := self._current.get(digest):
            moved = [one for one in twins if one.path != key and self._is_absent(one.path)]
            name = PurePosixPath(key).name
            return max(moved, key=lambda one: (PurePosixPath(one.path).name == name, len(one.decided)), default=None)
        was = next((one for one in self._former.get(digest, ()) if one.path != key), None)
        left = self._undeclared.get(digest, ())
        return was or max(left, key=lambda one: (one.path == key, len(one.decided)), default=None)


def inherited_decisions(
    origin: StoredDocument, current: Mapping[str, Any], digest: str
) -> dict[str, Mapping[str, Any]]:
    """The decisions about `origin` that narrow the `current` values of the document at its new path; and that it was
    replaced, which the newer document says of the former path only."""
    decided = origin.decided
    found: dict[str, Mapping[str, Any]] = {}
    for name in _NARROWING_FIELDS:
        if name not in decided or decided[name]["value"] is None:
            continue
        value = _parse_value(name, decided[name]["value"])
        strict = stricter(name, current.get(name), value)
        if strict != current.get(name):
            shown = strict.isoformat() if isinstance(strict, date) else strict
            found[name] = {**decided[name], "value": shown, **({"digest": digest} if name == "state" else {})}
    newer = decided.get("superseded_by", {})
    if newer.get("value"):
        found["superseded_by"] = newer
        if "state" not in found and stricter("state", current["state"], "superseded") != current["state"]:
            # the newer one may have been moved as well: then nothing has that id
            found["state"] = {**newer, "value": "superseded", "digest": digest}
    elif origin.superseded_by:
        found["superseded_by"] = replacement_decision(origin.superseded_by, "it was replaced where it stood before")
    return found


def replacement_decision(by: UUID, reason: str) -> dict[str, Any]:
    """A decision by the system that a document is replaced; it can be taken back."""
    at = datetime.now(UTC).isoformat(timespec="seconds")
    return {"value": str(by), "by": SYSTEM, "at": at, "reason": reason}


def _parse_value(name: str, value: Any) -> Any:
    return date.fromisoformat(value) if name in _DATE_FIELDS and isinstance(value, str) else value
