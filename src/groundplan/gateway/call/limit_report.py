"""What callers are told of limits: headers with what is left, and the refusal of a call for which there is no room.
Takes nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from groundplan.core.errors import Exhausted, GroundplanError, Unavailable
from groundplan.core.money import distinct_usd
from groundplan.core.words import per_period as each_period
from groundplan.gateway.budgets.leases import CONCURRENT, COST, REQUESTS, TOKENS, Quota
from groundplan.gateway.budgets.limit_book import DAY_CALLS, HEADER_WORDS, QuotaPeriods, ReportedLimit, reported_limit
from groundplan.gateway.budgets.periods import end_text, ends, header_duration, seconds_left
from groundplan.gateway.call import admit
from groundplan.gateway.call.context import Gateway
from groundplan.gateway.call.limit_use import Shortage

if TYPE_CHECKING:
    from groundplan.gateway.surfaces.interface import Interface

LONG_WINDOW_S = 60.0
"""Where open calls hold what is left of a window, and its end is further away than this, the client is told to retry
soon instead."""


def limit_refusal(gateway: Gateway, shortage: Shortage) -> GroundplanError:
    """The refusal for a shortage: 429 with what is used up, and a retry-after where waiting helps; 503 where PostgreSQL
    cannot be asked whether it is used up."""
    quota, now = shortage.quota, gateway.clock.seconds() + gateway.windows.seconds_ahead
    if not shortage.exceeds_limit and not _is_used_up(gateway, shortage):
        hint, wait = admit.unreachable_hint(connected=gateway.leases.connected)
        return Unavailable(
            f"this gateway has used what it held of the limit {quota.limit_name} and cannot get more now",
            code="limit_unreachable",
            hint=hint,
            retry_after=wait,
            details={"limit": quota.limit_name},
        )
    if quota.name.endswith(DAY_CALLS):
        return admit.calls_per_day_exhausted(quota.limit_name, quota.limit, now)
    span = shortage.period
    end = ends(span)
    per = "at the same time" if quota.type == CONCURRENT else each_period(quota.period)
    details: dict[str, Any] = {
        "limit": quota.limit_name,
        "covers": quota.covers,
        "counts": quota.type,
        "most": distinct_usd(quota.limit, shortage.need) if quota.type == COST else quota.limit,
        "needed": distinct_usd(shortage.need, quota.limit) if quota.type == COST else shortage.need,
        "per": quota.period,
    }
    retry_after: float | None = None
    if shortage.exceeds_limit:
        hint = f"It may use up to {_amount_text(quota, shortage.need)}: ask for fewer tokens or raise the limit."
    elif end is None:
        details["frees_at"] = None
        hint, retry_after = "Wait for another call to end, or send fewer at the same time.", admit.HELD_SECONDS
    elif end.timestamp() - now > LONG_WINDOW_S and gateway.leases.unspent(quota.name, span) >= shortage.need:
        details["frees_at"] = None
        hint, retry_after = admit.HELD_HINT, admit.HELD_SECONDS
    else:
        details["frees_at"] = end.isoformat()
        hint, retry_after = f"It is free again at {end_text(end)}.", max(1.0, end.timestamp() - now)
    return Exhausted(
        f"the limit {quota.limit_name} ({_amount_text(quota, quota.limit)} {per} for {quota.covers}) "
        "has no room for this call",
        code="rate_limit_exceeded",
        hint=hint,
        retry_after=retry_after,
        details=details,
    )


def _is_used_up(gateway: Gateway, shortage: Shortage) -> bool:
    """Whether the limit is known to be used up, by PostgreSQL or by what this worker used itself."""
    quota, leases = shortage.quota, gateway.leases
    if not leases.connected:
        return False
    key = (quota.name, shortage.period)
    remaining = min(quota.limit - gateway.limit_slices.spent(*key), leases.remaining(key, quota.limit))
    return remaining < shortage.need or leases.was_refused_lately(*key)


def _amount_text(quota: Quota, amount: int) -> str:
    return distinct_usd(amount, quota.limit) if quota.type == COST else f"{amount} {_WORDS[quota.type]}"


_WORDS = {REQUESTS: "requests", TOKENS: "tokens", CONCURRENT: "calls"}


def rate_limit_headers(
    gateway: Gateway, interface: Interface, spans: QuotaPeriods, at: float, shortage: Shortage | None = None
) -> bytes:
    """Header lines of the limit with the least left, for requests and for tokens, as OpenAI has them (`x-ratelimit-*`)
    or as Anthropic does (`anthropic-ratelimit-*`). `at`: by the time of windows. `shortage`: the one that has no room
    for the call, which is then the one reported, even if others have less left."""
    lines, remaining, anthropic_names = b"", gateway.leases.remaining, interface.uses_anthropic_headers
    for same_type in spans.reported:
        least = same_type[0]
        if shortage is not None and least.quota.type == shortage.quota.type:
            continue
        left = remaining(least.key, least.quota.limit)
        for other in same_type[1:]:
            if (other_left := remaining(other.key, other.quota.limit)) < left:
                least, left = other, other_left
        lines += _header_lines(left, least, at, anthropic_names)
    if shortage is not None and shortage.quota.type in HEADER_WORDS and (end := ends(shortage.period)) is not None:
        quota = shortage.quota
        reported = reported_limit(quota, shortage.period, end.timestamp())
        spent = gateway.limit_slices.spent(quota.name, shortage.period)
        left = max(0, min(quota.limit - spent, remaining(reported.key, quota.limit)))
        lines += _header_lines(left, reported, at, anthropic_names)
    return lines


def _header_lines(left: int, reported: ReportedLimit, at: float, anthropic_names: bool) -> bytes:
    if anthropic_names:
        return reported.anthropic_headers % left
    return reported.openai_headers % (left, header_duration(seconds_left(reported.end, at)))
