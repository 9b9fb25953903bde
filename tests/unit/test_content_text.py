"""What is kept of a call can be read, and where it is redacted nothing of a known shape is left, streams included."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from groundplan.blueprint.model import Keep
from groundplan.core.ids import new_id
from groundplan.gateway.experiments.compare import text_of
from groundplan.gateway.telemetry.content_link import is_sampled
from groundplan.gateway.telemetry.content_text import LONGEST_TEXT, kept_document

CARD = "4111 1111 1111 1111"


def chat(text: str) -> bytes:
    return json.dumps({"model": "auto", "messages": [{"role": "user", "content": text}]}).encode()


def events(*values: Any) -> bytes:
    return b"".join(b"data: %b\n\n" % json.dumps(value).encode() for value in values) + b"data: [DONE]\n\n"


def stored_document(prompt: bytes, answer: bytes, redacted: bool = True) -> Any:
    return json.loads(kept_document(prompt, answer, redacted=redacted).document)


def test_a_whole_answer_is_kept_without_our_own_facts() -> None:
    answer = {"choices": [{"message": {"content": "hi"}}], "groundplan": {"call_id": "x"}}
    value = stored_document(chat("hello"), json.dumps(answer).encode())
    assert value == {
        "prompt": {"model": "auto", "messages": [{"role": "user", "content": "hello"}]},
        "answer": {"choices": [{"message": {"content": "hi"}}]},
    }


def test_an_event_is_kept_however_its_lines_are_cut_and_whatever_ends_lines_elsewhere() -> None:
    event = {"choices": [{"index": 0, "delta": {"content": f"one\u2028two\x85{CARD} three"}}]}
    lines = json.dumps(event, indent=1, ensure_ascii=False).encode().split(b"\n")
    answer = b"".join(b"data: " + line + b"\n" for line in lines) + b"\ndata: [DONE]\n\n"
    assert stored_document(chat("x"), answer)["answer"] == {"0": "one\u2028two\x85[card] three"}
    assert stored_document(chat("x"), b"data: " + b"".join(lines) + b"\n\n")["answer"] == {
        "0": "one\u2028two\x85[card] three"
    }


def test_what_is_cut_between_two_events_is_found_all_the_same() -> None:
    parts = [
        {"choices": [{"index": 0, "delta": {"content": part}}]} for part in ("pay 4111 1111", " 1111 1111", " now")
    ]
    made = kept_document(chat(f"my card is {CARD}"), events(*parts), redacted=True)
    assert json.loads(made.document)["answer"] == {"0": "pay [card] now"}
    assert CARD not in made.document and made.removed == {"card": 2}
    assert stored_document(chat("x"), events(*parts), redacted=False)["answer"] == {"0": f"pay {CARD} now"}


def test_streams_of_other_surfaces_are_put_together_too() -> None:
    messages = events(
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "mail ana@"}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "example.org"}},
    )
    assert stored_document(chat("x"), messages)["answer"] == {"0": "mail [email]"}
    looked = events(
        {"type": "content_block_start", "index": 0, "content_block": {"type": "thinking", "thinking": ""}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "thinking_delta", "thinking": "hm"}},
        {"type": "content_block_start", "index": 1, "content_block": {"type": "tool_use", "name": "look", "input": {}}},
        {"type": "content_block_delta", "index": 1, "delta": {"type": "input_json_delta", "partial_json": '{"a":1}'}},
    )
    assert stored_document(chat("x"), looked)["answer"] == {"0.thinking": "hm", "1.call": 'look{"a":1}'}
    responses = events({"type": "response.output_text.delta", "output_index": 1, "delta": "one"})
    assert stored_document(chat("x"), responses)["answer"] == {"1": "one"}
    looked = events(
        {"type": "response.reasoning_summary_text.delta", "output_index": 0, "delta": "hm"},
        {"type": "response.output_item.added", "output_index": 1, "item": {"type": "function_call", "name": "look"}},
        {"type": "response.function_call_arguments.delta", "output_index": 1, "delta": '{"a":1}'},
        {"type": "response.output_item.done", "output_index": 1, "item": {"type": "function_call", "name": "look"}},
    )
    assert stored_document(chat("x"), looked)["answer"] == {"0.reasoning_summary_text": "hm", "1.call": 'look{"a":1}'}
    call = {"index": 0, "function": {"name": "pay", "arguments": '{"card":"4111 1111 '}}
    rest = {"index": 0, "function": {"arguments": '1111 1111"}'}}
    tools = events(*({"choices": [{"index": 0, "delta": {"tool_calls": [one]}}]} for one in (call, rest)))
    assert stored_document(chat("x"), tools)["answer"] == {"0.call.0": 'pay{"card":"[card]"}'}


THOUGHTS: list[tuple[dict[str, Any], str]] = [
    ({"reasoning_content": "ask ana@example.org"}, "0.reasoning_content"),
    ({"reasoning": "ask ana@example.org"}, "0.reasoning"),
    ({"reasoning_details": [{"type": "reasoning.text", "text": "ask ana@example.org"}]}, "0.reasoning_details"),
    ({"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "ask ana@example.org"}]}]}, "0.thinking"),
]


@pytest.mark.parametrize(("delta", "place"), THOUGHTS)
def test_what_is_thought_in_a_stream_is_kept_apart_from_what_is_said(delta: dict[str, Any], place: str) -> None:
    stream = events(*({"choices": [{"index": 0, "delta": each}]} for each in (delta, {"content": "hi"})))
    assert stored_document(b"{}", stream, redacted=False)["answer"] == {place: "ask ana@example.org", "0": "hi"}
    assert stored_document(b"{}", stream)["answer"] == {place: "ask [email]", "0": "hi"}
    assert text_of(stream) == "hi"


@pytest.mark.parametrize("name", ["prompt", "input"])
@pytest.mark.parametrize("tokens", [[101, 102], [[101], [102]]])
def test_a_prompt_of_tokens_is_not_kept_where_texts_are_redacted(name: str, tokens: list[Any]) -> None:
    asked = json.dumps({"model": "auto", name: tokens, "metadata": {name: [1]}}).encode()
    made = kept_document(asked, b"{}", redacted=True)
    assert json.loads(made.document)["prompt"] == {"model": "auto", name: "(tokens)", "metadata": {name: [1]}}
    assert made.removed == {"prompt_of_tokens": 1}
    assert stored_document(asked, b"{}", redacted=False)["prompt"][name] == tokens
    texts: list[Any] = [["a", "b"], [{"role": "user", "content": "a"}], "a"]
    for each in texts:
        assert stored_document(json.dumps({name: each}).encode(), b"{}")["prompt"] == {name: each}


def test_files_that_are_written_as_text_are_not_kept_where_texts_are_redacted() -> None:
    """Nobody can tell what a picture or a document says; text in base64 has no shape that is known."""
    card = base64.b64encode(f"pay with {CARD}".encode()).decode()
    sound, picture = base64.b64encode(bytes(range(256)) * 9000).decode(), f"data:image/png;base64,{card}"
    asked = json.dumps({"messages": [{"role": "user", "content": [
        {"type": "text", "text": f"What is ![this]({picture})?"},
        {"type": "image_url", "image_url": {"url": picture}},
        {"type": "file", "file": {"filename": "a.txt", "file_data": f"data:text/plain;charset=utf-8;base64,{card}"}},
        {"type": "input_audio", "input_audio": {"data": sound, "format": "wav"}},
        {"type": "image_url", "image_url": {"url": "https://acme.example/a/picture.png"}},
    ]}]}).encode()  # fmt: skip
    answer = json.dumps({"data": [{"b64_json": sound[:5000]}]}).encode()
    made = kept_document(asked, answer, redacted=True)
    assert card not in made.document and sound[:300] not in made.document and not made.is_cut
    assert made.removed == {"encoded_file": 5} and "https://acme.example/a/picture.png" in made.document
    told = json.loads(made.document)["prompt"]["messages"][0]["content"]
    assert told[0]["text"] == "What is ![this]([encoded_file])?"
    assert card in kept_document(asked, answer, redacted=False).document


@pytest.mark.parametrize("part", [5, 11, 1000])
def test_what_json_in_a_text_writes_with_escapes_is_found_too(part: int) -> None:
    """As arguments and results of tools have it, by whatever wrote their JSON."""
    picture = base64.b64encode(bytes(range(256)) * 2).decode().replace("/", "\\/")
    told = r'{"to": "\nana\u0040acme.example", "call": ["\u002B47 22 33 44 55", "C:\\new"], "img": "' + picture + '"}'
    pieces = [told[at : at + part] for at in range(0, len(told), part)]
    calls = [{"tool_calls": [{"index": 0, "function": {"arguments": each}}]} for each in pieces]
    asked = json.dumps({"messages": [{"role": "tool", "content": told}]}).encode()
    made = kept_document(asked, events(*({"choices": [{"index": 0, "delta": each}]} for each in calls)), redacted=True)
    assert made.removed == {"email": 2, "encoded_file": 2, "phone": 2}
    left, value = (
        {"to": "\n[email]", "call": ["[phone]", "C:\\new"], "img": "[encoded_file]"},
        json.loads(made.document),
    )
    for text in (value["prompt"]["messages"][0]["content"], value["answer"]["0.call.0"]):
        assert json.loads(text) == left, text


@pytest.mark.parametrize("times", [1, 2, 3])
def test_what_json_within_json_writes_with_escapes_is_found_too(times: int) -> None:
    """As what a tool is given that sends it on to another one."""
    told = (
        r'{"to": "ana\u0040acme.example", "call": "\u002B47 22 33 44 55", "also": "ben@acme.example", "in": "C:\\new"}'
    )
    for _ in range(times):
        told = json.dumps({"body": told})
    made = kept_document(json.dumps({"messages": [{"role": "tool", "content": told}]}).encode(), b"{}", redacted=True)
    assert made.removed == {"email": 2, "phone": 1}
    left = json.loads(made.document)["prompt"]["messages"][0]["content"]
    for _ in range(times):
        left = json.loads(left)["body"]
    assert json.loads(left) == {"to": "[email]", "call": "[phone]", "also": "[email]", "in": "C:\\new"}


def test_what_is_spelled_token_by_token_is_not_kept_where_texts_are_redacted() -> None:
    tokens = ["ana", "@", "example", ".org"]
    spelled = [{"token": token, "bytes": [*token.encode()]} for token in tokens]
    answers: list[dict[str, Any]] = [
        {"choices": [{"message": {"content": "ana@example.org"}, "logprobs": {"content": spelled}}]},
        {"choices": [{"text": "ana@example.org", "logprobs": {"tokens": tokens}, "token_ids": [1, 2, 3, 4]}]},
        {"output": [{"content": [{"type": "output_text", "text": "ana@example.org", "logprobs": spelled}]}]},
    ]
    for answer in answers:
        asked, told = {"logprobs": True}, json.dumps(answer).encode()
        redacted = stored_document(json.dumps(asked).encode(), told)
        assert redacted["prompt"] == asked
        assert "example" not in str(redacted) and "[email]" in str(redacted) and "token_ids': [" not in str(redacted)
        assert stored_document(b"{}", told, redacted=False)["answer"] == answer


def test_a_stream_in_parts_and_what_a_custom_tool_is_given_are_kept() -> None:
    pieces: list[dict[str, Any]] = [
        {"content": [{"type": "text", "text": "to ana@ex"}]},
        {"content": [{"type": "text", "text": "ample.org"}]},
        {"tool_calls": [{"index": 0, "type": "custom", "custom": {"name": "mail:", "input": "ben@exa"}}]},
        {"tool_calls": [{"index": 0, "custom": {"input": "mple.org"}}]},
    ]
    stream = events(*({"choices": [{"index": 0, "delta": each}]} for each in pieces))
    assert stored_document(b"{}", stream, redacted=False)["answer"] == {
        "0": "to ana@example.org",
        "0.call.0": "mail:ben@example.org",
    }
    assert kept_document(b"{}", stream, redacted=True).removed == {"email": 2}


def test_names_of_fields_and_numbers_are_looked_at_too() -> None:
    prompt = json.dumps({"metadata": {"ana@example.org": 1}, "number": 4111111111111111, "seed": 7}).encode()
    assert stored_document(prompt, b"{}")["prompt"] == {"metadata": {"[email]": 1}, "number": "[card]", "seed": 7}


def test_long_texts_are_cut_and_said_to_be() -> None:
    made = kept_document(chat("x" * (LONGEST_TEXT + 1)), b"{}", redacted=False)
    assert made.is_cut and len(made.document) < LONGEST_TEXT + 1000


@pytest.mark.parametrize(
    ("before", "card"), [*((n, CARD) for n in range(1, 19)), (6, r"4111\u00201111\u00201111 1111")]
)
def test_where_a_long_text_is_cut_nothing_of_what_is_taken_out_stays(before: int, card: str) -> None:
    said = " " * (LONGEST_TEXT - before) + f"{card} and more"
    made = kept_document(chat(said), b"{}", redacted=True)
    assert made.is_cut and "4" not in json.loads(made.document)["prompt"]["messages"][0]["content"].split("...")[0]


@given(st.binary(max_size=200), st.binary(max_size=200), st.booleans())
def test_any_bytes_become_json_that_can_be_sealed(prompt: bytes, answer: bytes, redacted: bool) -> None:
    made = kept_document(prompt, answer, redacted=redacted)
    assert made.document.encode()
    assert set(json.loads(made.document)) == {"prompt", "answer"}


def test_what_is_nested_too_deep_or_holds_half_a_character_is_kept_all_the_same() -> None:
    deep = b"[" * 5000 + b'"ana@example.org"' + b"]" * 5000
    assert "ana@" not in kept_document(deep, b'{"a":"\\ud800 ana@example.org"}', redacted=True).document
    nested = b"[" * 900 + b'"ana@example.org"' + b"]" * 900
    assert "ana@" not in kept_document(nested, nested, redacted=True).document


def test_a_share_is_chosen_by_chance_and_the_same_call_always_alike() -> None:
    calls = [new_id().bytes for _ in range(4000)]
    tenth = Keep(content="full", seconds=60, share=1000)
    count = sum(is_sampled(tenth, call) for call in calls)
    assert 250 < count < 550
    assert all(is_sampled(Keep(content="full", seconds=60), call) for call in calls)
    assert [is_sampled(tenth, call) for call in calls] == [is_sampled(tenth, call) for call in calls]


@pytest.mark.parametrize("vector", [[0.25, -0.5], "AACAPgAAAL8="])
def test_vectors_that_a_text_can_be_guessed_from_are_kept_only_where_the_text_is(vector: object) -> None:
    told = json.dumps({"data": [{"index": 0, "embedding": vector}]}).encode()
    for redacted, expected in ((True, None), (False, vector)):
        kept = json.loads(kept_document(b'{"input":"ana@example.org"}', told, redacted=redacted).document)
        assert kept["answer"]["data"] == [{"index": 0, "embedding": expected}]
