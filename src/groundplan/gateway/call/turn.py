"""The turn of a call to find out about a deployment that is not well, for which others wait: whoever finds out nothing
leaves it to the next one. What was found out is told to `upstream.health` by whoever knows it.
"""

from __future__ import annotations

from groundplan.gateway.call.arrange import health_of
from groundplan.gateway.call.context import Gateway
from groundplan.gateway.call.exchange import Exchange


def leave(gateway: Gateway, exchange: Exchange) -> None:
    """The attempt was not sent, or says nothing of its deployment; once that is told, where it does."""
    turn, exchange.turn = exchange.turn, None
    if turn is not None:
        health_of(gateway, exchange).give_back(turn, gateway.loop.time())
