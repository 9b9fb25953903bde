"""Facts about pairs of answers to one call, sent to PostgreSQL; they hold no text of a call.

Money and attempts are the journal's and exact. A comparison under way when a worker is killed is lost: the second
answer is in the ledger, and counts as not compared.
"""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

import msgspec

from groundplan.core.money import to_decimal
from groundplan.gateway.database import insert
from groundplan.gateway.write_behind import WriteBehindQueue

MOST = 10_000
"""That wait while PostgreSQL is away; then the oldest go."""
_ADD = """INSERT INTO experiment_pair (experiment, call_id, beside_call, segment, basis, score, contradicted, shown_ms,
      beside_ms, shown_usd, beside_usd, shown_tokens, beside_tokens, answered, said)
    VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s) ON CONFLICT DO NOTHING"""


class Pair(msgspec.Struct, frozen=True, kw_only=True):
    """What is kept of a shown answer and another one. Amounts are picodollars."""

    experiment: str
    call: UUID
    beside: UUID
    segment: str
    basis: str
    score: float | None
    contradicted: bool
    shown_ms: float
    beside_ms: float
    shown_cost: int
    beside_cost: int
    shown_tokens: int
    beside_tokens: int
    answered: bool
    said: str | None = None
    """The judge's reply, without words of the call."""

    def row(self) -> tuple[object, ...]:
        return (
            self.experiment, self.call, self.beside, self.segment, self.basis, self.score, self.contradicted,
            self.shown_ms, self.beside_ms, to_decimal(self.shown_cost), to_decimal(self.beside_cost),
            self.shown_tokens, self.beside_tokens, self.answered, self.said,
        )  # fmt: skip


class Pairs(WriteBehindQueue[Pair]):
    """Of one worker. `url` empty: they only wait."""

    def __init__(self, url: str) -> None:
        super().__init__("facts about answers", MOST)
        self._url = url

    async def flush(self) -> None:
        if self._url:
            await super().flush()

    async def put(self, facts: Sequence[Pair]) -> None:
        await insert(self._url, _ADD, [pair.row() for pair in facts])
