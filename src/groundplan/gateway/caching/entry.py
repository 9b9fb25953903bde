"""A cached answer, and a call that is making one now. Values only; `answer_cache` keeps them."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from groundplan.gateway.call.ask import Passage

OVERHEAD_BYTES = 1024
"""What an entry is counted for besides its answer."""
MAX_STATES = 32
"""The most people of an entry whose confirmed state is remembered."""

Key = tuple[bytes, bool]
"""(digest of the request and its terms, whether it is a stream)"""


@dataclass(frozen=True, slots=True, eq=False)
class Entry:
    """One cached answer, made at `made` and valid until `until` (seconds since the epoch); `cost` is what the call paid
    for it, in picodollars."""

    key: Key
    call: bytes
    """The id of the call that asked the model."""
    workload: str
    made: float
    until: float
    deployment: str
    subjects: frozenset[str]
    """Subjects whose stop forbids it: `company`, `workload/N`, `deployment/N`, `site/N`, `source/N`, `key/ID`."""
    person: str
    """The person for whom it was made; empty: nobody in particular."""
    passages: tuple[Passage, ...]
    cost: int
    whole: bytes | None = None
    """The upstream's body, without the `groundplan` object."""
    events: tuple[bytes, ...] | None = None
    """The data of each event of the upstream's stream."""
    query: str = ""
    """The query by which its passages were found."""
    states: dict[str, str] = field(default_factory=dict)
    """By person: the state of the documents up to which the answer is confirmed. People who share it may read different
    documents."""
    left_out: frozenset[str] = frozenset()
    """See `Ask.left_out`."""
    alone: bool = False
    """Whether it replaces the entries of both forms, since its client requested a new answer."""

    def state(self, person: str) -> str:
        """The state up to which the answer is confirmed for a person. For a person without one: the newest of anybody;
        if that person may read other documents, the confirmation says so."""
        return self.states.get(person) or next(reversed(self.states.values()), "")

    def confirm_for(self, person: str, state: str) -> None:
        """Store that the answer is confirmed for a person up to this state."""
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
            + sum(len(p.text_with_head) for p in self.passages)
        )


STORED, FAILED, LEFT, UNFIT = "stored", "failed", "left", "unfit"
"""How a flight ended: its answer is there; there was none; its client left; there was an answer that must not be given
again."""


@dataclass(slots=True, eq=False)
class Flight:
    """A call that asks a model, for whose answer identical calls wait."""

    key: Key
    outcome: asyncio.Future[str]
    is_refresh: bool = False
    """Whether its client requested a new answer."""
    whole: bytes | None = None
    events: tuple[bytes, ...] | None = None
    exhausted: str = ""
    """The name of the budget or quota that refused it."""
