"""What an experiment has shown so far, and whether it stops by itself. Pure: tallies come from the ledger.

Arms are drawn from the experiment and whoever asks, so the same caller stays in the same arm, and nothing has to be
remembered: after a crash the same facts give the same verdict.
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
"""Guard metrics, each from 0 to 1 and more is better, in words."""
NOTHING: Final = Decimal(0)
UNREADABLE: Final = "judge"
"""How it ends where its judge says nothing readable."""
UNASKED: Final = "unasked"
"""How it ends where nobody could compare the answers for long."""


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
    budget_usd: Decimal | None = None
    """What its own calls may cost: those beside others, or those of the candidate's arm; None: no limit of its own."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """`state`: running | better | kept | worse | guard | judge | unasked | budget; all but the first end it."""

    state: str
    reason: str
    quality: Range
    segments: dict[str, Range]
    guards: dict[str, Range]
    spent_usd: Decimal = NOTHING
    """What its own calls cost."""

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
    spent_usd: Decimal = NOTHING,
) -> Verdict:
    """What the tallies by arm show. Guard metrics are such that more is better; each is tested at its own share of
    the error, so that looking at many does not stop more often by chance. Segments in the order in which they were
    first seen. No share depends on how many there are so far: earlier looks would have used what others get later."""
    guards, segments = guards or {}, segments or {}
    whole = _range(quality, rule.level)
    watched = _watched(rule, guards)
    parts = {name: _range(arms, _part(rule, at)) for at, (name, arms) in enumerate(segments.items(), 1)}
    state, reason = _state(rule, whole, watched, spent_usd)
    reason += _but([name for name, seen in parts.items() if seen.high < -rule.tolerance])
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
    """What pairs of answers show: `kept` tells of each whether the candidate's was as good as the one that was shown.
    `left_open`: pairs that the judge was asked about and said nothing of, by segment, `""` of all; the interval holds
    whether all of them are good or none. `silent`: how it ends, and why, where the judge says nothing.

    `tolerance` is the share of calls that it may answer worse.
    """
    guards, segments, left = guards or {}, segments or {}, left_open or {}
    whole = open_range(kept, left.get("", 0), rule.level)
    watched = _watched(rule, guards)
    parts = {
        name: open_range(seen, left.get(name, 0), _part(rule, at))
        for at, (name, seen) in enumerate(segments.items(), 1)
    }
    state, reason = _shadow_state(rule, whole, watched, spent_usd, silent)
    few = [name for name, seen in parts.items() if seen.count >= LEAST and seen.high < 1 - rule.tolerance]
    reason += _but(few)
    return Verdict(state, reason, whole, parts, watched, spent_usd)


def _shadow_state(
    rule: Rule, whole: Range, guards: Mapping[str, Range], spent_usd: Decimal, silent: tuple[str, str] | None
) -> tuple[str, str]:
    if (fallen := _fallen(rule, guards)) is not None:
        return fallen
    wanted, enough = 1 - rule.tolerance, whole.count >= LEAST
    if enough and whole.high < wanted:
        return "worse", f"at most {whole.high:.1%} of its answers are as good, less than {wanted:.1%}"
    if enough and whole.low >= wanted:
        return "kept", f"at least {whole.low:.1%} of its answers are as good, as many as {wanted:.1%} at least"
    if silent is not None:
        return silent
    if (spent := _spent(rule, spent_usd)) is not None:
        return spent
    return "running", f"between {whole.low:.1%} and {whole.high:.1%} as good after {whole.count} pairs of answers"


def _fallen(rule: Rule, guards: Mapping[str, Range]) -> tuple[str, str] | None:
    """The end by a guard metric that surely fell below what is tolerated."""
    for name, seen in guards.items():
        if seen.high < -rule.guard_tolerance:
            return "guard", f"{GUARDS.get(name, name)} fell by at least {-seen.high:.1%}"
    return None


def _spent(rule: Rule, spent_usd: Decimal) -> tuple[str, str] | None:
    """The end where its budget is used up."""
    if rule.budget_usd is None or spent_usd < rule.budget_usd:
        return None
    return "budget", f"its budget of ${rule.budget_usd:,.2f} is used up"


def _but(worse: Sequence[str]) -> str:
    """Segments in which the candidate surely does worse than is tolerated, as the end of a reason."""
    return f"; surely worse on {', '.join(worse)}" if worse else ""


def _watched(rule: Rule, guards: Mapping[str, Arms]) -> dict[str, Range]:
    """Each guard at an equal share of the error, whether the others have been seen yet or not."""
    level = 1 - (1 - rule.level) / max(len(GUARDS), len(guards))
    return {name: _range(arms, level) for name, arms in guards.items()}


def _part(rule: Rule, at: int) -> float:
    """Level of the segment that was seen as number `at`: the shares 6 / (pi k)^2 add up to one, however many come."""
    return 1 - (1 - rule.level) * 6 / (pi * at) ** 2


def _range(arms: Arms, level: float) -> Range:
    return difference(arms.get(CONTROL, Tally()), arms.get(CANDIDATE, Tally()), level)


def _state(rule: Rule, whole: Range, guards: Mapping[str, Range], spent_usd: Decimal) -> tuple[str, str]:
    if (fallen := _fallen(rule, guards)) is not None:
        return fallen
    if whole.high < -rule.tolerance:
        return "worse", f"the candidate is at least {-whole.high:.1%} worse"
    if whole.low > 0:
        return "better", f"the candidate is at least {whole.low:.1%} better"
    if whole.low > -rule.tolerance:
        return "kept", f"the candidate is at most {max(0.0, -whole.low):.1%} worse, less than {rule.tolerance:.1%}"
    if (spent := _spent(rule, spent_usd)) is not None:
        return spent
    return "running", f"between {whole.low:+.1%} and {whole.high:+.1%} after {whole.count} answers of the smaller arm"
