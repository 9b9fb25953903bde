"""What a model is: sizes, memory, quality, and where its weights may lie; and what a deployment says of its limits.

Types only. Sizes of well-known models are reference data of placement.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from groundplan.catalog.base import Strict
from groundplan.catalog.fields import (
    LIST,
    Count,
    Duration,
    Line,
    Lines,
    Name,
    Names,
    Percent,
    Size,
    UseRates,
    list_schema,
)

Billions = Annotated[float, Field(gt=0, le=100_000, strict=False)]
NEEDS = ("vision", "tools", "long-context", "audio")
Needs = Annotated[
    tuple[Literal["vision", "tools", "long-context", "audio"], ...], LIST, list_schema({"enum": list(NEEDS)})
]


class WeightsRule(Strict):
    """Sizes of a model that can be run on own or rented hardware."""

    total: Billions | None = None
    """Parameters in billions."""
    active: Billions | None = None
    """Parameters that one token uses. Default: all."""
    layers: Annotated[Count, Field(ge=1)] | None = None
    kv_per_token: Size | None = None
    """Key-value bytes that one token holds in memory."""
    precision: Literal["bf16", "fp8", "int4", "fp4"] = "fp8"
    """In which it is served."""
    memory: Size | None = None
    """Of the weights. Default: parameters times the bytes of the precision."""
    at: Names = ()
    """Sites that may hold the weights; empty: all."""
    per_call: Duration | None = None
    """Time of one call on one unit of `hardware_type`, for models that write no text, such as a defect detector."""
    hardware: Names = ()
    """Types of hardware that it runs on; empty: all with enough memory."""


class Quality(Strict):
    """How good a model is at a task, and from where that is known."""

    task: Name
    score: Percent
    source: Line | None = None


class HostedRule(Strict):
    """How a deployment serves: what its provider promises, where nothing was seen yet."""

    certifications: Lines = ()
    """Of the service, besides those of its site."""
    quota: UseRates = ()
    """Most tokens that the provider gives: 2M/minute."""
    first_token: Duration | None = None
    """Its usual time until the first token. Default: from what was seen, else 600ms."""
    per_token: Duration | None = None
    """Its usual time for each further token. Default: from what was seen, else 20ms."""
    availability: Percent | None = None
    """Default: that of its site."""
    hardware: Name | None = None
    """The type of its site's hardware that it runs on: its cost is that of the units, not of tokens."""
    units: Count = 0
    """So many of them it holds now."""
