"""Ends running answers when a kill switch for security stops their workload, key or model: a stream gets an error
event, a complete answer an error.

A worker ends them when it takes up the policy, before it acknowledges it: a stop that is reported effective has ended
them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from groundplan.core.errors import Denied
from groundplan.gateway.call.admit import kill_scopes
from groundplan.gateway.policy.snapshot import Policy

if TYPE_CHECKING:
    from groundplan.gateway.call.exchange import Exchange


class RunningStream(Protocol):
    """A stream that can be ended."""

    exchange: Exchange

    def sever(self, error: Denied) -> None: ...


def stop_error(policy: Policy, exchange: Exchange) -> Denied | None:
    """The error if a running answer must not go on; None if it may."""
    severed = policy.severed
    if not severed:
        return None
    for scope in _scopes(exchange):
        if scope in severed:
            return Denied(
                f"{scope} was stopped while this was being answered",
                code="killed",
                hint=f"`groundplan why {scope}` says who stopped it, and why.",
            )
    return None


def check_not_stopped(policy: Policy, exchange: Exchange) -> None:
    """Raise `Denied` if a running answer must not go on; called after each wait for an upstream or a check."""
    error = stop_error(policy, exchange)
    if error is not None:
        raise error


def sever_stopped(policy: Policy, running: set[RunningStream]) -> None:
    """End every stream that the policy stops."""
    if not policy.severed:
        return
    for each in list(running):
        error = stop_error(policy, each.exchange)
        if error is not None:
            each.sever(error)


def _scopes(exchange: Exchange) -> list[str]:
    found = ["company"]
    if exchange.workload is not None:
        found.append(f"workload/{exchange.workload.name}")
    if exchange.key is not None:
        found.append(f"key/{exchange.key.id}")
    if exchange.deployment is not None:
        found += kill_scopes(exchange.deployment)
    found += [f"source/{name}" for name in exchange.context_sources]
    return found
