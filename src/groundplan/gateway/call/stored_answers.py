"""Stores answers under ids of their own, and completes calls that continue one, for the surfaces that have such
answers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from groundplan.gateway.surfaces.chat import storing as chat_storing
from groundplan.gateway.surfaces.chat.storing import StoredChat
from groundplan.gateway.surfaces.responses import storing as responses_storing
from groundplan.gateway.surfaces.responses.surface import RESPONSES, request_state

if TYPE_CHECKING:
    from groundplan.gateway.call.context import Gateway
    from groundplan.gateway.call.exchange import Exchange
    from groundplan.gateway.surfaces.codec import Relay


def stores(exchange: Exchange) -> bool:
    """Whether the answer is stored under an id of its own, so that it cannot be a cached one."""
    interface = exchange.interface
    if not interface.can_store_answers:
        return False
    return (
        chat_storing.stores_answer(exchange)
        if isinstance(interface, StoredChat)
        else responses_storing.stores_answer(exchange)
    )


def in_background(exchange: Exchange) -> bool:
    """Whether a call is to be made in the background (surfaces with stored answers only)."""
    return exchange.interface is RESPONSES and exchange.ask is not None and request_state(exchange.ask).background


async def prepare(gateway: Gateway, exchange: Exchange) -> None:
    """Complete a request that continues a stored answer (surfaces with stored answers only). Raises `NotFound`,
    `Unavailable`."""
    if not isinstance(exchange.interface, StoredChat):
        await responses_storing.prepend_earlier_items(gateway, exchange)


async def keep(gateway: Gateway, exchange: Exchange, answer: bytes | Relay) -> None:
    """Store a settled answer, where it is to be stored, before its last byte is sent (surfaces with stored answers
    only)."""
    if isinstance(exchange.interface, StoredChat):
        await chat_storing.store_answer(gateway, exchange, answer)
    else:
        await responses_storing.store_answer(gateway, exchange, answer)
