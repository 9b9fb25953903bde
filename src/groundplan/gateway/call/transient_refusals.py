"""Refusals that pass by themselves, such as a full limit: work that no client waits for is kept and made later.

A call that a client waits for is refused at once. Pure, except that a waiting call gives back what it holds of limits.
"""

from __future__ import annotations

from groundplan.core.errors import Exhausted, GroundplanError
from groundplan.gateway.call import admit, limits
from groundplan.gateway.call.attempts.order import health_of
from groundplan.gateway.call.context import Gateway
from groundplan.gateway.call.exchange import Exchange

_TRANSIENT_CODES = frozenset(
    {
        "rate_limit_exceeded", "limit_unreachable", "calls_per_day", "budget_unreachable", "overloaded", "not_ready",
        "policy_lease_expired", "journal_unavailable", "grounding_unavailable", "database_unavailable",
    }
)  # fmt: skip
"""Error codes of refusals before a call was sent."""
BUDGET_EXHAUSTED, UPSTREAM_FAILED = "budget_exhausted", "upstream_failed"


def is_transient(error: GroundplanError) -> bool:
    """Whether waiting helps against a refusal. It never does where a call needs more than a whole limit. For a budget
    it does where open calls hold the rest, as they give back what they do not use."""
    if error.code == BUDGET_EXHAUSTED:
        return error.retry_after == admit.HELD_SECONDS
    never = isinstance(error, Exhausted) and error.retry_after is None
    return error.code in _TRANSIENT_CODES and not never


def may_be_made_later(gateway: Gateway, exchange: Exchange, error: GroundplanError, sent: int) -> bool:
    """Whether a call may be made later, as nothing of it is billed so far: no deployment had room for it after `sent`
    attempts, or all that had room asked to be called later."""
    if exchange.cost or exchange.estimated or exchange.draining_bound or exchange.response.started:
        return False
    if error.code == UPSTREAM_FAILED:
        health, now, use = health_of(gateway, exchange), gateway.loop.time(), exchange.limit_use
        passed = () if use is None else use.skipped_deployments
        return all(each.name in passed or health.retry_after_left(each.name, now) for each in exchange.deployments)
    return exchange.attempt_count == sent and is_transient(error)


def give_back(gateway: Gateway, exchange: Exchange) -> None:
    """Give back what a call holds of limits while it waits, and undo an end that could not be journalled."""
    if exchange.limit_use is not None:
        limits.end_call(gateway, exchange.limit_use, sent=False)
        exchange.limit_use = None
    if exchange.finished:
        exchange.finished, exchange.cache_result, exchange.saved_cost, exchange.deployment = False, "none", 0, None
