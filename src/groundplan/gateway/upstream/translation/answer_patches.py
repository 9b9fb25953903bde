"""Patches of the library's conversions of other providers' answers, for what they lose. What chat has no field for is
named in `left_out` of what they return. Pure, but for the context in which an answer of Gemini's is converted."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import Any

from groundplan.gateway.upstream.translation.answers import CHOICE_FILTERS, PROMPT_FILTERS, USAGE_DETAILS

_GEMINI_ENDS = frozenset(
    {
        "FINISH_REASON_UNSPECIFIED", "STOP", "MAX_TOKENS", "SAFETY", "RECITATION", "PROHIBITED_CONTENT", "BLOCKLIST",
        "SPII", "IMAGE_SAFETY", "IMAGE_PROHIBITED_CONTENT", "IMAGE_RECITATION",
    }
)  # fmt: skip
"""Finish reasons of Gemini that OpenAI has a word for, and the one that says nothing."""
_ANTHROPIC_TIERS: dict[Any, str] = {"standard": "default", "priority": "priority"}
_ANTHROPIC_BLOCKS = frozenset({"text", "tool_use", "thinking"})
"""Types of content blocks that chat has fields for."""
_AZURE_EXTRAS = ("service_tier", "system_fingerprint", PROMPT_FILTERS)
_BEDROCK_MALFORMED_ENDS = frozenset({"malformed_model_output", "malformed_tool_use"})


def patch_azure(convert: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap the library's conversion of Azure's answers, or of their chunks, to keep what it loses: cached and reasoning
    tokens in the usage, choices with an empty `delta`, with which OpenAI's models end a stream, refusals, the reasoning
    of DeepSeek's models, the service tier, the fingerprint, and what the filters say of prompt and answer."""

    def whole(answer: Any, **kwargs: Any) -> Any:
        converted = convert(answer, **kwargs)
        for each, choice in zip(answer.choices or (), converted.choices, strict=False):
            told = each.get("message") or each.get("delta") or {}
            message = choice.message if hasattr(choice, "message") else choice.delta
            for name in ("refusal", "reasoning_content"):
                if value := told.get(name):
                    setattr(message, name, value)
            if filters := each.get(CHOICE_FILTERS):
                setattr(choice, CHOICE_FILTERS, filters)
        missing: dict[str, Any] = {name: value for name in _AZURE_EXTRAS if (value := answer.get(name))}
        if not converted.choices and (
            ends := [_end_choice(each) for each in answer.choices or () if each.finish_reason]
        ):
            missing["choices"] = ends
        usage = answer.usage or {}
        details = {name: usage[name] for name in USAGE_DETAILS if usage.get(name)}
        if converted.usage is not None and details:
            missing["usage"] = {**converted.usage.model_dump(), **details}
        return type(converted).model_validate({**converted.model_dump(), **missing}) if missing else converted

    return whole


def patch_anthropic(convert: Callable[..., Any]) -> Callable[..., Any]:
    """The same for Anthropic: the tokens of reasoning, and the service tier in OpenAI's words. Blocks that chat has no
    field for, such as reasoning that nobody may read, and citations are named as left out."""

    def whole(answer: Any, **kwargs: Any) -> Any:
        converted = convert(answer, **kwargs)
        reported = getattr(getattr(answer, "message", answer), "usage", None)
        missing: dict[str, Any] = {}
        if tier := _ANTHROPIC_TIERS.get(getattr(reported, "service_tier", None)):
            missing["service_tier"] = tier
        details = getattr(reported, "output_tokens_details", None)
        if converted.usage is not None and details is not None:
            counts = {"completion_tokens_details": {"reasoning_tokens": details.thinking_tokens}}
            missing["usage"] = {**converted.usage.model_dump(), **counts}
        if left_out := _left_out_of_blocks(answer):
            missing["left_out"] = left_out
        return type(converted).model_validate({**converted.model_dump(), **missing}) if missing else converted

    return whole


def _left_out_of_blocks(answer: Any) -> list[str]:
    """Names of what of a message of Anthropic's, or of an event of its stream, is left out."""
    content, block = getattr(answer, "content", None), getattr(answer, "content_block", None)
    blocks = content if isinstance(content, list) else [] if block is None else [block]
    found = [f"answer.{each.type}" for each in blocks if each.type not in _ANTHROPIC_BLOCKS]
    delta = getattr(answer, "delta", None)
    if getattr(delta, "type", None) == "citations_delta" or any(getattr(each, "citations", None) for each in blocks):
        found.append("answer.citations")
    return found


class IncompleteAnswer(Exception):
    """An answer that its provider did not finish, as its finish reason says."""


def patch_bedrock(convert: Callable[..., Any]) -> Callable[..., Any]:
    """The same for Bedrock: tool calls in an answer that ended for another reason, such as its cap, which the library
    drops. Raises `IncompleteAnswer`."""

    def whole(answer: dict[str, Any], **kwargs: Any) -> Any:
        check_bedrock_end(answer)
        content = answer["output"]["message"]["content"]
        if answer.get("stopReason") == "tool_use" or not any("toolUse" in each for each in content):
            return convert(answer, **kwargs)
        converted = convert({**answer, "stopReason": "tool_use"}, **kwargs)
        _copy_finish_reason(converted, convert({**answer, "output": {"message": {"content": []}}}, **kwargs))
        return converted

    return whole


def check_bedrock_end(ended: dict[str, Any]) -> None:
    """Raise `IncompleteAnswer` if a model of Bedrock's produced unreadable output, which the library reports as a
    normal end."""
    if (reason := ended.get("stopReason")) in _BEDROCK_MALFORMED_ENDS:
        raise IncompleteAnswer(f"the answer ended with {reason}")


def _copy_finish_reason(converted: Any, other: Any) -> None:
    if (reason := other.choices[0].finish_reason) != "stop":
        converted.choices[0].finish_reason = reason


def patch_cohere(convert: Callable[..., Any]) -> Callable[..., Any]:
    """The same for Cohere: the plan before a tool call in a stream, in a complete answer the reasoning and the text
    beside tool calls, tool calls in an answer that ended at its cap, the billed tokens, and that an answer was not
    finished, which the library reports as a normal end. Citations of tools' results are named as left out. Raises
    `IncompleteAnswer`."""

    def whole(answer: Any, **kwargs: Any) -> Any:
        streamed = getattr(answer, "delta", None)
        ended = answer if streamed is None else streamed
        reason = getattr(ended, "finish_reason", None)
        if reason in ("ERROR", "TIMEOUT"):
            raise IncompleteAnswer(f"the answer ended with {reason}")
        converted = convert(answer, **kwargs)
        message = getattr(answer, "message", None)
        if reason != "TOOL_CALL" and getattr(message, "tool_calls", None):
            other, converted = converted, convert(answer.model_copy(update={"finish_reason": "TOOL_CALL"}), **kwargs)
            _copy_finish_reason(converted, other)
        converted = _with_billed_usage(converted, getattr(ended, "usage", None))
        if getattr(message, "citations", None) or getattr(answer, "type", None) == "citation-start":
            converted.left_out = ["answer.citations"]
        if streamed is None:
            parts = getattr(message, "content", None) or ()
            if message is not None and getattr(message, "tool_calls", None):
                texts = (message.tool_plan, *(each.text for each in parts if each.type == "text"))
                converted.choices[0].message.content = "".join(filter(None, texts)) or None
            return _with_reasoning(converted, "".join(each.thinking for each in parts if each.type == "thinking"))
        if answer.type == "tool-plan-delta":
            converted.choices[0].delta.content = streamed.message.tool_plan
        return converted

    return whole


def _with_billed_usage(converted: Any, usage: Any) -> Any:
    """With the tokens that Cohere bills, if it says so: the library reports all that its model read, including hundreds
    of tokens that Cohere puts in front of each prompt and nobody pays."""
    units = getattr(usage, "billed_units", None)
    if units is None or not (units.input_tokens or units.output_tokens):
        return converted
    read, written = math.ceil(units.input_tokens or 0), math.ceil(units.output_tokens or 0)
    billed: dict[str, Any] = {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written}
    if cached := min(int(usage.cached_tokens or 0), read):
        billed["prompt_tokens_details"] = {"cached_tokens": cached}
    return type(converted).model_validate({**converted.model_dump(), "usage": billed})


def _with_reasoning(converted: Any, thoughts: str) -> Any:
    """With all reasoning: the library keeps the last part, and none beside tool calls."""
    if not thoughts:
        return converted
    known = converted.choices[0].message.reasoning
    if known is not None and known.content == thoughts:
        return converted
    values = converted.model_dump()
    values["choices"][0]["message"]["reasoning"] = {"content": thoughts}
    return type(converted).model_validate(values)


def patch_mistral(convert: Callable[..., Any]) -> Callable[..., Any]:
    """The same for Mistral, whose own finish reasons in a stream the library passes on unchanged, while it keeps the
    last of several reasoning parts and fails on references to tools in them. Raises `IncompleteAnswer`."""

    def whole(answer: Any, **kwargs: Any) -> Any:
        left_out = list[str]()
        for choice in getattr(answer, "data", answer).choices:
            message = getattr(choice, "message", None) or getattr(choice, "delta", None)
            _merge_reasoning(message)
            left_out += _unknown_parts(message)
            if choice.finish_reason == "error":
                raise IncompleteAnswer("the answer ended with error")
            if choice.finish_reason == "model_length":
                choice.finish_reason = "length"
        converted = convert(answer, **kwargs)
        if left_out:
            converted.left_out = left_out
        return converted

    return whole


def _unknown_parts(message: Any) -> list[str]:
    """Names of the parts of a content of Mistral's that are neither text nor reasoning, such as references."""
    content = getattr(message, "content", None)
    kinds = (each.type for each in content) if isinstance(content, list) else ()
    return [f"answer.{str(kind).lower()}" for kind in kinds if kind not in ("text", "thinking")]


def _merge_reasoning(message: Any) -> None:
    """Put the reasoning of a message of Mistral's into one part, as texts alone."""
    content: Any = getattr(message, "content", None)
    parts = [each for each in content if each.type == "thinking"] if isinstance(content, list) else []
    if not parts:
        return
    first, *more = parts
    first.thinking = [each for part in parts for each in part.thinking if each.type == "text"]
    for part in more:
        first.signature = part.signature or first.signature
    message.content = [each for each in content if each.type != "thinking" or each is first]


_GROQ_EXTRAS = ("annotations", "executed_tools")


def patch_groq(convert: Callable[..., Any]) -> Callable[..., Any]:
    """The same for Groq: the fingerprint, and that a stream was stopped early. Tools that ran at Groq and annotations
    of its own are named as left out. Raises `IncompleteAnswer`."""

    def whole(answer: Any, **kwargs: Any) -> Any:
        if error := getattr(getattr(answer, "x_groq", None), "error", None):
            raise IncompleteAnswer(f"the answer ended with {error}")
        converted = convert(answer, **kwargs)
        converted.system_fingerprint = getattr(answer, "system_fingerprint", None)
        told = [getattr(choice, "message", None) or getattr(choice, "delta", None) for choice in answer.choices]
        if left_out := [f"answer.{name}" for each in told for name in _GROQ_EXTRAS if getattr(each, name, None)]:
            converted.left_out = left_out
        return converted

    return whole


_candidate: ContextVar[Any] = ContextVar("candidate", default=None)
"""The candidate of the complete answer of Gemini's which is converted in this context."""
_GEMINI_EXTRAS = ("grounding_metadata", "safety_ratings", "url_context_metadata")
"""What of a candidate chat has no field for."""


def _url_citations(candidate: Any) -> list[dict[str, Any]]:
    """What an answer of Gemini's quotes, as OpenAI's `annotations`. Their places are in bytes, as Google counts them,
    until `answers` has the whole text before them."""
    metadata = getattr(candidate, "citation_metadata", None)
    return [
        {
            "type": "url_citation",
            "url_citation": {
                "url": each.uri,
                "title": each.title or "",
                "start_index": each.start_index or 0,
                "end_index": each.end_index or 0,
            },
        }
        for each in getattr(metadata, "citations", None) or ()
        if each.uri
    ]


def _left_out_of(candidate: Any) -> list[str]:
    """Names of what of a candidate of Gemini's is left out: also of quotations that have no address, or a licence or a
    date."""
    metadata = getattr(candidate, "citation_metadata", None)
    cited = getattr(metadata, "citations", None) or ()
    found = ["answer.citations"] if any(not each.uri or each.license or each.publication_date for each in cited) else []
    for name in _GEMINI_EXTRAS:
        value: Any = getattr(candidate, name, None)
        if value.model_dump(exclude_none=True) if hasattr(value, "model_dump") else value:
            found.append(f"answer.{name}")
    return found


def patch_gemini(convert: Callable[..., Any]) -> Callable[..., Any]:
    """The same for Gemini: an answer without text, for which the library has no choice, an id of its own for each,
    where the library gives all the same one, and the pages that it quotes. What else it says of an answer is named as
    left out."""

    def whole(found: Any, **kwargs: Any) -> Any:
        if isinstance(found, tuple):  # a complete answer; a chunk is not a tuple
            answer: dict[str, Any] = found[0]
            answer["id"] = ""
            if not answer["choices"]:
                message = {"role": "assistant", "content": ""}
                answer["choices"] = [{"index": 0, "message": message, "finish_reason": "stop"}]
            converted = convert(found, **kwargs)
            candidate = _candidate.get()
            converted.choices[0].message.annotations = _url_citations(candidate) or None
        else:
            converted, candidate = convert(found, **kwargs), found.candidates[0] if found.candidates else None
            if pages := _url_citations(candidate):
                converted.choices[0].delta.annotations = pages
        if left_out := _left_out_of(candidate):
            converted.left_out = left_out
        return converted

    return whole


def check_gemini_end(send: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    """Wrap Gemini's complete answers to check that they were finished: the library reports a malformed tool call, and
    every finish reason that it does not know, as a normal end. The candidate, of which the library drops the pages that
    it quotes, is noted for `patch_gemini`. Raises `IncompleteAnswer`."""

    async def sent(*args: Any, **kwargs: Any) -> Any:
        answer = await send(*args, **kwargs)
        _candidate.set(None)
        for candidate in (answer.candidates or ())[:1]:
            _candidate.set(candidate)
            reason = getattr(candidate.finish_reason, "value", None)
            if reason is not None and reason not in _GEMINI_ENDS:
                raise IncompleteAnswer(f"the answer ended with {reason}")
        return answer

    return sent


def patch_google_embeddings(convert: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Wrap the library's conversion of Google's embeddings, to keep the number of tokens if Google reports it: the
    library always says 0."""

    def whole(answer: Any) -> Any:
        converted, result = convert(answer), answer["result"]
        known = [getattr(each, "statistics", None) for each in result.embeddings or ()]
        counts = [getattr(each, "token_count", None) or 0 for each in known]
        usage = getattr(result, "usage_metadata", None)
        tokens = getattr(usage, "prompt_token_count", None) or (sum(counts) if all(counts) else 0)
        converted.usage.prompt_tokens = converted.usage.total_tokens = math.ceil(tokens)
        return converted

    return whole


ANSWER_PATCHES = {
    "anthropic": patch_anthropic,
    "azure": patch_azure,
    "bedrock": patch_bedrock,
    "cohere": patch_cohere,
    "gemini": patch_gemini,
    "groq": patch_groq,
    "mistral": patch_mistral,
    "vertexai": patch_gemini,
}
"""Wrappers for providers of whose answers the library loses something."""


def _end_choice(choice: Any) -> dict[str, Any]:
    reason = choice.finish_reason
    ended = {"index": choice.index, "delta": {}, "finish_reason": getattr(reason, "value", reason)}
    return {**ended, CHOICE_FILTERS: filters} if (filters := choice.get(CHOICE_FILTERS)) else ended
