"""What the same tokens cost at another price. Pure: counts stay as they were measured, so pricing them back gives the
first amount again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from groundplan.blueprint.model import Rates
from groundplan.economics.price import BATCH, PRIORITY, of_service
from groundplan.economics.prices.parts import MILLION
from groundplan.economics.terms.split import BY_TIME, LONG

_OUTPUT = frozenset({"output", "reasoning", "output_audio", "output_image", "output_video", "citations"})
TOKENS = (
    "input", "output", "cache_read", "cache_write", "reasoning", "input_audio", "output_audio", "cache_write_1h",
    "cache_read_audio", "cache_read_image", "input_image", "input_video", "output_image", "output_video", "citations",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Repriced:
    """picodollars"""

    then: int
    now: int

    @property
    def difference(self) -> int:
        return self.now - self.then


def priced(counts: Mapping[str, int], rates: Rates, tier: str = "") -> int:
    """picodollars of what was counted by class, rounded up at the end; what nobody counted (`bound`) costs nothing.

    `tier` is the ledger's (`terms.split.tier`); sums of the standard one are priced as short prompts. Images that were
    made cost as the dearest size: sums do not know how large each was.
    """
    rates = of_tier(rates, tier)
    total = sum(count * rate_of(rates, name) for name, count in counts.items() if name in TOKENS)
    total += counts.get("characters", 0) * rates.characters
    searches = rates.details.search if rates.details is not None else 0
    return (
        -(-total // MILLION)
        - (-counts.get("seconds", 0) * rates.minute // 60)
        + counts.get("requests", 0) * rates.request
        + counts.get("images", 0) * rates.image
        + counts.get("images_made", 0) * max(rates.images.values(), default=0)
        + counts.get("searches", 0) * searches
    )


def of_tier(rates: Rates, tier: str) -> Rates:
    """The rates that stand behind a tier of the ledger; at a time of day the cheapest, since the dearest are around
    it."""
    if BY_TIME in tier and rates.windows:
        rates = min((window.rates for window in rates.windows), key=lambda each: (each.input, each.output))
    names = tier.split()
    for service in (BATCH, PRIORITY):
        rates = of_service(rates, service) if service in names else rates
    return rates.long if LONG in names and rates.long is not None else rates


def repriced(counts: Mapping[str, Mapping[str, int]], then: Rates, now: Rates) -> Repriced:
    """`counts`: by tier, of each class."""
    return Repriced(
        sum(priced(mine, then, tier) for tier, mine in counts.items()),
        sum(priced(mine, now, tier) for tier, mine in counts.items()),
    )


def rate_of(rates: Rates, name: str) -> int:
    """Of a class; one without a rate costs as the side that it is on."""
    own = getattr(rates, name, None)
    if own is None and rates.details is not None:
        own = getattr(rates.details, name, None)
    if isinstance(own, int):
        return own
    if name == "cache_write_1h" and rates.cache_write is not None:
        return rates.cache_write
    return rates.output if name in _OUTPUT else rates.input
