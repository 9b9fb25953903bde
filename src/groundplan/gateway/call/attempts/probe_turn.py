"""The turn of one call to probe an unhealthy deployment while others wait for the outcome: a call that learned nothing
passes its turn on. What a probe found is told to `upstream.health` by whoever knows it.
"""

from __future__ import annotations

from groundplan.gateway.call.attempts.order import health_of
from groundplan.gateway.call.context import Gateway
from groundplan.gateway.call.exchange import Exchange


def give_up_turn(gateway: Gateway, exchange: Exchange) -> None:
    """The attempt was not sent, or says nothing of its deployment; once that is told, where it does."""
    turn, exchange.turn = exchange.turn, None
    if turn is not None:
        health_of(gateway, exchange).give_back(turn, gateway.loop.time())
