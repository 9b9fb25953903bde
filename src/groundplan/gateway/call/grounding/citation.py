"""A statement of an answer and what it cites. A value: `citation_check` finds them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from groundplan.knowledge.citations.marks import Statement
from groundplan.knowledge.citations.support import WordMatch

if TYPE_CHECKING:
    from groundplan.gateway.call.ask import Passage


@dataclass(frozen=True, slots=True)
class Citation:
    """A statement of the answer and one passage that it cites. `supported` is None while meaning was not asked."""

    statement: Statement
    number: int
    """Of the passage, from 1, as the answer has it; there may be none with it."""
    passage: Passage | None
    look: WordMatch
    supported: bool | None

    def told(self) -> dict[str, Any]:
        """For the `groundplan` object: where in the answer, which document in which version, which characters."""
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
        """Characters of the document that are most like it; of all the passage where its text was changed."""
        passage, place = self.passage, self.look.place
        if passage is None:
            return 0, 0
        if place is None or len(passage.text) != passage.end_char - passage.start_char:
            return passage.start_char, passage.end_char
        return passage.start_char + place.start, passage.start_char + place.end
