"""Counters of calls and attempts in one worker, updated as it answers: additions to preallocated lists, no text, no
lock, nothing awaited.

Labels are declared names and fixed words; no person, key or text of a client ever becomes one. `worker_families` turns
the counters into metrics.
"""

from __future__ import annotations

from bisect import bisect_left

from groundplan.ledger.model import Settlement, Usage

DURATION_US = (
    1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000, 5_000_000,
    10_000_000, 30_000_000, 60_000_000, 120_000_000, 300_000_000, 900_000_000,
)  # fmt: skip
"""Upper bounds of all histograms, in microseconds; the last are for models that think for minutes."""
TOKEN_CLASSES = ("input", "output", "cache_read", "cache_write", "reasoning", "input_audio", "output_audio")
MOST_SERIES = 2000
"""Label sets of each kind in one worker; further ones are counted under `other`."""
OTHER = "other"

CallLabels = tuple[str, str, str, str, int]
"""(endpoint, workload, deployment, status, HTTP status)"""
AttemptLabels = tuple[str, str, str]
"""(workload, deployment, outcome)"""
TokenLabels = tuple[str, str, str, str]
"""(endpoint, workload, deployment, the model that it served then)"""


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
    """Finished calls with the same labels; times of successful ones only."""

    __slots__ = ("count", "duration", "first_byte")

    def __init__(self) -> None:
        self.count = 0
        self.duration = Histogram()
        self.first_byte = Histogram()


class AttemptSeries:
    """Ended attempts with the same labels. `cost` is picodollars; `queue` is the waiting time of first attempts."""

    __slots__ = ("cost", "count", "duration", "estimated", "queue", "tokens")

    def __init__(self) -> None:
        self.count = 0
        self.cost = 0
        self.estimated = 0
        self.tokens = [0] * len(TOKEN_CLASSES)
        self.duration = Histogram()
        self.queue = Histogram()


class CallCounters:
    """All counters of calls and attempts in one worker since it started."""

    __slots__ = (
        "attempts",
        "cache_hits",
        "calls",
        "citations",
        "content_lost",
        "first_tokens",
        "open_streams",
        "saved_picodollars",
        "searches",
    )

    def __init__(self) -> None:
        self.calls: dict[CallLabels, CallSeries] = {}
        self.attempts: dict[AttemptLabels, AttemptSeries] = {}
        self.first_tokens: dict[TokenLabels, Histogram] = {}
        """Times to the first byte of answers that a model streamed."""
        self.cache_hits: dict[tuple[str, str], int] = {}
        """(workload, result) -> calls that were answered without a model"""
        self.searches: dict[tuple[str, str], int] = {}
        """(workload, result) -> calls for which sources were searched"""
        self.citations: dict[tuple[str, str], int] = {}
        """(workload, result) -> citations in answers that were checked"""
        self.saved_picodollars: dict[str, int] = {}
        """workload -> picodollars that answers from the cache would have cost"""
        self.open_streams = 0
        """Streams open now."""
        self.content_lost = 0
        """Calls whose content was to be kept and could not be."""

    def count_call(
        self, labels: CallLabels, cache: str, duration_us: int, first_us: int, *, streamed: str = ""
    ) -> None:
        """Count a finished call. `first_us` 0: the client got no byte of an answer. `streamed`: the streaming model."""
        series = self.calls.get(labels)
        if series is None:
            series = self._add_call_series(labels)
        series.count += 1
        if labels[3] == "ok":
            series.duration.observe(duration_us)
            if first_us:
                series.first_byte.observe(first_us)
                if streamed:
                    self._first_token_histogram(labels, streamed).observe(first_us)
        if cache != "none":
            _increment(self.cache_hits, labels[1], cache)

    def count_search(self, workload: str, result: str) -> None:
        """Count a search for a call: `found`, `abstained` (nothing reached the workload's floor) or `nothing`."""
        _increment(self.searches, workload, result)

    def count_citation(self, workload: str, result: str) -> None:
        """Count a citation: `supported`, `unsupported`, or `undecided` where its meaning could not be checked."""
        _increment(self.citations, workload, result)

    def add_savings(self, workload: str, picodollars: int) -> None:
        """Add what an answer from the cache would have cost."""
        if workload not in self.saved_picodollars and len(self.saved_picodollars) >= MOST_SERIES:
            workload = OTHER
        self.saved_picodollars[workload] = self.saved_picodollars.get(workload, 0) + picodollars

    def count_attempt(self, labels: AttemptLabels, ended: Settlement) -> None:
        """Count an ended attempt."""
        series = self.attempts.get(labels)
        if series is None:
            series = self._add_attempt_series(labels)
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

    def count_provider_call(self, labels: CallLabels) -> None:
        """Count a call that a provider ran on its own, whose times are unknown."""
        (self.calls.get(labels) or self._add_call_series(labels)).count += 1

    def count_provider_attempt(self, labels: AttemptLabels, usage: Usage, cost: int, estimated: bool) -> None:
        """Count the attempt of such a call."""
        series = self.attempts.get(labels) or self._add_attempt_series(labels)
        series.count += 1
        series.cost += cost
        series.estimated += estimated
        for place, name in enumerate(TOKEN_CLASSES):
            series.tokens[place] += getattr(usage, name)

    def _add_call_series(self, labels: CallLabels) -> CallSeries:
        if len(self.calls) >= MOST_SERIES:
            labels = (OTHER, OTHER, OTHER, labels[3], labels[4])
        return self.calls.setdefault(labels, CallSeries())

    def _first_token_histogram(self, labels: CallLabels, model: str) -> Histogram:
        key = (*labels[:3], model)
        series = self.first_tokens.get(key)
        if series is None:
            key = key if len(self.first_tokens) < MOST_SERIES else (OTHER, OTHER, OTHER, OTHER)
            series = self.first_tokens.setdefault(key, Histogram())
        return series

    def _add_attempt_series(self, labels: AttemptLabels) -> AttemptSeries:
        if len(self.attempts) >= MOST_SERIES:
            labels = (OTHER, OTHER, labels[2])
        return self.attempts.setdefault(labels, AttemptSeries())


def _increment(counts: dict[tuple[str, str], int], workload: str, result: str) -> None:
    key = (workload, result)
    if key not in counts and len(counts) >= MOST_SERIES:
        key = (OTHER, result)
    counts[key] = counts.get(key, 0) + 1
