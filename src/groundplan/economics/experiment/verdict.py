"""Evaluates an experiment so far, and decides whether it stops by itself. Pure: tallies come from the ledger.

Arms are drawn from a hash of experiment and caller, so a caller stays in the same arm without any state, and after a
crash the same facts give the same verdict.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from math import pi
from typing import Final

from groundplan.economics.experiment.sequential import LEAST, Range, Tally, difference, open_range

CONTROL, CANDIDATE = "control", "candidate"
GUARDS: Final = {"answered": "the share of calls that are answered", "fast": "the share of answers that come in time",
                 "cheap": "how cheap calls are", "thumbs": "the share of thumbs that are up"}  # fmt: skip
"""Guard metric -> its name in words. All are from 0 to 1; more is better."""
NOTHING: Final = Decimal(0)
UNREADABLE: Final = "judge"
"""State of an experiment that ended since its judge gave no readable verdicts."""
UNASKED: Final = "unasked"
"""State of an experiment that ended since answers could not be compared for long."""


@dataclass(frozen=True, slots=True)
class Rule:
    """The terms of an experiment."""

    name: str
    share: float
    """Share of callers that get the candidate's answers."""
    tolerance: float = 0.02
    """How much worse the candidate may be and still be accepted."""
    guard_tolerance: float = 0.05
    """How much worse a guard metric may become before the experiment stops."""
    level: float = 0.95
    budget_usd: Decimal | None = None
    """Limit of the cost of its own calls: second answers, or the candidate's arm; None: no limit."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """State of an experiment: running | better | kept | worse | guard | judge | unasked | budget. All but the first end
    it."""

    state: str
    reason: str
    quality: Range
    segments: dict[str, Range]
    guards: dict[str, Range]
    spent_usd: Decimal = NOTHING
    """Cost of its own calls."""

    @property
    def ended(self) -> bool:
        return self.state != "running"


Arms = Mapping[str, Tally]


def assign_arm(rule: Rule, who: str) -> str:
    """The arm of a caller: always the same."""
    drawn = int.from_bytes(hashlib.sha256(f"{rule.name}\0{who}".encode()).digest()[:8]) / 2**64
    return CANDIDATE if drawn < rule.share else CONTROL


def ab_verdict(
    rule: Rule,
    quality: Arms,
    segments: Mapping[str, Arms] | None = None,
    guards: Mapping[str, Arms] | None = None,
    spent_usd: Decimal = NOTHING,
) -> Verdict:
    """Verdict of an A/B test from the tallies by arm.

    Each guard metric is tested at its own share of the error, so that many of them do not stop the experiment by chance
    more often. `segments`: in the order in which they were first seen. No share depends on the present number of
    segments, since earlier looks have used it already."""
    guards, segments = guards or {}, segments or {}
    whole = _range(quality, rule.level)
    watched = _guard_ranges(rule, guards)
    parts = {name: _range(arms, _segment_level(rule, at)) for at, (name, arms) in enumerate(segments.items(), 1)}
    state, reason = _state(rule, whole, watched, spent_usd)
    reason += _worse_note([name for name, seen in parts.items() if seen.high < -rule.tolerance])
    return Verdict(state, reason, whole, parts, watched, spent_usd)


def shadow_verdict(
    rule: Rule,
    kept: Tally,
    segments: Mapping[str, Tally] | None = None,
    guards: Mapping[str, Arms] | None = None,
    spent_usd: Decimal = NOTHING,
    left_open: Mapping[str, int] | None = None,
    silent: tuple[str, str] | None = None,
) -> Verdict:
    """Verdict of a shadow experiment from pairs of answers. `kept`: whether the candidate's answer was as good as the
    shown one; `left_open`: pairs without a verdict of the judge, by segment, `""` for all, which the interval counts as
    all good or all bad; `silent`: (outcome, reason) if the judge gives no verdicts.

    `rule.tolerance` is the share of calls that the candidate may answer worse.
    """
    guards, segments, left = guards or {}, segments or {}, left_open or {}
    whole = open_range(kept, left.get("", 0), rule.level)
    watched = _guard_ranges(rule, guards)
    parts = {
        name: open_range(seen, left.get(name, 0), _segment_level(rule, at))
        for at, (name, seen) in enumerate(segments.items(), 1)
    }
    state, reason = _shadow_state(rule, whole, watched, spent_usd, silent)
    few = [name for name, seen in parts.items() if seen.count >= LEAST and seen.high < 1 - rule.tolerance]
    reason += _worse_note(few)
    return Verdict(state, reason, whole, parts, watched, spent_usd)


def _shadow_state(
    rule: Rule, whole: Range, guards: Mapping[str, Range], spent_usd: Decimal, silent: tuple[str, str] | None
) -> tuple[str, str]:
    if (fallen := _guard_failure(rule, guards)) is not None:
        return fallen
    wanted, enough = 1 - rule.tolerance, whole.count >= LEAST
    if enough and whole.high < wanted:
        return "worse", f"at most {whole.high:.1%} of its answers are as good, less than {wanted:.1%}"
    if enough and whole.low >= wanted:
        return "kept", f"at least {whole.low:.1%} of its answers are as good, as many as {wanted:.1%} at least"
    if silent is not None:
        return silent
    if (spent := _budget_end(rule, spent_usd)) is not None:
        return spent
    return "running", f"between {whole.low:.1%} and {whole.high:.1%} as good after {whole.count} pairs of answers"


def _guard_failure(rule: Rule, guards: Mapping[str, Range]) -> tuple[str, str] | None:
    """(outcome, reason) if a guard metric surely fell below its tolerance."""
    for name, seen in guards.items():
        if seen.high < -rule.guard_tolerance:
            return "guard", f"{GUARDS.get(name, name)} fell by at least {-seen.high:.1%}"
    return None


def _budget_end(rule: Rule, spent_usd: Decimal) -> tuple[str, str] | None:
    """(outcome, reason) if the budget is used up."""
    if rule.budget_usd is None or spent_usd < rule.budget_usd:
        return None
    return "budget", f"its budget of ${rule.budget_usd:,.2f} is used up"


def _worse_note(worse: Sequence[str]) -> str:
    """End of a reason: the segments in which the candidate is surely worse than tolerated."""
    return f"; surely worse on {', '.join(worse)}" if worse else ""


def _guard_ranges(rule: Rule, guards: Mapping[str, Arms]) -> dict[str, Range]:
    """Interval of each guard, at an equal share of the error, whether or not the others have data yet."""
    level = 1 - (1 - rule.level) / max(len(GUARDS), len(guards))
    return {name: _range(arms, level) for name, arms in guards.items()}


def _segment_level(rule: Rule, at: int) -> float:
    """Confidence level of segment number `at`: the shares 6 / (pi k)^2 of the error add up to one for any number."""
    return 1 - (1 - rule.level) * 6 / (pi * at) ** 2


def _range(arms: Arms, level: float) -> Range:
    return difference(arms.get(CONTROL, Tally()), arms.get(CANDIDATE, Tally()), level)


def _state(rule: Rule, whole: Range, guards: Mapping[str, Range], spent_usd: Decimal) -> tuple[str, str]:
    if (fallen := _guard_failure(rule, guards)) is not None:
        return fallen
    if whole.high < -rule.tolerance:
        return "worse", f"the candidate is at least {-whole.high:.1%} worse"
    if whole.low > 0:
        return "better", f"the candidate is at least {whole.low:.1%} better"
    if whole.low > -rule.tolerance:
        return "kept", f"the candidate is at most {max(0.0, -whole.low):.1%} worse, less than {rule.tolerance:.1%}"
    if (spent := _budget_end(rule, spent_usd)) is not None:
        return spent
    return "running", f"between {whole.low:+.1%} and {whole.high:+.1%} after {whole.count} answers of the smaller arm"
