"""Usage reports of API shapes that no upstream of the gateway has, since it reaches these providers by OpenAI's shape:
Gemini's, Bedrock's Converse and Cohere's. They complete the shapes of `provider_usage` where whole bodies are metered.
"""

from __future__ import annotations

import msgspec

from groundplan.economics.prices.provider_usage import check_plausible, nonzero_details
from groundplan.ledger.model import Usage, UsageDetails


class FineDetails(UsageDetails, frozen=True, kw_only=True, omit_defaults=True):
    """Details with counts that no upstream of the gateway reports."""

    cache_read_video: int = 0
    input_tools: int = 0
    """Prompts of tools that the provider ran itself."""
    input_text_tools: int = 0
    input_audio_tools: int = 0
    input_image_tools: int = 0
    input_video_tools: int = 0


def fine_details(**counts: int) -> UsageDetails | None:
    """Details of these counts, of the ledger's type where that has all that are not zero; None if all are zero."""
    nonzero = {name: count for name, count in counts.items() if count}
    if nonzero.keys() <= set(UsageDetails.__struct_fields__):
        return nonzero_details(**nonzero)
    return FineDetails(**nonzero)


class ByModality(msgspec.Struct, frozen=True):
    modality: str = ""
    tokenCount: int | None = None  # noqa: N815 -- the provider's name


class GeminiUsage(msgspec.Struct, frozen=True, rename="camel"):
    """`usageMetadata` of Gemini, whose candidate and prompt counts leave out thoughts and prompts of tools."""

    prompt_token_count: int | None = None
    cached_content_token_count: int | None = None
    candidates_token_count: int | None = None
    thoughts_token_count: int | None = None
    tool_use_prompt_token_count: int | None = None
    prompt_tokens_details: list[ByModality] | None = None
    cache_tokens_details: list[ByModality] | None = None
    candidates_tokens_details: list[ByModality] | None = None
    tool_use_prompt_tokens_details: list[ByModality] | None = None

    def usage(self) -> Usage | None:
        """The counts; None where none was reported."""
        counted = (self.prompt_token_count, self.candidates_token_count, self.cached_content_token_count)
        if all(count is None for count in counted):
            return None
        tools = self.tool_use_prompt_token_count or 0
        thoughts = self.thoughts_token_count or 0
        into, cached = _counts_by_modality(self.prompt_tokens_details), _counts_by_modality(self.cache_tokens_details)
        out, tooled = (
            _counts_by_modality(self.candidates_tokens_details),
            _counts_by_modality(self.tool_use_prompt_tokens_details),
        )
        return check_plausible(
            Usage(
                input=(self.prompt_token_count or 0) + tools,
                output=(self.candidates_token_count or 0) + thoughts,
                cache_read=self.cached_content_token_count or 0,
                reasoning=thoughts,
                input_audio=into["audio"] + tooled["audio"],
                output_audio=out["audio"],
                details=fine_details(
                    input_tools=tools,
                    **{f"input_{kind}": into[kind] + tooled[kind] for kind in ("text", "image", "video")},
                    **{f"input_{kind}_tools": count for kind, count in tooled.items()},
                    **{f"cache_read_{kind}": count for kind, count in cached.items()},
                    **{f"output_{kind}": out[kind] for kind in ("text", "image", "video")},
                ),
            )
        )


def _counts_by_modality(counted: list[ByModality] | None) -> dict[str, int]:
    """The first count of each modality; documents are priced as images."""
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


class CacheDetail(msgspec.Struct, frozen=True, rename="camel"):
    ttl: str = ""
    input_tokens: int | None = None


class ConverseUsage(msgspec.Struct, frozen=True, rename="camel"):
    """`usage` of Bedrock's Converse, whose `inputTokens` leave out what its cache read and wrote."""

    input_tokens: int
    output_tokens: int
    cache_read_input_tokens: int | None = None
    cache_write_input_tokens: int | None = None
    cache_details: list[CacheDetail] | None = None

    def usage(self) -> Usage | None:
        """None where a count cannot be true."""
        read, written = self.cache_read_input_tokens or 0, self.cache_write_input_tokens or 0
        by_time = {each.ttl: each.input_tokens for each in reversed(self.cache_details or [])}
        return check_plausible(
            Usage(
                input=self.input_tokens + read + written,
                output=self.output_tokens,
                cache_read=read,
                cache_write=written,
                details=nonzero_details(cache_write_5m=by_time.get("5m"), cache_write_1h=by_time.get("1h")),
            ),
            least=self.input_tokens,
        )


class CohereTokens(msgspec.Struct, frozen=True):
    input_tokens: float | None = None
    output_tokens: float | None = None

    def usage(self) -> Usage | None:
        """The counts; None where none was reported or one cannot be true."""
        if self.input_tokens is None and self.output_tokens is None:
            return None
        return check_plausible(Usage(input=int(self.input_tokens or 0), output=int(self.output_tokens or 0)))


class CohereUsage(msgspec.Struct, frozen=True):
    """`usage` of Cohere: billed units and counted tokens."""

    billed_units: CohereTokens | None = None
    tokens: CohereTokens | None = None
    cached_tokens: float | None = None

    def usage(self) -> Usage | None:
        """The counted tokens, with the part that came from the cache; None where none were reported."""
        if self.tokens is None and self.cached_tokens is None:
            return None
        counted = self.tokens or CohereTokens()
        return check_plausible(
            Usage(
                input=int(counted.input_tokens or 0),
                output=int(counted.output_tokens or 0),
                cache_read=int(self.cached_tokens or 0),
            )
        )
