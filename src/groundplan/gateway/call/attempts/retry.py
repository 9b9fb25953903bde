"""When a failed attempt is tried again, and after how long. Pure: the clock and the dice are arguments."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime, parsedate_tz
from math import inf

from groundplan.blueprint.model import Reliability

LONGEST_SECONDS = 86_400.0
"""Longer retry-after values are cut to this."""
LAST_YEAR = 9999
"""The last year that `datetime` can represent."""


def retry_after(value: bytes | None, now: datetime) -> float | None:
    """Parse a `retry-after` header, a number or an HTTP date, into seconds; None where it is not usable."""
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


def retry_delay(rule: Reliability, retries: int, requested: float | None, dice: Callable[[], float]) -> float:
    """Seconds before the next attempt at the same deployment.

    `retries`: attempts at it that have been repeated already; `requested`: its own retry-after, which is never
    undercut; `dice` gives a number from 0 to 1. Half of the doubling backoff is fixed and half is random, so that
    callers which failed together do not return together; the same random half is added to a requested delay.
    """
    max_seconds = min(rule.backoff_ms << min(retries, 16), rule.max_backoff_ms) / 1000
    jitter = max_seconds * 0.5 * dice()
    return max_seconds * 0.5 + jitter if requested is None else max(requested, max_seconds * 0.5) + jitter


def may_retry(rule: Reliability, retries: int, delay: float, remaining: float, *, has_others: bool) -> bool:
    """Whether to wait `delay` seconds for the same deployment. `remaining`: seconds until the deadline; `has_others`:
    another deployment can be asked instead, so a long wait is not worth it."""
    if retries >= rule.same or delay >= remaining:
        return False
    return not has_others or delay <= rule.max_backoff_ms / 1000
