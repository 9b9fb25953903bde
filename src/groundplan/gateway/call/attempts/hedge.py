"""When a slow attempt gets a second one beside it. Pure; running both is `race`.

Hedges are paid for by calls: each call adds its share, each hedge takes one, so that they never are more than their
share, whatever the deployments do.
"""

from __future__ import annotations

from groundplan.blueprint.model import Hedge
from groundplan.gateway.upstream.latency import Learned

_SAVED = 10.0
"""Most hedges in a row after a time without."""


class Hedges:
    """What each workload may still hedge."""

    __slots__ = ("_credit",)

    def __init__(self) -> None:
        self._credit: dict[str, float] = {}

    def after(self, workload: str, rule: Hedge, learned: Learned) -> float | None:
        """Seconds after which one more call is hedged; None: it is not. Counts the call."""
        credit = self._credit.get(workload, 1.0 - rule.at_most) + rule.at_most
        self._credit[workload] = min(_SAVED, credit)
        if credit < 1.0 - 1e-9:
            return None
        if rule.after_ms is not None:
            return rule.after_ms / 1000
        return learned.quantile(rule.percentile or 95)

    def sent(self, workload: str) -> None:
        """A hedge was sent."""
        self._credit[workload] -= 1.0
