"""Results of citation checks, on their way to PostgreSQL. They are for receipts, not for billing, and hold no word of
an answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple, dataclass
from uuid import UUID

from groundplan.gateway.database import insert
from groundplan.gateway.write_behind import WriteBehindQueue

MOST = 5_000
_ADD = """INSERT INTO call_citation (call_id, number, passage, document, version, start_char, end_char, answer_start,
    answer_end, supported) VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s) ON CONFLICT DO NOTHING"""


@dataclass(frozen=True, slots=True)
class Verdict:
    """One citation of one call: which characters of the answer, which of the document in which version."""

    call: UUID
    number: int
    passage: int
    document: str | None
    version: int
    start_char: int
    end_char: int
    answer_start: int
    answer_end: int
    supported: bool | None


class Citations(WriteBehindQueue[Verdict]):
    """Of one worker."""

    def __init__(self, url: str) -> None:
        super().__init__("citations", MOST)
        self._url = url

    async def put(self, facts: Sequence[Verdict]) -> None:
        await insert(self._url, _ADD, [astuple(one) for one in facts])
