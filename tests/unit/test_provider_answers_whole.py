"""What the library would lose of other providers' answers, read with the types of their official clients."""

from __future__ import annotations

import asyncio
import json
from typing import Any, cast

import pytest
from anthropic.lib.streaming import MessageStopEvent
from anthropic.types import (
    Message,
    RawContentBlockDeltaEvent,
    RawContentBlockStartEvent,
    RawMessageDeltaEvent,
    RawMessageStartEvent,
)
from any_llm.providers.anthropic.anthropic import AnthropicProvider
from any_llm.providers.azure.azure import AzureProvider
from any_llm.providers.cohere.cohere import CohereProvider
from any_llm.providers.gemini.base import GoogleProvider
from any_llm.providers.gemini.utils import _convert_response_to_response_dict
from any_llm.providers.groq.groq import GroqProvider
from any_llm.providers.mistral.mistral import MistralProvider
from azure.ai.inference.models import ChatCompletions, StreamingChatCompletionsUpdate
from cohere.core.pydantic_utilities import parse_obj_as
from cohere.v2.types.v2chat_response import V2ChatResponse
from cohere.v2.types.v2chat_stream_response import V2ChatStreamResponse
from google.genai.types import GenerateContentResponse
from groq.types.chat import ChatCompletion as GroqCompletion
from groq.types.chat import ChatCompletionChunk as GroqChunk
from mistralai.client.models import CompletionEvent
from mistralai.client.models.chatcompletionresponse import ChatCompletionResponse
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from openai.types.completion_usage import CompletionTokensDetails, PromptTokensDetails
from tests.integration.sdk_types import OUR_FIELDS, parse_strictly

from groundplan.gateway.upstream.translation.answer_patches import ANSWER_PATCHES, IncompleteAnswer, check_gemini_end
from groundplan.gateway.upstream.translation.answers import USAGE_DETAILS, ChunkConverter, to_completion
from groundplan.gateway.upstream.translation.requests import adapt_request

patch_anthropic, patch_azure, patch_cohere, patch_gemini, patch_groq, patch_mistral = (
    ANSWER_PATCHES[api] for api in ("anthropic", "azure", "cohere", "gemini", "groq", "mistral")
)
OURS = OUR_FIELDS | {
    "left_out",
    ".choices[].message.reasoning_content", ".choices[].message.extra_content", ".choices[].delta.reasoning_content",
    ".choices[].delta.annotations",
}  # fmt: skip
CALL = {"id": "c1", "type": "function", "function": {"name": "look", "arguments": "{}"}}
BASE: dict[str, Any] = {"id": "x", "created": 1, "model": "m"}
COUNTS = {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}


def completion(converted: Any) -> ChatCompletion:
    made: ChatCompletion = parse_strictly(
        ChatCompletion, json.dumps(to_completion(converted, "asked")), our_fields=OURS
    )
    return made


def first_chunk(converted: Any) -> dict[str, Any]:
    made = ChunkConverter("asked").convert(converted)
    assert made is not None
    parse_strictly(ChatCompletionChunk, json.dumps(made), our_fields=OURS)
    return made


def extra(message: Any, name: str) -> Any:
    return (message.model_extra or {}).get(name)


@pytest.mark.parametrize(
    ("calls", "plan", "content"),
    [([CALL], "I look. ", "I look. So."), ([CALL], None, "So."), (None, None, "So.")],
)
def test_cohere_thinks_in_several_parts_and_speaks_beside_calls(calls: Any, plan: str | None, content: str) -> None:
    thoughts = [{"type": "thinking", "thinking": text} for text in ("Hm. ", "Ah.")]
    parts = [thoughts[0], {"type": "text", "text": "So."}, thoughts[1]]
    message = {"role": "assistant", "tool_plan": plan, "tool_calls": calls, "content": parts}
    answer = V2ChatResponse.model_validate(
        {"id": "c", "finish_reason": "TOOL_CALL" if calls else "COMPLETE", "message": message}
    )
    (choice,) = completion(patch_cohere(CohereProvider._convert_completion_response)(answer, model="m")).choices
    assert choice.message.content == content and extra(choice.message, "reasoning_content") == "Hm. Ah."
    assert len(choice.message.tool_calls or ()) == len(calls or ())


def test_mistral_thinks_in_several_parts_and_of_tools() -> None:
    tool = {"type": "tool_reference", "tool": "web_search", "title": "t"}
    content = [
        {"type": "thinking", "thinking": [{"type": "text", "text": "Hm."}, tool]},
        {"type": "text", "text": "So."},
        {"type": "thinking", "thinking": [{"type": "text", "text": "Ah."}], "signature": "s"},
    ]
    choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": content}}
    answer = ChatCompletionResponse.model_validate(
        {**BASE, "object": "chat.completion", "usage": COUNTS, "choices": [choice]}
    )
    (made,) = completion(patch_mistral(MistralProvider._convert_completion_response)(answer)).choices
    assert made.message.content == "So." and extra(made.message, "reasoning_content") == "Hm.\nAh."
    assert extra(made.message, "extra_content") == {"mistral": {"signature": "s"}}


def test_azure_tells_reasoning_tier_and_fingerprint() -> None:
    told = {"service_tier": "priority", "system_fingerprint": "fp"}
    message = {"role": "assistant", "content": "So.", "reasoning_content": "Hm."}
    choice = {"index": 0, "finish_reason": "stop", "message": message}
    answer = ChatCompletions({**BASE, **told, "usage": COUNTS, "choices": [choice]})
    made = completion(patch_azure(AzureProvider._convert_completion_response)(answer))
    assert (made.service_tier, made.system_fingerprint) == ("priority", "fp")
    assert extra(made.choices[0].message, "reasoning_content") == "Hm."
    delta = {"role": "assistant", "content": "", "reasoning_content": "Hm."}
    update = StreamingChatCompletionsUpdate({**BASE, **told, "choices": [{"index": 0, "delta": delta}]})
    piece = first_chunk(patch_azure(AzureProvider._convert_completion_chunk_response)(update))
    assert piece["service_tier"] == "priority" and piece["choices"][0]["delta"]["reasoning_content"] == "Hm."


FILTERS = {"hate": {"filtered": False, "severity": "safe"}}
PROMPT_FILTERS = [{"prompt_index": 0, "content_filter_results": FILTERS}]


def test_azure_tells_what_its_filters_say() -> None:
    message = {"role": "assistant", "content": "So."}
    choice = {"index": 0, "finish_reason": "stop", "message": message, "content_filter_results": FILTERS}
    beside = {"usage": COUNTS, "prompt_filter_results": PROMPT_FILTERS}
    whole = patch_azure(AzureProvider._convert_completion_response)(
        ChatCompletions({**BASE, **beside, "choices": [choice]})
    )
    made = to_completion(whole, "asked")
    assert made["choices"][0]["content_filter_results"] == FILTERS and made["prompt_filter_results"] == PROMPT_FILTERS
    convert, chunks = patch_azure(AzureProvider._convert_completion_chunk_response), ChunkConverter("asked")
    hit = {"hate": {"filtered": True, "severity": "high"}}
    sent: list[dict[str, Any]] = [
        {"choices": [], "prompt_filter_results": PROMPT_FILTERS},
        {"choices": [{"index": 0, "delta": message, "finish_reason": None, "content_filter_results": FILTERS}]},
        {"choices": [{"index": 0, "delta": {}, "finish_reason": "content_filter", "content_filter_results": hit}]},
    ]
    updates = [convert(StreamingChatCompletionsUpdate({**BASE, **each})) for each in sent]
    found = [one for each in updates if (one := chunks.convert(each)) is not None] + chunks.final_chunks()
    assert [each.get("prompt_filter_results") for each in found] == [PROMPT_FILTERS, None]
    assert [each["choices"][0].get("content_filter_results") for each in found] == [FILTERS, hit]
    assert found[-1]["choices"][0]["finish_reason"] == "content_filter"


def test_anthropic_tells_its_tier_and_the_tokens_of_thinking() -> None:
    used = {"input_tokens": 9, "output_tokens": 7, "service_tier": "priority"}
    content = [{"type": "text", "text": "So.", "citations": None}]
    told = {
        "id": "m", "type": "message", "role": "assistant", "model": "c", "content": content, "stop_reason": "end_turn",
        "stop_sequence": None, "usage": {**used, "output_tokens_details": {"thinking_tokens": 5}},
    }  # fmt: skip
    made = completion(patch_anthropic(AnthropicProvider._convert_completion_response)(Message.model_validate(told)))
    assert made.service_tier == "priority" and made.usage is not None
    assert made.usage.completion_tokens_details == CompletionTokensDetails(reasoning_tokens=5)
    convert, chunks = patch_anthropic(AnthropicProvider._convert_completion_chunk_response), ChunkConverter("asked")
    text, end = {"type": "text_delta", "text": "So."}, {"stop_reason": "end_turn", "stop_sequence": None}
    events: list[Any] = [
        RawMessageStartEvent.model_validate({"type": "message_start", "message": {**told, "content": []}}),
        RawContentBlockDeltaEvent.model_validate({"type": "content_block_delta", "index": 0, "delta": text}),
        RawMessageDeltaEvent.model_validate({"type": "message_delta", "delta": end, "usage": {"output_tokens": 7}}),
        MessageStopEvent.model_validate({"type": "message_stop", "message": told}),
    ]
    found = [one for event in events if (one := chunks.convert(convert(event, model_id="m"))) is not None]
    found += chunks.final_chunks()
    for each in found:
        parse_strictly(ChatCompletionChunk, json.dumps(each), our_fields=OURS)
    assert {each["service_tier"] for each in found} == {"priority"}
    assert found[-1]["usage"]["completion_tokens_details"] == {"reasoning_tokens": 5}


@pytest.mark.parametrize(
    ("blocks", "told"),
    [
        ([], None),
        ([{"type": "redacted_thinking", "data": "x"}], ["answer.redacted_thinking"]),
        ([{"type": "thinking", "thinking": "Hm.", "signature": "s"}], None),
    ],
)
@pytest.mark.parametrize("cites", [False, True])
def test_what_anthropic_has_beside_text_and_calls_is_named(blocks: list[Any], told: Any, cites: bool) -> None:
    citation = {
        "type": "char_location", "cited_text": "So", "document_index": 0, "document_title": None, "file_id": None,
        "start_char_index": 0, "end_char_index": 2,
    }  # fmt: skip
    text = {"type": "text", "text": "So.", "citations": [citation] if cites else None}
    message = Message.model_validate(
        {
            "id": "m", "type": "message", "role": "assistant", "model": "c", "content": [*blocks, text],
            "stop_reason": "end_turn", "stop_sequence": None, "usage": {"input_tokens": 9, "output_tokens": 7},
        }
    )  # fmt: skip
    expected = [*(told or ()), *(["answer.citations"] if cites else [])]
    made = to_completion(patch_anthropic(AnthropicProvider._convert_completion_response)(message), "asked")
    assert sorted(made.get("left_out", [])) == sorted(expected)
    convert, chunks = patch_anthropic(AnthropicProvider._convert_completion_chunk_response), ChunkConverter("asked")
    started = [{**each, "thinking": ""} if each["type"] == "thinking" else each for each in blocks]
    events: list[Any] = [
        *(
            RawContentBlockStartEvent.model_validate({"type": "content_block_start", "index": 0, "content_block": each})
            for each in [*started, {"type": "text", "text": "", "citations": None}]
        ),
        RawContentBlockDeltaEvent.model_validate(
            {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "So."}}
        ),
        RawMessageDeltaEvent.model_validate(
            {
                "type": "message_delta", "delta": {"stop_reason": "end_turn", "stop_sequence": None},
                "usage": {"output_tokens": 7},
            }
        ),
    ]  # fmt: skip
    if cites:
        cited = {"type": "citations_delta", "citation": citation}
        event = {"type": "content_block_delta", "index": 0, "delta": cited}
        events.insert(-1, RawContentBlockDeltaEvent.model_validate(event))
    for each in events:
        chunks.convert(convert(each, model_id="m"))
    named = [name for each in chunks.final_chunks() for name in each.get("left_out", [])]
    assert sorted(named) == sorted(expected)


def test_groq_tells_its_fingerprint_and_why_a_stream_was_stopped() -> None:
    choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "So."}}
    answer = GroqCompletion.model_validate(
        {**BASE, "object": "chat.completion", "choices": [choice], "usage": COUNTS, "system_fingerprint": "fp"}
    )
    assert completion(patch_groq(GroqProvider._convert_completion_response)(answer)).system_fingerprint == "fp"
    base = {**BASE, "object": "chat.completion.chunk", "choices": [{"index": 0, "delta": {"content": "So"}}]}
    convert = patch_groq(GroqProvider._convert_completion_chunk_response)
    assert (
        first_chunk(convert(GroqChunk.model_validate({**base, "system_fingerprint": "fp"})))["system_fingerprint"]
        == "fp"
    )
    with pytest.raises(IncompleteAnswer, match="over capacity"):
        convert(GroqChunk.model_validate({**base, "x_groq": {"error": "over capacity"}}))


CITED = {"citationSources": [{"startIndex": 1, "endIndex": 3, "uri": "https://example.org"}, {"startIndex": 4}]}
ANNOTATION = {
    "type": "url_citation",
    "url_citation": {"url": "https://example.org", "title": "", "start_index": 1, "end_index": 3},
}


@pytest.mark.parametrize(("cited", "told"), [(CITED, [ANNOTATION]), (None, None)])
def test_gemini_tells_the_pages_that_it_quotes(cited: Any, told: Any) -> None:
    content = {"role": "model", "parts": [{"text": "So."}]}
    candidate = {"content": content, "finishReason": "STOP", "citationMetadata": cited}
    answer = GenerateContentResponse.model_validate({"candidates": [candidate], "modelVersion": "g"})

    async def send() -> Any:
        return answer

    async def complete() -> Any:
        found = await check_gemini_end(send)()
        return patch_gemini(GoogleProvider._convert_completion_response)(
            (_convert_response_to_response_dict(found), "m")
        )

    made = completion(asyncio.run(complete())).choices[0].message.annotations
    assert (None if made is None else [each.model_dump() for each in made]) == told
    piece = first_chunk(patch_gemini(GoogleProvider._convert_completion_chunk_response)(answer))
    assert piece["choices"][0]["delta"].get("annotations") == told


def test_pages_of_one_answer_of_geminis_are_not_told_with_the_next() -> None:
    """Also if the next one has no candidate, and the same task asks for both."""
    text = {"content": {"role": "model", "parts": [{"text": "So."}]}, "finishReason": "STOP"}
    made = GenerateContentResponse.model_validate({"candidates": [text]})

    async def complete() -> Any:
        for candidates in ([{**text, "citationMetadata": CITED}], []):
            answer = GenerateContentResponse.model_validate({"candidates": candidates})

            async def send(answer: Any = answer) -> Any:
                return answer

            await check_gemini_end(send)()
        return patch_gemini(GoogleProvider._convert_completion_response)(
            (_convert_response_to_response_dict(made), "m")
        )

    assert completion(asyncio.run(complete())).choices[0].message.annotations is None


def gemini_answer(text: str, first: int, last: int) -> GenerateContentResponse:
    """An answer, or a piece of one, that quotes what is between these bytes of the whole text."""
    cited = {"citationSources": [{"startIndex": first, "endIndex": last, "uri": "https://example.org"}]}
    candidate = {"content": {"role": "model", "parts": [{"text": text}]}, "finishReason": "STOP"}
    return GenerateContentResponse.model_validate({"candidates": [{**candidate, "citationMetadata": cited}]})


def quoted(text: str, annotations: Any) -> str:
    (annotation,) = annotations
    page = annotation["url_citation"]
    return text[page["start_index"] : page["end_index"]]


@pytest.mark.parametrize("cut", [0, 1, 3, 5, 8])
def test_the_places_of_geminis_quotations_are_counted_in_characters(cut: int) -> None:
    """Google counts bytes of UTF-8; in a stream of the whole text, of which the piece that tells them is the last."""
    text = "Ü😀 zitiert."
    begin, end = len("Ü😀 ".encode()), len("Ü😀 zitiert".encode())
    answer = gemini_answer(text, begin, end)

    async def send() -> Any:
        return answer

    async def complete() -> Any:
        found = await check_gemini_end(send)()
        return patch_gemini(GoogleProvider._convert_completion_response)(
            (_convert_response_to_response_dict(found), "m")
        )

    made = to_completion(asyncio.run(complete()), "asked", counts_bytes=True)
    assert quoted(text, made["choices"][0]["message"]["annotations"]) == "zitiert"
    convert = patch_gemini(GoogleProvider._convert_completion_chunk_response)
    chunks = ChunkConverter("asked", counts_bytes=True)
    first = GenerateContentResponse.model_validate(
        {"candidates": [{"content": {"role": "model", "parts": [{"text": text[:cut]}]}}]}
    )
    chunks.convert(convert(first))
    piece = chunks.convert(convert(gemini_answer(text[cut:], begin, end)))
    assert piece is not None and quoted(text, piece["choices"][0]["delta"]["annotations"]) == "zitiert"


def test_a_place_behind_the_text_is_its_end() -> None:
    chunks = ChunkConverter("asked", counts_bytes=True)
    piece = chunks.convert(
        patch_gemini(GoogleProvider._convert_completion_chunk_response)(gemini_answer("Ü", 1, 2**31 - 1))
    )
    assert piece is not None
    page = piece["choices"][0]["delta"]["annotations"][0]["url_citation"]
    assert (page["start_index"], page["end_index"]) == (0, 1)


@pytest.mark.parametrize(
    ("name", "kind"),
    [("prompt_tokens_details", PromptTokensDetails), ("completion_tokens_details", CompletionTokensDetails)],
)
def test_all_counts_that_openai_has_names_for_are_told(name: str, kind: Any) -> None:
    assert set(kind.model_fields) <= USAGE_DETAILS[name]


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ({"citationMetadata": {"citationSources": [{"uri": "u"}]}}, None),
        ({"citationMetadata": {"citationSources": [{"uri": "u", "license": "mit"}]}}, ["answer.citations"]),
        ({"citationMetadata": {"citationSources": [{"startIndex": 0}]}}, ["answer.citations"]),
        ({"citationMetadata": {"citations": [{"uri": "u", "publicationDate": {"year": 2026}}]}}, ["answer.citations"]),
        ({"safetyRatings": [{"category": "HARM_CATEGORY_HARASSMENT", "probability": "NEGLIGIBLE"}]},
         ["answer.safety_ratings"]),
        ({"groundingMetadata": {"webSearchQueries": ["x"]}}, ["answer.grounding_metadata"]),
        ({"groundingMetadata": {}, "safetyRatings": [], "urlContextMetadata": {}}, None),
        ({"urlContextMetadata": {"urlMetadata": [{"retrievedUrl": "u"}]}}, ["answer.url_context_metadata"]),
    ],
)  # fmt: skip
def test_what_gemini_says_of_an_answer_is_named(said: dict[str, Any], told: Any) -> None:
    candidate = {"content": {"role": "model", "parts": [{"text": "So."}]}, "finishReason": "STOP", **said}
    answer = GenerateContentResponse.model_validate({"candidates": [candidate]})

    async def complete() -> Any:
        async def send() -> Any:
            return answer

        found = _convert_response_to_response_dict(await check_gemini_end(send)())
        return patch_gemini(GoogleProvider._convert_completion_response)((found, "m"))

    assert to_completion(asyncio.run(complete()), "asked").get("left_out") == told
    chunks = ChunkConverter("asked")
    chunks.convert(patch_gemini(GoogleProvider._convert_completion_chunk_response)(answer))
    assert [each["left_out"] for each in chunks.final_chunks() if "left_out" in each] == ([told] if told else [])


@pytest.mark.parametrize("api", ["anthropic", "cohere", "gemini", "mistral", "ollama"])
def test_an_earlier_refusal_is_sent_with_the_text_before_it(api: str) -> None:
    messages = [{"role": "user", "content": "x"}, {"role": "assistant", "content": "So.", "refusal": "No more."}]
    assert adapt_request(api, {"messages": messages})["messages"][1]["content"] == "So.\nNo more."


# what chat has no field for -------------------------------------------------------------------------------------------


def left_out(patch: Any, whole: tuple[Any, Any], pieces: tuple[Any, list[Any]]) -> tuple[list[str], list[str]]:
    """What of a whole answer and of a stream the gateway is told to be left out. `whole`, `pieces`: the library's
    conversion, and what it converts."""
    convert, answer = whole
    chunks = ChunkConverter("asked")
    for piece in pieces[1]:
        chunks.convert(patch(pieces[0])(piece))
    (told,) = [each["left_out"] for each in chunks.final_chunks() if "left_out" in each]
    return to_completion(patch(convert)(answer), "asked")["left_out"], told


def test_citations_of_cohere_are_named() -> None:
    citation = {"start": 0, "end": 2, "text": "So", "sources": [{"type": "tool", "id": "c1:0", "tool_output": {}}]}
    message = {"role": "assistant", "content": [{"type": "text", "text": "So."}], "citations": [citation]}
    answer = V2ChatResponse.model_validate({"id": "c", "finish_reason": "COMPLETE", "message": message})
    events: list[Any] = [
        {"type": "content-delta", "index": 0, "delta": {"message": {"content": {"text": "So."}}}},
        {"type": "citation-start", "index": 0, "delta": {"message": {"citations": citation}}},
        {"type": "citation-end", "index": 0},
        {"type": "message-end", "delta": {"finish_reason": "COMPLETE"}},
    ]
    stream: list[Any] = [parse_obj_as(cast("Any", V2ChatStreamResponse), event) for event in events]
    whole = CohereProvider._convert_completion_response, answer
    told = left_out(patch_cohere, whole, (CohereProvider._convert_completion_chunk_response, stream))
    assert told == (["answer.citations"], ["answer.citations"])


def test_references_of_mistral_are_named() -> None:
    reference, new = {"type": "reference", "reference_ids": [1]}, {"type": "new", "x": 1}
    content = [{"type": "text", "text": "So."}, new, reference, reference]
    choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": content}}
    answer = ChatCompletionResponse.model_validate(
        {**BASE, "object": "chat.completion", "usage": COUNTS, "choices": [choice]}
    )
    pieces = [{"index": 0, "finish_reason": end, "delta": {"content": content}} for end in (None, "stop")]
    events = [CompletionEvent.model_validate({"data": {**BASE, "choices": [each]}}) for each in pieces]
    whole = MistralProvider._convert_completion_response, answer
    told = left_out(patch_mistral, whole, (MistralProvider._convert_completion_chunk_response, events))
    assert told == (["answer.reference", "answer.unknown"], ["answer.reference", "answer.unknown"])


def test_tools_that_ran_at_groq_are_named() -> None:
    cited = {"type": "function_citation", "function_citation": {"start_index": 0, "end_index": 1, "tool_call_id": "c"}}
    message = {
        "content": "So.",
        "executed_tools": [{"arguments": "{}", "index": 0, "type": "search"}],
        "annotations": [cited],
    }
    choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", **message}}
    answer = GroqCompletion.model_validate({**BASE, "object": "chat.completion", "choices": [choice], "usage": COUNTS})
    piece = {"index": 0, "delta": message, "finish_reason": "stop"}
    chunk = GroqChunk.model_validate({**BASE, "object": "chat.completion.chunk", "choices": [piece]})
    whole = GroqProvider._convert_completion_response, answer
    told = left_out(patch_groq, whole, (GroqProvider._convert_completion_chunk_response, [chunk]))
    assert told == (["answer.annotations", "answer.executed_tools"],) * 2
