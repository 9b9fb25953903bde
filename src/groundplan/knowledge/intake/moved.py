"""What was decided about a document that now stands at another place: a file that was renamed, a folder that was moved.

A document is moved where its very bytes appear at a new place and are gone from the one before. Only what narrows goes
with it, and only so far as it narrows what holds at the new place: whoever may write files must neither end a rejection
by a new name, nor carry an approval to where another folder asks for one. What was deleted stays deleted under its new
name. A copy is another document.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from datetime import date
from typing import Any, Final

from groundplan.core.errors import Invalid
from groundplan.knowledge.governed.inherit import SETS, narrowed
from groundplan.knowledge.intake.intake_store import Known

_DAYS: Final = ("valid_from", "valid_until")
_NARROWS: Final = ("state", "sensitivity", *SETS, *_DAYS, "legal_hold")

Decisions = Mapping[str, Mapping[str, Any]]


class Moved:
    """The documents of a source about which something was decided, or that were deleted, by the digests of what they
    are or were."""

    def __init__(
        self, known: Mapping[str, Known], deleted: Mapping[str, Sequence[str | None]], is_gone: Callable[[str], bool]
    ) -> None:
        """`deleted`: digest -> places, None where the name is not known; `is_gone`: whether nothing stands at a path
        any more."""
        self._is_gone, self._deleted = is_gone, deleted
        self._by_digest: dict[str, list[Known]] = defaultdict(list)
        for one in known.values():
            for digest in {one.digest, str(one.decided.get("state", {}).get("digest") or "")} if one.decided else ():
                self._by_digest[digest].append(one)

    def check(self, key: str, digest: str) -> None:
        """Raises `Invalid` (document_deleted) for what was deleted here under another name, which its source has no
        more."""
        places = self._deleted.get(digest, ())
        if any(place is None or (place != key and self._is_gone(place)) for place in places):
            raise Invalid(
                "what it says was deleted here under another name", code="document_deleted",
                hint="Delete it in its source too, or let it in again by its old name: `groundplan knowledge readmit`.",
            )  # fmt: skip

    def before(self, digest: str) -> Known | None:
        """The document that was moved to where this digest is new; None where it is no moved one."""
        twins = self._by_digest.get(digest, ()) if digest else ()
        return next((one for one in twins if not one.live or self._is_gone(one.path)), None)


def carried(decided: Decisions, holds: Mapping[str, Any], digest: str) -> dict[str, Mapping[str, Any]]:
    """Those of the decisions that narrow what `holds` for the document at its new place, by itself."""
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
    return found


def _value(name: str, value: Any) -> Any:
    return date.fromisoformat(value) if name in _DAYS and isinstance(value, str) else value
