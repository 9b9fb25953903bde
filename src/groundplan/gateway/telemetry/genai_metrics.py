"""OpenTelemetry's GenAI metrics of the attempts at deployments, counted from what the journal says. Pure.

Two histograms, with the names, units and bounds of the conventions: how long an operation took, and the tokens that it
used by type. What is counted has no person, prompt or answer in it. Times to the first chunk are left out, since the
journal does not say which attempts were streamed; sending them is `trace_export`'s.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass, field

from groundplan.gateway.journal.ledger_rows import attempt_state
from groundplan.gateway.journal.recovery import Attempt, CallState
from groundplan.gateway.telemetry.spans import OPERATIONS, PROVIDERS

DURATION, TOKENS = "gen_ai.client.operation.duration", "gen_ai.client.token.usage"
UNITS = {DURATION: "s", TOKENS: "{token}"}
TOLD = {DURATION: "GenAI operation duration.", TOKENS: "Number of input and output tokens used."}
BOUNDS: dict[str, tuple[float, ...]] = {
    DURATION: (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92),
    TOKENS: (1, 4, 16, 64, 256, 1024, 4096, 16384, 65536, 262144, 1048576, 4194304, 16777216, 67108864),
}
"""Of buckets, as the conventions advise."""
MOST_SERIES = 2000
_OTHER = (("gen_ai.operation.name", "other"), ("gen_ai.provider.name", "other"))

Labels = tuple[tuple[str, str], ...]
"""Attributes by name, in order."""


@dataclass(slots=True)
class Series:
    """One histogram of one set of attributes, since the process began to count."""

    buckets: list[int]
    count: int = 0
    total: float = 0.0
    least: float = float("inf")
    most: float = float("-inf")

    def observe(self, value: float, bounds: tuple[float, ...]) -> None:
        self.buckets[bisect_left(bounds, value)] += 1
        self.count += 1
        self.total += value
        self.least, self.most = min(self.least, value), max(self.most, value)


@dataclass(slots=True)
class GenAiMetrics:
    """What was counted: by metric and attributes."""

    series: dict[tuple[str, Labels], Series] = field(default_factory=dict)

    def count(self, call: CallState) -> None:
        """All attempts of a call that has ended."""
        for attempt in call.attempts.values():
            self._attempt(attempt)

    def _attempt(self, attempt: Attempt) -> None:
        made, settled = attempt.reservation, attempt.settlement
        provider, _, model = made.model.partition("/")
        common = {
            "gen_ai.operation.name": OPERATIONS.get(made.endpoint, made.endpoint),
            "gen_ai.provider.name": PROVIDERS.get(provider, provider),
            "gen_ai.request.model": model or made.model,
            "groundplan.deployment": made.deployment,
            "groundplan.workload": made.workload,
        }
        outcome = settled.outcome if settled is not None else attempt_state(attempt)
        error = {} if outcome == "ok" else {"error.type": _error(outcome, settled.http_status if settled else 0)}
        if settled is None:
            return
        if settled.duration_us:  # not known of calls that a provider made on its own
            self._observe(DURATION, common | error, settled.duration_us / 1e6)
        for kind, tokens in (("input", settled.usage.input), ("output", settled.usage.output)):
            if tokens:
                self._observe(TOKENS, common | {"gen_ai.token.type": kind}, tokens)

    def _observe(self, metric: str, attributes: dict[str, str], value: float) -> None:
        labels = tuple(sorted(attributes.items()))
        series = self.series.get((metric, labels))
        if series is None:
            if len(self.series) >= MOST_SERIES:
                labels = _OTHER
            empty = Series([0] * (len(BOUNDS[metric]) + 1))
            series = self.series.setdefault((metric, labels), empty)
        series.observe(value, BOUNDS[metric])


def _error(outcome: str, status: int) -> str:
    return str(status) if status >= 400 else outcome
