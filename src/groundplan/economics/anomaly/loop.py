"""Decides whether a caller stopped by its budget was in a loop, and describes it. Pure.

A budget may end a loop within seconds, before `detect` sees several unusual minutes; a budget used up by a month of
ordinary calls is no loop. So a loop needs many calls a minute, or one conversation that grows with each call.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from groundplan.core.money import short_usd
from groundplan.economics.anomaly.detect import LOOP_FACTOR, LOOP_MIN_RATE, LOOP_UNKNOWN_RATE
from groundplan.economics.anomaly.model import Alarm

SPAN: Final = timedelta(minutes=15)
"""Period before the stop that is examined."""
LEAST_CALLS: Final = 10
GROWTH: Final = 2.0
"""Ratio of the last third of prompts to the first third, in tokens, from which on a conversation grows."""
RISING: Final = 0.8
"""Share of calls with a longer prompt than the one before, from which on a conversation grows."""
GROWING_RATE: Final = 3.0
"""Calls a minute from which on a growing conversation is a program's: people need time to read answers."""


@dataclass(frozen=True, slots=True)
class Loop:
    """Calls of one caller in the last minutes, up to the stop by its budget. Fields are columns of
    `spend_watch_store.calls_before_refusal`."""

    workload: str
    caller: str
    team: str
    feature: str
    """The feature of most of these calls; empty: none given."""
    calls: int
    """Answered calls."""
    since: datetime
    last: datetime
    cost: int
    """picodollars"""
    first_tokens: float
    """Mean tokens of a prompt in the first third of calls."""
    last_tokens: float
    rises: int
    """Calls with a longer prompt than the one before."""
    refused: int = 0
    """Calls refused since the budget was used up."""
    stopped: datetime | None = None
    budget: str = ""
    limit: int = 0

    @property
    def rate(self) -> float:
        """Calls a minute."""
        return self.calls / max(1.0, (self.last - self.since) / timedelta(minutes=1))

    @property
    def growing(self) -> bool:
        """Whether each call repeats the earlier ones: one conversation that grows."""
        rising = self.calls > 1 and self.rises >= RISING * (self.calls - 1)
        return rising and self.first_tokens > 0 and self.last_tokens >= GROWTH * self.first_tokens


def stopped(seen: Loop, usual: float) -> Alarm | None:
    """The alarm of a loop that a budget ended; None if it was none. `usual`: calls of the caller's busiest minute."""
    if seen.stopped is None or seen.calls < LEAST_CALLS:
        return None
    score = seen.rate / max(LOOP_MIN_RATE, LOOP_FACTOR * usual)
    if score < 1 and not (seen.growing and seen.rate >= GROWING_RATE):
        return None
    return Alarm("runaway", seen.since, seen.rate, usual, max(1.0, score), seen.caller)


def is_loop(alarm: Alarm, seen: Loop | None) -> bool:
    """Whether an alarm of many calls a minute is a loop. Without usual values of the caller that needs a very high rate
    or a growing conversation."""
    return alarm.usual > 0 or alarm.seen >= LOOP_UNKNOWN_RATE or (seen is not None and seen.growing)


def describe_loop(alarm: Alarm, seen: Loop, name: str) -> str:
    """`since 14:05 ana@acme.example (key gp_abc) of team care, feature triage, made 42 calls a minute ...`"""
    who = name + (f" of team {seen.team}" if seen.team else "") + (f", feature {seen.feature}," if seen.feature else "")
    verb = "makes" if seen.stopped is None else "made"
    usual = f"usually at most {alarm.usual:,.0f}" if alarm.usual else "and was not known before"
    text = f"since {alarm.since:%H:%M} {who} {verb} {alarm.seen:,.0f} calls a minute, {usual}"
    if seen.growing:
        text += (
            f", each longer than the one before: {seen.first_tokens:,.0f} to {seen.last_tokens:,.0f} tokens a prompt"
        )
    if seen.stopped is None:
        return text
    own = "its own budget" if seen.budget.startswith("key/") else f"the budget {seen.budget}"
    named = f"{own} of {short_usd(seen.limit)}" if seen.budget else "its budget"
    text += f". After {seen.calls:,} calls for {short_usd(seen.cost)}, {named} stopped it at {seen.stopped:%H:%M}"
    return f"{text}, and {seen.refused:,} of its calls {'was' if seen.refused == 1 else 'were'} refused since"
