"""What routing weighs besides a router's expectations: hard rules, waiting time, the value of a cached prompt. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from groundplan.blueprint.model import Deployment, Routing
from groundplan.core.money import PICO
from groundplan.gateway.upstream.latency import LatencyEstimate, LatencyEstimates

TOKEN_BYTES = 4
"""Bytes of text per token, for estimating the value of a cached prompt."""
MILLION = 1_000_000


def eligible(
    routing: Routing, places: Sequence[Deployment], times: LatencyEstimates | None, stream: bool, now: float
) -> tuple[list[Deployment], list[Deployment], dict[str, str]]:
    """(deployments that no hard rule excludes, those that are only too slow, excluded deployment -> the rule).

    Floors of quality and classes of risk come with the blueprint; `routing.within_ms` is compared with the 95th
    percentile of the time to the first byte that this worker saw lately, once it has seen enough.
    """
    fit: list[Deployment] = []
    slow: list[Deployment] = []
    out: dict[str, str] = {}
    for place in places:
        if (why := routing.barred.get(place.name)) is not None:
            out[place.name] = why
        elif routing.within_ms is None or times is None:
            fit.append(place)
        elif why := _too_slow(routing.within_ms, times.of(place.name, stream), now):
            out[place.name] = why
            slow.append(place)
        else:
            fit.append(place)
    return fit, slow, out


def _too_slow(most_ms: int, seen: LatencyEstimate, now: float) -> str:
    took = seen.recent_p95(now)
    if took is None or took * 1000 <= most_ms:
        return ""
    return f"it took {took * 1000:,.0f} ms to the first token lately, more than {most_ms:,} ms"


def waiting_costs(
    routing: Routing, places: Sequence[Deployment], times: LatencyEstimates | None, stream: bool
) -> dict[str, float]:
    """model -> US dollars that waiting for it is worth, by the median of what this worker saw of its deployment."""
    found: dict[str, float] = {}
    if not routing.second or times is None:
        return found
    for place in places:
        seconds = times.of(place.name, stream).quantile(50)
        if seconds is not None:
            found.setdefault(place.model, seconds * routing.second / PICO)
    return found


def cached_prefix_value(place: Deployment, prefix_bytes: int) -> float:
    """US dollars that a cached prefix of that size saves at a deployment; 0 where its price has no cached rate."""
    rates = place.rates
    if rates.cache_read is None:
        return 0.0
    return max(0, rates.input - rates.cache_read) * (prefix_bytes / TOKEN_BYTES) / MILLION / PICO
