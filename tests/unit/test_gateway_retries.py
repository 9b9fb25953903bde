"""Retries, fallbacks and breakers: when a failed attempt is tried again, where, and after how long."""

from __future__ import annotations

import asyncio
import json
import time
from contextlib import closing, suppress
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import pytest
import uvloop
from hypothesis import given
from hypothesis import strategies as st
from tests.integration.gateway_stack import deployment
from tests.unit.call_rig import call_rig, read_records, reliability, wait_until
from tests.unit.raw_upstream import HI, ROLE, encode_events, json_response, raw_upstream_rig

from groundplan.blueprint.model import ProviderKey, Reliability
from groundplan.gateway.call.attempts.retry import may_retry, retry_after, retry_delay
from groundplan.gateway.upstream import health
from groundplan.gateway.upstream.health import SLOW_SAMPLES, Health
from groundplan.gateway.upstream.key_pool import KeyPool
from groundplan.ledger.model import Settlement

NOW = datetime(2026, 11, 25, 12, 0, 0, tzinfo=UTC)
_SAID = encode_events(ROLE, HI)
FIRST = b"%x\r\n%b\r\n" % (len(_SAID), _SAID)
"""One chunk with the beginning of a stream."""


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (b"7", 7.0),
        (b" 1.5 ", 1.5),
        (b"0", 0.0),
        (format_datetime(NOW + timedelta(seconds=30), usegmt=True).encode(), 30.0),
        (format_datetime(NOW - timedelta(seconds=30), usegmt=True).encode(), 0.0),
        (format_datetime((NOW + timedelta(seconds=30)).replace(tzinfo=None)).encode(), 30.0),  # says -0000
        (b"-3", None),
        (b"nan", None),
        (b"inf", None),
        (b"soon", None),
        (b"", None),
        (b"\xff\xfe", None),
        (b"86401", 86_400.0),
        (b"99999999", 86_400.0),
        (b"1e400", None),
        (b"Wed, 21 Oct 99999999999 07:28:00 GMT", 86_400.0),
        (b"Wed, 41 Oct 2026 07:28:00 GMT", None),
        (None, None),
    ],
)
def test_retry_after_is_read_as_seconds_and_as_a_date(value: bytes | None, seconds: float | None) -> None:
    assert retry_after(value, NOW) == seconds


@given(st.integers(0, 40), st.none() | st.floats(0, 100), st.floats(0, 1))
def test_a_pause_doubles_up_to_its_most_and_never_undercuts_what_was_asked(
    before: int, asked: float | None, dice: float
) -> None:
    settings = Reliability(same=3, backoff_ms=200, max_backoff_ms=5000)
    wait = retry_delay(settings, before, asked, lambda: dice)
    most = min(5.0, 0.2 * 2**before)
    assert most / 2 <= wait or (asked is not None and wait >= asked)
    assert wait <= most if asked is None else wait <= max(most / 2, asked) + most / 2
    assert asked is None or wait >= asked


def test_a_long_wait_is_not_worth_it_where_another_deployment_can_be_asked() -> None:
    settings = Reliability(same=2, max_backoff_ms=1000)
    assert may_retry(settings, 0, 0.5, 10, has_others=True)
    assert not may_retry(settings, 0, 3.0, 10, has_others=True)
    assert may_retry(settings, 0, 3.0, 10, has_others=False)
    assert not may_retry(settings, 0, 3.0, 2.0, has_others=False), "the deadline comes first"
    assert not may_retry(settings, 2, 0.1, 10, has_others=False), "no more than declared"


async def test_the_same_deployment_is_tried_again_before_the_next_one(tmp_path: Path) -> None:
    async with call_rig(tmp_path, workloads={"assistant": reliability(same=2, backoff_ms=20) | {"attempts": 4}}) as rig:
        rig.play("one", mode="error", status=503, times=2)
        reply = await rig.chat()
        assert reply.status == 200 and reply.json["groundplan"]["deployment"] == "one"
        assert (rig.models["one"].counted, rig.models["two"].counted) == (3, 0)
        outcomes = [s.outcome for s in await rig.settlements()]
        assert outcomes == ["not_billed", "not_billed", "ok"]
        await rig.books()


async def test_after_the_last_repetition_the_next_deployment_answers(tmp_path: Path) -> None:
    async with call_rig(tmp_path, workloads={"assistant": reliability(same=1, backoff_ms=10)}) as rig:
        rig.play("one", mode="error", status=500)
        reply = await rig.chat()
        assert reply.json["groundplan"]["deployment"] == "two"
        assert (rig.models["one"].counted, rig.models["two"].counted) == (2, 1)
        await rig.books()


async def test_attempts_are_the_most_in_all(tmp_path: Path) -> None:
    settings = reliability(same=5, backoff_ms=1) | {"attempts": 3}
    async with call_rig(tmp_path, workloads={"assistant": settings}) as rig:
        rig.play("one", mode="error", status=503)
        rig.play("two", mode="error", status=503)
        reply = await rig.chat()
        assert (reply.status, reply.code) == (503, "upstream_failed")
        assert rig.models["one"].counted + rig.models["two"].counted == 3
        await rig.books()


@pytest.mark.parametrize(("same", "attempts"), [(1, 2), (2, 3), (9, 3), (9, 4)])
async def test_the_last_attempt_is_the_next_deployments(tmp_path: Path, same: int, attempts: int) -> None:
    """However often the first is to be asked again: an outage stays invisible where another one could answer."""
    settings = reliability(same=same, backoff_ms=1) | {"attempts": attempts}
    async with call_rig(tmp_path, workloads={"assistant": settings}) as rig:
        rig.play("one", mode="error", status=503)
        told = [await rig.chat() for _ in range(4)]
        assert [reply.json["groundplan"]["deployment"] for reply in told] == ["two"] * 4
        assert rig.models["one"].counted >= attempts - 1
        await rig.books()


async def test_a_deployment_that_asks_for_time_gets_it_and_the_fallback_answers_meanwhile(tmp_path: Path) -> None:
    async with call_rig(
        tmp_path, workloads={"assistant": reliability(same=2, backoff_ms=1, max_backoff_ms=200)}
    ) as rig:
        rig.play("one", mode="error", status=429, retry_after="30")
        for _ in range(3):
            assert (await rig.chat()).json["groundplan"]["deployment"] == "two"
        assert rig.models["one"].counted == 1, "it asked to be left alone"
        assert rig.gateway.health.states(asyncio.get_running_loop().time()) == {"one": "open"}
        assert rig.gateway.health.reasons() == {"one": "it asked to be called later"}


@pytest.mark.parametrize(("asked", "left"), [(300.0, 300.0), (86_400.0, 600.0)])
def test_a_long_retry_after_is_believed_and_then_one_call_finds_out(asked: float, left: float) -> None:
    health, places = Health(), [deployment(name, 1) for name in ("one", "two")]
    health.record_failure("one", 100.0, asked)
    assert health.retry_after_left("one", 100.0) == left and health.retry_after_left("one", 99.0 + left) == 1.0
    assert [place.name for place in health.order(places, 99.0 + left)] == ["two", "one"]
    assert health.retry_after_left("one", 100.0 + left) == 0.0
    assert [place.name for place in health.order(places, 100.0 + left)] == ["one", "two"]
    assert health.may_attempt("one", 100.0 + left), "this call tries it"
    assert [place.name for place in health.order(places, 100.0 + left)] == ["two", "one"], "others do not"


@pytest.mark.parametrize("whole", [False, True])
async def test_a_pause_that_google_asks_for_in_its_answer_is_kept(tmp_path: Path, whole: bool) -> None:
    """Its own API and its OpenAI-shaped one say it in no header."""
    info = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "20.5s"}
    error = {"error": {"code": 429, "message": "quota", "status": "RESOURCE_EXHAUSTED", "details": ["x", {}, info]}}
    body = json.dumps(error if whole else [error]).encode()
    async with raw_upstream_rig(tmp_path, json_response(body, b"429 Too Many Requests")) as rig:
        for _ in range(2):
            reply = await rig.chat()
            assert reply.status == 503 and 18 <= int(reply.headers["retry-after"]) <= 21


async def test_a_lone_deployment_that_asks_for_time_is_not_asked_and_the_client_is_told_when(tmp_path: Path) -> None:
    async with call_rig(tmp_path, ["one"]) as rig:
        rig.play("one", mode="error", status=503, retry_after="20")
        for _ in range(2):
            reply = await rig.chat()
            assert reply.status == 503 and 18 <= int(reply.headers["retry-after"]) <= 20
        assert rig.models["one"].counted == 1


async def test_a_lone_deployment_that_asks_for_far_too_long_is_found_out_about(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody else can answer, and a pause of years is garbage: one call finds out after a minute."""
    garbage = {"mode": "error", "status": 503, "retry_after": "99999999", "times": 1}
    async with call_rig(tmp_path / "told", ["one"]) as rig:
        rig.play("one", **garbage)
        for _ in range(2):
            assert 58 <= int((await rig.chat()).headers["retry-after"]) <= 60
        assert rig.models["one"].counted == 1
    monkeypatch.setattr(health, "MAX_SOLE_RETRY_AFTER_SECONDS", 1.0)
    async with call_rig(tmp_path / "alone", ["one"]) as rig:
        rig.play("one", **garbage)
        assert ((await rig.chat()).status, (await rig.chat()).status, rig.models["one"].counted) == (503, 503, 1)
        await asyncio.sleep(1.1)
        for _ in range(3):
            assert (await rig.chat()).status == 200
        assert rig.gateway.health.states(asyncio.get_running_loop().time()) == {}
        await rig.books()
    async with call_rig(tmp_path / "fallback") as rig:
        rig.play("one", **garbage)
        for wait in (0, 0, 1.1):
            await asyncio.sleep(wait)
            assert (await rig.chat()).json["groundplan"]["deployment"] == "two"
        assert rig.models["one"].counted == 1, "somebody else can answer"
        rig.play("two", mode="error", status=500)
        assert (await rig.chat()).json["groundplan"]["deployment"] == "one"
        await rig.books()


def test_one_call_at_a_time_finds_out_about_a_long_pause() -> None:
    found = Health()
    found.record_failure("one", 100.0, 5000.0)
    assert (found.retry_after_left("one", 130.0), found.retry_after_left("one", 130.0, is_last_resort=True)) == (
        570.0,
        30.0,
    )
    assert [bool(found.begin_early_probe("one", at)) for at in (159.0, 160.0, 160.5, 161.0)] == [
        False,
        True,
        False,
        True,
    ]
    turn = found.begin_early_probe("one", 162.0)
    assert turn is not None and not found.begin_early_probe("one", 162.1)
    found.cancel_probe(turn, 162.2)
    assert found.begin_early_probe("one", 162.2), "that call was not sent"
    found.cancel_probe(turn, 162.3)
    assert not found.begin_early_probe("one", 162.4), "it is another one's turn"
    found.record_success("one", began=99.0)
    assert found.retry_after_left("one", 162.0) == 538.0, "that one began before it asked"
    found.record_failure("one", 163.0, 5000.0)
    assert not found.begin_early_probe("one", 164.0) and found.begin_early_probe("one", 223.0)
    found.record_success("one", began=223.0)
    assert found.retry_after_left("one", 224.0) == 0.0 and found.is_closed("one")
    found.record_failure("one", 300.0, 20.0)
    assert found.retry_after_left("one", 310.0, is_last_resort=True) == 10.0, "a pause of seconds is kept"


def test_where_every_key_rests_for_hours_the_first_is_used_after_a_minute() -> None:
    pool = KeyPool("ab")
    assert pool.record_refusal(0, 429, 100.0, 90_000.0) and not pool.record_refusal(1, 429, 130.0, 90_000.0)
    assert [pool.order(at) for at in (159.0, 160.0, 190.0)] == [[], [0], [0, 1]]
    assert not pool.record_refusal(0, 401, 200.0, None) and pool.order(201.0) == [1]
    assert pool.order(730.0) == [0, 1]


async def test_a_client_is_told_to_come_again_as_soon_as_anybody_may_answer(tmp_path: Path) -> None:
    async with call_rig(tmp_path) as rig:
        rig.play("one", mode="error", status=503, retry_after="20")
        rig.play("two", mode="error", status=503)
        for _ in range(2):
            assert (await rig.chat()).headers["retry-after"] == "1"


async def test_a_short_retry_after_is_waited_for(tmp_path: Path) -> None:
    async with call_rig(tmp_path, ["one"], workloads={"assistant": reliability(same=1, backoff_ms=1)}) as rig:
        rig.play("one", mode="error", status=429, retry_after="1", times=1)
        began = time.monotonic()
        assert (await rig.chat()).status == 200
        assert time.monotonic() - began >= 0.99


def test_a_retry_after_between_the_steps_of_the_clock_is_waited_for(tmp_path: Path) -> None:
    """A worker's loop counts whole milliseconds."""

    async def calls() -> None:
        async with call_rig(tmp_path, ["one"], workloads={"assistant": reliability(same=1, backoff_ms=1)}) as rig:
            for step in range(40):
                rig.play("one", mode="error", status=429, retry_after=f"{0.0301 + step * 0.00021:.5f}", times=1)
                assert (await rig.chat()).status == 200, step

    uvloop.run(calls())


async def test_each_other_key_is_tried_once_and_not_again_and_again(tmp_path: Path) -> None:
    """Each key rests for a second, and is refused for longer: the first one would be free again by then."""
    files = [tmp_path / name for name in ("a", "b")]
    for file in files:
        file.write_text("secret")
    keys = {"one": {"keys": [ProviderKey(key=f"file:{file}") for file in files], "first_token_ms": 5000}}
    async with call_rig(tmp_path / "home", ["one"], more=keys, workloads={"assistant": {"attempts": 1}}) as rig:
        rig.play("one", mode="error", status=429, retry_after="0", latency_ms=1100)
        assert (await rig.chat(max_tokens=5)).code == "upstream_failed"
        assert rig.models["one"].counted == 2
        await rig.books()


async def test_the_deadline_ends_the_retries(tmp_path: Path) -> None:
    settings = reliability(same=9, backoff_ms=300, max_backoff_ms=300) | {"attempts": 10, "deadline_ms": 500}
    async with call_rig(tmp_path, ["one"], workloads={"assistant": settings}) as rig:
        rig.play("one", mode="error", status=503)
        began = time.monotonic()
        assert (await rig.chat()).status == 503
        assert time.monotonic() - began < 10 and rig.models["one"].counted <= 4
        await rig.books()


@pytest.mark.parametrize("status", [200, 400])
async def test_an_upstream_that_sends_a_byte_now_and_then_does_not_hold_a_call_beyond_its_deadline(
    tmp_path: Path, status: int
) -> None:
    async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 %d X\r\ncontent-type: application/json\r\ncontent-length: 1000\r\n\r\n" % status)
        with closing(writer), suppress(ConnectionError):
            for _ in range(600):
                writer.write(b" ")
                await writer.drain()
                await asyncio.sleep(0.1)

    server = await asyncio.start_server(drip, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    settings = {"attempts": 2, "deadline_ms": 600}
    async with server, call_rig(tmp_path, ["one"], workloads={"assistant": settings}, ports={"one": port}) as rig:
        began = time.monotonic()
        assert (await rig.chat()).code == "upstream_failed"
        assert 0.4 < time.monotonic() - began < 15, "each byte is within the time between two"
        (settled,) = await rig.settlements()
        assert settled.outcome == "failed" and settled.estimated, "it may have been billed"


@pytest.mark.parametrize("behind", [b"", FIRST], ids=["before", "after"])
@pytest.mark.parametrize("stream", [False, True])
async def test_what_frames_an_answer_is_no_sign_of_it(tmp_path: Path, stream: bool, behind: bytes) -> None:
    """An upstream that says the extension of a chunk, a sign at a time, is as silent as one that says nothing."""

    async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        kind = b"text/event-stream" if stream else b"application/json"
        writer.write(b"HTTP/1.1 200 X\r\ncontent-type: %b\r\ntransfer-encoding: chunked\r\n\r\n%b5;" % (kind, behind))
        with closing(writer), suppress(ConnectionError):
            for _ in range(600):
                writer.write(b"a")
                await writer.drain()
                await asyncio.sleep(0.1)

    server = await asyncio.start_server(drip, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    settings, slow = {"attempts": 1, "deadline_ms": 600}, {"one": {"idle_ms": 600}}
    async with (
        server,
        call_rig(tmp_path, ["one"], more=slow, workloads={"assistant": settings}, ports={"one": port}) as rig,
    ):
        began = time.monotonic()
        reply = await rig.chat(stream=stream)
        assert 0.4 < time.monotonic() - began < 15
        if stream and behind:
            assert b"Hi " in reply.body and b"stream_broken" in reply.body
        else:
            assert reply.code == "upstream_failed"
        (settled,) = await rig.settlements()
        assert settled.outcome == "failed" and settled.estimated


async def test_an_endless_line_behind_an_answer_is_not_held(tmp_path: Path) -> None:
    sent = 0

    async def flood(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 X\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n")
        writer.write(b"1\r\n{\r\n0\r\nx: ")
        with closing(writer), suppress(ConnectionError):
            while sent < 64 << 20:
                writer.write(b"a" * 65536)
                await writer.drain()
                sent += 65536
                await asyncio.sleep(0)

    server = await asyncio.start_server(flood, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with (
        server,
        call_rig(tmp_path, ["one"], workloads={"assistant": {"attempts": 1}}, ports={"one": port}) as rig,
    ):
        reply = await rig.chat()
        assert (reply.status, reply.code) == (503, "upstream_failed")
        assert sent < 32 << 20, "what is in the buffers of the system is"
        (settled,) = await rig.settlements()
        assert settled.outcome == "failed" and settled.estimated, "it may have been billed"


@pytest.mark.parametrize("status", [401, 403, 404])
async def test_what_an_upstream_holds_against_us_is_no_fault_of_the_caller(tmp_path: Path, status: int) -> None:
    async with call_rig(tmp_path) as rig:
        rig.play("one", mode="error", status=status)
        assert (await rig.chat()).json["groundplan"]["deployment"] == "two"
        await rig.books()


async def test_a_chain_of_three_is_gone_through_to_its_end(tmp_path: Path) -> None:
    async with call_rig(tmp_path, ["one", "two", "three"]) as rig:
        rig.play("one", mode="down")
        rig.play("two", mode="error", status=502)
        reply = await rig.chat()
        assert reply.json["groundplan"]["deployment"] == "three"
        assert [s.outcome for s in await rig.settlements()] == ["failed", "failed", "ok"]
        await rig.books()


async def test_a_client_that_leaves_during_a_pause_costs_nothing_more(tmp_path: Path) -> None:
    async with call_rig(tmp_path, ["one"], workloads={"assistant": reliability(same=3, backoff_ms=5000)}) as rig:
        rig.play("one", mode="error", status=503)
        _, writer = await asyncio.open_connection("127.0.0.1", rig.port)
        writer.write(rig.request())
        folder = rig.gateway.journal.folder
        await wait_until(lambda: any(isinstance(each, Settlement) for each in read_records(folder)))
        writer.transport.abort()
        await wait_until(lambda: rig.gateway.running_calls == 0)
        state = await rig.books()
        assert sum(state.spent.values()) == 0


# breakers ------------------------------------------------------------------------------------------------------------

ONE, TWO = deployment("a", 1), deployment("b", 1)


def names(health: Health, now: float) -> list[str]:
    return [d.name for d in health.order([ONE, TWO], now)]


def test_three_failures_in_a_row_open_and_one_call_probes() -> None:
    health = Health()
    for _ in range(2):
        health.record_failure("a", 10.0)
    assert names(health, 10.0) == ["a", "b"]
    health.record_failure("a", 10.0)
    assert names(health, 10.5) == ["b", "a"] and health.states(10.5) == {"a": "open"}
    assert health.states(11.5) == {"a": "half_open"}
    assert names(health, 11.5) == ["a", "b"] and health.may_attempt("a", 11.5), "one call tries"
    assert names(health, 11.6) == ["b", "a"], "the others wait for how it ends"
    health.record_success("a", 11.5)
    assert names(health, 11.7) == ["a", "b"] and health.states(11.7) == {}


def test_a_failing_probe_makes_the_wait_longer() -> None:
    health = Health()
    now, waits = 0.0, []
    for _ in range(12):
        health.record_failure("a", now)
        if health.states(now):
            step = 0.1
            while health.states(now + step).get("a") == "open":
                step += 0.1
            waits.append(step)
            now += step
    assert waits == sorted(waits) and waits[-1] <= 15.2 and waits[0] < 1.2


def test_a_share_of_failures_opens_without_any_row() -> None:
    health = Health()
    for _ in range(4):
        health.record_failure("a", 1.0)
        health.record_success("a", 1.0)
    assert health.states(1.0) == {}
    health.record_failure("a", 1.0)
    assert health.states(1.0) == {"a": "open"} and "5 of 9" in health.reasons()["a"]


def test_rare_failures_among_many_answers_open_nothing() -> None:
    health = Health()
    for _ in range(20):
        health.record_failure("a", 1.0)
        for _ in range(9):
            health.record_success("a", 1.0)
    assert health.states(1.0) == {}
    for at in range(0, 400, 40):  # a failure now and then is no share of them, however few answers there are
        health.record_failure("b", at, 0.0)
        health.record_success("b", at)
    assert health.states(400.0) == {}


def test_an_answer_that_began_before_the_trouble_does_not_end_it() -> None:
    health = Health()
    for _ in range(3):
        health.record_failure("a", 10.0)
    health.record_success("a", 9.0)
    assert health.states(10.0) == {"a": "open"}
    health.record_success("a", 10.5)
    assert health.states(10.6) == {}


def test_what_is_far_slower_than_its_siblings_is_asked_last_for_a_while() -> None:
    siblings = [deployment(name, 1) for name in ("a", "b", "c")]
    same = [type(d)(**{f: getattr(d, f) for f in d.__struct_fields__} | {"model": "m/same"}) for d in siblings]
    health = Health()
    for _ in range(SLOW_SAMPLES):
        health.record_latency(same[1], same, 200_000, 5.0)
        health.record_latency(same[2], same, 250_000, 5.0)
    for _ in range(SLOW_SAMPLES - 1):
        health.record_latency(same[0], same, 900_000, 5.0)
    assert health.states(5.0) == {}
    health.record_latency(same[0], same, 900_000, 5.0)
    assert health.states(5.0) == {"a": "open"} and "slower" in health.reasons()["a"]
    health.record_success("a", 16.0)
    assert health.states(16.0) == {}


def test_another_model_may_be_as_slow_as_it_is() -> None:
    others = [deployment(name, 1) for name in ("a", "b")]  # each with a model of its own
    health = Health()
    for _ in range(SLOW_SAMPLES * 2):
        health.record_latency(others[1], others, 200_000, 5.0)
        health.record_latency(others[0], others, 5_000_000, 5.0)
    assert health.states(5.0) == {}


@given(st.lists(st.tuples(st.sampled_from("abc"), st.booleans(), st.floats(0, 3)), max_size=60))
def test_every_deployment_stays_in_the_order_whatever_happens(story: list[tuple[str, bool, float]]) -> None:
    health, now, places = Health(), 0.0, [deployment(name, 1) for name in "abc"]
    for name, good, passed in story:
        now += passed
        if good:
            health.record_success(name, now)
        else:
            health.record_failure(name, now, passed)
        assert sorted(d.name for d in health.order(places, now)) == ["a", "b", "c"]
        assert set(health.states(now)) == set(health.reasons())
