"""Whether a caller that its budget stopped was in a loop, and what it did. Pure.

A budget may end a loop within seconds, long before minutes on end are unusual; a budget that ends by itself, after a
month of ordinary calls, is no loop. So it takes many calls a minute, or one conversation that grows with each call.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from groundplan.core.money import short_usd
from groundplan.economics.anomaly.detect import LOOP_FACTOR, LOOP_LEAST, LOOP_STRANGER
from groundplan.economics.anomaly.model import Alarm

SPAN: Final = timedelta(minutes=15)
"""Before it was stopped, that is looked at."""
LEAST_CALLS: Final = 10
GROWTH: Final = 2.0
"""Times that the last third of its prompts is longer than the first."""
RISING: Final = 0.8
"""Share of its calls whose prompt is longer than the one before."""
GROWING_RATE: Final = 3.0
"""Calls a minute from which on a growing conversation is one of a program: people read what they are answered."""


@dataclass(frozen=True, slots=True)
class Loop:
    """What one caller did in the last minutes, up to where its budget stopped it."""

    workload: str
    caller: str
    team: str
    feature: str
    """What it says that most of these calls are for; empty where it says nothing."""
    calls: int
    """That were answered."""
    since: datetime
    last: datetime
    cost: int
    """picodollars"""
    first_tokens: float
    """Tokens of a prompt, the mean of the first third."""
    last_tokens: float
    rises: int
    """Calls whose prompt was longer than the one before."""
    refused: int = 0
    """Since its budget had no more room."""
    stopped: datetime | None = None
    budget: str = ""
    limit: int = 0

    @property
    def rate(self) -> float:
        """Calls a minute."""
        return self.calls / max(1.0, (self.last - self.since) / timedelta(minutes=1))

    @property
    def growing(self) -> bool:
        """Whether each call says all of the earlier ones again."""
        rising = self.calls > 1 and self.rises >= RISING * (self.calls - 1)
        return rising and self.first_tokens > 0 and self.last_tokens >= GROWTH * self.first_tokens


def stopped(seen: Loop, usual: float) -> Alarm | None:
    """The alarm of a loop that its budget ended; `usual`: calls of its busiest minute before."""
    if seen.stopped is None or seen.calls < LEAST_CALLS:
        return None
    score = seen.rate / max(LOOP_LEAST, LOOP_FACTOR * usual)
    if score < 1 and not (seen.growing and seen.rate >= GROWING_RATE):
        return None
    return Alarm("runaway", seen.since, seen.rate, usual, max(1.0, score), seen.caller)


def sure(alarm: Alarm, seen: Loop | None) -> bool:
    """Whether many calls a minute are a loop: more than usual where something usual is known; else very many, or one
    conversation that grows with each call."""
    return alarm.usual > 0 or alarm.seen >= LOOP_STRANGER or (seen is not None and seen.growing)


def told(alarm: Alarm, seen: Loop, name: str) -> str:
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
