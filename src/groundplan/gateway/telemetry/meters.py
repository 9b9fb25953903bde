"""What one worker counts as it answers: adds to preallocated lists, no text, no lock, nothing awaited.

Labels are names that are declared, plus fixed words; no person, key or text of a caller ever becomes one. How it is
shown is `metrics`.
"""

from __future__ import annotations

from bisect import bisect_left

from groundplan.ledger.model import Settlement, Usage

DURATION_US = (
    1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000, 5_000_000,
    10_000_000, 30_000_000, 60_000_000, 120_000_000,
)  # fmt: skip
"""Upper bounds of all histograms, in microseconds."""
TOKEN_CLASSES = ("input", "output", "cache_read", "cache_write", "reasoning", "input_audio", "output_audio")
MOST_SERIES = 2000
"""Of each kind in one worker; what comes after them is counted under `other`."""
OTHER = "other"

CallLabels = tuple[str, str, str, str, int]
"""(endpoint, workload, deployment, status, HTTP status)"""
AttemptLabels = tuple[str, str, str]
"""(workload, deployment, outcome)"""
TokenLabels = tuple[str, str, str, str]
"""(endpoint, workload, deployment, the model that it was then)"""


class Histogram:
    """Counts by `DURATION_US`, the last one beyond it, and the sum in microseconds."""

    __slots__ = ("buckets", "total_us")

    def __init__(self) -> None:
        self.buckets = [0] * (len(DURATION_US) + 1)
        self.total_us = 0

    def observe(self, microseconds: int) -> None:
        self.buckets[bisect_left(DURATION_US, microseconds)] += 1
        self.total_us += microseconds

    def add(self, other: Histogram) -> None:
        """Count everything that `other` counted, too."""
        self.buckets = [mine + theirs for mine, theirs in zip(self.buckets, other.buckets, strict=True)]
        self.total_us += other.total_us


class CallSeries:
    """Finished calls with the same labels; times of answered ones only."""

    __slots__ = ("count", "duration", "first")

    def __init__(self) -> None:
        self.count = 0
        self.duration = Histogram()
        self.first = Histogram()


class AttemptSeries:
    """Ended attempts with the same labels. `cost` is picodollars; `queue` is how long first attempts waited."""

    __slots__ = ("cost", "count", "duration", "estimated", "queue", "tokens")

    def __init__(self) -> None:
        self.count = 0
        self.cost = 0
        self.estimated = 0
        self.tokens = [0] * len(TOKEN_CLASSES)
        self.duration = Histogram()
        self.queue = Histogram()


class Meters:
    """All counters of one worker since it started."""

    __slots__ = ("attempts", "cached", "calls", "cited", "content_lost", "first_tokens", "grounded", "saved", "streams")

    def __init__(self) -> None:
        self.calls: dict[CallLabels, CallSeries] = {}
        self.attempts: dict[AttemptLabels, AttemptSeries] = {}
        self.first_tokens: dict[TokenLabels, Histogram] = {}
        """To the first byte of those that a model streamed."""
        self.cached: dict[tuple[str, str], int] = {}
        """(workload, result) -> calls that were answered without a model"""
        self.grounded: dict[tuple[str, str], int] = {}
        """(workload, result) -> calls for which sources were searched"""
        self.cited: dict[tuple[str, str], int] = {}
        """(workload, result) -> citations of answers that were looked at"""
        self.saved: dict[str, int] = {}
        """workload -> picodollars that those answers cost before"""
        self.streams = 0
        """Open now."""
        self.content_lost = 0
        """Calls whose content was to be kept and could not be."""

    def call(self, labels: CallLabels, cache: str, duration_us: int, first_us: int, *, streamed: str = "") -> None:
        """One finished call. `first_us` 0: the client got no byte of an answer. `streamed`: by which model, now."""
        series = self.calls.get(labels)
        if series is None:
            series = self._new_call(labels)
        series.count += 1
        if labels[3] == "ok":
            series.duration.observe(duration_us)
            if first_us:
                series.first.observe(first_us)
                if streamed:
                    self._first_token(labels, streamed).observe(first_us)
        if cache != "none":
            _count(self.cached, labels[1], cache)

    def ground(self, workload: str, result: str) -> None:
        """One search for a call: `found`, `abstained` (nothing reached the workload's floor) or `nothing`."""
        _count(self.grounded, workload, result)

    def cite(self, workload: str, result: str) -> None:
        """One citation: `supported`, `unsupported`, or `undecided` where meaning could not be asked."""
        _count(self.cited, workload, result)

    def save(self, workload: str, picodollars: int) -> None:
        """What an answer from the cache would have cost again."""
        if workload not in self.saved and len(self.saved) >= MOST_SERIES:
            workload = OTHER
        self.saved[workload] = self.saved.get(workload, 0) + picodollars

    def attempt(self, labels: AttemptLabels, ended: Settlement) -> None:
        """One ended attempt."""
        series = self.attempts.get(labels)
        if series is None:
            series = self._new_attempt(labels)
        usage = ended.usage
        series.count += 1
        series.cost += ended.cost
        series.duration.observe(ended.duration_us)
        if ended.started_us and not ended.attempt:
            series.queue.observe(ended.started_us)
        if ended.estimated:
            series.estimated += 1
        tokens = series.tokens
        tokens[0] += usage.input
        tokens[1] += usage.output
        if usage.cache_read or usage.cache_write or usage.reasoning or usage.input_audio or usage.output_audio:
            for place, name in enumerate(TOKEN_CLASSES[2:], 2):
                tokens[place] += getattr(usage, name)

    def call_elsewhere(self, labels: CallLabels) -> None:
        """One call that a provider made on its own, so that nothing is known of its times."""
        (self.calls.get(labels) or self._new_call(labels)).count += 1

    def attempt_elsewhere(self, labels: AttemptLabels, usage: Usage, cost: int, estimated: bool) -> None:
        """Its attempt."""
        series = self.attempts.get(labels) or self._new_attempt(labels)
        series.count += 1
        series.cost += cost
        series.estimated += estimated
        for place, name in enumerate(TOKEN_CLASSES):
            series.tokens[place] += getattr(usage, name)

    def _new_call(self, labels: CallLabels) -> CallSeries:
        if len(self.calls) >= MOST_SERIES:
            labels = (OTHER, OTHER, OTHER, labels[3], labels[4])
        return self.calls.setdefault(labels, CallSeries())

    def _first_token(self, labels: CallLabels, model: str) -> Histogram:
        key = (*labels[:3], model)
        series = self.first_tokens.get(key)
        if series is None:
            key = key if len(self.first_tokens) < MOST_SERIES else (OTHER, OTHER, OTHER, OTHER)
            series = self.first_tokens.setdefault(key, Histogram())
        return series

    def _new_attempt(self, labels: AttemptLabels) -> AttemptSeries:
        if len(self.attempts) >= MOST_SERIES:
            labels = (OTHER, OTHER, labels[2])
        return self.attempts.setdefault(labels, AttemptSeries())


def _count(counts: dict[tuple[str, str], int], workload: str, result: str) -> None:
    key = (workload, result)
    if key not in counts and len(counts) >= MOST_SERIES:
        key = (OTHER, result)
    counts[key] = counts.get(key, 0) + 1
