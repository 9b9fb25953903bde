"""Types of replays: what was judged, what people said of the judge, what is proposed. No behaviour."""

from __future__ import annotations

from dataclasses import dataclass

UNNAMED = "calls without a feature"
"""What the segment without a name is called."""
OPEN = 0.01
"""Share of answers that a judge left open from which on it is told."""
COMPLETE = 0.995
"""Share of the calls from which on all of them are meant."""


@dataclass(frozen=True, slots=True)
class Judged:
    """One call that was replayed on a candidate, and what the judge said of both answers."""

    call: str
    segment: str
    kept: bool
    """The candidate's answer is as good as the one that was given, or better."""
    cost: float
    """US dollars that the call cost."""
    candidate_cost: float
    reviewed: bool | None = None
    """What a person said; None: nobody looked."""


@dataclass(frozen=True, slots=True)
class Interval:
    """A share with its interval."""

    value: float
    low: float
    high: float
    level: float


@dataclass(frozen=True, slots=True)
class Agreement:
    """How often the judge and people said the same of the same answers."""

    reviewed: int
    same: int

    @property
    def text(self) -> str:
        if not self.reviewed:
            return "unknown: no person has reviewed these answers yet"
        return f"{self.same} of {self.reviewed} answers that people reviewed"


@dataclass(frozen=True, slots=True)
class Segment:
    """One part of the calls."""

    name: str
    calls: int
    quality: Interval


@dataclass(frozen=True, slots=True)
class Proposal:
    """What a cheaper model would save at which quality. Amounts are US dollars a month."""

    current: str
    candidate: str
    judged: int
    quality: Interval
    saving: Interval
    agreement: Agreement
    worse: tuple[Segment, ...]
    """Segments whose quality is surely below that of the rest."""
    covered: float = 1.0
    """Share of the calls that are of segments of which some were judged: of the others nothing is said."""
    left_open: int = 0
    """Answers beside those judged that the judge said nothing of: the quality is between that of all of them being as
    good, and none."""
    known: bool = False
    """People reviewed enough of the judge's verdicts; else the quality is its own view, which may be wrong."""

    def told(self, workload: str) -> str:
        """The sentence about one workload, with what to do next."""
        return f"{self.sentence.replace(' of calls', f' of {workload} calls', 1)}; shadow it"

    @property
    def sentence(self) -> str:
        """What the opportunities page says."""
        half = max(self.quality.high - self.quality.value, self.quality.value - self.quality.low)
        saves = f"saves {_dollars(self.saving.value)} a month" if self.saving.value > 0 else "saves nothing"
        worse = f", worse on {', '.join(s.name or UNNAMED for s in self.worse)}" if self.worse else ""
        part = f" ({self.covered:.0%} of all: no other feature was judged)" if self.covered < COMPLETE else ""
        whole = self.judged + self.left_open
        left = f", its judge left {self.left_open} of {whole} answers open" if self.left_open > OPEN * whole else ""
        alone = "" if self.known else "; by the judge alone, whether it is right is unknown"
        return f"same quality on {self.quality.value:.0%} ± {half:.0%} of calls{part}, {saves}{worse}{left}{alone}"


def _dollars(value: float) -> str:
    """Whole from ten on, else with as many places as tell it."""
    if value >= 10:
        return f"${value:,.0f}"
    return f"${value:.2f}" if value >= 0.005 else "less than $0.01"
