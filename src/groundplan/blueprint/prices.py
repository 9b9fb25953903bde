"""Prices of deployments. Rates are picodollars per million tokens (int)."""

from __future__ import annotations

from functools import cached_property

import msgspec


class RateDetails(msgspec.Struct, frozen=True, kw_only=True):
    """Prices of classes that few models have, in picodollars per million tokens; None: priced as the class that
    includes it."""

    cache_write_1h: int | None = None
    cache_read_audio: int | None = None
    cache_read_image: int | None = None
    input_image: int | None = None
    input_video: int | None = None
    output_image: int | None = None
    output_video: int | None = None
    citations: int | None = None
    search: int = 0
    """picodollars for each web search that the provider makes"""


class Rates(msgspec.Struct, frozen=True, kw_only=True, dict=True):
    """Price of one deployment in picodollars per million tokens of each class; `request` is picodollars a call.

    `None` of a class means that it is priced as its parent (cache read/write and audio as input, reasoning as output).
    """

    input: int
    output: int
    cache_read: int | None = None
    cache_write: int | None = None
    reasoning: int | None = None
    input_audio: int | None = None
    output_audio: int | None = None
    request: int = 0
    image: int = 0
    """picodollars for each image in the input, on top of its tokens"""
    images: dict[str, int] = {}
    """picodollars for each generated image: by `1024x1024/high`, else `1024x1024`, else `any`"""
    characters: int = 0
    """picodollars per million characters of generated speech"""
    minute: int = 0
    """picodollars for each minute of transcribed audio"""
    shortest: int = 0
    """seconds that are charged for shorter audio as well"""
    flagged: int = 0
    """picodollars for each request that the provider refuses for its content"""
    long_above: int = 0
    long: Rates | None = None
    """Rates of the whole call if its prompt has more than `long_above` tokens; may itself have a longer tier."""
    batch: Rates | None = None
    """Rates at the provider's batch endpoint, or of calls of batches (`price.batch_line_service`); None: as any
    call."""
    priority: Rates | None = None
    """Rates at the service tier priority; None: a request for that tier is refused."""
    flex: Rates | None = None
    """Rates at the service tier flex, at most these rates; None: a request for that tier is refused."""
    details: RateDetails | None = None
    """None: no finer class has a price of its own."""
    source: str = "declared"
    """Where the price is from: `genai-prices 0.2.3 openai/gpt-4.1-mini`, `declared FILE:LINE`, or `declared free`."""
    effective: str = ""
    """ISO date since which the price holds."""
    windows: list[PriceWindow] = []
    """Rates by time of day, where they differ: windows that cover the whole day, in order. The rates outside this list
    are then the highest of each class, so plans and reservations by them are sufficient at any time."""
    then: Rates | None = None
    """Rates from the day `then_from` (UTC) on, where a later price is declared with a date; may itself have a next
    one."""
    then_from: str = ""

    @cached_property
    def highest_token_rates(self) -> tuple[int, int]:
        """(highest rate of an input token, highest rate of an output token)."""
        input_rate = max(self.input, self.cache_read or 0, self.cache_write or 0, self.input_audio or 0)
        output_rate = max(self.output, self.reasoning or 0, self.output_audio or 0)
        details = self.details
        if details is None:
            return input_rate, output_rate
        return (
            max(
                input_rate, details.cache_write_1h or 0, details.cache_read_audio or 0, details.cache_read_image or 0,
                details.input_image or 0, details.input_video or 0,
            ),
            max(output_rate, details.output_image or 0, details.output_video or 0, details.citations or 0),
        )  # fmt: skip


class PriceWindow(msgspec.Struct, frozen=True, kw_only=True):
    """Rates of calls that are sent from minute `start` to before minute `end` of a day, UTC."""

    start: int
    end: int
    rates: Rates
