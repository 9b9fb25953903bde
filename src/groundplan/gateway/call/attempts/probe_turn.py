"""The turn of one call to probe an unhealthy deployment while others wait for the outcome: a call that learned nothing
passes its turn on. Does not report outcomes: those that see one tell `upstream.health`.
"""

from __future__ import annotations

from groundplan.gateway.call.attempts.order import health_of
from groundplan.gateway.call.context import Gateway
from groundplan.gateway.call.exchange import Exchange


def give_up_turn(gateway: Gateway, exchange: Exchange) -> None:
    """Give the call's probe turn back, if it has one. Where the attempt has an outcome, report that first."""
    turn, exchange.probe_turn = exchange.probe_turn, None
    if turn is not None:
        health_of(gateway, exchange).cancel_probe(turn, gateway.loop.time())
