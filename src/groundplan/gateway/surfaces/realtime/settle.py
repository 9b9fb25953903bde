"""Settles the responses of a conversation: its end is written down, a reservation that was not used is given back, and
a response that began without room is charged all the same.

Which is which, and when, is `conversation`'s.
"""

from __future__ import annotations

from groundplan.blueprint.model import Deployment
from groundplan.core.ids import new_id_bytes
from groundplan.gateway.call import admit, limits, settle
from groundplan.gateway.call.attempts.begin import begin_attempt
from groundplan.gateway.call.context import Gateway
from groundplan.gateway.call.exchange import Exchange
from groundplan.gateway.surfaces.realtime.upstream import NOTHING
from groundplan.ledger.model import Usage


async def settled(gateway: Gateway, exchange: Exchange, outcome: str, usage: Usage | None, code: str = "") -> None:
    """One response is over; returns when that is on the disk."""
    if exchange.attempt_started:
        settle.attempt(gateway, exchange, outcome, 200 if outcome == "ok" else 0, usage)
    status = "ok" if outcome == "ok" else "failed" if code else "cancelled"
    sequence = settle.finish(gateway, exchange, status, 200, code, awaited=True)
    if sequence is not None and (pending := gateway.journal.durable(sequence)) is not None:
        await pending


async def broken_off(gateway: Gateway, exchange: Exchange, used: Usage | None) -> None:
    """Nobody waits for it any more, and its upstream said that it used so much; None: nothing, so that it costs what is
    billed by the provider's rule."""
    if used is NOTHING:
        await unused(gateway, exchange)
        return
    settle.cancelled_attempt(gateway, exchange, used)
    await settled(gateway, exchange, "cancelled", None)


async def unused(gateway: Gateway, exchange: Exchange) -> None:
    """It was begun, and surely nothing was made with it: it uses nothing of limits."""
    if exchange.limit_use is not None:
        limits.end_call(gateway, exchange.limit_use, sent=False)
        exchange.limit_use = None
    await settled(gateway, exchange, "not_billed", Usage())


def release(gateway: Gateway, exchange: Exchange) -> None:
    """It was reserved and nothing was begun with it: it is no call."""
    if exchange.reservation is not None:
        gateway.slices.settle(exchange.reservation, 0)
        exchange.reservation = None
    if exchange.limit_use is not None:
        limits.end_call(gateway, exchange.limit_use, sent=False)


def charge_unreserved(gateway: Gateway, admitted: Exchange, deployment: Deployment) -> Exchange:
    """A response that an upstream made of its own accord though nothing is left for it, of whoever was `admitted`: what
    it costs is charged as it is. Raises `Unavailable` where it cannot be written down."""
    exchange = admitted.new_call(new_id_bytes())
    if exchange.plan is None:
        raise AssertionError("not admitted")
    exchange.charges = admit.covering_budgets(exchange, exchange.plan, gateway.clock.seconds())
    exchange.reservation = (exchange.id_bytes, 0)
    gateway.slices.reserve(exchange.reservation, exchange.charge_list(0))
    begin_attempt(gateway, exchange, deployment, inherits=False)
    exchange.attempt_sent = True
    return exchange
