"""Usage reports of providers, one type per API shape, converted to the ledger's `Usage`. The only place that does so.

Gateways decode answers into these types. Reported counts that contradict each other are priced to the dearer side
(`economics.price`); a report that cannot be true at all is no usage (None). Nothing here knows prices.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec

from groundplan.ledger.model import Usage, UsageDetails

MAX_TOKENS = 1 << 40
"""Every plausible count is below this."""
Count = int | None
_TIER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,39}", re.ASCII)


class _Report(msgspec.Struct, frozen=True):
    """Base of reports and their parts; a field that is null or missing was not counted."""


class ChatInput(_Report, frozen=True, omit_defaults=True):
    cached_tokens: Count = None
    cache_write_tokens: Count = None
    audio_tokens: Count = None


class ChatOutput(_Report, frozen=True, omit_defaults=True):
    reasoning_tokens: Count = None
    audio_tokens: Count = None
    image_tokens: Count = None
    """For models that generate images within text, such as Gemini's, where image tokens cost many times those of
    text."""


class ChatUsage(_Report, frozen=True, omit_defaults=True):
    """`usage` of chat completions, completions and embeddings.

    Some providers leave reasoning tokens out of `completion_tokens`, with details (xAI) or without (Gemini); the excess
    of their `total_tokens` over the two counts was generated. Some report classes next to the totals: cache reads
    (Moonshot, Together), also by Anthropic's names (Databricks, LiteLLM), and reasoning (SGLang). Where the total
    exceeds the two counts by exactly those cache counts (Portkey), `prompt_tokens` leaves them out, as Anthropic's
    does.
    """

    prompt_tokens: Count = None
    completion_tokens: Count = None
    total_tokens: Count = None
    prompt_tokens_details: ChatInput | None = None
    completion_tokens_details: ChatOutput | None = None
    cached_tokens: Any = None
    cache_read_input_tokens: Any = None
    cache_creation_input_tokens: Any = None
    reasoning_tokens: Any = None

    def usage(self, tier: str = "") -> Usage | None:
        """The counts; None if one is missing and cannot be derived from the total, or cannot be true (negative,
        absurdly large)."""
        prompt, completion = self.prompt_tokens, self.completion_tokens
        if prompt is None or completion is None:
            return self._usage_from_total(tier)
        prompt_details, completion_details = self.prompt_tokens_details, self.completion_tokens_details
        cached = written = reasoning = 0
        if cached_count := self.cached_tokens or self.cache_read_input_tokens:
            cached = _count_or_zero(cached_count)
        if self.cache_creation_input_tokens:
            written = _count_or_zero(self.cache_creation_input_tokens)
        if self.reasoning_tokens:
            reasoning = _count_or_zero(self.reasoning_tokens)
        if (total := self.total_tokens) is not None and total > prompt + completion and completion >= 0:
            prompt, completion = _counts_within_total(total, prompt, completion, cached + written)
        input_audio = output_audio = output_image = 0
        if prompt_details is not None:
            cached, written = prompt_details.cached_tokens or cached, prompt_details.cache_write_tokens or written
            input_audio = prompt_details.audio_tokens or 0
        if completion_details is not None:
            reasoning, output_image = (
                completion_details.reasoning_tokens or reasoning,
                completion_details.image_tokens or 0,
            )
            output_audio = completion_details.audio_tokens or 0
        if not (cached or written or reasoning or input_audio or output_audio or output_image):
            if prompt < 0 or completion < 0 or prompt >= MAX_TOKENS or completion >= MAX_TOKENS:
                return None
            return Usage(input=prompt, output=completion, service_tier=tier)
        return check_plausible(
            Usage(
                input=prompt,
                output=completion,
                cache_read=cached,
                cache_write=written,
                reasoning=reasoning,
                input_audio=input_audio,
                output_audio=output_audio,
                details=nonzero_details(output_image=output_image) if output_image else None,
                service_tier=tier,
            )
        )

    def _usage_from_total(self, tier: str) -> Usage | None:
        """The usage if one of the two counts is missing: it is the total less the other count."""
        prompt, completion, total = self.prompt_tokens, self.completion_tokens, self.total_tokens
        if total is None or (prompt is None and completion is None):
            return None
        prompt, completion = (total - (completion or 0), completion) if prompt is None else (prompt, total - prompt)
        return msgspec.structs.replace(self, prompt_tokens=prompt, completion_tokens=completion).usage(tier)

    def input_usage(self) -> Usage | None:
        """As `usage`, for endpoints that generate no tokens, such as embeddings; some providers report the total
        alone."""
        prompt = self.prompt_tokens or self.total_tokens
        if prompt is None:
            prompt = self.prompt_tokens
        return None if prompt is None else check_plausible(Usage(input=prompt, output=self.completion_tokens or 0))


def _counts_within_total(total: int, prompt: int, completion: int, cached: int) -> tuple[int, int]:
    """(prompt, completion) where the total exceeds them: an excess of exactly `cached` is prompt tokens, any other was
    generated."""
    if prompt >= 0 and total == prompt + completion + cached:
        return total - completion, completion
    return prompt, total - prompt


def _count_or_zero(value: object) -> int:
    """A count that is reported next to the totals; 0 if it is no integer, since the name may then mean anything."""
    return value if type(value) is int else 0


class ResponsesInput(_Report, frozen=True):
    cached_tokens: Count = None
    cache_write_tokens: Count = None


class ResponsesOutput(_Report, frozen=True):
    reasoning_tokens: Count = None


class ResponsesUsage(_Report, frozen=True):
    """`usage` of the Responses API."""

    input_tokens: int
    output_tokens: int
    total_tokens: Any = None
    input_tokens_details: ResponsesInput | None = None
    output_tokens_details: ResponsesOutput | None = None

    def usage(self, tier: str = "") -> Usage | None:
        """The counts; None if one cannot be true. The excess of the total over both counts was generated, as in
        chat."""
        input_details, output_details = (
            self.input_tokens_details or ResponsesInput(),
            self.output_tokens_details or ResponsesOutput(),
        )
        return check_plausible(
            Usage(
                input=self.input_tokens,
                output=max(self.output_tokens, _count_or_zero(self.total_tokens) - self.input_tokens),
                cache_read=input_details.cached_tokens or 0,
                cache_write=input_details.cache_write_tokens or 0,
                reasoning=output_details.reasoning_tokens or 0,
                service_tier=tier,
            ),
            least=self.output_tokens,
        )


class Thinking(_Report, frozen=True):
    thinking_tokens: Count = None


class CacheCreation(_Report, frozen=True):
    ephemeral_5m_input_tokens: Count = None
    ephemeral_1h_input_tokens: Count = None


class ServerTools(_Report, frozen=True):
    web_search_requests: Count = None


class MessagesUsage(_Report, frozen=True):
    """`usage` of Anthropic's Messages API, whose `input_tokens` leave out cache reads and writes. A count is None if an
    event of a stream does not report it."""

    input_tokens: Count = None
    output_tokens: Count = None
    cache_creation_input_tokens: Count = None
    cache_read_input_tokens: Count = None
    output_tokens_details: Thinking | None = None
    cache_creation: CacheCreation | None = None
    server_tool_use: ServerTools | None = None
    service_tier: Any = None

    def completed_by(self, earlier: MessagesUsage | None) -> MessagesUsage:
        """These counts, completed by those that only an earlier event of the stream reported."""
        if earlier is None:
            return self
        names = self.__struct_fields__
        pairs = ((getattr(self, name), getattr(earlier, name)) for name in names)
        return MessagesUsage(*(old if new is None else new for new, old in pairs))

    def usage(self) -> Usage | None:
        """The counts, with cache reads and writes in the input; None if one is missing or cannot be true."""
        if self.input_tokens is None or self.output_tokens is None:
            return None
        read, written = self.cache_read_input_tokens or 0, self.cache_creation_input_tokens or 0
        reasoning = (self.output_tokens_details.thinking_tokens or 0) if self.output_tokens_details else 0
        created = self.cache_creation or CacheCreation()
        return check_plausible(
            Usage(
                input=self.input_tokens + read + written,
                output=self.output_tokens,
                cache_read=read,
                cache_write=written,
                reasoning=reasoning,
                details=nonzero_details(
                    cache_write_5m=created.ephemeral_5m_input_tokens,
                    cache_write_1h=created.ephemeral_1h_input_tokens,
                    searches=self.server_tool_use.web_search_requests if self.server_tool_use else None,
                ),
                service_tier=normalize_tier(self.service_tier),
            ),
            least=self.input_tokens,
        )


class CachedByKind(_Report, frozen=True):
    text_tokens: Count = None
    audio_tokens: Count = None
    image_tokens: Count = None


class RealtimeInput(_Report, frozen=True):
    text_tokens: Count = None
    audio_tokens: Count = None
    image_tokens: Count = None
    cached_tokens: Count = None
    cached_tokens_details: CachedByKind | None = None


class RealtimeOutput(_Report, frozen=True):
    text_tokens: Count = None
    audio_tokens: Count = None


class RealtimeUsage(_Report, frozen=True):
    """`usage` of a response of a realtime session, or of a transcription that is counted in tokens. DashScope names the
    details as the Responses API does."""

    input_tokens: int = -1
    output_tokens: int = -1
    input_token_details: RealtimeInput | None = None
    output_token_details: RealtimeOutput | None = None
    input_tokens_details: RealtimeInput | None = None
    output_tokens_details: RealtimeOutput | None = None

    def usage(self) -> Usage | None:
        """The counts; None if a total is missing or a count cannot be true."""
        if self.input_tokens < 0 or self.output_tokens < 0:
            return None
        input_details = self.input_token_details or self.input_tokens_details or RealtimeInput()
        output_details = self.output_token_details or self.output_tokens_details or RealtimeOutput()
        cached = input_details.cached_tokens_details or CachedByKind()
        return check_plausible(
            Usage(
                input=self.input_tokens,
                output=self.output_tokens,
                cache_read=input_details.cached_tokens or 0,
                input_audio=input_details.audio_tokens or 0,
                output_audio=output_details.audio_tokens or 0,
                details=nonzero_details(
                    input_text=input_details.text_tokens,
                    input_image=input_details.image_tokens,
                    cache_read_text=cached.text_tokens,
                    cache_read_audio=cached.audio_tokens,
                    cache_read_image=cached.image_tokens,
                    output_text=output_details.text_tokens,
                ),
            )
        )


class ImageKinds(_Report, frozen=True):
    text_tokens: Count = None
    image_tokens: Count = None


class ImagesUsage(_Report, frozen=True):
    """`usage` of generated images."""

    input_tokens: int = 0
    output_tokens: int = 0
    input_tokens_details: ImageKinds | None = None
    output_tokens_details: ImageKinds | None = None

    def usage(self) -> Usage | None:
        """The counts; None if one cannot be true."""
        input_details, output_details = (
            self.input_tokens_details or ImageKinds(),
            self.output_tokens_details or ImageKinds(),
        )
        return check_plausible(
            Usage(
                input=self.input_tokens,
                output=self.output_tokens,
                details=nonzero_details(
                    input_text=input_details.text_tokens,
                    input_image=input_details.image_tokens,
                    output_text=output_details.text_tokens,
                    output_image=output_details.image_tokens,
                ),
            )
        )


def normalize_tier(tier: object) -> str:
    """The reported service tier as the ledger stores it: empty for none, `other` for an invalid name."""
    if tier == "default":
        return "default"
    if tier in (None, "auto", ""):
        return ""
    return tier if isinstance(tier, str) and _TIER.fullmatch(tier) else "other"


def nonzero_details(**counts: int | None) -> UsageDetails | None:
    """Details of these counts; None if all of them are missing or zero."""
    nonzero = {name: count for name, count in counts.items() if count}
    return UsageDetails(**nonzero) if nonzero else None


def check_plausible(usage: Usage, least: int = 0) -> Usage | None:
    """`usage` itself; None if a count cannot be true: below zero or absurdly large. `least` is checked like a count."""
    counts = (
        usage.input, usage.output, usage.cache_read, usage.cache_write, usage.reasoning, usage.input_audio,
        usage.output_audio, least,
    )  # fmt: skip
    if min(counts) < 0 or max(counts) >= MAX_TOKENS:
        return None
    if usage.details is not None:
        fine: tuple[Any, ...] = msgspec.structs.astuple(usage.details)
        if min(fine) < 0 or max(fine) >= MAX_TOKENS:
            return None
    return usage
