"""Settles the responses of a conversation: records their end, gives back unused reservations, and charges responses
that began without a reservation.

Which is which, and when, is decided in `conversation`.
"""

from __future__ import annotations

from groundplan.blueprint.model import Deployment
from groundplan.core.ids import new_id_bytes
from groundplan.gateway.call import admit, limits, settle
from groundplan.gateway.call.attempts.begin import begin_attempt
from groundplan.gateway.call.context import Gateway
from groundplan.gateway.call.exchange import Exchange
from groundplan.gateway.surfaces.realtime.upstream import NO_USAGE
from groundplan.ledger.model import Usage


async def settle_response(
    gateway: Gateway, exchange: Exchange, outcome: str, usage: Usage | None, code: str = ""
) -> None:
    """Settle one response and record its end; returns once that is durable."""
    if exchange.attempt_started:
        settle.attempt(gateway, exchange, outcome, 200 if outcome == "ok" else 0, usage)
    status = "ok" if outcome == "ok" else "failed" if code else "cancelled"
    sequence = settle.finish(gateway, exchange, status, 200, code, awaited=True)
    if sequence is not None and (pending := gateway.journal.durable(sequence)) is not None:
        await pending


async def settle_broken_off(gateway: Gateway, exchange: Exchange, used: Usage | None) -> None:
    """Settle a response that was broken off. `used`: the usage that the upstream reported; None: none, so that the cost
    follows the provider's billing rule."""
    if used is NO_USAGE:
        await settle_unused(gateway, exchange)
        return
    settle.cancelled_attempt(gateway, exchange, used)
    await settle_response(gateway, exchange, "cancelled", None)


async def settle_unused(gateway: Gateway, exchange: Exchange) -> None:
    """Settle an attempt that certainly produced nothing: it does not count in limits."""
    if exchange.limit_use is not None:
        limits.end_call(gateway, exchange.limit_use, sent=False)
        exchange.limit_use = None
    await settle_response(gateway, exchange, "not_billed", Usage())


def charge_unreserved(gateway: Gateway, admitted: Exchange, deployment: Deployment) -> Exchange:
    """Begin a call, for the caller of `admitted`, for a response that the upstream made without a request and without
    a reservation; it is charged at its cost. Raises `Unavailable` where it cannot be journalled."""
    exchange = admitted.new_call(new_id_bytes())
    if exchange.plan is None:
        raise AssertionError("not admitted")
    exchange.charges = admit.covering_budgets(exchange, exchange.plan, gateway.clock.seconds())
    exchange.reservation = (exchange.id_bytes, 0)
    gateway.slices.reserve(exchange.reservation, exchange.charge_list(0))
    begin_attempt(gateway, exchange, deployment, inherits=False)
    exchange.attempt_sent = True
    return exchange
