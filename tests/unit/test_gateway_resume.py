"""Streams that go on at another deployment after their first byte: rows of docs/streams.md, and what they stand on."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.call_rig import BOUND, LIMIT, Rig, Stream, call_rig, read_records, reliability, wait_until
from tests.unit.test_gateway_guard import post

from groundplan.blueprint.model import Cache, Guardrails, Rates
from groundplan.core.money import PICO
from groundplan.gateway.call.attempts.resume import Continuation, begin_continuation
from groundplan.gateway.http.sse import DONE, EventReader, format_event
from groundplan.gateway.resuming.continued_relay import INSTRUCTION, MIN_OVERLAP, ContinuedRelay, add_usage
from groundplan.gateway.surfaces.chat.relay import ChatRelay
from groundplan.gateway.surfaces.chat.surface import read
from groundplan.gateway.surfaces.codec import Malformed
from groundplan.ledger.model import Reservation, Settlement, Usage

RESUME = {"assistant": reliability(on_broken_stream="resume")}
TEXT = "You asked: a b c d"


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    async with call_rig(tmp_path, ["one", "two", "three"], workloads=RESUME) as made:
        yield made


def one_stream(stream: Stream, text: str = TEXT) -> None:
    assert stream.status == 200 and stream.errors == [] and stream.done
    assert stream.text == text and len(stream.finish) == 1
    assert len({chunk["id"] for chunk in stream.chunks}) == 1
    assert len({chunk["model"] for chunk in stream.chunks}) == 1
    roles = [c["delta"]["role"] for chunk in stream.chunks for c in chunk["choices"] if "role" in c["delta"]]
    assert roles == ["assistant"]


@pytest.mark.parametrize("mode", ["cut", "malformed", "error_event", "no_finish", "stall_late", "comments"])
async def test_a_broken_stream_is_resumed(tmp_path: Path, mode: str) -> None:
    fast = {"idle_ms": 200}
    async with call_rig(tmp_path, more={"one": fast}, workloads=RESUME) as rig:
        rig.play("one", mode=mode, chunk_ms=5)
        stream = await rig.stream()
        one_stream(stream)
        assert stream.facts["deployment"] == "two" and stream.chunks[0]["model"] == "up-one"
        first, second = await rig.settlements()
        assert (first.outcome, second.outcome, second.flags) == ("failed", "ok", ["resumed"])
        assert rig.models["two"].counted == 1
        await rig.books()


@pytest.mark.parametrize("at", range(6))
async def test_wherever_it_breaks_no_word_is_lost_or_twice(rig: Rig, at: int) -> None:
    rig.play("one", mode="cut", at=at, chunk_ms=3)
    one_stream(await rig.stream())
    await rig.books()


async def test_a_repetition_is_trimmed(rig: Rig) -> None:
    words = " ".join(f"word{n}" for n in range(12))
    rig.play("one", mode="cut", at=9, chunk_ms=3)
    rig.play("two", overlap=30)
    stream = await rig.stream(messages=[{"role": "user", "content": words}])
    one_stream(stream, f"You asked: {words}")
    await rig.books()


async def test_a_resumed_stream_goes_on_once_its_reservation_is_durable(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where its first words are held back, since they may be a repetition."""
    journal, reserved, awaited = rig.gateway.journal, list[int](), list[int]()
    reserve, durable = journal.reserve, journal.durable

    def note_reservation(*given: Any, **more: Any) -> int:
        reserved.append(reserve(*given, **more))
        return reserved[-1]

    def note_wait(sequence: int, **more: Any) -> asyncio.Future[None] | None:
        awaited.append(sequence)
        return durable(sequence, **more)

    monkeypatch.setattr(journal, "reserve", note_reservation)
    monkeypatch.setattr(journal, "durable", note_wait)
    words = " ".join(f"word{n}" for n in range(12))
    rig.play("one", mode="cut", at=9, chunk_ms=3)
    rig.play("two", overlap=30, chunk_ms=20)  # so that its first word comes by itself
    one_stream(await rig.stream(messages=[{"role": "user", "content": words}]), f"You asked: {words}")
    assert len(reserved) == 2 and set(reserved) <= set(awaited)


async def test_usage_is_the_sum_of_all_attempts(rig: Rig) -> None:
    rig.play("one", mode="cut", chunk_ms=3)
    stream = await rig.stream(stream_options={"include_usage": True})
    one_stream(stream)
    usages = [chunk["usage"] for chunk in stream.chunks if chunk.get("usage")]
    first, second = await rig.settlements()
    assert len(usages) == 1
    assert usages[0]["completion_tokens"] == first.usage.output + second.usage.output
    assert usages[0]["prompt_tokens"] == first.usage.input + second.usage.input
    assert usages[0]["total_tokens"] == usages[0]["completion_tokens"] + usages[0]["prompt_tokens"]
    await rig.books()


async def test_a_resumed_stream_is_resumed_again(rig: Rig) -> None:
    rig.play("one", mode="cut", at=2, chunk_ms=3)
    rig.play("two", mode="cut", at=2, chunk_ms=3)
    stream = await rig.stream()
    one_stream(stream)
    assert stream.facts["deployment"] == "three"
    assert [s.outcome for s in await rig.settlements()] == ["failed", "failed", "ok"]
    await rig.books()


async def test_what_was_said_counts_once_in_the_cap_of_what_is_left(rig: Rig) -> None:
    """Also of a stream that breaks twice: the third deployment may use all that the first two have not."""
    for name in ("one", "two"):
        rig.play(name, mode="cut", at=2, chunk_ms=3)
    stream = await rig.stream(max_tokens=20)
    one_stream(stream)
    caps = {}
    for name, model in rig.models.items():
        assert model.last is not None
        caps[name] = json.loads(model.last.body)["max_tokens"]
    said = {"two": caps["one"] - caps["two"], "three": caps["two"] - caps["three"]}
    assert caps["one"] == 20 and said["two"] == said["three"] > 0, caps


async def test_a_fallback_of_a_resumed_stream_that_fails_before_its_first_byte_is_invisible(rig: Rig) -> None:
    rig.play("one", mode="cut", chunk_ms=3)
    rig.play("two", mode="error", status=503)
    one_stream(await rig.stream())
    assert [s.outcome for s in await rig.settlements()] == ["failed", "not_billed", "ok"]
    await rig.books()


def ends_with_error(stream: Stream, *words: str) -> None:
    (error,) = stream.errors
    assert stream.events[-1] == {"error": error} and error["code"] == "stream_broken" and not stream.done
    assert all(word in error["message"] for word in words), error["message"]


async def test_nobody_is_left_to_resume(tmp_path: Path) -> None:
    async with call_rig(tmp_path, workloads=RESUME) as rig:
        rig.play("one", mode="cut", chunk_ms=3)
        rig.play("two", mode="down")
        ends_with_error(await rig.stream(), "no deployment of assistant could answer")
        assert [s.outcome for s in await rig.settlements()] == ["failed", "failed"]
        await rig.books()


async def test_a_single_deployment_cannot_resume(tmp_path: Path) -> None:
    async with call_rig(tmp_path, ["one"], workloads=RESUME) as rig:
        rig.play("one", mode="cut", chunk_ms=3)
        ends_with_error(await rig.stream(), "no other deployment is left")
        await rig.books()


async def test_the_same_deployment_goes_on_where_it_may_be_tried_again(tmp_path: Path) -> None:
    again = {"assistant": reliability(on_broken_stream="resume", same=1, backoff_ms=1)}
    async with call_rig(tmp_path, ["one"], workloads=again) as rig:
        rig.play("one", mode="cut", chunk_ms=3, times=1)
        one_stream(await rig.stream())
        await rig.books()


async def test_a_resume_without_budget(tmp_path: Path) -> None:
    async with call_rig(tmp_path, workloads=RESUME, limit=BOUND) as rig:
        rig.play("one", mode="cut", chunk_ms=3)
        ends_with_error(await rig.stream(), "the budget all", "no room")
        (only,) = await rig.settlements()
        assert only.outcome == "failed" and rig.models["two"].counted == 0
        assert rig.slices.open_reservations == 0


@pytest.mark.parametrize("sent", [False, True])
async def test_what_a_client_that_leaves_a_resumed_stream_pays_is_of_the_rest_alone(tmp_path: Path, sent: bool) -> None:
    """Nothing where that was not sent yet, and its bound where nothing came of it, whatever came before it."""
    async with call_rig(tmp_path, more={"two": {"billing_on_cancel": "generated"}}, workloads=RESUME) as rig:
        rig.play("one", mode="cut", chunk_ms=3)
        rig.hold("two")
        catalog, connecting = rig.gateway.live.catalog, asyncio.Event()
        assert catalog is not None

        async def connect(*_: Any) -> Any:
            connecting.set()
            await asyncio.sleep(3600)

        if not sent:
            rig.gateway.targets.of(catalog.blueprint.deployments[1]).pool.connect = connect  # type: ignore[method-assign, assignment]
        _, writer = await asyncio.open_connection("127.0.0.1", rig.port)
        writer.write(rig.request(stream=True))
        await wait_until(lambda: rig.models["two"].counted == 1 or connecting.is_set())
        writer.transport.abort()
        await wait_until(lambda: rig.gateway.running_calls == 0)
        await rig.books()
        records = read_records(rig.gateway.journal.folder)
        _, rest = [record for record in records if isinstance(record, Settlement)]
        bound = [record for record in records if isinstance(record, Reservation)][1].bound
        assert (rest.outcome, rest.cost) == (("cancelled", bound) if sent else ("not_billed", 0))
        assert (rest.connect_us >= 0, rest.first_byte_us, rest.first_chunk_us) == (True, 0, 0)


async def test_nobody_goes_on_with_it_on_a_lease_that_ran_out(tmp_path: Path) -> None:
    """What was stopped meanwhile is not known."""
    async with call_rig(tmp_path, more={"one": {"idle_ms": 500}}, workloads=RESUME) as rig:
        rig.play("one", mode="stall_late", chunk_ms=3)
        live: Any = rig.gateway.live
        asked = asyncio.create_task(rig.stream())
        await wait_until(lambda: rig.models["one"].counted == 1)
        live.seconds = 1e6
        ends_with_error(await asked, "cut off from live policy")
        assert rig.models["two"].counted == 0
        live.seconds = 0.0
        one_stream(await rig.stream())
        await rig.books()


async def test_a_tool_call_that_has_begun_is_never_continued(rig: Rig) -> None:
    rig.play("one", mode="cut", tool=True, at=8, chunk_ms=3)
    stream = await rig.stream()
    ends_with_error(stream, "a tool call had begun")
    assert rig.models["two"].counted == 0
    await rig.books()


async def test_a_break_before_a_tool_call_is_resumed(rig: Rig) -> None:
    rig.play("one", mode="cut", tool=True, at=3, chunk_ms=3)
    rig.play("two", tool=True)
    stream = await rig.stream()
    one_stream(stream)
    calls = [
        c["delta"]["tool_calls"][0] for chunk in stream.chunks for c in chunk["choices"] if "tool_calls" in c["delta"]
    ]
    assert calls[0]["id"] == "call_1" and stream.finish == ["tool_calls"]
    assert json.loads("".join(call["function"].get("arguments", "") for call in calls)) == {"what": "it"}
    await rig.books()


@pytest.mark.parametrize(
    ("more", "named"),
    [
        ({"n": 2}, "(n)"),
        ({"logprobs": True}, "log probabilities"),
        ({"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {}}}}, "structured output"),
        ({"response_format": {"type": "json_object"}}, "structured output"),
        ({"structured_outputs": {"choice": ["yes", "no"]}}, "(structured_outputs)"),
        ({"grammar": "root ::= [0-9]+"}, "(grammar)"),
    ],
)
async def test_what_cannot_be_continued_is_named(rig: Rig, more: dict[str, Any], named: str) -> None:
    rig.play("one", mode="cut", chunk_ms=3)
    ends_with_error(await rig.stream(**more), named)
    assert rig.models["two"].counted == 0
    await rig.books()


@pytest.mark.parametrize(
    "more", [{"n": 1}, {"logprobs": False}, {"response_format": {"type": "text"}}, {"tools": [], "guided_json": None}]
)
async def test_what_only_looks_like_it_is_continued(rig: Rig, more: dict[str, Any]) -> None:
    rig.play("one", mode="cut", chunk_ms=3)
    one_stream(await rig.stream(**more))


async def test_a_call_that_does_not_stream_is_not_touched(rig: Rig) -> None:
    rig.play("one", mode="cut")
    reply = await rig.chat()
    assert reply.json["choices"][0]["message"]["content"] == TEXT
    assert LIMIT - sum((await rig.books()).spent.values()) == rig.slices.available("all", "total")


# the parts -----------------------------------------------------------------------------------------------------------


def chunk(content: str | None = None, **delta: Any) -> bytes:
    if content is not None:
        delta["content"] = content
    return json.dumps(
        {"id": "x", "model": "m", "choices": [{"index": 0, "delta": delta, "finish_reason": None}]}
    ).encode()


END = json.dumps({"id": "x", "model": "m", "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}).encode()


def continuation_after(sent: list[str]) -> Continuation:
    """A continuation after a stream of which the client got these pieces."""
    made = begin_continuation(read(b'{"model":"auto","messages":[{"role":"user","content":"q"}],"stream":true}'))
    relay = made.relay(ChatRelay(False))
    for piece in ("", *sent):
        relay.feed(chunk(piece, role="assistant") if not piece else chunk(piece))
    made.record_broken(relay, Usage(input=1, output=2))
    return made


def goes_on(made: Continuation, pieces: list[str]) -> str:
    """Text that the client gets of a continuation."""
    relay: ContinuedRelay = made.relay(ChatRelay(False))
    out = b"".join(relay.feed(chunk(piece)) for piece in pieces)
    out += relay.feed(END) + relay.feed(DONE) + relay.closing_events(b"{}")
    found = [json.loads(data) for data in EventReader().feed(out) if data != DONE]
    return "".join(c["delta"].get("content") or "" for each in found for c in each["choices"])


@given(st.lists(st.text(max_size=8), max_size=20), st.lists(st.text(max_size=8), max_size=20))
def test_any_text_in_any_pieces_goes_on_as_it_is(sent: list[str], rest: list[str]) -> None:
    """But for a repetition, nothing of what comes is changed."""
    before, after = "".join(sent), "".join(rest)
    got = goes_on(continuation_after(sent), rest)
    if before and after and (len(before) < MIN_OVERLAP or after in before):
        assert after.endswith(got)
    else:
        assert after.endswith(got) and (got == after or before.endswith(after[: len(after) - len(got)]))


@given(
    st.text("abcdefgh ", min_size=40, max_size=80),
    st.integers(MIN_OVERLAP, 40),
    st.text("xyz", min_size=1, max_size=30),
    st.integers(1, 9),
)
def test_a_repetition_of_any_length_is_trimmed_whatever_the_pieces(text: str, over: int, rest: str, size: int) -> None:
    whole = text[-over:] + rest
    pieces = [whole[i : i + size] for i in range(0, len(whole), size)]
    assert goes_on(continuation_after([text]), pieces) == rest


@pytest.mark.parametrize(
    ("sent", "rest"),
    [("It is a long text that ends with a", ["a", " word."]), ("abcdefghijklmnop", ["And ", "abcdefghijklmnop"])],
    ids=["short", "further on"],
)
def test_what_may_be_meant_is_no_repetition(sent: str, rest: list[str]) -> None:
    assert goes_on(continuation_after([sent]), rest) == "".join(rest)


def test_text_that_might_be_a_repetition_is_told_before_a_call() -> None:
    relay = continuation_after(["abcdefghijklmnop"]).relay(ChatRelay(False))
    assert relay.feed(chunk("bcd")) == b""
    called = [{"index": 0, "id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}]
    out = relay.feed(chunk(tool_calls=called))
    assert 0 < out.find(b"bcd") < out.find(b"tool_calls")


def test_nobody_is_asked_to_go_on_with_white_space() -> None:
    """Providers refuse a message that has nothing else."""
    made = continuation_after([" \n"])
    assert msgspec.json.decode(bytes(made.rest_request(10).fields["messages"])) == [{"role": "user", "content": "q"}]


def test_what_only_the_last_attempt_tells_of_its_usage_stays() -> None:
    assert add_usage({"a": 1, "b": 2, "c": {"d": 3}}, {"a": 3}) == {"a": 4, "b": 2, "c": {"d": 3}}


def test_a_refusal_is_no_rest_of_an_answer() -> None:
    """Left out, it would be an end like any other, of an answer that has only half of it."""
    relay = continuation_after(["It is "]).relay(ChatRelay(False))
    assert relay.feed(chunk("here", refusal=None))
    with pytest.raises(Malformed, match="does not go on"):
        relay.feed(chunk(refusal="I will not."))


@pytest.mark.parametrize("field", ["tool_calls", "function_call"])
def test_pieces_that_name_no_call_have_begun_none(field: str) -> None:
    """As some servers tell with each piece that there are none."""
    made = begin_continuation(read(b'{"model":"auto","messages":[{"role":"user","content":"q"}],"stream":true}'))
    relay = made.relay(ChatRelay(False))
    nothing: tuple[Any, ...] = ([], {}, None)
    for value in nothing:
        relay.feed(chunk("a", **{field: value}))
    assert made.obstacle(relay) == ""
    begun: dict[str, Any] = {field: [{"index": 0, "id": "c", "function": {"name": "f", "arguments": ""}}]}
    relay.feed(chunk(**begun))
    assert made.obstacle(relay) == "a tool call had begun"


def test_the_next_deployment_is_asked_for_the_rest_with_what_is_left_of_the_cap() -> None:
    made = continuation_after(["a", "b", "c"])
    ask = made.rest_request(10)
    messages = msgspec.json.decode(bytes(ask.fields["messages"]))
    assert messages[1:] == [{"role": "assistant", "content": "abc"}, {"role": "user", "content": INSTRUCTION}]
    assert ask.cap == 7 and ask.messages == 3 and ask.size > made.ask.size
    assert made.rest_request(2).cap == 1


def test_events_pass_unchanged_while_nothing_is_broken() -> None:
    made = begin_continuation(read(b'{"model":"auto","messages":[{"role":"user","content":"q"}],"stream":true}'))
    relay = made.relay(ChatRelay(False))
    data = (
        b'{"id":"x","model":"m","odd":1e3,"choices":[{"index":0,"delta":{"content":"a\\u00e9"},"finish_reason":null}]}'
    )
    assert relay.feed(data) == format_event(data)


async def test_the_rest_of_a_stream_reserves_its_longer_prompt(tmp_path: Path) -> None:
    """The text so far is input of the next attempt, and what it may still write is less."""
    priced = {"rates": Rates(input=PICO, output=PICO)}
    async with call_rig(tmp_path, more={"one": priced, "two": priced}, workloads=RESUME) as rig:
        rig.play("one", mode="cut", at=5, chunk_ms=3)
        one_stream(await rig.stream())
        first, second = [r for r in await rig.records() if isinstance(r, Reservation)]
        size = len(b'{"role":"assistant","content":"You asked: a b "},') + len(INSTRUCTION)
        assert second.bound - first.bound > (size - 5) * PICO // 1_000_000
        assert second.charges[0].amount == second.bound
        await rig.books()


async def test_a_resumed_stream_is_not_given_again_from_the_cache(tmp_path: Path) -> None:
    """Two models wrote it, and neither of them all of it; a whole one is kept."""
    kept_for = {"cache": Cache(seconds=60, max_bytes=1 << 20, scope="workload")}
    async with call_rig(tmp_path, workloads={"assistant": RESUME["assistant"] | kept_for}) as rig:
        rig.play("one", mode="cut", chunk_ms=3, times=1)
        one_stream(await rig.stream())
        one_stream(await rig.stream())
        assert (rig.models["one"].counted, rig.models["two"].counted) == (2, 1)
        one_stream(await rig.stream())
        assert (rig.models["one"].counted, rig.models["two"].counted) == (2, 1), "the whole one is given again"


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages", "/v1/responses", "/v1/completions"])
async def test_whoever_goes_on_with_a_stream_sees_the_stand_in(tmp_path: Path, path: str) -> None:
    """The client has the value, and what it has was sent on as the text so far."""
    settings = {"guardrails": Guardrails(input={"personal_data": "mask"}, hold_bytes=16, budget_ms=10_000)}
    workloads = {"assistant": {**settings, **reliability(on_broken_stream="resume")}}
    async with call_rig(tmp_path, workloads=workloads) as rig:
        text = "I wrote to <email_1> " + "and so on " * 20
        rig.play("one", say=text, mode="cut", at=20, chunk_ms=2)
        rig.play("two", say=text)
        email = "ana@acme.example"
        asked = f"I am {email}"
        field = {"/v1/responses": "input", "/v1/completions": "prompt"}.get(path, "messages")
        body = {field: asked if field != "messages" else [{"role": "user", "content": asked}]}
        cap = "max_output_tokens" if field == "input" else "max_tokens"
        status, got = await post(rig, path, {"model": "auto", "stream": True, cap: 400, **body})
        assert status == 200 and email in got.decode()
        request = rig.models["two"].last
        assert request is not None and b"I wrote to <email_1> and" in request.body
        assert email not in request.body.decode()
        await rig.books()
