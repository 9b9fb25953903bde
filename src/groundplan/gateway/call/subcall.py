"""Sub-calls: calls that the gateway itself makes as part of another one, to judge its answer or to ask the same again.

A sub-call has key, person and blueprint of that call, and is reserved, journalled and settled like any other. Does not
interpret its answer. Calls beside another one are made by `experiments.shadow_call`.
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

_PASSED_HEADERS = (FEATURE, TICKET)
"""Headers of the call that its sub-calls carry, too."""


def new_chat_subcall(exchange: Exchange, interface: Interface, body: dict[str, Any], purpose: str) -> Exchange:
    """A new chat sub-call of this call, not run yet. `purpose`: as in `Reservation.purpose`."""
    headers = {name: value for name in _PASSED_HEADERS if (value := exchange.request.headers.get(name)) is not None}
    headers[b"content-type"] = b"application/json"
    request = Request(0.0, b"POST", b"/v1/chat/completions", headers, msgspec.json.encode(body))
    own = Exchange(new_id_bytes(), request, CollectedResponse(), interface)
    own.parent_call, own.purpose = str(exchange.call), purpose
    own.catalog, own.key, own.person = exchange.catalog, exchange.key, exchange.person
    return own


async def run_subcall(gateway: Gateway, own: Exchange) -> bytes | None:
    """Run a sub-call and return its answer, to which no guardrail applies; None where it has none."""
    if gateway.run_call is None:
        return None
    await gateway.run_call(own)
    response = own.response
    return response.body if isinstance(response, CollectedResponse) and response.status == 200 else None
