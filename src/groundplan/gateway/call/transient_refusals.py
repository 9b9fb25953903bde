"""Refusals that pass by themselves, such as a full limit: work that no client waits for is kept and made later.

A call that somebody waits for is told at once. Pure, but for what a call gives back while it waits.
"""

from __future__ import annotations

from groundplan.core.errors import Exhausted, GroundplanError
from groundplan.gateway.call import admit, limits
from groundplan.gateway.call.attempts.order import health_of
from groundplan.gateway.call.context import Gateway
from groundplan.gateway.call.exchange import Exchange

_PASSING = frozenset(
    {
        "rate_limit_exceeded", "limit_unreachable", "calls_per_day", "budget_unreachable", "overloaded", "not_ready",
        "policy_lease_expired", "journal_unavailable", "grounding_unavailable", "database_unavailable",
    }
)  # fmt: skip
"""Of calls that were not sent."""
BUDGET_EXHAUSTED, UPSTREAM_FAILED = "budget_exhausted", "upstream_failed"


def is_transient(error: GroundplanError) -> bool:
    """Whether waiting helps against a refusal; no time makes room for what needs more than all of a limit. Of budgets
    it does against what open calls hold: what these do not use goes back."""
    if error.code == BUDGET_EXHAUSTED:
        return error.retry_after == admit.HELD_SECONDS
    never = isinstance(error, Exhausted) and error.retry_after is None
    return error.code in _PASSING and not never


def may_be_made_later(gateway: Gateway, exchange: Exchange, error: GroundplanError, sent: int) -> bool:
    """Whether it may be made later, with nothing billed so far: no deployment had room for it after `sent` attempts,
    or all that had asked to be called later."""
    if exchange.cost or exchange.estimated or exchange.draining_bound or exchange.response.started:
        return False
    if error.code == UPSTREAM_FAILED:
        health, now, use = health_of(gateway, exchange), gateway.loop.time(), exchange.limit_use
        passed = () if use is None else use.skipped_deployments
        return all(each.name in passed or health.retry_after_left(each.name, now) for each in exchange.deployments)
    return exchange.attempt_count == sent and is_transient(error)


def give_back(gateway: Gateway, exchange: Exchange) -> None:
    """What limits count of it, while it waits; and an end that could not be written down is none."""
    if exchange.limit_use is not None:
        limits.end_call(gateway, exchange.limit_use, sent=False)
        exchange.limit_use = None
    if exchange.finished:
        exchange.finished, exchange.cache_result, exchange.saved_cost, exchange.deployment = False, "none", 0, None
