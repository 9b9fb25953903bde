"""Responses that are stored: sealed and put into PostgreSQL before their last byte, and gone on with by others.

Only workloads that keep content in full store any. A worker waits for the database here, and only for calls that store
or go on with a stored response.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID

import msgspec

from groundplan.core.errors import GroundplanError
from groundplan.gateway.http.strict_json import DECODE_ERRORS
from groundplan.gateway.http.surrogates import decode_json
from groundplan.gateway.surfaces.relay_wrapper import RelayWrapper
from groundplan.gateway.surfaces.responses import stored_api as responses_api
from groundplan.gateway.surfaces.responses.items import item, listed, unnamed
from groundplan.gateway.surfaces.responses.sealed_store import StoredResponse, owner_of
from groundplan.gateway.surfaces.responses.stream import Rendered
from groundplan.gateway.surfaces.responses.surface import OF_BACKGROUND, Responses, input_of, told
from groundplan.gateway.surfaces.responses.to_chat import is_here
from groundplan.ledger.response_store import Row

if TYPE_CHECKING:
    from groundplan.gateway.call.ask import Ask
    from groundplan.gateway.call.context import Gateway
    from groundplan.gateway.call.exchange import Exchange
    from groundplan.gateway.surfaces.codec import Relay

_encode = msgspec.json.Encoder().encode


def stores_answer(exchange: Exchange) -> bool:
    """Where the caller wants that and its workload keeps content in full; of a mere count nothing is."""
    ask = exchange.ask
    return ask is not None and exchange.interface.is_billed and told(ask).store and exchange.keeps_content


async def prepend_earlier_items(gateway: Gateway, exchange: Exchange) -> None:
    """Put the items of the response that this one goes on with in front of its own. Raises `NotFound`,
    `Unavailable`."""
    ask, key, interface = exchange.ask, exchange.key, exchange.interface
    if ask is None or key is None or not isinstance(interface, Responses) or (previous := told(ask).previous) is None:
        return
    stored = await responses_api.earlier(gateway, previous, key)
    fields: dict[str, Any] = {name: raw for name, raw in ask.fields.items() if name != "previous_response_id"}
    own = listed(input_of(ask))
    items = unnamed(stored.items)
    fields["input"] = [*(items if exchange.guard is None else exchange.guard.earlier(exchange, items)), *own]
    whole = interface.read_body(_encode(fields))
    asked = told(whole)
    asked.previous, asked.pinned, exchange.ask = previous, stored.deployment, whole
    asked.given = [*stored.items, *own]


async def store_answer(gateway: Gateway, exchange: Exchange, answer: bytes | Relay) -> None:
    """Store the answer, where it is one to be stored."""
    ask = exchange.ask
    if ask is None or not stores_answer(exchange):
        return
    if exchange.interface is OF_BACKGROUND:
        told(ask).stored = True  # by whoever makes it, with what it has come to
        return
    if isinstance(answer, RelayWrapper) and not isinstance(answer, Rendered):
        answer = answer.innermost
    if isinstance(answer, Rendered):
        answer = answer.response_json()
    if isinstance(answer, bytes):
        told(ask).stored = await _store(gateway, exchange, full_input(ask), answer)


def full_input(ask: Ask) -> object:
    """The caller's own input, with that of the responses before it."""
    given = told(ask).given
    return input_of(ask) if given is None else given


def stored_response(given: object, response: dict[str, Any]) -> StoredResponse:
    """What is stored of a response that was asked with the input `given`."""
    response["store"] = True  # whatever an upstream says, which was asked to store nothing
    asked = [item(each) for each in listed(given)]
    output = response.get("output")
    sent = [each for each in listed(output if isinstance(output, list) else None) if is_here(each)]
    return StoredResponse(response, asked, [*listed(given), *sent])


async def _store(gateway: Gateway, exchange: Exchange, given: object, answer: bytes) -> bool:
    """Store a response that was asked with the input `given`; whether it is stored."""
    sealed, workload, key, deployment = gateway.stored_responses, exchange.workload, exchange.key, exchange.deployment
    if sealed is None or workload is None or workload.keep is None or key is None or deployment is None:
        return False
    try:
        response = decode_json(answer)
    except DECODE_ERRORS:
        return False  # it has a number beyond all bounds
    stored = stored_response(given, response)
    until = gateway.clock.now() + timedelta(seconds=workload.keep.seconds)
    row = Row(str(response["id"]), workload.name, owner_of(key), deployment.name, until, "")
    try:
        return await sealed.put(row, UUID(exchange.person or key.id), stored)
    except GroundplanError:
        return False
