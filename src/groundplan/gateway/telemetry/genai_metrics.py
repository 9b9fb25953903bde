"""OpenTelemetry's GenAI metrics of the attempts at deployments, counted from the journal. Pure.

Histograms with the names, units and bounds of the conventions: duration of an operation, tokens used by type, and time
to the first chunk of a stream, as the deployment's client (each attempt) and as the client's server (each call) see it.
Nothing counted contains a person, prompt or answer; `trace_export` sends it.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass, field

from groundplan.gateway.journal.ledger_rows import attempt_state
from groundplan.gateway.journal.recovery import Attempt, CallState
from groundplan.gateway.telemetry.conventions import OPERATIONS, provider_and_model
from groundplan.ledger.model import Reservation

DURATION, TOKENS = "gen_ai.client.operation.duration", "gen_ai.client.token.usage"
FIRST_CHUNK, FIRST_TOKEN = "gen_ai.client.operation.time_to_first_chunk", "gen_ai.server.time_to_first_token"
UNITS = {DURATION: "s", TOKENS: "{token}", FIRST_CHUNK: "s", FIRST_TOKEN: "s"}
DESCRIPTIONS = {
    DURATION: "GenAI operation duration.",
    TOKENS: "Number of input and output tokens used.",
    FIRST_CHUNK: "Time to receive the first chunk of a stream, from when its request was issued.",
    FIRST_TOKEN: "Time to generate first token for successful responses.",
}
_FIRST_BOUNDS = (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
BOUNDS: dict[str, tuple[float, ...]] = {
    DURATION: (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92),
    TOKENS: (1, 4, 16, 64, 256, 1024, 4096, 16384, 65536, 262144, 1048576, 4194304, 16777216, 67108864),
    FIRST_CHUNK: _FIRST_BOUNDS,
    FIRST_TOKEN: _FIRST_BOUNDS,
}
"""Bucket bounds, as the conventions advise."""
MOST_SERIES = 2000
_OTHER = (("gen_ai.operation.name", "other"), ("gen_ai.provider.name", "other"))
_TOKEN_TYPE = "gen_ai.token.type"
"""Kept beyond `MOST_SERIES` too: a sum of tokens read and written means nothing."""

Labels = tuple[tuple[str, str], ...]
"""Attributes by name, in order."""


@dataclass(slots=True)
class Series:
    """One histogram of one set of attributes, since the process started."""

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
    """All histograms, by metric and attributes."""

    series: dict[tuple[str, Labels], Series] = field(default_factory=dict)

    def count_call(self, call: CallState) -> None:
        """Count all attempts of an ended call."""
        for attempt in call.attempts.values():
            self._count_attempt(attempt)
        end, streamed = call.finish, [each for each in call.attempts.values() if _has_streamed(each)]
        if end is not None and end.status == "ok" and end.first_byte_us and streamed:
            self._observe(FIRST_TOKEN, _attributes(streamed[-1].reservation), end.first_byte_us / 1e6)

    def _count_attempt(self, attempt: Attempt) -> None:
        made, settled = attempt.reservation, attempt.settlement
        common = _attributes(made)
        outcome = settled.outcome if settled is not None else attempt_state(attempt)
        error = {} if outcome == "ok" else {"error.type": _error_type(outcome, settled.http_status if settled else 0)}
        if settled is None:
            return
        if settled.duration_us:  # unknown for calls that a provider made on its own
            self._observe(DURATION, common | error, settled.duration_us / 1e6)
        if settled.first_chunk_us:
            self._observe(FIRST_CHUNK, common | error, settled.first_chunk_us / 1e6)
        for kind, tokens in (("input", settled.usage.input), ("output", settled.usage.output)):
            if tokens:
                self._observe(TOKENS, common | {_TOKEN_TYPE: kind}, tokens)

    def _observe(self, metric: str, attributes: dict[str, str], value: float) -> None:
        labels = tuple(sorted(attributes.items()))
        series = self.series.get((metric, labels))
        if series is None:
            if len(self.series) >= MOST_SERIES:
                kept = [(name, value) for name, value in labels if name == _TOKEN_TYPE]
                labels = (*_OTHER, *kept)
            empty = Series([0] * (len(BOUNDS[metric]) + 1))
            series = self.series.setdefault((metric, labels), empty)
        series.observe(value, BOUNDS[metric])


def _has_streamed(attempt: Attempt) -> bool:
    """Whether the client received this attempt's stream to its end."""
    settled = attempt.settlement
    return settled is not None and settled.outcome == "ok" and settled.first_chunk_us > 0


def _attributes(made: Reservation) -> dict[str, str]:
    provider, model = provider_and_model(made.model)
    return {
        "gen_ai.operation.name": OPERATIONS.get(made.endpoint, made.endpoint),
        "gen_ai.provider.name": provider,
        "gen_ai.request.model": model,
        "groundplan.deployment": made.deployment,
        "groundplan.workload": made.workload,
    }


def _error_type(outcome: str, status: int) -> str:
    return str(status) if status >= 400 else outcome
