"""The contract of docs/streams.md: one test for each of its rows, named there."""

from __future__ import annotations

import asyncio
import errno
import os
import re
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from decimal import Decimal
from math import ceil
from pathlib import Path
from typing import Any

import openai
import pytest
import uvloop
from tests.contract.h2_server import H2Server
from tests.unit.call_rig import BOUND, Rig, Stream, call_rig, upstream, wait_until

from groundplan.blueprint.model import Rates
from groundplan.core.money import MAX_AMOUNT, PICO
from groundplan.gateway.upstream import http1_pool
from groundplan.ledger.model import Settlement

ROOT = Path(__file__).parents[2]
FAST = {"first_token_ms": 400, "idle_ms": 300}


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    async with call_rig(tmp_path) as made:
        yield made


@pytest.fixture
async def fast(tmp_path: Path) -> AsyncIterator[Rig]:
    """The first deployment is given up soon."""
    async with call_rig(tmp_path, more={"one": FAST}) as made:
        yield made


def test_every_row_of_the_contract_has_its_test() -> None:
    text = (ROOT / "docs" / "streams.md").read_text()
    tables = re.findall(r"^\|[^|]*\|.*\| Test \|\n\|[-|]+\|\n((?:\|.*\|\n)+)", text, re.MULTILINE)
    rows = [row for table in tables for row in table.splitlines()]
    named = [re.findall(r"`(test_[a-z0-9_]+)`", row.rsplit("|", 2)[1]) for row in rows]
    sources = "".join(path.read_text() for path in Path(__file__).parent.glob("test_gateway_*.py"))
    assert len(tables) == text.count("\n| What happens |") and len(rows) >= 90
    assert [row for row, names in zip(rows, named, strict=True) if not names] == []
    assert [name for names in named for name in names if f"def {name}(" not in sources] == []


def check_complete(stream: Stream, deployment: str = "one") -> None:
    """A right answer, that says nothing of what happened before it."""
    assert stream.status == 200 and stream.errors == []
    assert stream.text == "You asked: a b c d" and stream.finish == ["stop"] and stream.done
    assert stream.facts["deployment"] == deployment


def broken(stream: Stream, reason: str) -> None:
    """A part of the answer, one error event in OpenAI's shape, and nothing after it."""
    assert stream.status == 200 and stream.text != "" and "You asked: a b c d".startswith(stream.text.strip())
    (error,) = stream.errors
    assert stream.events[-1] == {"error": error} and stream.finish == []
    assert (error["type"], error["code"]) == ("api_error", "stream_broken")
    assert reason in error["message"] and error["hint"] and error["call_id"]
    assert Decimal(error["cost_usd"]) > 0, "what was made is paid for"


# before the first byte -----------------------------------------------------------------------------------------------


async def fallback(rig: Rig, outcome: str, **script: Any) -> Settlement:
    rig.play("one", **script)
    check_complete(await rig.stream(), "two")
    first, second = await rig.settlements()
    assert (first.outcome, second.outcome) == (outcome, "ok")
    assert first.cost == 0 if outcome == "not_billed" else 0 < first.cost <= BOUND
    await rig.books()
    return first


async def test_no_connection(rig: Rig) -> None:
    assert (await fallback(rig, "failed", mode="down")).cost == BOUND


async def test_what_was_wrong_with_an_attempt_is_told_where_no_status_says_it(tmp_path: Path) -> None:
    async with call_rig(tmp_path, more={"one": {"first_token_ms": 50}}) as rig:
        rig.play("one", mode="stall")
        check_complete(await rig.stream(), "two")
        rig.play("one", mode="malformed")
        check_complete(await rig.stream(), "two")
        rig.change_deployment("one", url="http://127.0.0.1:1/v1")
        check_complete(await rig.stream(), "two")
        first = [settled for settled in await rig.settlements() if settled.attempt == 0]
    assert [settled.flags[-1] for settled in first] == ["timeout", "malformed", "no_connection"]
    assert (first[-1].outcome, first[-1].cost) == ("not_billed", 0)


@pytest.mark.parametrize(
    ("number", "told", "hint"),
    [
        (errno.EMFILE, "Too many open files", "limit of open files"),
        (errno.EADDRNOTAVAIL, "no local port is free", "ip_local_port_range"),
    ],
)
async def test_a_gateway_without_room_for_connections_blames_nobody(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, number: int, told: str, hint: str
) -> None:
    """As where it may have no more files open: no deployment is said to fail, and it is told what to do."""

    async def full(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as system:
        system.setattr(http1_pool, "open_connection", full)
        for _ in range(4):
            reply = await rig.chat()
            assert (reply.status, reply.code) == (503, "upstream_failed")
            error = reply.json["error"]
            assert told in error["message"] and hint in error["hint"]
    assert not rig.gateway.health.has_problems
    assert {(each.outcome, each.cost, *each.flags) for each in await rig.settlements()} == {
        ("not_billed", 0, "no_room")
    }
    await rig.books()


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("status", [307, *range(401, 406), 408, 409, 410, 412, 421, 425, 429, 498, 500, 501, 503, 529])
async def test_an_error_status(rig: Rig, status: int, stream: bool) -> None:
    await told_elsewhere(rig, status, stream, "not_billed", 0)


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("status", [424, 499, 502, 504, 505, 520, 599])
async def test_an_error_status_that_may_have_been_billed(rig: Rig, status: int, stream: bool) -> None:
    await told_elsewhere(rig, status, stream, "failed", BOUND)


async def told_elsewhere(rig: Rig, status: int, stream: bool, outcome: str, cost: int) -> None:
    rig.play("one", mode="error", status=status)
    reply = await rig.chat(stream=stream)
    assert reply.status == 200 and reply.headers["groundplan-deployment"] == "two"
    first, second = await rig.settlements()
    assert (first.outcome, first.cost, first.http_status, second.outcome) == (outcome, cost, status, "ok")
    await rig.books()


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("status", [400, 406, 411, 413, 415, 418, 422, 451])
async def test_a_refusal_of_the_callers_request(rig: Rig, status: int, stream: bool) -> None:
    """It is the caller's, who gets it; nobody else is asked, and nothing is held against the deployment."""
    rig.play("one", mode="error", status=status)
    reply = await rig.chat(stream=stream)
    assert (reply.status, reply.code, rig.models["two"].counted) == (status, "scripted_error", 0)
    (only,) = await rig.settlements()
    assert (only.outcome, only.cost) == ("not_billed", 0) and not rig.gateway.health.has_problems
    await rig.books()


async def test_no_first_byte_in_time(fast: Rig) -> None:
    began = time.monotonic()
    assert (await fallback(fast, "failed", mode="stall")).cost == BOUND
    assert time.monotonic() - began < 10


async def test_only_comments_and_never_a_first_event(fast: Rig) -> None:
    """Keep-alives keep a connection open; they are no answer."""
    began = time.monotonic()
    assert (await fallback(fast, "failed", mode="nothing_after")).cost == BOUND
    assert time.monotonic() - began < 10


async def test_an_empty_stream(rig: Rig) -> None:
    await fallback(rig, "failed", mode="empty")


async def test_status_200_that_is_no_stream(rig: Rig) -> None:
    await fallback(rig, "failed", mode="wrong_type")


@pytest.mark.parametrize("mode", ["malformed", "error_event", "no_finish", "cut", "huge"])
async def test_a_first_event_that_cannot_be_used(rig: Rig, mode: str) -> None:
    await fallback(rig, "failed", mode=mode, at=-1)


@pytest.mark.parametrize("mode", ["error_event", "malformed", "empty", "wrong_type"])
async def test_a_whole_answer_of_status_200_that_is_none(rig: Rig, mode: str) -> None:
    rig.play("one", mode=mode)
    reply = await rig.chat()
    assert reply.status == 200 and reply.json["groundplan"]["deployment"] == "two"
    await rig.books()


# after the first byte ------------------------------------------------------------------------------------------------


async def breaks(rig: Rig, reason: str, **script: Any) -> Settlement:
    rig.play("one", chunk_ms=10, **script)
    stream = await rig.stream()
    broken(stream, reason)
    (only,) = await rig.settlements()
    assert (only.outcome, only.estimated) == ("failed", True) and 0 < only.cost <= BOUND
    await rig.books()
    return only


async def test_a_cut_connection(rig: Rig) -> None:
    await breaks(rig, "closed the connection", mode="cut")


async def test_a_stream_whose_end_cannot_be_written_down(rig: Rig) -> None:
    rig.play("one", chunk_ms=50)
    asked = asyncio.create_task(rig.stream())
    await wait_until(lambda: any(each.exchange.response.started for each in rig.gateway.streams))
    rig.gateway.journal._seal("fdatasync failed: Input/output error")
    stream = await asked
    (error,) = stream.errors
    assert stream.events[-1] == {"error": error} and stream.finish == [] and not stream.done
    assert error["code"] == "journal_unavailable" and "fdatasync failed" in error["message"]
    assert error["hint"] and error["call_id"]


async def test_a_stall(fast: Rig) -> None:
    began = time.monotonic()
    await breaks(fast, "did not answer in time", mode="stall_late")
    assert time.monotonic() - began < 10


async def test_only_comments_from_there_on(fast: Rig) -> None:
    began = time.monotonic()
    await breaks(fast, "did not answer in time", mode="comments")
    assert time.monotonic() - began < 10


def test_only_comments_from_there_on_by_the_clock_that_workers_have(tmp_path: Path) -> None:
    """uvloop's stands still within a turn of the loop, and whole seconds add up exactly."""

    async def stalls() -> None:
        async with call_rig(tmp_path, more={"one": {"idle_ms": 1000}}) as rig:
            await asyncio.wait_for(breaks(rig, "did not answer in time", mode="comments"), 10)

    uvloop.run(stalls())


async def test_a_malformed_frame(rig: Rig) -> None:
    await breaks(rig, "not what the API promises", mode="malformed")


async def test_an_error_event_of_the_upstream(rig: Rig) -> None:
    only = await breaks(rig, "reported an error", mode="error_event")
    assert only.http_status == 200


async def test_an_end_without_a_finish_reason(rig: Rig) -> None:
    await breaks(rig, "ended early", mode="no_finish")


async def test_a_huge_event(rig: Rig) -> None:
    await breaks(rig, "too large", mode="huge")


async def test_a_break_counts_against_the_deployment(rig: Rig) -> None:
    rig.play("one", mode="cut")
    for _ in range(3):
        assert (await rig.stream()).errors
    assert rig.gateway.health.states(asyncio.get_running_loop().time()) == {"one": "open"}
    check_complete(await rig.stream(), "two")


async def test_official_clients_raise_on_the_error_event(rig: Rig) -> None:
    """The openai client yields what came, then raises APIError with our message."""
    rig.play("one", mode="cut")
    client = openai.AsyncOpenAI(base_url=f"http://127.0.0.1:{rig.port}/v1", api_key="assistant", max_retries=0)
    text = ""
    with pytest.raises(openai.APIError, match="the answer broke off"):
        async for chunk in await client.chat.completions.create(
            model="auto", messages=[{"role": "user", "content": "a b c d"}], max_tokens=20, stream=True
        ):
            text += chunk.choices[0].delta.content or ""
    assert text.startswith("You asked:") and "d" not in text.split()
    await client.close()


# what is right, though it may look odd -------------------------------------------------------------------------------


async def good(rig: Rig, **script: Any) -> Settlement:
    rig.play("one", **script)
    check_complete(await rig.stream())
    (only,) = await rig.settlements()
    assert only.outcome == "ok"
    await rig.books()
    return only


async def test_a_missing_done_after_the_finish_reason(rig: Rig) -> None:
    assert not (await good(rig, mode="no_done")).estimated


async def test_lines_that_end_with_cr_lf(rig: Rig) -> None:
    await good(rig, mode="crlf")


async def test_a_slow_stream_that_never_pauses_too_long(rig: Rig) -> None:
    rig.change_deployment("one", first_token_ms=900, idle_ms=900)
    await good(rig, chunk_ms=200)  # for longer than that in all


async def test_several_copies_each_with_their_finish(rig: Rig) -> None:
    stream = await rig.stream(n=3)
    assert stream.finish == ["stop"] * 3 and stream.done and stream.facts["deployment"] == "one"


async def test_a_tool_call(rig: Rig) -> None:
    rig.play("one", tool=True)
    stream = await rig.stream()
    pieces = [c["delta"]["tool_calls"][0]["function"].get("arguments", "") for chunk in stream.chunks
              for c in chunk["choices"] if c["delta"].get("tool_calls")]  # fmt: skip
    assert "".join(pieces) == '{"what": "it"}' and stream.finish == ["tool_calls"]


# usage ---------------------------------------------------------------------------------------------------------------

FREE = Rates(input=0, output=0)


async def test_usage_above_the_bound(rig: Rig) -> None:
    only = await good(rig, mode="miscount")
    assert only.cost > BOUND and only.flags == ["over_bound"]
    assert (await rig.chat()).code == "killed", "its workload is stopped in this worker at once"


@pytest.mark.parametrize("stream", [True, False])
async def test_usage_that_costs_more_than_can_be_written_down(tmp_path: Path, stream: bool) -> None:
    """It is recorded at the most that can, and stops the workload like any other above its bound."""
    rates = Rates(input=0, output=600 * PICO, cache_read=0)
    async with call_rig(tmp_path, ["one"], more={"one": {"rates": rates}}) as rig:
        told = {"prompt_tokens": 4, "completion_tokens": 10**12, "total_tokens": 10**12 + 4}
        rig.play("one", usage=told)
        if stream:
            assert (await rig.stream(stream_options={"include_usage": True})).done
        else:
            assert (await rig.chat()).status == 200
        (only,) = await rig.settlements()
        assert (only.cost, only.flags) == (MAX_AMOUNT, ["over_bound"])
        assert (await rig.chat()).code == "killed"


@pytest.mark.parametrize(
    ("rates", "each"), [(FREE, 1.0), (FREE, 0.25), (Rates(input=PICO // 10**7, output=10 * PICO), 1.0)]
)
async def test_more_tokens_of_a_prompt_than_its_bytes_can_be(tmp_path: Path, rates: Rates, each: float) -> None:
    """Also where it costs less than was reserved, or nothing. Of a byte there may be less than one."""
    async with call_rig(tmp_path, ["one"], more={"one": {"rates": rates, "tokens_per_byte": each}}) as rig:
        body = rig.request(stream=True, stream_options={"include_usage": True}).partition(b"\r\n\r\n")[2]
        most = ceil(len(body) * each) + 3 * 16
        for prompt in (most, most + 1):
            rig.play("one", usage={"prompt_tokens": prompt, "completion_tokens": 4, "total_tokens": prompt + 4})
            assert (await rig.stream(stream_options={"include_usage": True})).done
        assert (await rig.chat()).code == "killed"
        good, over = await rig.settlements()
        assert good.flags == [] and over.flags == ["over_bound", "over_input"] and over.cost < BOUND


async def test_a_service_tier_without_a_price(rig: Rig) -> None:
    only = await good(rig, tier="scale")
    assert only.flags == ["unknown_tier"] and only.usage.service_tier == "scale"
    assert only.cost == only.usage.output * 10_000_000 > 0


async def test_usage_below_what_streamed(rig: Rig) -> None:
    rig.play("one", mode="undercount")
    assert (await rig.stream(messages=[{"role": "user", "content": "x" * 150}])).done
    (only,) = await rig.settlements()
    assert (only.usage.output, only.cost, only.flags) == (1, 10_000_000, ["under_count"])


async def test_no_usage_at_all(rig: Rig) -> None:
    """What streamed is counted by us, never too little, and marked as estimated."""
    rig.play("one", mode="cut", at=1)
    stream = await rig.stream()
    (only,) = await rig.settlements()
    assert only.flags == ["no_usage", "cut"] and only.estimated
    assert only.usage.output >= len(stream.text.split())


async def test_what_is_put_in_front_counts_where_nobody_reports_usage(tmp_path: Path) -> None:
    prompt = "Be brief. " * 90
    async with call_rig(tmp_path, ["one"], workloads={"assistant": {"system_prompt": prompt}}) as rig:
        rig.play("one", mode="cut", at=1)
        await rig.stream()
        (only,) = await rig.settlements()
    assert only.flags == ["no_usage", "cut"] and only.usage.input >= len(prompt) + len("a b c d")


# the client ----------------------------------------------------------------------------------------------------------


async def leaves(rig: Rig, seen: bytes, *, stream: bool) -> float:
    """Seconds from the client's disconnect to the upstream's."""
    model, upstream = rig.models["one"], rig.upstreams["one"]
    reader, writer = await asyncio.open_connection("127.0.0.1", rig.port)
    writer.write(rig.request(stream=stream))
    if seen:
        await reader.readuntil(seen)
    else:
        await wait_until(lambda: model.counted > 0)
    left = time.monotonic()
    writer.transport.abort()
    await wait_until(lambda: not upstream.connections)
    took = time.monotonic() - left
    await wait_until(lambda: rig.gateway.running_calls == 0)
    return took


@pytest.mark.parametrize("http", [1, 2])
@pytest.mark.parametrize(("stream", "seen"), [(True, b""), (True, b"You"), (False, b"")])
async def test_a_client_that_goes_away_cancels_upstream_within_100_ms(
    tmp_path: Path, http: int, stream: bool, seen: bytes
) -> None:
    async with upstream("behind") as (model, server, port), H2Server(port).listening(None) as front:
        at = {"one": port if http == 1 else front.port}
        async with call_rig(tmp_path, ["one"], ports=at, more={"one": {"http": http}}) as rig:
            rig.models["one"], rig.upstreams["one"] = model, server
            best = 1.0
            for _ in range(25):  # the machine may be busy elsewhere; once is proof that nothing waits
                rig.play("one", tokens=20, chunk_ms=50, latency_ms=0 if seen else 2000)
                model.counted = 0
                best = min(best, await leaves(rig, seen, stream=stream))
                if best < 0.1:
                    break
    assert best < 0.1
    assert (front.resets > 0) == (http == 2), (
        "what was begun is passed on before it ends, and reset where nobody reads it"
    )


async def settle_disconnected(
    tmp_path: Path, rule: str, *, told: bool = False, http: int = 1, **script: Any
) -> tuple[Settlement, Any]:
    """`told`: the upstream says with each chunk how many tokens it was so far, as vLLM does where a caller asks so."""
    options = {"include_usage": True, "continuous_usage_stats": True}
    more: dict[str, Any] = {"stream_options": options} if told else {}
    async with AsyncExitStack() as stack:
        model, _, port = await stack.enter_async_context(upstream("behind"))
        at = {"one": port}
        if http == 2:
            at = {"one": (await stack.enter_async_context(H2Server(port).listening(None))).port}
        place = {"billing_on_cancel": rule, "http": http}
        rig = await stack.enter_async_context(call_rig(tmp_path, ["one"], more={"one": place}, ports=at))
        rig.models["one"] = model
        rig.play("one", **{"tokens": 12, "chunk_ms": 20, **script})
        reader, writer = await asyncio.open_connection("127.0.0.1", rig.port)
        writer.write(rig.request(stream=True, **more))
        await reader.readuntil(b"asked:")
        writer.transport.abort()
        await wait_until(lambda: rig.gateway.running_calls == 0)
        await wait_until(lambda: not rig.gateway.background)
        (only,) = await rig.settlements()
        finish = (await rig.records())[-1]
        await rig.books()
        assert only.outcome == "cancelled"
        return only, finish


@pytest.mark.parametrize("told", [False, True])
async def test_cancelled_and_billed_as_generated(tmp_path: Path, told: bool) -> None:
    only, _ = await settle_disconnected(
        tmp_path, "generated", told=told, chunk_ms=1_000
    )  # nothing more comes before the client is gone
    assert only.estimated and 0 < only.cost < BOUND and only.usage.output == len("You asked: ")


@pytest.mark.parametrize("told", [False, True])
async def test_cancelled_and_billed_in_full(tmp_path: Path, told: bool) -> None:
    only, _ = await settle_disconnected(tmp_path, "full", told=told)
    assert only.estimated and only.cost == BOUND


@pytest.mark.parametrize("http", [1, 2])
@pytest.mark.parametrize("told", [False, True])
async def test_cancelled_and_drained(tmp_path: Path, told: bool, http: int) -> None:
    """Nobody listens any more, and its usage is what the upstream says at the end."""
    only, _ = await settle_disconnected(tmp_path, "drain", told=told, http=http)
    assert not only.estimated and only.usage.output == 12 and only.cost == 12 * 10_000_000


@pytest.mark.parametrize("told", [False, True])
async def test_drained_in_vain(tmp_path: Path, told: bool) -> None:
    only, _ = await settle_disconnected(tmp_path, "drain", told=told, mode="cut", at=6)
    assert only.estimated and only.cost == BOUND


async def test_a_slow_client_slows_the_upstream(rig: Rig) -> None:
    """Nothing is buffered without bound: with a client that reads nothing, the upstream is not read either."""
    rig.play("one", tokens=60_000)
    reader, writer = await asyncio.open_connection("127.0.0.1", rig.port, limit=1024)
    writer.write(rig.request(stream=True, max_tokens=4096, messages=[{"role": "user", "content": "long " * 40}]))
    await reader.readuntil(b"data:")
    await asyncio.sleep(0.3)
    held = [connection.transport.get_write_buffer_size() for connection in rig.server.connections
            if connection.transport is not None]  # fmt: skip
    assert max(held, default=0) < 4 << 20
    writer.transport.abort()
    await wait_until(lambda: rig.gateway.running_calls == 0)
    await rig.books()
