"""Which deployments have just failed: an outage is asked about once a second, not by every call. Pure; times are
arguments.

Local to one worker and forgotten with it; objectives and incidents are elsewhere.
"""

from __future__ import annotations

from collections.abc import Sequence

from groundplan.blueprint.model import Deployment

FAILURES = 3
"""Failures in a row after which a deployment is asked last."""
LONGEST_SECONDS = 15.0


class Health:
    """Failures in a row by deployment."""

    __slots__ = ("_failures", "_until")

    def __init__(self) -> None:
        self._failures: dict[str, int] = {}
        self._until: dict[str, float] = {}

    def order(self, deployments: Sequence[Deployment], now: float) -> list[Deployment]:
        """The same deployments, those that are cooling off last. `now` is monotonic seconds.

        A deployment whose time is over is tried by one call; the others wait for how that ends, up to a second.
        """
        if not self._until:
            return list(deployments)
        ready, cooling = [], []
        for deployment in deployments:
            until = self._until.get(deployment.name)
            if until is not None and until > now:
                cooling.append(deployment)
                continue
            if until is not None and len(deployments) > 1:
                self._until[deployment.name] = now + 1.0
            ready.append(deployment)
        return ready + cooling

    def failed(self, name: str, now: float) -> None:
        failures = self._failures.get(name, 0) + 1
        self._failures[name] = failures
        if failures >= FAILURES:
            self._until[name] = now + min(LONGEST_SECONDS, 1.0 * 2 ** min(8, failures - FAILURES))

    def states(self, now: float) -> dict[str, str]:
        """`open` (asked last) or `half_open` (to be tried by one call) of the deployments that are not `closed`."""
        return {name: "open" if until > now else "half_open" for name, until in self._until.items()}

    def succeeded(self, name: str) -> None:
        if self._failures:
            self._failures.pop(name, None)
            self._until.pop(name, None)
