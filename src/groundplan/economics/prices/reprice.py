"""What the same tokens cost at another price. Pure: counts stay as they were measured, so pricing them back gives the
first amount again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from groundplan.blueprint.model import Rates
from groundplan.economics.prices.parts import MILLION

_OUTPUT = frozenset({"output", "reasoning", "output_audio", "output_image", "output_video", "citations"})
_CLASSES = (
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


def priced(counts: Mapping[str, int], rates: Rates) -> int:
    """picodollars of tokens by class, rounded up at the end; what is no class of tokens costs nothing here. Prompts are
    priced as short ones: sums do not know how long each was."""
    total = sum(count * rate_of(rates, name) for name, count in counts.items() if name in _CLASSES)
    return -(-total // MILLION) + counts.get("requests", 0) * rates.request


def repriced(counts: Mapping[str, int], then: Rates, now: Rates) -> Repriced:
    return Repriced(priced(counts, then), priced(counts, now))


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
