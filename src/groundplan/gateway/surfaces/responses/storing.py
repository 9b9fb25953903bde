"""Stores responses, sealed in PostgreSQL before the last byte is sent, and loads those that a request continues.

Only workloads that keep content in full store any. A worker waits for the database here, but only for calls that store
or continue a response.
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
from groundplan.gateway.surfaces.responses.items import input_items, stored_item, without_ids
from groundplan.gateway.surfaces.responses.sealed_store import StoredResponse, owner_of
from groundplan.gateway.surfaces.responses.stream import HasResponse
from groundplan.gateway.surfaces.responses.surface import BACKGROUND_RESPONSES, Responses, input_of, request_state
from groundplan.gateway.surfaces.responses.to_chat import has_own_content
from groundplan.ledger.response_store import Row

if TYPE_CHECKING:
    from groundplan.gateway.call.ask import Ask
    from groundplan.gateway.call.context import Gateway
    from groundplan.gateway.call.exchange import Exchange
    from groundplan.gateway.surfaces.codec import Relay

_encode = msgspec.json.Encoder().encode


def stores_answer(exchange: Exchange) -> bool:
    """Whether this call's response is to be stored: the caller wants it, the workload keeps content in full, and the
    call is no mere token count."""
    ask = exchange.ask
    return ask is not None and exchange.interface.is_billed and request_state(ask).store and exchange.keeps_content


async def prepend_earlier_items(gateway: Gateway, exchange: Exchange) -> None:
    """Put the items of the response that this one continues before its own. Raises `NotFound`, `Unavailable`."""
    ask, key, interface = exchange.ask, exchange.key, exchange.interface
    if (
        ask is None
        or key is None
        or not isinstance(interface, Responses)
        or (previous_id := request_state(ask).previous_id) is None
    ):
        return
    stored = await responses_api.find_earlier(gateway, previous_id, owner_of(key, exchange.person))
    fields: dict[str, Any] = {name: raw for name, raw in ask.fields.items() if name != "previous_response_id"}
    own = input_items(input_of(ask))
    items = without_ids(stored.items)
    fields["input"] = [
        *(items if exchange.guard is None else exchange.guard.check_earlier_items(exchange, items)),
        *own,
    ]
    completed_ask = interface.read_body(_encode(fields))
    state = request_state(completed_ask)
    state.previous_id, state.pinned_deployment, exchange.ask = previous_id, stored.deployment, completed_ask
    state.own_input = [*stored.items, *own]


async def store_answer(gateway: Gateway, exchange: Exchange, answer: bytes | Relay) -> None:
    """Store the response if it is to be stored, and note in its request whether it was."""
    ask = exchange.ask
    if ask is None or not stores_answer(exchange):
        return
    if exchange.interface is BACKGROUND_RESPONSES:
        request_state(ask).stored = True  # by the background runner, with its outcome
        return
    if isinstance(answer, RelayWrapper) and not isinstance(answer, HasResponse):
        answer = answer.innermost
    if isinstance(answer, HasResponse):
        answer = answer.response_json()
    if isinstance(answer, bytes):
        request_state(ask).stored = await _store(gateway, exchange, full_input(ask), answer)


def full_input(ask: Ask) -> object:
    """The caller's own input, after that of the responses that it continues."""
    own_input = request_state(ask).own_input
    return input_of(ask) if own_input is None else own_input


def stored_response(given: object, response: dict[str, Any]) -> StoredResponse:
    """What is stored of a response to the input `given`."""
    response["store"] = True  # the upstream, which was told to store nothing, may say otherwise
    request_items = [stored_item(each) for each in input_items(given)]
    output = response.get("output")
    sent = [each for each in input_items(output if isinstance(output, list) else None) if has_own_content(each)]
    return StoredResponse(response, request_items, [*input_items(given), *sent])


async def _store(gateway: Gateway, exchange: Exchange, given: object, answer: bytes) -> bool:
    """Store a response to the input `given`; whether it is stored."""
    sealed, workload, key, deployment = gateway.stored_responses, exchange.workload, exchange.key, exchange.deployment
    if sealed is None or workload is None or workload.keep is None or key is None or deployment is None:
        return False
    try:
        response = decode_json(answer)
    except DECODE_ERRORS:
        return False  # it has a number that is out of range
    stored = stored_response(given, response)
    until = gateway.clock.now() + timedelta(seconds=workload.keep.seconds)
    owner = owner_of(key, exchange.person).key
    row = Row(str(response["id"]), workload.name, owner, deployment.name, until, "")
    try:
        return await sealed.put(row, UUID(exchange.person or key.id), stored)
    except GroundplanError:
        return False
