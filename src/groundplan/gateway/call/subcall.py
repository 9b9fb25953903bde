"""A call that the gateway makes itself as part of another one: to judge its answer, or to ask the same again.

It is a part of that call, whose key, person and blueprint it has, and is reserved, journalled and settled like any
other. What it is asked, and what its answer means, is for whoever makes it; one beside a call is
`experiments.shadow_call`.
"""

from __future__ import annotations

from typing import Any

import msgspec

from groundplan.core.ids import new_id_bytes
from groundplan.gateway.call.context import Gateway
from groundplan.gateway.call.exchange import Exchange
from groundplan.gateway.call.feature import FEATURE, TICKET
from groundplan.gateway.http.collected_response import CollectedResponse
from groundplan.gateway.http.server import Request
from groundplan.gateway.surfaces.interface import Interface

_PASSED = (FEATURE, TICKET)
"""Headers of the call that one within it carries."""


def chat_within(exchange: Exchange, interface: Interface, body: dict[str, Any], purpose: str) -> Exchange:
    """A chat within this call, which is not made yet. `purpose`: one of `ledger.model.PURPOSES`."""
    headers = {name: value for name in _PASSED if (value := exchange.request.headers.get(name)) is not None}
    headers[b"content-type"] = b"application/json"
    request = Request(0.0, b"POST", b"/v1/chat/completions", headers, msgspec.json.encode(body))
    own = Exchange(new_id_bytes(), request, CollectedResponse(), interface)
    own.parent_call, own.purpose = str(exchange.call), purpose
    own.catalog, own.key, own.person = exchange.catalog, exchange.key, exchange.person
    return own


async def answer_of(gateway: Gateway, own: Exchange) -> bytes | None:
    """Make it; its answer, of which nothing is checked or held, or None where there is none."""
    if gateway.run_call is None:
        return None
    await gateway.run_call(own)
    response = own.response
    return response.body if isinstance(response, CollectedResponse) and response.status == 200 else None
