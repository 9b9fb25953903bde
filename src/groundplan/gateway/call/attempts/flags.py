"""The flags with which the settlement of an attempt says how it came about. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from groundplan.blueprint.model import Deployment
from groundplan.gateway.call.attempts.race import HEDGE
from groundplan.gateway.call.exchange import Exchange
from groundplan.gateway.upstream.health import Health
from groundplan.ledger.model import BREAKER_OPEN


def next_attempt_flags(
    exchange: Exchange, deployment: Deployment, candidates: Sequence[Deployment], health: Health
) -> tuple[str, ...]:
    """The flags of the next attempt, at `deployment`: those of the call so far that hold for it, too, and
    `BREAKER_OPEN` with the name of each deployment that comes before it, and is left for last."""
    kept = [flag for flag in exchange.attempt_flags if flag != HEDGE and not flag.startswith(BREAKER_OPEN)]
    left = {each.name for each in candidates if not health.is_closed(each.name)}
    for each in exchange.deployments if left else ():
        if each.name == deployment.name:
            break
        if each.name in left:
            kept.append(BREAKER_OPEN + each.name)
    return tuple(kept)
