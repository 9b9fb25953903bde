"""When a failed attempt is tried again, and after how long. Pure: the clock and the dice are arguments."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime, parsedate_tz
from math import inf

from groundplan.blueprint.model import Reliability

LONGEST_SECONDS = 86_400.0
"""Whoever asks for more is taken to have asked for this."""
LAST_YEAR = 9999
"""Of the calendar."""


def retry_after(value: bytes | None, now: datetime) -> float | None:
    """Seconds that a `retry-after` header asks for, as a number or as an HTTP date; None where it says nothing
    usable."""
    if not value:
        return None
    text = value.decode("latin-1").strip()
    try:
        seconds = float(text)
    except ValueError:
        seconds = _until(text, now)
    return min(LONGEST_SECONDS, seconds) if 0 <= seconds < inf else None


def _until(text: str, now: datetime) -> float:
    parsed = parsedate_tz(text)
    if parsed is not None and parsed[0] > LAST_YEAR:
        return LONGEST_SECONDS
    try:
        moment = parsedate_to_datetime(text)
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        return max(0.0, (moment - now).total_seconds())
    except (ValueError, OverflowError):
        return -1.0


def pause(rule: Reliability, before: int, asked: float | None, dice: Callable[[], float]) -> float:
    """Seconds before the next attempt at the same deployment.

    `before` attempts at it have been repeated already; `asked` is its own retry-after, which is never undercut; `dice`
    gives a number from 0 to 1. Half of the doubling time is fixed and half is left to chance, so that callers who
    failed together do not come back together; the same half is added to what was asked of all of them.
    """
    most = min(rule.backoff_ms << min(before, 16), rule.max_backoff_ms) / 1000
    chance = most * 0.5 * dice()
    return most * 0.5 + chance if asked is None else max(asked, most * 0.5) + chance


def repeats(rule: Reliability, before: int, wait: float, left: float, *, others: bool) -> bool:
    """Whether to wait `wait` seconds for the same deployment. `left`: seconds until the deadline; `others`: somebody
    else can be asked instead, so a long wait is not worth it."""
    if before >= rule.same or wait >= left:
        return False
    return not others or wait <= rule.max_backoff_ms / 1000
