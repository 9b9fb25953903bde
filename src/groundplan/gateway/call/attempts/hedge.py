"""When a slow attempt is hedged by a second one. Pure; `race` runs both.

Hedges are limited by credit: each call adds the allowed share, each hedge takes one, so that there are never more
hedges than that share of calls, however slow the deployments are.
"""

from __future__ import annotations

from groundplan.blueprint.model import Hedge
from groundplan.gateway.upstream.latency import LatencyEstimate

_MAX_CREDIT = 10.0
"""The most credit that is saved: hedges in a row after a time without."""


class Hedges:
    """The hedging credit of each workload."""

    __slots__ = ("_credit",)

    def __init__(self) -> None:
        self._credit: dict[str, float] = {}

    def next_delay(self, workload: str, rule: Hedge, latency: LatencyEstimate) -> float | None:
        """Seconds after which one more call is hedged; None: it is not. Counts the call."""
        credit = self._credit.get(workload, 1.0 - rule.at_most) + rule.at_most
        self._credit[workload] = min(_MAX_CREDIT, credit)
        if credit < 1.0 - 1e-9:
            return None
        if rule.after_ms is not None:
            return rule.after_ms / 1000
        return latency.quantile(rule.percentile or 95)

    def record_sent(self, workload: str) -> None:
        """Take one from the credit, as a hedge was sent."""
        self._credit[workload] -= 1.0
