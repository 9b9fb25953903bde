"""An answer that may be given again, and a call that is making one just now. Values only; `answer_cache` keeps them."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from groundplan.gateway.call.ask import Passage

OVERHEAD_BYTES = 1024
"""What an entry is counted for besides its answer."""
MAX_STATES = 32
"""People who share an answer for whom it is known up to when nothing bears on it."""

Key = tuple[bytes, bool]
"""(digest of the request and its terms, whether it is a stream)"""


@dataclass(frozen=True, slots=True, eq=False)
class Entry:
    """One good answer. Times are seconds since the epoch; `cost` is what the call paid for it, in picodollars."""

    key: Key
    call: bytes
    """Of the call that asked the model."""
    workload: str
    made: float
    until: float
    deployment: str
    subjects: frozenset[str]
    """Whatever stops it: `company`, `workload/N`, `deployment/N`, `site/N`, `source/N`, `key/ID`."""
    person: str
    """For whom it was made; empty: for nobody in particular."""
    passages: tuple[Passage, ...]
    cost: int
    whole: bytes | None = None
    """As the upstream answered, without the `groundplan` object."""
    events: tuple[bytes, ...] | None = None
    """Data of each event of the upstream's stream."""
    query: str = ""
    """By which its passages were found."""
    states: dict[str, str] = field(default_factory=dict)
    """Of the documents, up to which nothing bears on it, by person: who shares it may read different ones."""
    alone: bool = False
    """A new answer was asked for: of what was kept to the same, streamed or not, nothing stays beside it."""

    def state(self, person: str) -> str:
        """For a person for whom it was never looked, from where the last look for anybody was: where they may read
        others, this tells so."""
        return self.states.get(person) or next(reversed(self.states.values()), "")

    def confirm_for(self, person: str, state: str) -> None:
        """It holds for that person up to that state."""
        self.states.pop(person, None)
        if len(self.states) >= MAX_STATES:
            del self.states[next(iter(self.states))]
        self.states[person] = state

    @property
    def size(self) -> int:
        parts = self.events if self.events is not None else (self.whole or b"",)
        return (
            OVERHEAD_BYTES
            + len(self.query)
            + sum(len(part) + 64 for part in parts)
            + sum(len(p.said) for p in self.passages)
        )


STORED, FAILED, UNFIT = "stored", "failed", "unfit"
"""How a flight ended: its answer is there; there was none; there was one that must not be given again."""


@dataclass(slots=True, eq=False)
class Flight:
    """A call that asks a model for what others may want, too."""

    key: Key
    outcome: asyncio.Future[str]
    is_refresh: bool = False
    """Its caller wants a new answer."""
    whole: bytes | None = None
    events: tuple[bytes, ...] | None = None
    exhausted: str = ""
    """The budget or quota that had no room for it, by name."""
