"""A statement of an answer and a passage that it cites. A value: `citation_check` finds them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from groundplan.knowledge.citations.marks import Statement
from groundplan.knowledge.citations.support import WordMatch

if TYPE_CHECKING:
    from groundplan.gateway.call.ask import Passage


@dataclass(frozen=True, slots=True)
class Citation:
    """A statement of the answer and one passage that it cites. `supported` is None while undecided."""

    statement: Statement
    number: int
    """Number of the passage in the answer, from 1; there may be no such passage."""
    passage: Passage | None
    look: WordMatch
    supported: bool | None

    def as_json(self) -> dict[str, Any]:
        """The citation for the `groundplan` object: where in the answer, which version of which document, which
        characters."""
        start, end = self.span()
        passage = self.passage
        return {
            "passage": self.number,
            "start": self.statement.start,
            "end": self.statement.end,
            "supported": self.supported,
            "document": None if passage is None else passage.document,
            "version": None if passage is None else passage.version,
            "start_char": start,
            "end_char": end,
        }

    def span(self) -> tuple[int, int]:
        """(start, end) of the most similar characters of the document; of the whole passage where its text was
        changed."""
        passage, place = self.passage, self.look.place
        if passage is None:
            return 0, 0
        if place is None or len(passage.text) != passage.end_char - passage.start_char:
            return passage.start_char, passage.end_char
        return passage.start_char + place.start, passage.start_char + place.end
