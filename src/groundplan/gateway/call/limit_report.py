"""What callers are told of limits: what is left, why one has no room for a call, and when it will. Takes nothing."""

from __future__ import annotations

from typing import Any

from groundplan.core.errors import Exhausted, GroundplanError, Unavailable
from groundplan.core.money import distinct_usd
from groundplan.core.words import each as each_period
from groundplan.gateway.budgets.leases import CONCURRENT, COST, REQUESTS, TOKENS, Quota
from groundplan.gateway.budgets.limit_book import DAY_CALLS, HEADER_WORDS, QuotaPeriods, ReportedLimit, reported_limit
from groundplan.gateway.budgets.periods import end_text, ends, header_duration, seconds_left
from groundplan.gateway.call import admit
from groundplan.gateway.call.context import Gateway
from groundplan.gateway.call.limit_use import Short

LONG_S = 60.0
"""Until the end of a window that is longer away nobody waits, where open calls hold what is left of it."""


def refusal(gateway: Gateway, short: Short) -> GroundplanError:
    """429 with what is used up, and when it frees where waiting helps; 503 where PostgreSQL cannot be asked whether it
    is used up."""
    quota, now = short.quota, gateway.clock.seconds() + gateway.windows.seconds_ahead
    if not short.never and not _used_up(gateway, short):
        hint, wait = admit.unheard(connected=gateway.leases.connected)
        return Unavailable(
            f"this gateway has used what it held of the limit {quota.limit_name} and cannot get more now",
            code="limit_unreachable",
            hint=hint,
            retry_after=wait,
            details={"limit": quota.limit_name},
        )
    if quota.name.endswith(DAY_CALLS):
        return admit.too_many_calls(quota.limit_name, quota.limit, now)
    span = short.period
    end = ends(span)
    per = "at the same time" if quota.type == CONCURRENT else each_period(quota.period)
    details: dict[str, Any] = {
        "limit": quota.limit_name,
        "covers": quota.covers,
        "counts": quota.type,
        "most": distinct_usd(quota.limit, short.need) if quota.type == COST else quota.limit,
        "needed": distinct_usd(short.need, quota.limit) if quota.type == COST else short.need,
        "per": quota.period,
    }
    after: float | None = None
    if short.never:
        hint = f"It may use up to {_words(quota, short.need)}: ask for fewer tokens or raise the limit."
    elif end is None:
        details["frees_at"] = None
        hint, after = "Wait for another call to end, or send fewer at the same time.", admit.HELD_SECONDS
    elif end.timestamp() - now > LONG_S and gateway.leases.unspent(quota.name, span) >= short.need:
        details["frees_at"] = None
        hint, after = admit.HELD, admit.HELD_SECONDS
    else:
        details["frees_at"] = end.isoformat()
        hint, after = f"It is free again at {end_text(span)}.", max(1.0, end.timestamp() - now)
    return Exhausted(
        f"the limit {quota.limit_name} ({_words(quota, quota.limit)} {per} for {quota.covers}) "
        "has no room for this call",
        code="rate_limit_exceeded",
        hint=hint,
        retry_after=after,
        details=details,
    )


def _used_up(gateway: Gateway, short: Short) -> bool:
    """Whether that is known: by what PostgreSQL said, or by what this worker used itself."""
    quota, leases = short.quota, gateway.leases
    if not leases.connected:
        return False
    key = (quota.name, short.period)
    left = min(quota.limit - gateway.limit_slices.spent(*key), leases.remaining(key, quota.limit))
    return left < short.need or leases.was_refused_lately(*key)


def _words(quota: Quota, amount: int) -> str:
    return distinct_usd(amount, quota.limit) if quota.type == COST else f"{amount} {_WORDS[quota.type]}"


_WORDS = {REQUESTS: "requests", TOKENS: "tokens", CONCURRENT: "calls"}


def header_lines_of(
    gateway: Gateway, spans: QuotaPeriods, at: float, *, anthropics: bool = False, short: Short | None = None
) -> bytes:
    """Header lines of the limit with the least left, for requests and for tokens, as OpenAI has them (`x-ratelimit-*`)
    or as Anthropic does (`anthropic-ratelimit-*`). `at`: by the time of windows. `short`: the one that has no room for
    the call, which is the one to tell of, however much others have left."""
    lines, remaining = b"", gateway.leases.remaining
    for alike in spans.reported:
        least = alike[0]
        if short is not None and least.quota.type == short.quota.type:
            continue
        left = remaining(least.key, least.quota.limit)
        for other in alike[1:]:
            if (rest := remaining(other.key, other.quota.limit)) < left:
                least, left = other, rest
        lines += _line(left, least, at, anthropics=anthropics)
    if short is not None and short.quota.type in HEADER_WORDS and (end := ends(short.period)) is not None:
        quota = short.quota
        told = reported_limit(quota, short.period, end.timestamp())
        spent = gateway.limit_slices.spent(quota.name, short.period)
        left = max(0, min(quota.limit - spent, remaining(told.key, quota.limit)))
        lines += _line(left, told, at, anthropics=anthropics)
    return lines


def _line(left: int, told: ReportedLimit, at: float, *, anthropics: bool) -> bytes:
    if anthropics:
        return told.anthropic_headers % left
    return told.openai_headers % (left, header_duration(seconds_left(told.end, at)))
