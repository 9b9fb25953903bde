"""The facts of a call. Written by the gateway's journal, shipped to PostgreSQL, read by the domains. Types only.

Amounts are picodollars; times are milliseconds since the epoch (UTC) in the journal, durations milliseconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

PURPOSES: Final = ("guardrail", "cascade", "judge", "shadow", "replay")
"""For what the gateway itself asks a model, beside answering: the judge of a guardrail; what a cascade checks an answer
with (its judge, further answers that must agree); the judge of an experiment or a replay; their second answers."""

OVER_BOUND: Final = "over_bound"
"""Flag of a settlement: more was used than was reserved, than the answer was capped at, or than its prompt can have."""
OVER_INPUT: Final = "over_input"
"""Beside it: what is more are the tokens of the prompt."""


class UsageDetails(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Parts of `Usage` that few providers report. Each is a part of the class that it is named after."""

    cache_write_5m: int = 0
    cache_write_1h: int = 0
    """Written to be kept for an hour, which costs more."""
    cache_read_text: int = 0
    cache_read_audio: int = 0
    cache_read_image: int = 0
    cache_read_video: int = 0
    input_text: int = 0
    input_image: int = 0
    input_video: int = 0
    input_tools: int = 0
    """Prompts of tools that the provider ran itself."""
    input_text_tools: int = 0
    input_audio_tools: int = 0
    input_image_tools: int = 0
    input_video_tools: int = 0
    output_text: int = 0
    output_image: int = 0
    output_video: int = 0
    citations: int = 0
    searches: int = 0
    """Searches of the web that the provider made: a number of them, not tokens."""


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
    """Images that were sent in, where they have a price of their own."""
    images_made: int = 0
    characters: int = 0
    """That were spoken."""
    seconds: int = 0
    """Of audio that was listened to, each begun one counted."""
    details: UsageDetails | None = None
    """None: nothing finer is known."""
    service_tier: str = ""
    """The one that the provider says it served at; empty where it says none."""

    def __add__(self, other: Usage) -> Usage:
        """What both are together; the tier is of neither."""
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
    """The most that this attempt can cost."""
    charges: Sequence[Charge]
    """Each covering budget with what this record takes from it: `bound`, or 0 for a retry that inherits one."""
    demo: bool = False
    purpose: str = ""
    """One of `PURPOSES`; empty where it is to answer a caller."""


class Settlement(msgspec.Struct, frozen=True, array_like=True):
    """What an attempt turned out to cost. Exactly one for each reservation, unless the process died."""

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
    """When the attempt began, since the call did."""
    connect_us: int = 0
    """Until a new connection stood, since the attempt began; 0: an open one was used, or none came about."""
    first_byte_us: int = 0
    """Until the head of the upstream's answer, since the attempt began; 0: none came."""
    saved: int = 0
    """Picodollars that the provider's cache of prompts saved: what was read from it, at what it costs less."""
    first_chunk_us: int = 0
    """Of a stream: until there was something of it for the client, since the attempt began; 0: none, or nothing."""


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
    """Subject of the certificate that the client proved to own, where one is asked for"""
    saved: int = 0
    """Picodollars that the same answer cost before, where it came from the cache."""
    route: str = ""
    """Why model `auto` went where it went, as JSON; empty where nothing was chosen"""
    feature: str = ""
    """What the application calls the feature that asked (header `groundplan-feature`)"""
    scores: list[float] = []
    """Of each passage that was given to the model, as the search scored it"""
    of: str = ""
    """The call that the gateway made this one for"""
    purpose: str = ""
    """Why it made it: one of `PURPOSES`"""
    ticket: str = ""
    """Which ticket it works on, as its caller said (header `groundplan-ticket`)"""
    refusal: str = ""
    """Which budget or limit had no room, in words of ours"""
    conflicts: list[tuple[str, str]] = []
    """(document id, path) of each document of which no passage was given but what it says against one"""


class Release(msgspec.Struct, frozen=True, array_like=True):
    """The holder gives part of its slice back; durable before PostgreSQL is told. `id` makes it idempotent."""

    id: bytes
    budget: str
    period: str
    amount: int
