"""Asks the local search process what Presidio finds in a complete text, input or output: no worker loads Presidio."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from groundplan.gateway.call.search_client import ask_search_patiently
from groundplan.gateway.stalls import patient
from groundplan.knowledge.retrieval.wire import MOST_PERSONAL, PERSONAL, PersonalAnswer, PersonalRequest

if TYPE_CHECKING:
    from groundplan.gateway.call.context import Gateway

TIMEOUT_SECONDS = 5.0
"""Timeout; the first request loads Presidio. The workload's time budget is reported separately."""
_decode = msgspec.json.Decoder(PersonalAnswer).decode


async def find_personal_data(gateway: Gateway, name: bytes, text: str) -> list[str] | None:
    """The kinds of personal data found; None if the text could not be checked. `name`: id of the call, for the other
    process."""
    if len(text) > MOST_PERSONAL:
        return None
    try:
        async with patient(TIMEOUT_SECONDS):
            found = await ask_search_patiently(gateway, name, lambda: PersonalRequest(text), _decode, PERSONAL)
    except TimeoutError:
        return None
    return None if found is None else found.kinds
