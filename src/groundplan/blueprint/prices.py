"""What a deployment costs. Rates are picodollars per million tokens (int)."""

from __future__ import annotations

from functools import cached_property

import msgspec


class RateDetails(msgspec.Struct, frozen=True, kw_only=True):
    """Prices of classes that few models have, picodollars per million tokens; None: as the class around them."""

    cache_write_1h: int | None = None
    cache_read_audio: int | None = None
    cache_read_image: int | None = None
    input_image: int | None = None
    input_video: int | None = None
    output_image: int | None = None
    output_video: int | None = None
    citations: int | None = None
    search: int = 0
    """picodollars for each search of the web that the provider makes"""


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
    """picodollars for each image that is sent in, on top of its tokens"""
    images: dict[str, int] = {}
    """picodollars for each image that is made: by `1024x1024/high`, else `1024x1024`, else `any`"""
    characters: int = 0
    """picodollars per million characters that are spoken"""
    minute: int = 0
    """picodollars for each minute of audio that is listened to"""
    shortest: int = 0
    """seconds that are charged of shorter audio, too"""
    flagged: int = 0
    """picodollars for each request that is refused for what it says"""
    long_above: int = 0
    long: Rates | None = None
    """What the whole call costs when its prompt has more than `long_above` tokens; may itself have a longer tier."""
    batch: Rates | None = None
    """At the provider's batch endpoint, or of calls of batches (`price.batch_line_service`); None: as any call."""
    priority: Rates | None = None
    """At the service tier priority; None: a request for that is refused."""
    flex: Rates | None = None
    """At the service tier flex, at most what these rates are; None: a request for that is refused."""
    details: RateDetails | None = None
    """None: no finer class has a price of its own."""
    source: str = "declared"
    """Where the price is from: `genai-prices 0.2.3 openai/gpt-4.1-mini`, `declared FILE:LINE`, or `declared free`."""
    effective: str = ""
    """ISO date from which it holds."""
    windows: list[PriceWindow] = []
    """What it costs by time of day, where that differs: all of the day, in order. The rates around them are the dearest
    of each class, so whatever is planned or reserved by them is enough at any time."""
    then: Rates | None = None
    """What it costs from the day `then_from` on, UTC, where a price with a date is the next to begin; what follows that
    is in it."""
    then_from: str = ""

    @cached_property
    def dearest(self) -> tuple[int, int]:
        """The highest rate that an input token and an output token can have."""
        into = max(self.input, self.cache_read or 0, self.cache_write or 0, self.input_audio or 0)
        out = max(self.output, self.reasoning or 0, self.output_audio or 0)
        fine = self.details
        if fine is None:
            return into, out
        return (
            max(
                into, fine.cache_write_1h or 0, fine.cache_read_audio or 0, fine.cache_read_image or 0,
                fine.input_image or 0, fine.input_video or 0,
            ),
            max(out, fine.output_image or 0, fine.output_video or 0, fine.citations or 0),
        )  # fmt: skip


class PriceWindow(msgspec.Struct, frozen=True, kw_only=True):
    """Rates of calls that are sent from the minute `start` of a day, UTC, until before `end`."""

    start: int
    end: int
    rates: Rates
