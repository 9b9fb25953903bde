"""Notes on the passages of one call besides the passages themselves: conflicts, newer versions, and citations.

They are given to the model in words, and to the caller in the `groundplan` object. Neither searches nor judges.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from groundplan.knowledge.retrieval.wire import NOT_GIVEN, Conflict, Newer, Step

if TYPE_CHECKING:
    from groundplan.gateway.call.ask import Passage
    from groundplan.gateway.call.grounding.citation import Citation

SENTENCE = 240
"""The most characters of a sentence that are quoted."""
NOTES_SHARE = 3
"""Notes are at most one part in this many of what grounding may add to a prompt."""


BY_WORDS = "documents were searched by words alone: the model that embeds questions is away"
"""For callers; the cause is a finding (`knowledge.index`)."""
UNSEARCHED = "documents could not be searched: the search service or PostgreSQL is away"
"""For callers of a workload that is answered without documents then."""
NOT_IN_ORDER = "the deployment is away or too slow: passages are in the order of words and vectors"
"""For callers; the cause is in the reranker's own calls, and in the answer of a search."""


class GroundingNotes:
    """The notes of one call."""

    __slots__ = ("abstained", "citations", "conflicts", "is_unsearched", "is_words_only", "newer", "steps")

    def __init__(
        self,
        conflicts: Sequence[Conflict],
        newer: Sequence[Newer],
        *,
        by_words: bool = False,
        steps: Sequence[Step] = (),
        abstained: bool = False,
        unsearched: bool = False,
    ) -> None:
        """`by_words`: the model of the index was away, so meaning was not searched. `abstained`: nothing that was found
        reached the workload's floor. `unsearched`: nothing was looked for, since nobody could."""
        self.abstained = abstained
        self.is_unsearched = unsearched
        self.steps = steps
        self.is_words_only = by_words
        self.conflicts = conflicts
        self.newer = newer
        self.citations: Sequence[Citation] = ()

    @property
    def has_document_notes(self) -> bool:
        """Whether there are notes on documents besides those of the passages."""
        return bool(self.conflicts or self.newer)

    def opposing_documents(self, passages: Sequence[Passage]) -> list[tuple[str, str]]:
        """(id, path) of each document that contradicts these passages and that none of them is from."""
        given = {passage.document for passage in passages}
        return list(
            {one.other_document: one.other_path for one in self.conflicts if one.other_document not in given}.items()
        )

    def json_members(self) -> bytes:
        """Members for the `groundplan` object as JSON, beginning with a comma; empty where there are none."""
        members: dict[str, Any] = {"abstained": True} if self.abstained else {}
        if self.citations:
            members["citations"] = [one.as_json() for one in self.citations]
        if self.conflicts:
            members["conflicts"] = self.conflicts
        if self.newer:
            members["newer"] = self.newer
        if self.is_words_only or self.is_unsearched:
            members["degraded"] = UNSEARCHED if self.is_unsearched else BY_WORDS
        if self.steps:
            members["steps"] = [
                msgspec.structs.replace(one, skipped=NOT_IN_ORDER) if one.skipped else one for one in self.steps
            ]
        return b"," + msgspec.json.encode(members)[1:-1] if members else b""


def notes(grounded: GroundingNotes, passages: Sequence[Passage], max_bytes: int) -> str:
    """The notes for the model, to be put before the passages: one line each, as many as fit; empty where there are
    none."""
    lines = [_conflict(one, passages) for one in grounded.conflicts] + [_newer(one) for one in grounded.newer]
    kept, left = [], max_bytes
    for line in lines:
        left -= len(line.encode())
        if left < 0:
            break
        kept.append(line)
    return "".join(kept)


def _conflict(one: Conflict, passages: Sequence[Passage]) -> str:
    cited = next((f"[{place}] " for place, each in enumerate(passages, 1) if each.document == one.document), "")
    other = next((f"[{place}] " for place, each in enumerate(passages, 1) if each.document == one.other_document), "")
    return (
        f"The documents contradict each other: {cited}{one.path} says '{_short(one.says)}', "
        f"{other}{one.other_path} says '{_short(one.other_says)}'. "
        "If the answer depends on it, give both and name both documents.\n"
    )


def _newer(one: Newer) -> str:
    either = f", which {NOT_GIVEN[one.reason]} and was not used either" if one.reason in NOT_GIVEN else ""
    return f"{one.path} was not used: a newer version exists, {one.newer_path}{either}. Say so if it matters.\n"


def _short(text: str) -> str:
    plain = " ".join(text.split()).replace("'", "’")
    return plain if len(plain) <= SENTENCE else plain[: SENTENCE - 1] + "…"
