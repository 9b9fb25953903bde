"""Asks the local search process what Presidio finds in a whole text, sent in or answered: no worker loads it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from groundplan.gateway.call.ground import answer_of
from groundplan.gateway.stalls import patient
from groundplan.knowledge.retrieval.wire import MOST_PERSONAL, PERSONAL, PersonalAnswer, PersonalRequest

if TYPE_CHECKING:
    from groundplan.gateway.call.context import Gateway

SECONDS = 5.0
"""How long it may take at most; the first time it is loaded. The workload's budget is told besides."""
_decode = msgspec.json.Decoder(PersonalAnswer).decode


async def asked(gateway: Gateway, name: bytes, text: str) -> list[str] | None:
    """The kinds that were found; None where it could not be looked at. `name`: of the call, for the other process."""
    if len(text) > MOST_PERSONAL:
        return None
    try:
        async with patient(SECONDS):
            found = await answer_of(gateway, name, lambda: PersonalRequest(text), _decode, PERSONAL)
    except TimeoutError:
        return None
    return None if found is None else found.kinds
