"""The price list that ships with the package `genai-prices`: a snapshot with its history, read offline.

Never fetched here. Loading it takes 0.2 s and 30 MB, which only planning, pricing and reports should pay; gateways
import this module for its names and never load the list.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, time
from decimal import ROUND_CEILING, Decimal
from functools import cache, partial
from typing import Any

import msgspec

from groundplan.blueprint.model import RateDetails, Rates
from groundplan.core.money import PICO
from groundplan.economics.prices.time_of_day import with_windows

PRICE_LIST = "genai-prices"
"""Prefix of `source` in every rate of this list."""
_CLASS_FIELDS = {
    "input": "input_mtok",
    "output": "output_mtok",
    "cache_read": "cache_read_mtok",
    "cache_write": "cache_write_mtok",
    "reasoning": "output_reasoning_mtok",
    "input_audio": "input_audio_mtok",
    "output_audio": "output_audio_mtok",
}
_DETAIL_FIELDS = {
    "cache_write_1h": "cache_write_1h_mtok",
    "cache_read_audio": "cache_audio_read_mtok",
    "cache_read_image": "cache_image_read_mtok",
    "input_image": "input_image_mtok",
    "input_video": "input_video_mtok",
    "output_image": "output_image_mtok",
    "output_video": "output_video_mtok",
    "citations": "output_citation_mtok",
}
_SERVICE_CONDITIONS = {
    "batch": {"processing": "batch"},
    "priority": {"service_tier": "priority"},
    "flex": {"service_tier": "flex"},
}


def rates(model: str, at: date | datetime) -> Rates | None:
    """Rates of `provider/name` (or a name alone) at a day or a time; None where the list does not price it by tokens.

    Where the list has tiers by prompt length, `long` holds the longer ones. For a `date`, prices by time of day become
    `windows` and the rates outside them are the highest; for a `datetime`, the rates are those in force at that time.
    """
    prefix, _, suffix = model.partition("/")
    if suffix and _has_provider(prefix):
        return provider_rates(prefix, suffix, at)
    provider, _, reference = model.rpartition("/")
    return provider_rates(provider, reference, at)


def provider_rates(provider: str, reference: str, at: date | datetime) -> Rates | None:
    """As `rates`, for a model by the provider's own name for it."""
    try:
        _, info = _snapshot().find_provider_model(reference, None, provider or None, None)
    except LookupError:
        return None
    name = f"{provider}/{reference}" if provider else reference
    source = f"{PRICE_LIST} {_package_version()} {name}"
    base, hourly, effective = _prices_in_force(info.prices, at)

    service_rates = partial(_rates_with_services, info, at=at, source=source, effective=effective)
    base_rates = service_rates(base)
    windows = [(*_window_minutes(each.constraint), service_rates(each.prices)) for each in hourly]
    priced = [(start, end, rates) for start, end, rates in windows if rates is not None]
    return None if base_rates is None else with_windows(base_rates, priced)


def _rates_with_services(info: Any, prices: Any, *, at: date | datetime, source: str, effective: str) -> Rates | None:
    """Rates from one set of prices, including those of its classes of service."""
    rates = _with_tiers(prices, source, effective)
    if rates is None:
        return None
    classes = {}
    for service, condition in _SERVICE_CONDITIONS.items():
        prices_of_service = _service_prices(info, prices, condition, at)
        if prices_of_service is not prices:
            classes[service] = _with_tiers(prices_of_service, source, effective)
    return msgspec.structs.replace(rates, **classes)


def _window_minutes(constraint: Any) -> tuple[int, int]:
    """Start and end of a price by time of day, in minutes of the day in UTC."""
    start, end = constraint.start_time, constraint.end_time
    return start.hour * 60 + start.minute, end.hour * 60 + end.minute


def price_change_days(model: str, since: date, until: date) -> list[date]:
    """Days after `since` and up to `until` on which the list changes the price of a model."""
    info = _find_model(model)
    prices = info.prices if info is not None and isinstance(info.prices, list) else []
    starts = {start for each in prices if (start := getattr(each.constraint, "start_date", None)) is not None}
    return sorted(start for start in starts if since < start <= until)


def is_deprecated(model: str) -> bool:
    """Whether the list says that the provider will retire a model."""
    info = _find_model(model)
    return info is not None and bool(info.deprecated)


def context_window(model: str) -> int | None:
    """Context length of a model: tokens of prompt and answer together; None if the list does not say."""
    info = _find_model(model)
    return None if info is None else info.context_window or None


def _find_model(model: str) -> Any:
    """The list's entry for `provider/name`, or for a name alone; None if there is none."""
    prefix, _, suffix = model.partition("/")
    provider, reference = (prefix, suffix) if suffix and _has_provider(prefix) else model.rpartition("/")[::2]
    try:
        return _snapshot().find_provider_model(reference, None, provider or None, None)[1]
    except LookupError:
        return None


def _snapshot() -> Any:
    from genai_prices import data_snapshot  # noqa: PLC0415 -- heavy

    return data_snapshot.get_snapshot()


@cache
def _package_version() -> str:
    """Version of the installed price list; cached, since reading package metadata takes milliseconds and is done for
    each deployment."""
    from importlib import metadata  # noqa: PLC0415

    return metadata.version(PRICE_LIST)


def _has_provider(provider: str) -> bool:
    return any(each.id == provider for each in _snapshot().providers)


def _service_prices(info: Any, standard: Any, condition: dict[str, str], at: date | datetime) -> Any:
    """`standard` prices overridden by those of a class of service; `standard` itself if it overrides none."""
    moment = at if isinstance(at, datetime) else datetime.combine(at, time(12), UTC)
    overrides: dict[str, Any] = {}
    for variant in info.price_variants or ():
        if variant.when == condition and (variant.constraint is None or variant.constraint.active(moment)):
            for key, price in variant.prices.__dict__.items():
                if price is not None:
                    overrides.setdefault(key, price)
    if not overrides:
        return standard
    return type(standard)(**{**standard.__dict__, **overrides})


def _with_tiers(prices: Any, source: str, effective: str) -> Rates | None:
    starts = sorted(set(_tier_starts(prices)))
    longer: Rates | None = None
    threshold = 0
    for start in reversed(starts):  # the longest first: each tier holds the next longer one
        tier = _rates_of_tier(prices, start + 1, source, effective)
        if tier is not None and longer is not None:
            tier = msgspec.structs.replace(tier, long=longer, long_above=threshold)
        longer, threshold = tier, start
    base = _rates_of_tier(prices, 0, source, effective)
    return base if base is None or longer is None else msgspec.structs.replace(base, long=longer, long_above=threshold)


def _rates_of_tier(prices: Any, prompt: int, source: str, effective: str) -> Rates | None:
    """Rates for a prompt of this many tokens."""
    classes = {name: _rate(prices, key, prompt) for name, key in _CLASS_FIELDS.items()}
    if classes["input"] is None:
        return None
    fine = {name: _optional_pico(_rate(prices, key, prompt)) for name, key in _DETAIL_FIELDS.items()}
    search = _rate(prices, "web_searches_kcount", prompt)
    requests = _rate(prices, "requests_kcount", prompt)
    has_details = search or any(value is not None for value in fine.values())
    return Rates(
        input=_pico(classes["input"]),
        output=_pico(classes["output"] or Decimal(0)),
        cache_read=_optional_pico(classes["cache_read"]),
        cache_write=_optional_pico(classes["cache_write"]),
        reasoning=_optional_pico(classes["reasoning"]),
        input_audio=_optional_pico(classes["input_audio"]),
        output_audio=_optional_pico(classes["output_audio"]),
        request=_pico(requests / 1000) if requests else 0,
        details=RateDetails(**fine, search=_pico(search / 1000) if search else 0) if has_details else None,
        source=source,
        effective=effective,
    )


def _tier_starts(prices: Any) -> list[int]:
    """Prompt lengths above which some class has another price."""
    values = [getattr(prices, key, None) for key in (*_CLASS_FIELDS.values(), *_DETAIL_FIELDS.values())]
    return [tier.start for value in values if value is not None for tier in getattr(value, "tiers", ())]


def _prices_in_force(prices: Any, at: date | datetime) -> tuple[Any, list[Any], str]:
    """(prices that apply, prices that replace them at some times of the day, ISO date since which they apply)."""
    if not isinstance(prices, list):
        return prices, [], ""
    exact = isinstance(at, datetime)
    moment = at if isinstance(at, datetime) else datetime.combine(at, time.min, UTC)
    by_hour: list[Any] = []
    for conditional in reversed(prices):
        constraint = conditional.constraint
        start = getattr(constraint, "start_date", None)
        if constraint is None or (start is not None and constraint.active(moment)):
            return conditional.prices, by_hour, start.isoformat() if start else ""
        if start is None and exact and constraint.active(moment):
            return conditional.prices, [], ""
        if start is None and not exact:
            by_hour.append(conditional)
    return prices[0].prices, by_hour, ""


def _rate(prices: Any, key: str, prompt: int) -> Decimal | None:
    """The rate of a class for a prompt of this many tokens."""
    value = getattr(prices, key, None)
    if value is None or isinstance(value, Decimal):
        return value
    reached = [tier.price for tier in value.tiers if tier.start < prompt]
    return Decimal(reached[-1] if reached else value.base)


def _pico(usd: Decimal) -> int:
    """Picodollars of an amount of USD, rounded up."""
    return int((usd * PICO).to_integral_value(ROUND_CEILING))


def _optional_pico(usd: Decimal | None) -> int | None:
    return None if usd is None else _pico(usd)
