"""What a call costs, exactly, and the most that it can cost. Pure; rounds up to whole picodollars, never down.

Token counts of an upstream that contradict themselves (a sub-class larger than its total) are read to the dearer side.
"""

from __future__ import annotations

import msgspec

from groundplan.blueprint.model import Deployment, Rates
from groundplan.core.money import ceil_div
from groundplan.ledger.model import Usage

MILLION = 1_000_000
MAX_TOKENS = 1 << 40


def cost(usage: Usage, rates: Rates) -> int:
    """Picodollars of `usage`; each sub-class is taken out of its total and priced at its own rate."""
    read, write, audio_in = usage.cache_read, usage.cache_write, usage.input_audio
    reasoning, audio_out = usage.reasoning, usage.output_audio
    total = max(0, usage.input - read - write - audio_in) * rates.input
    total += max(0, usage.output - reasoning - audio_out) * rates.output
    if read or write or audio_in or reasoning or audio_out:
        total += read * _rate(rates.cache_read, rates.input) + write * _rate(rates.cache_write, rates.input)
        total += audio_in * _rate(rates.input_audio, rates.input)
        total += reasoning * _rate(rates.reasoning, rates.output) + audio_out * _rate(rates.output_audio, rates.output)
    return ceil_div(total, MILLION) + rates.request


def _rate(own: int | None, parent: int) -> int:
    return parent if own is None else own


def bound(rates: Rates, input_tokens: int, output_tokens: int) -> int:
    """The most that an attempt with at most these tokens can cost, whatever classes they turn out to be."""
    dearest_in = max(rates.input, rates.cache_read or 0, rates.cache_write or 0, rates.input_audio or 0)
    dearest_out = max(rates.output, rates.reasoning or 0, rates.output_audio or 0)
    return ceil_div(input_tokens * dearest_in + output_tokens * dearest_out, MILLION) + rates.request


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
