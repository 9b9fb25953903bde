"""The facts of a call: written by the gateway's journal, shipped to PostgreSQL, read by the domains. Types only.

Amounts are picodollars. In the journal, times are milliseconds since the epoch (UTC); durations are in the unit of the
field's name.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

OVER_BOUND: Final = "over_bound"
"""Flag of a settlement: more was used than was reserved, than the answer's cap, or than its prompt can have."""
OVER_INPUT: Final = "over_input"
"""Further flag: the excess is in the tokens of the prompt."""
BREAKER_OPEN: Final = "breaker_open:"
"""Flag, with the name of a deployment behind it: that one comes first, and was not asked first, as its breaker was
open."""


class UsageDetails(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Parts of `Usage` that few providers report; each is included in the class that it is named after."""

    cache_write_5m: int = 0
    cache_write_1h: int = 0
    """Written to the cache for an hour, which costs more than for five minutes."""
    cache_read_text: int = 0
    cache_read_audio: int = 0
    cache_read_image: int = 0
    input_text: int = 0
    input_image: int = 0
    input_video: int = 0
    output_text: int = 0
    output_image: int = 0
    output_video: int = 0
    citations: int = 0
    searches: int = 0
    """Number of web searches that the provider made (not tokens)."""


class Usage(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Tokens by class. `input` and `output` are totals that include their sub-classes, as OpenAI reports them."""

    input: int = 0
    output: int = 0
    cache_read: int = 0
    cache_write: int = 0
    reasoning: int = 0
    input_audio: int = 0
    output_audio: int = 0
    images: int = 0
    """Images in the prompt, where they have a price of their own."""
    images_made: int = 0
    characters: int = 0
    """Characters that were spoken."""
    seconds: int = 0
    """Seconds of transcribed audio, rounded up."""
    details: UsageDetails | None = None
    """None: no finer counts were reported."""
    service_tier: str = ""
    """The service tier that the provider reports; empty where it reports none."""

    def __add__(self, other: Usage) -> Usage:
        """The sums of all counts, without a tier."""
        names = (name for name in self.__struct_fields__ if name not in ("details", "service_tier"))
        fine = [each.details for each in (self, other) if each.details is not None]
        details = None
        if fine:
            sums = {name: sum(getattr(each, name) for each in fine) for name in UsageDetails.__struct_fields__}
            details = UsageDetails(**sums)
        return Usage(**{name: getattr(self, name) + getattr(other, name) for name in names}, details=details)


class Charge(msgspec.Struct, frozen=True, array_like=True):
    """One budget that an attempt reserves from or is charged to."""

    budget: str
    period: str
    amount: int


class Reservation(msgspec.Struct, frozen=True, array_like=True):
    """Written (survives kill -9) before an attempt is sent."""

    call: bytes
    """16 bytes of the call's UUIDv7"""
    attempt: int
    """0, 1, ... within the call"""
    at: int
    workload: str
    person: str
    key: str
    endpoint: str
    deployment: str
    site: str
    model: str
    blueprint: int
    bound: int
    """Upper bound of this attempt's cost."""
    charges: Sequence[Charge]
    """Each covering budget with the amount reserved from it: `bound`, or 0 for a retry that inherits a reservation."""
    demo: bool = False
    purpose: str = ""
    """Why the gateway itself calls a model; empty: to answer a caller. `guardrail`: for its judge; `cascade`: for its
    checks (a judge, further answers that must agree); `judge`: for that of an experiment or a replay; `shadow`: for the
    second answer of an experiment; `replay`: for that of a replay."""
    streamed: bool = False
    """Whether the upstream is asked for a stream."""


class Settlement(msgspec.Struct, frozen=True, array_like=True):
    """The outcome and actual cost of an attempt: exactly one for each reservation, unless the process died."""

    call: bytes
    attempt: int
    at: int
    cost: int
    outcome: str
    """ok | failed | cancelled | not_billed"""
    http_status: int
    usage: Usage
    estimated: bool
    flags: list[str]
    duration_us: int
    started_us: int = 0
    """From the begin of the call to the begin of the attempt."""
    connect_us: int = 0
    """From the begin of the attempt until a new connection was established; 0: an open one was used, or none could be
    established."""
    first_byte_us: int = 0
    """From the begin of the attempt to the head of the upstream's response; 0: there was none."""
    saved: int = 0
    """Picodollars that the provider's prompt cache saved: the tokens read from it, at the difference in price."""
    first_chunk_us: int = 0
    """From the begin of the attempt to the first content of a stream for the client; 0: no stream, or no content."""


class Finish(msgspec.Struct, frozen=True, array_like=True):
    """The end of a call, after the settlement of its last attempt. Also written alone for a refused call."""

    call: bytes
    at: int
    workload: str
    person: str
    key: str
    endpoint: str
    status: str
    """ok | refused | failed | cancelled"""
    http_status: int
    error_code: str
    deployment: str
    cache: str
    blueprint: int
    duration_us: int
    first_byte_us: int
    steps: list[tuple[str, int]]
    """(step, microseconds) of identify, admit, cache, ground, serve, settle"""
    sources: list[tuple[str, str, int, int]]
    """(document id, path, first line, last line) of each passage that was given to the model"""
    demo: bool = False
    trace: str = ""
    """`traceparent` of the caller (W3C), where it sent a well-formed one"""
    client: str = ""
    """Subject of the client's certificate, where mutual TLS is used"""
    saved: int = 0
    """Picodollars that the answer had cost originally, where it came from the cache."""
    route: str = ""
    """Why model `auto` was routed as it was, as JSON; empty where nothing was chosen"""
    feature: str = ""
    """The application's name of the feature that made the call (header `groundplan-feature`)"""
    scores: list[float] = []
    """The search score of each passage that was given to the model"""
    of: str = ""
    """Id of the parent call, where the gateway made this call for another one"""
    purpose: str = ""
    """Why the gateway made it, as in `Reservation.purpose`"""
    ticket: str = ""
    """The ticket that the call works on, as its caller said (header `groundplan-ticket`)"""
    refusal: str = ""
    """The budget or limit that refused the call, in words"""
    conflicts: list[tuple[str, str]] = []
    """(document id, path) of each document that contradicts a passage, and of which no passage was given"""


class Release(msgspec.Struct, frozen=True, array_like=True):
    """The holder returns part of its slice; durable before PostgreSQL is updated. `id` makes it idempotent."""

    id: bytes
    budget: str
    period: str
    amount: int
