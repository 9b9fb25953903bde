"""Usage as providers report it, in the shapes that their APIs have, read into the ledger's `Usage`. Its one place.

Gateways decode answers into these types; whole bodies of any provider are read by `bodies`. Reported counts that
contradict themselves are priced to the dearer side (`economics.price`); what cannot be true at all is no usage (None).
Nothing here knows prices.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec

from groundplan.ledger.model import Usage, UsageDetails

MAX_TOKENS = 1 << 40
"""No count is as large."""
Count = int | None
_TIER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,39}", re.ASCII)


class _Struct(msgspec.Struct, frozen=True):
    """Base of parts of a report; a field that is null or missing was not counted."""


class ChatInput(_Struct, frozen=True):
    cached_tokens: Count = None
    cache_write_tokens: Count = None
    audio_tokens: Count = None


class ChatOutput(_Struct, frozen=True):
    reasoning_tokens: Count = None
    audio_tokens: Count = None
    image_tokens: Count = None
    """Of models that draw as they write, Gemini's among them, where an image costs many times the price of words."""


class ChatUsage(_Struct, frozen=True, omit_defaults=True):
    """`usage` of chat completions, completions and embeddings.

    Some providers leave what a model reasoned out of `completion_tokens`, with details (xAI) or without (Gemini): their
    `total_tokens` tells, and what it has above the two counts was generated. Some have classes beside the totals: what
    a cache read (Moonshot, Together), also by Anthropic's names (Databricks, LiteLLM), and reasoning (SGLang). Where
    the total is more by just what those names say (Portkey), the prompt's count leaves it out, as Anthropic's does.
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
        """The counts, or None where one is missing that the total does not tell, or cannot be true (negative, absurdly
        large)."""
        told, said = self.prompt_tokens, self.completion_tokens
        if told is None or said is None:
            return self._by_total(tier)
        into, out = self.prompt_tokens_details, self.completion_tokens_details
        cached = written = reasoning = 0
        if beside := self.cached_tokens or self.cache_read_input_tokens:
            cached = _beside(beside)
        if self.cache_creation_input_tokens:
            written = _beside(self.cache_creation_input_tokens)
        if self.reasoning_tokens:
            reasoning = _beside(self.reasoning_tokens)
        if (total := self.total_tokens) is not None and total > told + said and said >= 0:
            told, said = _in_all(total, told, said, cached + written)
        heard = spoken = drawn = 0
        if into is not None:
            cached, written = into.cached_tokens or cached, into.cache_write_tokens or written
            heard = into.audio_tokens or 0
        if out is not None:
            reasoning, drawn = out.reasoning_tokens or reasoning, out.image_tokens or 0
            spoken = out.audio_tokens or 0
        if not (cached or written or reasoning or heard or spoken or drawn):
            if told < 0 or said < 0 or told >= MAX_TOKENS or said >= MAX_TOKENS:
                return None
            return Usage(input=told, output=said, service_tier=tier)
        return plausible(
            Usage(
                input=told,
                output=said,
                cache_read=cached,
                cache_write=written,
                reasoning=reasoning,
                input_audio=heard,
                output_audio=spoken,
                details=details(output_image=drawn) if drawn else None,
                service_tier=tier,
            )
        )

    def _by_total(self, tier: str) -> Usage | None:
        told, said, total = self.prompt_tokens, self.completion_tokens, self.total_tokens
        if total is None or (told is None and said is None):
            return None
        told, said = (total - (said or 0), said) if told is None else (told, total - told)
        return msgspec.structs.replace(self, prompt_tokens=told, completion_tokens=said).usage(tier)

    def read_only(self) -> Usage | None:
        """The same of what answers with no tokens, such as embeddings; some tell the total alone."""
        told = self.prompt_tokens or self.total_tokens
        if told is None:
            told = self.prompt_tokens
        return None if told is None else plausible(Usage(input=told, output=self.completion_tokens or 0))


def _in_all(total: int, told: int, said: int, beside: int) -> tuple[int, int]:
    """Both counts of what has more tokens in all: those `beside` them are the prompt's, any others were generated."""
    return (total - said, said) if told >= 0 and total == told + said + beside else (told, total - told)


def _beside(told: object) -> int:
    """A count that stands beside the totals; 0 where it is none, since there the name may mean anything."""
    return told if type(told) is int else 0


class ResponsesInput(_Struct, frozen=True):
    cached_tokens: Count = None
    cache_write_tokens: Count = None


class ResponsesOutput(_Struct, frozen=True):
    reasoning_tokens: Count = None


class ResponsesUsage(_Struct, frozen=True):
    """`usage` of a response."""

    input_tokens: int
    output_tokens: int
    total_tokens: Any = None
    input_tokens_details: ResponsesInput | None = None
    output_tokens_details: ResponsesOutput | None = None

    def usage(self, tier: str = "") -> Usage | None:
        """None where a count cannot be true. What the total has above both counts was generated, as in chat."""
        into, out = self.input_tokens_details or ResponsesInput(), self.output_tokens_details or ResponsesOutput()
        return plausible(
            Usage(
                input=self.input_tokens,
                output=max(self.output_tokens, _beside(self.total_tokens) - self.input_tokens),
                cache_read=into.cached_tokens or 0,
                cache_write=into.cache_write_tokens or 0,
                reasoning=out.reasoning_tokens or 0,
                service_tier=tier,
            ),
            least=self.output_tokens,
        )


class Thinking(_Struct, frozen=True):
    thinking_tokens: Count = None


class CacheCreation(_Struct, frozen=True):
    ephemeral_5m_input_tokens: Count = None
    ephemeral_1h_input_tokens: Count = None


class ServerTools(_Struct, frozen=True):
    web_search_requests: Count = None


class MessagesUsage(_Struct, frozen=True):
    """`usage` as Anthropic reports it, whose `input_tokens` leave out what its cache read and wrote; None where an
    event of a stream does not say."""

    input_tokens: Count = None
    output_tokens: Count = None
    cache_creation_input_tokens: Count = None
    cache_read_input_tokens: Count = None
    output_tokens_details: Thinking | None = None
    cache_creation: CacheCreation | None = None
    server_tool_use: ServerTools | None = None
    service_tier: Any = None

    def after(self, earlier: MessagesUsage | None) -> MessagesUsage:
        """With what only an earlier event of the stream said."""
        if earlier is None:
            return self
        names = self.__struct_fields__
        pairs = ((getattr(self, name), getattr(earlier, name)) for name in names)
        return MessagesUsage(*(old if new is None else new for new, old in pairs))

    def usage(self) -> Usage | None:
        """Our totals, or None where there is no count or one that cannot be true."""
        if self.input_tokens is None or self.output_tokens is None:
            return None
        read, written = self.cache_read_input_tokens or 0, self.cache_creation_input_tokens or 0
        reasoning = (self.output_tokens_details.thinking_tokens or 0) if self.output_tokens_details else 0
        created = self.cache_creation or CacheCreation()
        return plausible(
            Usage(
                input=self.input_tokens + read + written,
                output=self.output_tokens,
                cache_read=read,
                cache_write=written,
                reasoning=reasoning,
                details=details(
                    cache_write_5m=created.ephemeral_5m_input_tokens,
                    cache_write_1h=created.ephemeral_1h_input_tokens,
                    searches=self.server_tool_use.web_search_requests if self.server_tool_use else None,
                ),
                service_tier=named_tier(self.service_tier),
            ),
            least=self.input_tokens,
        )


class ByModality(_Struct, frozen=True):
    modality: str = ""
    tokenCount: Count = None  # noqa: N815 -- the provider's name


class GeminiUsage(_Struct, frozen=True, rename="camel"):
    """`usageMetadata` of Gemini: thoughts and the prompts of tools are not in its candidates and its prompt."""

    prompt_token_count: Count = None
    cached_content_token_count: Count = None
    candidates_token_count: Count = None
    thoughts_token_count: Count = None
    tool_use_prompt_token_count: Count = None
    prompt_tokens_details: list[ByModality] | None = None
    cache_tokens_details: list[ByModality] | None = None
    candidates_tokens_details: list[ByModality] | None = None
    tool_use_prompt_tokens_details: list[ByModality] | None = None

    def usage(self) -> Usage | None:
        """None where nothing was counted."""
        counted = (self.prompt_token_count, self.candidates_token_count, self.cached_content_token_count)
        if all(count is None for count in counted):
            return None
        tools = self.tool_use_prompt_token_count or 0
        thoughts = self.thoughts_token_count or 0
        into, cached = _modalities(self.prompt_tokens_details), _modalities(self.cache_tokens_details)
        out, tooled = _modalities(self.candidates_tokens_details), _modalities(self.tool_use_prompt_tokens_details)
        return plausible(
            Usage(
                input=(self.prompt_token_count or 0) + tools,
                output=(self.candidates_token_count or 0) + thoughts,
                cache_read=self.cached_content_token_count or 0,
                reasoning=thoughts,
                input_audio=into["audio"] + tooled["audio"],
                output_audio=out["audio"],
                details=details(
                    input_tools=tools,
                    **{f"input_{kind}": into[kind] + tooled[kind] for kind in ("text", "image", "video")},
                    **{f"input_{kind}_tools": count for kind, count in tooled.items()},
                    **{f"cache_read_{kind}": count for kind, count in cached.items()},
                    **{f"output_{kind}": out[kind] for kind in ("text", "image", "video")},
                ),
            )
        )


def _modalities(counted: list[ByModality] | None) -> dict[str, int]:
    """The first count of each kind; documents are priced as images."""
    found = {"text": 0, "image": 0, "audio": 0, "video": 0}
    seen: set[str] = set()
    for each in counted or []:
        if each.modality in seen:
            continue
        seen.add(each.modality)
        kind = "image" if each.modality == "DOCUMENT" else each.modality.lower()
        if kind in found:
            found[kind] += each.tokenCount or 0
    return found


class CacheDetail(_Struct, frozen=True, rename="camel"):
    ttl: str = ""
    input_tokens: Count = None


class ConverseUsage(_Struct, frozen=True, rename="camel"):
    """`usage` of Bedrock's Converse, whose `inputTokens` leave out what its cache read and wrote."""

    input_tokens: int
    output_tokens: int
    cache_read_input_tokens: Count = None
    cache_write_input_tokens: Count = None
    cache_details: list[CacheDetail] | None = None

    def usage(self) -> Usage | None:
        """None where a count cannot be true."""
        read, written = self.cache_read_input_tokens or 0, self.cache_write_input_tokens or 0
        by_time = {each.ttl: each.input_tokens for each in reversed(self.cache_details or [])}
        return plausible(
            Usage(
                input=self.input_tokens + read + written,
                output=self.output_tokens,
                cache_read=read,
                cache_write=written,
                details=details(cache_write_5m=by_time.get("5m"), cache_write_1h=by_time.get("1h")),
            ),
            least=self.input_tokens,
        )


class CohereTokens(_Struct, frozen=True):
    input_tokens: float | None = None
    output_tokens: float | None = None

    def usage(self) -> Usage | None:
        """None where nothing was counted, or what cannot be true."""
        if self.input_tokens is None and self.output_tokens is None:
            return None
        return plausible(Usage(input=int(self.input_tokens or 0), output=int(self.output_tokens or 0)))


class CohereUsage(_Struct, frozen=True):
    """`usage` of Cohere: what was billed, and what was counted."""

    billed_units: CohereTokens | None = None
    tokens: CohereTokens | None = None
    cached_tokens: float | None = None

    def usage(self) -> Usage | None:
        """What was counted, with the part that came from its cache; None where nothing was."""
        if self.tokens is None and self.cached_tokens is None:
            return None
        counted = self.tokens or CohereTokens()
        return plausible(
            Usage(
                input=int(counted.input_tokens or 0),
                output=int(counted.output_tokens or 0),
                cache_read=int(self.cached_tokens or 0),
            )
        )


class CachedByKind(_Struct, frozen=True):
    text_tokens: Count = None
    audio_tokens: Count = None
    image_tokens: Count = None


class RealtimeInput(_Struct, frozen=True):
    text_tokens: Count = None
    audio_tokens: Count = None
    image_tokens: Count = None
    cached_tokens: Count = None
    cached_tokens_details: CachedByKind | None = None


class RealtimeOutput(_Struct, frozen=True):
    text_tokens: Count = None
    audio_tokens: Count = None


class RealtimeUsage(_Struct, frozen=True):
    """`usage` of a response of a realtime session, and of a transcription that is counted in tokens. DashScope calls
    the details as Responses do."""

    input_tokens: int = -1
    output_tokens: int = -1
    input_token_details: RealtimeInput | None = None
    output_token_details: RealtimeOutput | None = None
    input_tokens_details: RealtimeInput | None = None
    output_tokens_details: RealtimeOutput | None = None

    def usage(self) -> Usage | None:
        """None where a total is missing or a count cannot be true."""
        if self.input_tokens < 0 or self.output_tokens < 0:
            return None
        into = self.input_token_details or self.input_tokens_details or RealtimeInput()
        out = self.output_token_details or self.output_tokens_details or RealtimeOutput()
        cached = into.cached_tokens_details or CachedByKind()
        return plausible(
            Usage(
                input=self.input_tokens,
                output=self.output_tokens,
                cache_read=into.cached_tokens or 0,
                input_audio=into.audio_tokens or 0,
                output_audio=out.audio_tokens or 0,
                details=details(
                    input_text=into.text_tokens,
                    input_image=into.image_tokens,
                    cache_read_text=cached.text_tokens,
                    cache_read_audio=cached.audio_tokens,
                    cache_read_image=cached.image_tokens,
                    output_text=out.text_tokens,
                ),
            )
        )


class ImageKinds(_Struct, frozen=True):
    text_tokens: Count = None
    image_tokens: Count = None


class ImagesUsage(_Struct, frozen=True):
    """`usage` of images that were made."""

    input_tokens: int = 0
    output_tokens: int = 0
    input_tokens_details: ImageKinds | None = None
    output_tokens_details: ImageKinds | None = None

    def usage(self) -> Usage | None:
        """None where a count cannot be true."""
        into, out = self.input_tokens_details or ImageKinds(), self.output_tokens_details or ImageKinds()
        return plausible(
            Usage(
                input=self.input_tokens,
                output=self.output_tokens,
                details=details(
                    input_text=into.text_tokens,
                    input_image=into.image_tokens,
                    output_text=out.text_tokens,
                    output_image=out.image_tokens,
                ),
            )
        )


def named_tier(told: object) -> str:
    """The service tier that an answer names, as it is kept; empty where it names none. What is no name is `other`."""
    if told == "default":
        return "default"
    if told in (None, "auto", ""):
        return ""
    return told if isinstance(told, str) and _TIER.fullmatch(told) else "other"


def details(**counts: int | None) -> UsageDetails | None:
    """None where all of them are missing or zero."""
    found = {name: count for name, count in counts.items() if count}
    return UsageDetails(**found) if found else None


def plausible(usage: Usage, least: int = 0) -> Usage | None:
    """None where a count cannot be true: below zero or absurdly large."""
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
