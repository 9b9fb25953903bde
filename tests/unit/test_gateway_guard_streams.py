"""Guardrails look at all that an answer says, however its upstream frames and names it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from openai.lib.streaming._deltas import accumulate_delta
from tests.unit.raw_upstream import (
    DONE,
    END,
    HI,
    ROLE,
    STREAM_HEAD,
    THERE,
    chunk,
    completion_body,
    encode_events,
    json_response,
    multi_line_event,
    post,
    raw_upstream_rig,
)

from groundplan.blueprint.guarding import CompanyEntity
from groundplan.blueprint.model import Guardrails
from groundplan.gateway.guard.counts import GuardCounts

MESSAGES = "/v1/messages"
EMAIL = "ana@acme.example"
SECRET = "sk-" + "proj-" + "abcdefghijklmnopqrstuvwx"


@pytest.mark.parametrize("said", [f"write data: {SECRET} there", f"data: {SECRET}", f"data: [DONE] data: {SECRET}"])
@pytest.mark.parametrize("lines", [False, True])
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages"])
async def test_text_of_a_model_cannot_break_the_framing_of_its_stream(
    tmp_path: Path, said: str, lines: bool, path: str
) -> None:
    """Neither words that look like the beginning of an event nor the lines of one keep a check from the text."""
    piece = chunk({"content": said})
    sent = (
        encode_events(ROLE)
        + (multi_line_event(piece) + b"\n" if lines else encode_events(piece))
        + encode_events(HI, END, DONE)
    )
    rules = {"assistant": {"guardrails": Guardrails(output={"secrets": "block"}, budget_ms=10_000)}}
    async with raw_upstream_rig(tmp_path, STREAM_HEAD + sent, workloads=rules) as rig:
        asks = {"model": "auto", "max_tokens": 90, "stream": True, "messages": [{"role": "user", "content": "x"}]}
        reply = await post(rig, path, asks)
        assert SECRET not in reply.body.decode() and b"guardrail_secrets" in reply.body
        await rig.books()


@pytest.mark.parametrize("lines", [False, True])
async def test_text_that_passes_the_checks_is_unchanged(tmp_path: Path, lines: bool) -> None:
    piece = chunk({"content": "say data: {} and more"})
    sent = (
        encode_events(ROLE)
        + (multi_line_event(piece) + b"\n" if lines else encode_events(piece))
        + encode_events(END, DONE)
    )
    rules = {"assistant": {"guardrails": Guardrails(output={"secrets": "block"}, budget_ms=10_000)}}
    async with raw_upstream_rig(tmp_path, STREAM_HEAD + sent, workloads=rules) as rig:
        stream = await rig.stream()
        assert (stream.text, stream.finish, stream.done) == ("say data: {} and more", ["stop"], True)


@pytest.mark.parametrize("stream", [False, True])
async def test_log_probabilities_do_not_reveal_masked_text(tmp_path: Path, stream: bool) -> None:
    spelled = {"content": [{"token": EMAIL, "logprob": -0.1, "bytes": list(EMAIL.encode()), "top_logprobs": []}]}
    piece = json.loads(chunk({"content": f"ask {EMAIL} "}))
    piece["choices"][0]["logprobs"] = spelled
    answer = json.loads(completion_body())
    answer["choices"][0] |= {"message": {"role": "assistant", "content": f"ask {EMAIL}"}, "logprobs": spelled}
    rules = {"assistant": {"guardrails": Guardrails(output={"personal_data": "mask"}, budget_ms=10_000)}}
    sent = STREAM_HEAD + encode_events(ROLE, json.dumps(piece).encode(), END, DONE)
    async with raw_upstream_rig(
        tmp_path, sent if stream else json_response(json.dumps(answer).encode()), workloads=rules
    ) as rig:
        reply = await rig.chat(stream=stream, logprobs=True)
        assert reply.status == 200 and b"ask [email]" in reply.body and EMAIL not in reply.body.decode()
        assert str(list(EMAIL.encode()))[1:-1].replace(" ", "") not in reply.body.decode().replace(" ", "")


@pytest.mark.parametrize("stream", [False, True])
async def test_log_probabilities_of_unchanged_text_are_delivered(tmp_path: Path, stream: bool) -> None:
    spelled = {"content": [{"token": "there", "logprob": -0.1, "bytes": None, "top_logprobs": []}]}
    piece, answer = json.loads(chunk({"content": "Hi there"})), json.loads(completion_body())
    piece["choices"][0]["logprobs"] = answer["choices"][0]["logprobs"] = spelled
    rules = {"assistant": {"guardrails": Guardrails(input={"secrets": "mask"}, budget_ms=10_000)}}
    sent = STREAM_HEAD + encode_events(ROLE, json.dumps(piece).encode(), END, DONE)
    async with raw_upstream_rig(
        tmp_path, sent if stream else json_response(json.dumps(answer).encode()), workloads=rules
    ) as rig:
        assert b'"token":"there"' in (await rig.chat(stream=stream, logprobs=True)).body.replace(b": ", b":")


PIECES: list[dict[str, Any]] = [
    {"content": [{"type": "thinking", "thinking": [{"type": "text", "text": f"it is {SECRET}"}]}]},
    {"function_call": {"name": "f", "arguments": f'{{"a":"{SECRET}"}}'}},
    {"reasoning": f"it is {SECRET}"},
    {"reasoning_details": [{"type": "reasoning.text", "text": f"it is {SECRET}", "index": 0}]},
    {"content": "", "reasoning_steps": [{"type": "web_search", "thought": f"it is {SECRET}"}]},
    {"tool_calls": [{"index": 0, "id": "t", "function": {"name": "f", "arguments": SECRET}}]},
    {"tool_calls": [{"index": 0, "id": "t", "type": "custom", "custom": {"name": "f", "input": SECRET}}]},
    {"tool_calls": [{"index": 0, "custom": {"input": SECRET}}]},
]


@pytest.mark.parametrize("delta", PIECES)
async def test_every_text_field_of_a_stream_is_checked(tmp_path: Path, delta: dict[str, Any]) -> None:
    rules = {"assistant": {"guardrails": Guardrails(output={"secrets": "block"}, budget_ms=10_000)}}
    async with raw_upstream_rig(
        tmp_path, STREAM_HEAD + encode_events(ROLE, chunk(delta), END, DONE), workloads=rules
    ) as rig:
        reply = await rig.chat(stream=True)
        assert SECRET not in reply.body.decode() and b"guardrail_secrets" in reply.body


@pytest.mark.parametrize("field", ["thinking", "summary"])
async def test_reasoning_in_parts_is_checked_as_one_text(tmp_path: Path, field: str) -> None:
    """Of Mistral and Databricks, also where a secret comes in pieces."""
    kind = "thinking" if field == "thinking" else "reasoning"
    sent = [
        chunk({"content": [{"type": kind, field: [{"type": "text", "text": text}]}]})
        for text in ("it is ", SECRET[:9], SECRET[9:], " there")
    ]
    rules = {"assistant": {"guardrails": Guardrails(output={"secrets": "block"}, budget_ms=10_000)}}
    async with raw_upstream_rig(tmp_path, STREAM_HEAD + encode_events(ROLE, *sent, END, DONE), workloads=rules) as rig:
        reply = await rig.chat(stream=True)
        assert SECRET[9:] not in reply.body.decode() and b"guardrail_secrets" in reply.body


@pytest.mark.parametrize("said", [{"reasoning_content": f"it is {SECRET}"}, {"refusal": f"it is {SECRET}"}, *PIECES])
async def test_every_text_field_of_a_whole_answer_is_checked(tmp_path: Path, said: dict[str, Any]) -> None:
    answer = json.loads(completion_body())
    answer["choices"][0]["message"] |= said
    rules = {"assistant": {"guardrails": Guardrails(output={"secrets": "block"}, budget_ms=10_000)}}
    async with raw_upstream_rig(tmp_path, json_response(json.dumps(answer).encode()), workloads=rules) as rig:
        reply = await rig.chat()
        assert SECRET not in reply.body.decode() and b"guardrail_secrets" in reply.body


@pytest.mark.parametrize("calls", [[7], {"0": "id"}, "id", [None], [[{"id": "a"}]]])
async def test_malformed_tool_calls_are_forwarded_and_break_nothing(tmp_path: Path, calls: Any) -> None:
    rules = {"assistant": {"guardrails": Guardrails(output={"secrets": "block"}, budget_ms=10_000)}}
    sent = STREAM_HEAD + encode_events(ROLE, HI, chunk({"content": "", "tool_calls": calls}), THERE, END, DONE)
    async with raw_upstream_rig(tmp_path, sent, workloads=rules) as rig:
        stream = await rig.stream()
        assert (stream.text, stream.finish, stream.done) == ("Hi there", ["stop"], True)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("rules", [{"input": {"secrets": "block"}}, {"output": {"secrets": "block"}}])
async def test_a_tool_parameter_may_have_the_name_of_a_field_of_ours(
    tmp_path: Path, stream: bool, rules: dict[str, Any]
) -> None:
    """Such as `role`, which in a message is a word."""
    named = {"role": {"type": "string"}, "content": {"type": ["string", "null"]}, "type": {"enum": ["a"]}}
    function = {"name": "f", "parameters": {"type": "object", "properties": named}}
    spelled = json.dumps({"id": "c", "choices": [{"index": 0, "finish_reason": "stop", "role": ["x"],
                          "message": {"role": {"a": 1}, "content": "Hi there"}}]})  # fmt: skip
    sent = STREAM_HEAD + encode_events(ROLE, HI, THERE, END, DONE) if stream else json_response(spelled.encode())
    guarded = {"assistant": {"guardrails": Guardrails(**rules, budget_ms=10_000)}}
    async with raw_upstream_rig(tmp_path, sent, workloads=guarded) as rig:
        reply = await rig.chat(stream=stream, tools=[{"type": "function", "function": function}])
        assert reply.status == 200 and b"there" in reply.body


@pytest.mark.parametrize("stream", [False, True])
async def test_half_a_character_does_not_prevent_checks_of_the_rest(tmp_path: Path, stream: bool) -> None:
    said = {"role": "assistant", "content": f"\ud83d is {SECRET}"}
    answer = json.loads(completion_body())
    answer["choices"][0]["message"] = said
    rules = {"assistant": {"guardrails": Guardrails(output={"secrets": "block"}, budget_ms=10_000)}}
    sent = (
        STREAM_HEAD + encode_events(ROLE, chunk(said), END, DONE)
        if stream
        else json_response(json.dumps(answer).encode())
    )
    async with raw_upstream_rig(tmp_path, sent, workloads=rules) as rig:
        reply = await rig.chat(stream=stream)
        assert SECRET not in reply.body.decode() and b"guardrail_secrets" in reply.body
    sent = sent.replace(SECRET.encode(), b"fine")
    sent = sent if stream else json_response(sent.partition(b"\r\n\r\n")[2])
    async with raw_upstream_rig(tmp_path / "again", sent, workloads=rules) as rig:
        assert b"is fine" in (await rig.chat(stream=stream)).body


BEGUN = {"id": "m", "type": "message", "role": "assistant", "model": "m", "stop_reason": None, "stop_sequence": None}
STARTS: list[dict[str, Any]] = [
    {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": f"it is {SECRET}"}},
    {"type": "message_start", "message": {**BEGUN, "content": [{"type": "text", "text": f"it is {SECRET}"}]}},
]


@pytest.mark.parametrize("start", STARTS)
async def test_text_in_an_initial_event_is_checked(tmp_path: Path, start: dict[str, Any]) -> None:
    """Nearly every one begins with nothing, and clients show what there is."""
    ends = {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 3}}
    told = [{"type": "message_start", "message": {**BEGUN, "content": []}}, start, ends, {"type": "message_stop"}]
    rules = {"assistant": {"guardrails": Guardrails(output={"secrets": "block"}, budget_ms=10_000)}}
    sent = STREAM_HEAD + encode_events(*(json.dumps(each).encode() for each in told))
    async with raw_upstream_rig(tmp_path, sent, more={"one": {"api": "anthropic"}}, workloads=rules) as rig:
        asks = {"model": "auto", "max_tokens": 9, "stream": True, "messages": [{"role": "user", "content": "x"}]}
        reply = await post(rig, MESSAGES, asks)
        assert SECRET not in reply.body.decode() and b"guardrail_secrets" in reply.body


async def test_thinking_of_a_message_is_checked_once_complete(tmp_path: Path) -> None:
    thought = {"type": "thinking", "thinking": f"it is {SECRET}", "signature": "c2ln"}
    told = {**BEGUN, "content": [thought, {"type": "text", "text": "fine"}], "stop_reason": "end_turn",
            "usage": {"input_tokens": 3, "output_tokens": 3}}  # fmt: skip
    rules = {"assistant": {"guardrails": Guardrails(output={"secrets": "mask"}, budget_ms=10_000)}}
    sent = json_response(json.dumps(told).encode())
    async with raw_upstream_rig(tmp_path, sent, more={"one": {"api": "anthropic"}}, workloads=rules) as rig:
        asks = {"model": "auto", "max_tokens": 9, "messages": [{"role": "user", "content": "x"}]}
        reply = await post(rig, MESSAGES, asks)
        assert SECRET not in reply.body.decode() and b'"thinking":"it is [' in reply.body and b"fine" in reply.body


async def test_thinking_is_delivered_before_its_signature(tmp_path: Path) -> None:
    """Clients show it as whole by then."""
    piece = {"type": "content_block_delta", "index": 0}
    told = [
        {
            "type": "message_start",
            "message": {**BEGUN, "content": [], "usage": {"input_tokens": 3, "output_tokens": 1}},
        },
        {
            "type": "content_block_start",
            "index": 0,
            "content_block": {"type": "thinking", "thinking": "", "signature": ""},
        },
        {**piece, "delta": {"type": "thinking_delta", "thinking": "it is so"}},
        {**piece, "delta": {"type": "signature_delta", "signature": "c2ln"}},
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 3}},
        {"type": "message_stop"},
    ]
    rules = {"assistant": {"guardrails": Guardrails(output={"secrets": "block"}, budget_ms=10_000)}}
    sent = STREAM_HEAD + encode_events(*(json.dumps(each).encode() for each in told))
    async with raw_upstream_rig(tmp_path, sent, more={"one": {"api": "anthropic"}}, workloads=rules) as rig:
        asks = {"model": "auto", "max_tokens": 9, "stream": True, "messages": [{"role": "user", "content": "x"}]}
        body = (await post(rig, MESSAGES, asks)).body
        assert 0 < body.index(b"it is so") < body.index(b"c2ln") < body.index(b"content_block_stop")


SIGNED = {"google": {"thought_signature": "c2ln"}}
NAMED: dict[str, Any] = {"index": 0, "type": "function", "function": {"name": "look", "arguments": ""}}
MORE: dict[str, Any] = {"index": 0, "function": {"arguments": '{"a": "b"}'}}
BEGINNINGS: list[list[dict[str, Any]]] = [
    [{"role": "assistant", "content": "Hi there"}],
    [{"content": "Hi", "extra_content": SIGNED}, {"content": " there"}],
    [
        {
            "tool_calls": [
                {**NAMED, "id": "t", "extra_content": SIGNED, "function": {**NAMED["function"], **MORE["function"]}}
            ]
        }
    ],
    [{"tool_calls": [NAMED]}, {"tool_calls": [MORE]}],
    [{"function_call": NAMED["function"]}, {"function_call": MORE["function"]}],
    [{"reasoning_details": [{"index": 0, "type": "reasoning.text", "id": "r", "text": "so it is"}]}],
]


def put_together(deltas: list[Any]) -> dict[object, object]:
    """As OpenAI's client does."""
    message: dict[object, object] = {}
    for delta in json.loads(json.dumps(deltas)):
        accumulate_delta(message, delta)
    return message


@pytest.mark.parametrize("deltas", BEGINNINGS)
async def test_fields_beside_held_back_text_are_delivered_once(tmp_path: Path, deltas: list[dict[str, Any]]) -> None:
    """Many upstreams say role, id and name in one event with the text, and clients put together what is said twice."""
    sent = STREAM_HEAD + encode_events(*map(chunk, deltas), END, DONE)
    rules = {"assistant": {"guardrails": Guardrails(output={"secrets": "block"}, budget_ms=10_000)}}
    async with raw_upstream_rig(tmp_path, sent, workloads=rules) as rig:
        told = (await rig.chat(stream=True)).body.decode().split("\n\n")
    found = [json.loads(each.removeprefix("data: ")) for each in told if each.startswith("data: {")]
    assert put_together([choice["delta"] for each in found for choice in each["choices"]]) == put_together(deltas)


def text_chunk(text: str, finish: str | None = None) -> bytes:
    choice = {"index": 0, "text": text, "logprobs": None, "finish_reason": finish}
    return json.dumps(
        {"id": "c", "object": "text_completion", "created": 1, "model": "m", "choices": [choice]}
    ).encode()


LAST: list[tuple[str, bytes, bytes]] = [
    (
        "/v1/chat/completions",
        chunk({"role": "assistant", "content": SECRET[:9]}),
        chunk({"content": SECRET[9:]}, "stop"),
    ),
    ("/v1/completions", text_chunk(SECRET[:9]), text_chunk(SECRET[9:], "stop")),
    ("/v1/completions", chunk({"content": SECRET[:9]}), chunk({"content": SECRET[9:]}, "stop")),
]


@pytest.mark.parametrize(("path", "first", "last"), LAST, ids=["chat", "completions", "completions by chat"])
async def test_the_last_piece_of_text_in_a_finish_event_is_checked(
    tmp_path: Path, path: str, first: bytes, last: bytes
) -> None:
    """As Gemini and Mistral do at their OpenAI-shaped addresses."""
    more = {"one": {"serves": ["completions"]}} if b"text_completion" in last else {}
    asks = {"model": "auto", "max_tokens": 90, "stream": True, "prompt": "x"}
    if "chat" in path:
        asks = {**asks, "messages": [{"role": "user", "content": "x"}]}
        del asks["prompt"]
    for rule in ("mask", "block"):
        rules = {"assistant": {"guardrails": Guardrails(output={"secrets": rule}, budget_ms=10_000)}}
        sent = STREAM_HEAD + encode_events(first, last, DONE)
        async with raw_upstream_rig(tmp_path / rule, sent, more=more, workloads=rules) as rig:
            told = (await post(rig, path, asks)).body.decode()
        assert SECRET[9:] not in told and ("[api_key]" if rule == "mask" else "guardrail_secrets") in told
        assert rule == "block" or told.count('"stop"') == 1


async def test_checks_of_the_whole_answer_include_its_last_piece(tmp_path: Path) -> None:
    rules = {"assistant": {"guardrails": Guardrails(schema='{"type": "object"}', budget_ms=10_000)}}
    sent = STREAM_HEAD + encode_events(ROLE, chunk({"content": '{"a"'}), chunk({"content": ": 1}"}, "stop"), DONE)
    async with raw_upstream_rig(tmp_path, sent, workloads=rules) as rig:
        stream = await rig.stream(max_tokens=90)
        assert (stream.status, stream.text, stream.finish) == (200, '{"a": 1}', ["stop"])


@pytest.mark.parametrize("together", [False, True])
async def test_text_before_a_tool_call_is_delivered_before_it(tmp_path: Path, together: bool) -> None:
    """Clients take a text, and a call, for told once the next call begins, and read its arguments then."""
    named = [
        {**NAMED, "id": f"t{at}", "index": at, "function": {**NAMED["function"], **MORE["function"]}} for at in (0, 1)
    ]
    calls = [chunk({"tool_calls": named})] if together else [chunk({"tool_calls": [each]}) for each in named]
    sent = STREAM_HEAD + encode_events(ROLE, HI, THERE, *calls, END, DONE)
    rules = {"assistant": {"guardrails": Guardrails(output={"secrets": "block"}, budget_ms=10_000)}}
    async with raw_upstream_rig(tmp_path, sent, workloads=rules) as rig:
        stream = await rig.stream(max_tokens=90)
    deltas = [choice["delta"] for each in stream.chunks for choice in each["choices"]]
    pieces = [
        (each["index"], each["function"].get("arguments", "")) for d in deltas for each in d.get("tool_calls", ())
    ]
    begun = next(place for place, delta in enumerate(deltas) if delta.get("tool_calls"))
    second = next(place for place, (index, _) in enumerate(pieces) if index == 1)
    assert stream.text == "Hi there" and not any(delta.get("content") for delta in deltas[begun:])
    assert "".join(text for _, text in pieces[:second]) == MORE["function"]["arguments"]
    assert "".join(text for _, text in pieces[second:]) == MORE["function"]["arguments"]


@pytest.mark.parametrize("together", [False, True])
async def test_thinking_is_delivered_before_the_answer(tmp_path: Path, together: bool) -> None:
    thought = [chunk({"reasoning_content": each}) for each in ("so ", "it is")]
    answer = [chunk({"reasoning_content": "", "content": each}) for each in ("Hi ", "there")]
    if together:
        thought, answer[0] = thought[:1], chunk({"reasoning_content": "it is", "content": "Hi "})
    rules = {"assistant": {"guardrails": Guardrails(output={"secrets": "block"}, budget_ms=10_000)}}
    async with raw_upstream_rig(
        tmp_path, STREAM_HEAD + encode_events(ROLE, *thought, *answer, END, DONE), workloads=rules
    ) as rig:
        stream = await rig.stream(max_tokens=90)
    deltas = [choice["delta"] for each in stream.chunks for choice in each["choices"]]
    said = next(place for place, delta in enumerate(deltas) if delta.get("content"))
    assert stream.text == "Hi there"
    assert "".join(delta.get("reasoning_content", "") for delta in deltas[:said]) == "so it is"


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("output", [{}, {"secrets": "mask"}])
async def test_restored_values_keep_json_valid(tmp_path: Path, stream: bool, output: dict[str, str]) -> None:
    """A value with a backslash, or several lines, in what a function is called with or an answer of a demanded form."""
    account = CompanyEntity(name="account", pattern=r"ACME\\[a-z]+")
    guardrails = Guardrails(input={"personal_data": "mask"}, output=output, entities=[account], budget_ms=10_000)
    calls = [{"index": 0, "id": "t", "function": {"name": "f", "arguments": '{"who": "<account_1>"}'}}]
    said: list[dict[str, Any]] = [{"content": '{"who": "<acc'}, {"content": 'ount_1>"}'}, {"tool_calls": calls}]
    data = completion_body(choices=[{"index": 0, "message": put_together(said), "finish_reason": "stop"}])
    sent = STREAM_HEAD + encode_events(ROLE, *map(chunk, said), END, DONE) if stream else json_response(data)
    async with raw_upstream_rig(tmp_path, sent, workloads={"assistant": {"guardrails": guardrails}}) as rig:
        asks: dict[str, Any] = {"messages": [{"role": "user", "content": "Ask ACME\\bob"}], "max_tokens": 90}
        if stream:
            deltas = [choice["delta"] for each in (await rig.stream(**asks)).chunks for choice in each["choices"]]
            message: Any = put_together(deltas)
        else:
            message = (await rig.chat(**asks)).json["choices"][0]["message"]
    found = [message["content"], message["tool_calls"][0]["function"]["arguments"]]
    assert [json.loads(each) for each in found] == [{"who": "ACME\\bob"}] * 2


CALLS: list[dict[str, Any]] = [
    {"function_call": {"name": "drop_tables", "arguments": "{}"}},
    {"tool_calls": [{"index": 0, "id": "t", "type": "custom", "custom": {"name": "drop_tables", "input": "all"}}]},
    {"tool_calls": [{"index": 0, "id": "t", "custom": {"name": "drop_tables"}}]},
]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("call", CALLS)
async def test_everything_called_by_name_is_checked_as_a_function(
    tmp_path: Path, call: dict[str, Any], stream: bool
) -> None:
    """Which functions may be called holds for the first API's `function_call` and for custom tools, too."""
    answer = json.loads(completion_body())
    answer["choices"][0]["message"] |= call
    sent = (
        STREAM_HEAD + encode_events(ROLE, chunk(call), END, DONE)
        if stream
        else json_response(json.dumps(answer).encode())
    )
    rules = {"assistant": {"guardrails": Guardrails(tools=["lookup"], budget_ms=10_000)}}
    async with raw_upstream_rig(tmp_path, sent, workloads=rules) as rig:
        reply = await rig.chat(stream=stream)
        assert b"drop_tables" not in reply.body.partition(b'"error"')[0] and b"guardrail_tools" in reply.body


@pytest.mark.parametrize("check", ["secrets", "max_size"])
@pytest.mark.parametrize("before", ["", "words " * 20], ids=["before the first byte", "after it"])
async def test_a_finding_that_ends_a_stream_is_counted(tmp_path: Path, before: str, check: str) -> None:
    sent = [
        STREAM_HEAD + encode_events(ROLE),
        encode_events(chunk({"content": before})),
        encode_events(chunk({"content": SECRET + " "}), END),
    ]
    refuses: dict[str, Any] = (
        {"output": {"secrets": "block"}} if check == "secrets" else {"max_output_bytes": len(before) + 5}
    )
    rules = {"assistant": {"guardrails": Guardrails(**refuses, budget_ms=10_000, hold_bytes=16)}}
    async with raw_upstream_rig(tmp_path, *sent, workloads=rules) as rig:
        rig.gateway.guard_counts = counts = GuardCounts("", rig.gateway.clock)
        stream = await rig.stream()
        assert stream.status == (200 if before else 403) and SECRET not in stream.raw.decode()
        assert [(*key[1:], finds[:2]) for key, finds in counts.waiting.items()] == [
            ("assistant", "output", check, "block", False, (1, 1))
        ]
        await rig.books()


async def test_a_finding_before_the_first_byte_is_reported_and_counted_once(tmp_path: Path) -> None:
    """It came in one read, with more behind it than is held back."""
    more = "and so on " * 20
    sent = STREAM_HEAD + encode_events(ROLE, chunk({"content": f"ask {EMAIL} {more}"}), HI, END, DONE)
    rules = {"assistant": {"guardrails": Guardrails(output={"personal_data": "mask"}, budget_ms=10_000, hold_bytes=16)}}
    async with raw_upstream_rig(tmp_path, sent, workloads=rules) as rig:
        rig.gateway.guard_counts = counts = GuardCounts("", rig.gateway.clock)
        stream = await rig.stream(max_tokens=400)
        assert stream.text == f"ask [email] {more}Hi "
        (told,) = stream.facts["guardrails"]
        assert (told["check"], told["finds"]) == ("personal_data", 1)
        assert [finds[:2] for finds in counts.waiting.values()] == [(1, 1)]


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages"])
@pytest.mark.parametrize("thought", [False, True])
async def test_text_parts_are_checked_as_one_text(tmp_path: Path, path: str, thought: bool) -> None:
    """A secret that is said in two parts of two events is one, also in what is thought."""
    pieces = []
    for half in (SECRET[:9], SECRET[9:] + " "):
        text = {"type": "text", "text": half}
        pieces.append(chunk({"content": [{"type": "thinking", "thinking": [text]} if thought else text]}))
    rules = {"assistant": {"guardrails": Guardrails(output={"secrets": "block"}, budget_ms=10_000)}}
    async with raw_upstream_rig(
        tmp_path, STREAM_HEAD + encode_events(ROLE, *pieces, END, DONE), workloads=rules
    ) as rig:
        asks = {"model": "auto", "max_tokens": 90, "stream": True, "messages": [{"role": "user", "content": "x"}]}
        reply = await post(rig, path, asks)
        told = reply.body.decode()
        assert SECRET[9:] not in told
        assert "guardrail_secrets" in told or (thought and path == "/v1/messages"), "what is thought is not told there"


@pytest.mark.parametrize("stream", [False, True])
async def test_a_whole_answer_in_parts_is_judged_by_its_text(tmp_path: Path, stream: bool) -> None:
    content = [{"type": "text", "text": '{"a"'}, {"type": "text", "text": ": 1}"}]
    message = {"role": "assistant", "content": content}
    data = completion_body(choices=[{"index": 0, "message": message, "finish_reason": "stop"}])
    sent = STREAM_HEAD + encode_events(ROLE, *(chunk({"content": [part]}) for part in content), END, DONE)
    rules = {"assistant": {"guardrails": Guardrails(schema='{"type": "object"}', budget_ms=10_000)}}
    async with raw_upstream_rig(tmp_path, sent if stream else json_response(data), workloads=rules) as rig:
        assert (await rig.chat(stream=stream, max_tokens=90)).status == 200
