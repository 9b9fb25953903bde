"""What a call costs and the most that it can cost, by the formula of `economics.price`; usage as upstreams report it.

Token counts of an upstream that contradict themselves (a sub-class larger than its total) are read to the dearer side.
"""

from __future__ import annotations

import msgspec

from groundplan.blueprint.model import Deployment, Rates
from groundplan.economics import price
from groundplan.ledger.model import Usage

MAX_TOKENS = 1 << 40
_BATCH = frozenset({price.BATCH})
"""Whatever can be called can be called in a batch, at its price for that or as any call."""


def cost(usage: Usage, rates: Rates) -> int:
    """Picodollars of `usage`; the formula is economics'."""
    return price.cost(rates, usage)


def bound(rates: Rates, input_tokens: int, output_tokens: int) -> int:
    """The most that an attempt with at most these tokens can cost, whatever classes they turn out to be."""
    return price.bound(rates, input_tokens, output_tokens)


def takes(deployment: Deployment) -> frozenset[str]:
    """What may be asked of a deployment that has a cost of its own and a bound for it: `image`, `priority`."""
    priority = frozenset({price.PRIORITY}) if deployment.rates.priority is not None else frozenset[str]()
    return priority | _BATCH | frozenset(deployment.accepts)


def input_bound(deployment: Deployment, size: int, messages: int) -> int:
    """Most tokens that a body of `size` bytes with so many messages can be: a token has at least one byte."""
    return size + deployment.input_overhead_tokens * (messages + 2)


class _InputDetails(msgspec.Struct, frozen=True):
    cached_tokens: int | None = None
    cache_write_tokens: int | None = None
    audio_tokens: int | None = None


class _OutputDetails(msgspec.Struct, frozen=True):
    reasoning_tokens: int | None = None
    audio_tokens: int | None = None


class ReportedUsage(msgspec.Struct, frozen=True):
    """`usage` as OpenAI-compatible upstreams report it."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    total_tokens: int = 0
    prompt_tokens_details: _InputDetails | None = None
    completion_tokens_details: _OutputDetails | None = None

    def usage(self) -> Usage | None:
        """The counts, or None where one of them cannot be true (negative, absurdly large)."""
        into, out = self.prompt_tokens_details, self.completion_tokens_details
        if into is None and out is None:
            usage = Usage(input=self.prompt_tokens, output=self.completion_tokens)
        else:
            into, out = into or _InputDetails(), out or _OutputDetails()
            usage = Usage(
                input=self.prompt_tokens,
                output=self.completion_tokens,
                cache_read=into.cached_tokens or 0,
                cache_write=into.cache_write_tokens or 0,
                reasoning=out.reasoning_tokens or 0,
                input_audio=into.audio_tokens or 0,
                output_audio=out.audio_tokens or 0,
            )
        return usage if _plausible(usage) else None


def _plausible(usage: Usage) -> bool:
    counts = (
        usage.input, usage.output, usage.cache_read, usage.cache_write, usage.reasoning, usage.input_audio,
        usage.output_audio,
    )  # fmt: skip
    return min(counts) >= 0 and max(counts) < MAX_TOKENS
