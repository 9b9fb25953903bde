"""What an experiment has shown so far, and whether it stops by itself. Pure: tallies come from the ledger.

Arms are drawn from the experiment and whoever asks, so the same caller stays in the same arm, and nothing has to be
remembered: after a crash the same facts give the same verdict.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

from groundplan.economics.experiment.sequential import LEAST, Range, Tally, difference, mean_range

CONTROL, CANDIDATE = "control", "candidate"


@dataclass(frozen=True, slots=True)
class Rule:
    """What is tried, and when it ends."""

    name: str
    share: float
    """Of the callers that get the candidate."""
    tolerance: float = 0.02
    """How much worse the candidate may be and still be taken."""
    guard_tolerance: float = 0.05
    """How much worse a guard metric may become before everything stops."""
    level: float = 0.95
    budget_usd: float | None = None
    """What it may cost more than without it; None: no limit of its own."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """`state`: running | better | kept | worse | guard | budget; every state but the first ends it."""

    state: str
    reason: str
    quality: Range
    segments: dict[str, Range]
    guards: dict[str, Range]

    @property
    def ended(self) -> bool:
        return self.state != "running"


Arms = Mapping[str, Tally]


def arm(rule: Rule, who: str) -> str:
    """Which arm a caller is in: always the same."""
    drawn = int.from_bytes(hashlib.sha256(f"{rule.name}\0{who}".encode()).digest()[:8]) / 2**64
    return CANDIDATE if drawn < rule.share else CONTROL


def verdict(
    rule: Rule,
    quality: Arms,
    segments: Mapping[str, Arms] | None = None,
    guards: Mapping[str, Arms] | None = None,
    spent_usd: float = 0.0,
) -> Verdict:
    """What the tallies by arm show. Guard metrics are such that more is better; each is tested at its own share of
    the error, so that looking at many does not stop more often by chance."""
    guards, segments = guards or {}, segments or {}
    whole = _range(quality, rule.level)
    share = 1 - (1 - rule.level) / max(1, len(guards))
    watched = {name: _range(arms, share) for name, arms in guards.items()}
    parts = {name: _range(arms, 1 - (1 - rule.level) / max(1, len(segments))) for name, arms in segments.items()}
    state, reason = _state(rule, whole, watched, spent_usd)
    return Verdict(state, reason, whole, parts, watched)


def shadow_verdict(
    rule: Rule,
    kept: Tally,
    segments: Mapping[str, Tally] | None = None,
    guards: Mapping[str, Arms] | None = None,
    spent_usd: float = 0.0,
) -> Verdict:
    """What pairs of answers show: `kept` tells of each whether the candidate's was as good as the one that was shown.

    `tolerance` is the share of calls that it may answer worse.
    """
    guards, segments = guards or {}, segments or {}
    whole = mean_range(kept, rule.level)
    share = 1 - (1 - rule.level) / max(1, len(guards))
    watched = {name: _range(arms, share) for name, arms in guards.items()}
    part = 1 - (1 - rule.level) / max(1, len(segments))
    parts = {name: mean_range(seen, part) for name, seen in segments.items()}
    state, reason = _shadow_state(rule, whole, watched, spent_usd)
    return Verdict(state, reason, whole, parts, watched)


def _shadow_state(rule: Rule, whole: Range, guards: Mapping[str, Range], spent_usd: float) -> tuple[str, str]:
    for name, seen in guards.items():
        if seen.high < -rule.guard_tolerance:
            return "guard", f"{name} fell by at least {-seen.high:.1%}"
    wanted, enough = 1 - rule.tolerance, whole.count >= LEAST
    if enough and whole.high < wanted:
        return "worse", f"at most {whole.high:.1%} of its answers are as good, less than {wanted:.1%}"
    if enough and whole.low >= wanted:
        return "kept", f"at least {whole.low:.1%} of its answers are as good, as many as {wanted:.1%} at least"
    if rule.budget_usd is not None and spent_usd >= rule.budget_usd:
        return "budget", f"its budget of ${rule.budget_usd:,.2f} is used up"
    return "running", f"between {whole.low:.1%} and {whole.high:.1%} as good after {whole.count} pairs of answers"


def _range(arms: Arms, level: float) -> Range:
    return difference(arms.get(CONTROL, Tally()), arms.get(CANDIDATE, Tally()), level)


def _state(rule: Rule, whole: Range, guards: Mapping[str, Range], spent_usd: float) -> tuple[str, str]:
    for name, seen in guards.items():
        if seen.high < -rule.guard_tolerance:
            return "guard", f"{name} fell by at least {-seen.high:.1%}"
    if whole.high < -rule.tolerance:
        return "worse", f"the candidate is at least {-whole.high:.1%} worse"
    if rule.budget_usd is not None and spent_usd >= rule.budget_usd:
        return "budget", f"its budget of ${rule.budget_usd:,.2f} is used up"
    if whole.low > 0:
        return "better", f"the candidate is at least {whole.low:.1%} better"
    if whole.low > -rule.tolerance:
        return "kept", f"the candidate is at most {max(0.0, -whole.low):.1%} worse, less than {rule.tolerance:.1%}"
    return "running", f"between {whole.low:+.1%} and {whole.high:+.1%} after {whole.count} answers of the smaller arm"
