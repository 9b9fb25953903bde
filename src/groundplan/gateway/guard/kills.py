"""Ends answers under way when a kill for security stops their workload, key or model: a stream gets an error event, a
whole answer an error.

A worker cuts them when it takes the policy up, before it acknowledges it: what is reported effective has ended.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from groundplan.core.errors import Denied
from groundplan.gateway.call.admit import kill_scopes
from groundplan.gateway.policy.snapshot import Policy

if TYPE_CHECKING:
    from groundplan.gateway.call.exchange import Exchange


class Running(Protocol):
    """A stream that can be ended."""

    exchange: Exchange

    def sever(self, error: Denied) -> None: ...


def stopped(policy: Policy, exchange: Exchange) -> Denied | None:
    """Why an answer under way must not go on; None where it may."""
    severed = policy.severed
    if not severed:
        return None
    for scope in _subjects(exchange):
        if scope in severed:
            return Denied(
                f"{scope} was stopped while this was being answered",
                code="killed",
                hint=f"Somebody stopped it; see `groundplan why {scope}`.",
            )
    return None


def refuse_stopped(policy: Policy, exchange: Exchange) -> None:
    """Raise `Denied` where an answer under way must not go on: asked after each wait for whoever looks at it."""
    error = stopped(policy, exchange)
    if error is not None:
        raise error


def cut(policy: Policy, running: set[Running]) -> None:
    """End every stream that the policy stops."""
    if not policy.severed:
        return
    for each in list(running):
        error = stopped(policy, each.exchange)
        if error is not None:
            each.sever(error)


def _subjects(exchange: Exchange) -> list[str]:
    found = ["company"]
    if exchange.workload is not None:
        found.append(f"workload/{exchange.workload.name}")
    if exchange.key is not None:
        found.append(f"key/{exchange.key.id}")
    if exchange.deployment is not None:
        found += kill_scopes(exchange.deployment)
    found += [f"source/{name}" for name in exchange.context_sources]
    return found
