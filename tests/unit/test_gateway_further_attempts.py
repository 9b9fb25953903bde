"""What holds when a call is asked again, elsewhere or later: what it may still be, whose fault it was, how long it may
take."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs
from tests.integration.gates import wait_until
from tests.integration.gateway_stack import Reply, parse_reply
from tests.unit.call_rig import BOUND, FixedPolicy, Rig, call_rig, read_records, reliability
from tests.unit.raw_upstream import HI, ROLE, STREAM_HEAD, completion_body, encode_events, json_response

from groundplan.blueprint.model import Limit, Rates, Reliability
from groundplan.core.endpoints import announce
from groundplan.core.home import Home
from groundplan.core.money import PICO
from groundplan.gateway.call import pipeline, steps
from groundplan.gateway.call.attempts import attempt, prepare
from groundplan.gateway.call.attempts.reserve import reserve_locally
from groundplan.gateway.call.attempts.retry import retry_delay
from groundplan.gateway.http.body_stream import HIGH_WATER
from groundplan.gateway.offload import in_thread
from groundplan.gateway.policy.approved import approved_of
from groundplan.gateway.policy.catalog import index
from groundplan.gateway.upstream import service_restart
from groundplan.governance.approved_parts import workload_parts
from groundplan.governance.model import GrantedApproval
from groundplan.ledger.model import Settlement

RESUME = {"assistant": reliability(on_broken_stream="resume")}


# the rest of a stream ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("names", [["one", "two"], ["one", "two", "three"]])
async def test_a_refused_resumption_is_no_second_answer(tmp_path: Path, names: list[str]) -> None:
    """It is no second answer in the middle of the first one: others go on, or the client is told."""
    async with call_rig(tmp_path, names, workloads=RESUME) as rig:
        rig.play("one", mode="cut", chunk_ms=3)
        rig.play("two", mode="error", status=400)
        stream = await rig.stream()
        outcomes = [settled.outcome for settled in await rig.settlements()]
        assert not rig.gateway.health._failures.get("two")
        if len(names) == 3:
            assert stream.text == "You asked: a b c d" and stream.done and not stream.errors
            assert outcomes == ["failed", "not_billed", "ok"]
        else:
            (error,) = stream.errors
            assert error["code"] == "stream_broken" and "answered 400" in error["message"] and not stream.done
            assert outcomes == ["failed", "not_billed"]
        await rig.books()


# uploads -------------------------------------------------------------------------------------------------------------

EAR = {"kind": "transcription", "audio_seconds": 60, "rates": Rates(input=0, output=0, minute=PICO // 100)}


async def send_audio_form(rig: Rig, size: int, *more: tuple[str, str], pause: float = 0.0) -> Reply:
    """The answer to a form with so many bytes of sound, and `more` fields. `pause`: of its client, before the last of
    them."""
    rig.server.is_streamed = pipeline.has_streamed_body
    head = b"".join(
        f'--xyz\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode()
        for name, value in (("model", "auto"), *more)
    )
    head += b'--xyz\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\n'
    data = head + bytes(size) + b"\r\n--xyz--\r\n"
    reader, writer = await asyncio.open_connection("127.0.0.1", rig.port)
    writer.write(
        b"POST /v1/audio/transcriptions HTTP/1.1\r\nhost: g\r\nauthorization: Bearer assistant\r\nconnection: close\r\n"
        b"content-type: multipart/form-data; boundary=xyz\r\ncontent-length: %d\r\n\r\n" % len(data)
    )
    writer.write(data[:-100])
    if pause:
        await asyncio.sleep(pause)
        assert rig.server.held_bytes <= HIGH_WATER, "what was passed on takes no room any more"
    writer.write(data[-100:])
    try:
        return parse_reply(await asyncio.wait_for(reader.read(), 20))
    finally:
        writer.close()


async def test_a_slow_client_does_not_count_as_deployment_latency(tmp_path: Path) -> None:
    """Else others were sent elsewhere, or told that there is no room."""
    async with call_rig(tmp_path, more={"one": EAR, "two": EAR}) as rig:
        assert (await send_audio_form(rig, 3 << 20, pause=0.2)).status == 200
        assert 0 < rig.gateway.health._answer_speeds["one"].mean < 150_000


async def test_an_upload_is_not_hedged(tmp_path: Path) -> None:
    """It is passed on as it comes, and nobody waits to send it twice."""
    hedged = {"assistant": reliability(hedge={"after_ms": 20, "at_most": 1.0})}
    async with call_rig(tmp_path, more={"one": EAR, "two": EAR}, workloads=hedged) as rig:
        gate = rig.hold("one")
        asked = asyncio.create_task(send_audio_form(rig, 1000))
        await wait_until(lambda: rig.models["one"].counted == 1)
        await asyncio.sleep(0.1)
        gate.release()
        assert ((await asked).status, rig.models["two"].counted) == (200, 0)
        await rig.books()


async def test_an_upload_continues_after_a_102_processing_response(tmp_path: Path) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n")
        await reader.readuntil(b"\r\n0\r\n\r\n")
        writer.write(json_response(b'{"text":"hello"}'))
        await reader.read()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, limit=8 << 20)
    ports = {"one": server.sockets[0].getsockname()[1]}
    async with call_rig(tmp_path, ["one"], more={"one": EAR}, ports=ports) as rig:
        reply = await asyncio.wait_for(send_audio_form(rig, 3 << 20, pause=0.1), 5)
        assert (reply.status, reply.json["text"]) == (200, "hello")
    server.close()


async def test_an_upstream_that_times_out_a_slow_client_stays_healthy(tmp_path: Path) -> None:
    async with call_rig(tmp_path, more={"one": EAR, "two": EAR}) as rig:
        rig.play("one", mode="error", status=408)
        for _ in range(3):
            assert (await send_audio_form(rig, 3 << 20)).code == "upstream_failed"
        assert not rig.gateway.health.states(0.0)


async def test_a_streamed_form_is_not_counted_against_other_deployments(tmp_path: Path) -> None:
    """Only who had it can be asked for it, and what it said is told."""
    async with call_rig(tmp_path, more={"one": EAR, "two": EAR}) as rig:
        rig.play("one", mode="error", status=500)
        for _ in range(3):
            reply = await send_audio_form(rig, 3 << 20)
            assert (reply.status, reply.code) == (503, "upstream_failed")
        message = reply.json["error"]["message"]
        assert "passed on already" not in message and "answered 500 (one)" in message, message
        assert "two" not in rig.gateway.health.states(0.0)
        assert (await send_audio_form(rig, 3 << 20)).status == 200, "now the other one is asked first"


async def test_a_buffered_form_is_sent_to_the_next_deployment(tmp_path: Path) -> None:
    async with call_rig(tmp_path, more={"one": EAR, "two": EAR}) as rig:
        rig.play("one", mode="error", status=500)
        assert (await send_audio_form(rig, 1 << 10)).status == 200
        assert [settled.outcome for settled in await rig.settlements()] == ["not_billed", "ok"]


@pytest.mark.parametrize("size", [2 << 20, 1 << 10])
async def test_a_large_recording_waits_for_its_only_deployment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    """To give its deployment up would help nobody, and cost the longest recording."""
    monkeypatch.setattr("groundplan.gateway.call.attempts.attempt.FIRST_TOKEN_MS", 50)
    async with call_rig(tmp_path, more={"one": EAR | {"first_token_ms": 50, "idle_ms": 10}, "two": EAR}) as rig:
        rig.play("one", latency_ms=150)
        reply = await send_audio_form(rig, size)
        assert reply.status == 200 and reply.headers["groundplan-deployment"] == ("one" if size > 1 << 20 else "two")
        await rig.books()


# what is stopped -----------------------------------------------------------------------------------------------------


def change_admission(live: Any, what: str) -> None:
    """Something that a call was admitted by holds no more."""
    if what == "the key":
        keys = {digest: dataclasses.replace(key, revoked=True) for digest, key in live.policy.keys.items()}
        live.policy = dataclasses.replace(live.policy, keys=keys)
    elif what == "residency":
        newer = live.catalog.blueprint
        works = [structs.replace(work, residency=["CH"]) for work in newer.workloads]
        live.catalog = index(structs.replace(newer, number=2, workloads=works))
    elif what == "an approval":
        live.policy = dataclasses.replace(live.policy, parts={})
    else:
        live.policy = dataclasses.replace(live.policy, kills=frozenset({what}))


CHANGES = [
    ("workload/assistant", "killed"), ("company", "killed"), ("the key", "key_revoked"),
    ("residency", "upstream_failed"), ("an approval", "upstream_failed"),
]  # fmt: skip


def approve(live: Any) -> None:
    """All that the workload uses is approved for production."""
    work = structs.replace(live.catalog.blueprint.workloads[0], stage="production")
    made = structs.replace(live.catalog.blueprint, workloads=[work], approved_parts=["model"])
    given = {part.digest: GrantedApproval(date(9999, 1, 1), date(9999, 1, 1)) for part in workload_parts(made, work)}
    live.catalog = dataclasses.replace(index(made), approved=approved_of(made))
    live.policy = dataclasses.replace(live.policy, parts=given)


@pytest.mark.parametrize(("what", "code"), CHANGES)
async def test_no_further_attempt_after_a_kill_revocation_or_residency_change(
    tmp_path: Path, what: str, code: str
) -> None:
    settings = {"assistant": reliability(same=2, backoff_ms=600, max_backoff_ms=600)}
    async with call_rig(tmp_path, ["one"], workloads=settings) as rig:
        rig.play("one", mode="error", status=503)
        live: Any = rig.gateway.live
        if what == "an approval":
            approve(live)
        asked = asyncio.ensure_future(rig.chat())
        await wait_until(lambda: any(isinstance(each, Settlement) for each in read_records(rig.gateway.journal.folder)))
        change_admission(live, what)
        reply = await asked
        assert (reply.code, rig.models["one"].counted) == (code, 1), reply.body
        await rig.books()


@pytest.mark.parametrize("what", [*(what for what, _ in CHANGES), "nobody confirms the policy"])
async def test_no_hedge_after_a_kill_revocation_or_residency_change(tmp_path: Path, what: str) -> None:
    """The one that was sent before may answer."""
    settings = {"assistant": reliability(hedge={"after_ms": 100, "at_most": 1.0})}
    async with call_rig(tmp_path, workloads=settings) as rig:
        live: Any = rig.gateway.live
        if what == "an approval":
            approve(live)
        gate = rig.hold("one")
        asked = asyncio.ensure_future(rig.chat())
        await wait_until(lambda: rig.models["one"].counted == 1)
        if what == "nobody confirms the policy":
            live.seconds = 3600.0
        else:
            change_admission(live, what)
        await asyncio.sleep(0.2)
        gate.release()
        assert (await asked).status == 200 and rig.models["two"].counted == 0
        await rig.books()


@pytest.mark.parametrize(("what", "code"), [*CHANGES, ("deployment/one", "upstream_failed")])
async def test_nothing_is_sent_once_it_is_stopped_revoked_or_kept_elsewhere_while_connecting(
    tmp_path: Path, what: str, code: str
) -> None:
    async with call_rig(tmp_path, ["one"]) as rig:
        live: Any = rig.gateway.live
        if what == "an approval":
            approve(live)
        change_while_connecting(rig, "one", what)
        reply = await rig.chat()
        assert (reply.code, rig.models["one"].counted) == (code, 0), reply.body
        assert not rig.gateway.health._failures
        await rig.books()


@pytest.mark.parametrize("is_pooled", [False, True])
@pytest.mark.parametrize(("what", "code"), [*CHANGES, ("deployment/one", "upstream_failed")])
async def test_a_large_request_is_not_sent_once_it_is_stopped_while_it_is_encoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str, code: str, is_pooled: bool
) -> None:
    """It may wait for a thread, also where a connection is open."""
    async with call_rig(tmp_path, ["one"]) as rig:
        live: Any = rig.gateway.live
        if what == "an approval":
            approve(live)
        if is_pooled:
            assert (await rig.chat()).status == 200

        async def encode_slowly(work: Callable[[], bytes]) -> bytes:
            data = await in_thread(work)
            change_admission(live, what)
            return data

        monkeypatch.setattr(attempt, "READ_BYTES", 0)
        monkeypatch.setattr(prepare, "in_thread", encode_slowly)
        reply = await rig.chat()
        assert (reply.code, rig.models["one"].counted) == (code, int(is_pooled)), reply.body
        assert not rig.gateway.health._failures
        await rig.books()


def change_while_connecting(rig: Rig, name: str, what: str) -> None:
    """Let live policy change while a connection to the deployment is made."""
    places = rig.plan("assistant").deployments_by_name["auto"]
    pool: Any = rig.gateway.targets.of(next(each for each in places if each.name == name)).pool
    connect = pool.connect

    async def connect_slowly(*arguments: Any) -> Any:
        connection = await connect(*arguments)
        change_admission(rig.gateway.live, what)
        return connection

    pool.connect = connect_slowly


async def test_another_deployment_is_asked_where_one_is_stopped_while_connecting(tmp_path: Path) -> None:
    async with call_rig(tmp_path) as rig:
        change_while_connecting(rig, "one", "deployment/one")
        reply = await rig.chat()
        assert (reply.status, reply.headers["groundplan-deployment"]) == (200, "two")
        assert rig.models["one"].counted == 0 and not rig.gateway.health._failures
        await rig.books()


@pytest.mark.parametrize("what", [what for what, _ in CHANGES])
async def test_a_call_goes_on_whose_hedge_is_stopped_while_it_connects(tmp_path: Path, what: str) -> None:
    """The first attempt was sent before."""
    settings = {"assistant": reliability(hedge={"after_ms": 20, "at_most": 1.0})}
    async with call_rig(tmp_path, workloads=settings) as rig:
        if what == "an approval":
            approve(rig.gateway.live)
        gate = rig.hold("one")
        change_while_connecting(rig, "two", what)
        asked = asyncio.ensure_future(rig.chat())
        await wait_until(lambda: any(isinstance(r, Settlement) for r in read_records(rig.gateway.journal.folder)))
        gate.release()
        assert (await asked).status == 200 and rig.models["two"].counted == 0
        await rig.books()


@pytest.mark.parametrize(("what", "code"), CHANGES)
async def test_no_attempt_follows_once_it_is_stopped_or_revoked_while_its_budget_is_waited_for(
    tmp_path: Path, what: str, code: str
) -> None:
    settings = {"assistant": reliability(same=1, backoff_ms=1, max_backoff_ms=1)}
    async with call_rig(tmp_path, ["one"], limit=2 * BOUND - 1, workloads=settings) as rig:
        rig.play("one", mode="error", status=502)
        if what == "an approval":
            approve(rig.gateway.live)

        async def acquire(token: Any, charges: Any, *_: Any) -> None:
            change_admission(rig.gateway.live, what)
            rig.slices.add_grant("all", "total", PICO)
            assert rig.slices.reserve(token, charges) is None

        rig.grants.acquire = acquire  # type: ignore[method-assign, assignment]
        reply = await rig.chat()
        assert (reply.code, rig.models["one"].counted) == (code, 1), reply.body
        assert rig.slices.open_reservations == 0


async def test_a_broken_stream_is_not_resumed_after_a_kill(tmp_path: Path) -> None:
    async with call_rig(tmp_path, more={"one": {"idle_ms": 500}}, workloads=RESUME) as rig:
        rig.play("one", mode="stall_late", chunk_ms=3)
        live: Any = rig.gateway.live
        asked = asyncio.ensure_future(rig.stream())
        await wait_until(lambda: rig.models["one"].counted == 1)
        live.policy = dataclasses.replace(live.policy, kills=frozenset({"workload/assistant"}))
        (error,) = (await asked).errors
        assert error["code"] == "stream_broken" and "workload/assistant is stopped" in error["message"]
        assert rig.models["two"].counted == 0
        await rig.books()


async def test_a_deployment_whose_kill_is_lifted_meanwhile_is_not_asked_without_a_reservation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a call may cost was reserved for those that it could have asked then."""
    dear = {"one": {"rates": Rates(input=0, output=1000 * PICO)}}
    async with call_rig(tmp_path, more=dear) as rig:
        live: Any = rig.gateway.live
        stopped = dataclasses.replace(live.policy, kills=frozenset({"deployment/one"}))
        let_go = dataclasses.replace(live.policy, number=2)
        live.policy = stopped

        def reserved(*given: Any) -> bool:
            live.policy = let_go
            return reserve_locally(*given)

        monkeypatch.setattr(steps, "reserve_locally", reserved)
        reply = await rig.chat()
        assert (reply.status, reply.json["groundplan"]["deployment"]) == (200, "two"), reply.body
        await rig.books()


async def test_an_attempt_that_fails_here_before_it_is_sent_costs_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> bytes:
        raise RuntimeError("nobody foresaw it")

    monkeypatch.setattr(attempt, "encode_request", fail)
    async with call_rig(tmp_path, ["one"]) as rig:
        reply = await rig.chat()
        assert (reply.status, reply.code, rig.models["one"].counted) == (503, "internal_error", 0)
        (only,) = await rig.settlements()
        assert (only.outcome, only.cost) == ("not_billed", 0)
        await rig.books()


# time ----------------------------------------------------------------------------------------------------------------


def test_calls_waiting_for_retry_after_do_not_retry_simultaneously() -> None:
    settings = Reliability(same=3, backoff_ms=400, max_backoff_ms=5000)
    waits = [retry_delay(settings, 0, 2.0, lambda n=n: n / 10) for n in range(11)]  # type: ignore[misc]
    assert waits[0] == 2.0 and waits[-1] == pytest.approx(2.2) and waits == sorted(set(waits))


async def test_waiting_for_an_idempotent_duplicate_counts_towards_the_deadline(tmp_path: Path) -> None:
    """The first one was refused before anything was sent, so the second one is made; its time had begun."""
    settings = {"assistant": {"deadline_ms": 1500, "attempts": 1}}
    slots = [Limit(name="slots", covers="workload/assistant", type="concurrent", amount=1, period="now")]
    async with call_rig(tmp_path, ["one"], workloads=settings, limits=slots) as rig:
        rig.gateway.limit_slices.add_grant("concurrent/slots", "now", 0)

        async def acquire(token: Any, charges: Any, declared: Any, blueprint: int = 0) -> Any:
            await asyncio.sleep(1.0)
            rig.gateway.limit_slices.add_grant("concurrent/slots", "now", 1)
            return charges[0]

        rig.grants.acquire = acquire  # type: ignore[method-assign]
        rig.play("one", latency_ms=1000)
        data = rig.request().replace(b"connection: close", b"idempotency-key: once\r\nconnection: close")

        async def ask() -> Reply:
            reader, writer = await asyncio.open_connection("127.0.0.1", rig.port)
            writer.write(data)
            try:
                return parse_reply(await asyncio.wait_for(reader.read(), 20))
            finally:
                writer.close()

        first = asyncio.ensure_future(ask())
        await asyncio.sleep(0.1)
        second = asyncio.ensure_future(ask())
        assert (await first).status in (429, 503)
        assert (await second).code == "upstream_failed", "half a second was left"


# our own service -----------------------------------------------------------------------------------------------------


@asynccontextmanager
async def service() -> AsyncIterator[int]:
    """A translating service that says the same to everybody; its port."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(json_response(completion_body()))
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


def ended(folder: Path) -> None:
    """The translating service is announced, and its process is gone."""
    home = Home(folder)
    home.create()
    announce(home, "translate", "http://127.0.0.1:1", "t")
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    file = home.run / "endpoints.d" / "translate.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "pid": gone.pid}))


async def test_calls_wait_for_the_translation_service_if_no_other_deployment_is_left(tmp_path: Path) -> None:
    ended(tmp_path)
    async with service() as port, call_rig(tmp_path, ["one"], more={"one": {"api": "gemini"}}) as rig:
        calls = [asyncio.ensure_future(rig.chat()) for _ in range(5)]
        await asyncio.sleep(0.2)
        assert not any(call.done() for call in calls)
        announce(Home(tmp_path), "translate", f"http://127.0.0.1:{port}", "t")
        assert [reply.status for reply in await asyncio.gather(*calls)] == [200] * 5
        assert not rig.gateway.health.has_problems and not rig.gateway.health._failures
        await rig.books()


async def test_an_unavailable_translation_service_is_no_provider_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service_restart, "RESTART_SECONDS", 0.2)
    ended(tmp_path)
    async with call_rig(tmp_path, more={"one": {"api": "gemini"}}) as rig:
        for _ in range(4):
            began = time.monotonic()
            assert (await rig.chat()).json["groundplan"]["deployment"] == "two"
            assert time.monotonic() - began < 0.2, "nobody waits where somebody else can be asked"
        assert not rig.gateway.health.has_problems and not rig.gateway.health._failures
        rig.play("two", mode="error", status=503)
        reply = await rig.chat()
        assert (reply.status, reply.code) == (503, "upstream_failed")
        await rig.books()


# upstreams that answer early -----------------------------------------------------------------------------------------

LARGE = [{"role": "user", "content": "long " * (2 << 20)}]


@pytest.mark.parametrize("kept", [True, False])
async def test_an_upstream_may_answer_before_reading_the_whole_request(tmp_path: Path, kept: bool) -> None:
    """Its refusal reaches the caller, and no other call waits behind what it never takes."""
    asked = 0
    reads_on = asyncio.Event()

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal asked
        await reader.readuntil(b"\r\n\r\n")
        asked += 1
        if asked > 1:
            writer.write(json_response(completion_body()))
            writer.close()
            return
        refusal = json_response(b'{"error": {"message": "far too long"}}', b"413 Content Too Large")
        writer.write(refusal if kept else refusal.replace(b"\r\n\r\n", b"\r\nconnection: close\r\n\r\n"))
        await writer.drain()
        if kept:
            await reads_on.wait()
        writer.close()

    listening = socket.create_server(("127.0.0.1", 0))
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16 << 10)  # what systems buffer is no part of this
    server = await asyncio.start_server(refuse, sock=listening, limit=1024)
    at = {"one": server.sockets[0].getsockname()[1]}
    more = {"one": {"context_tokens": 20 << 20, "first_token_ms": 1500, "idle_ms": 1500}}
    async with server, call_rig(tmp_path, ["one"], more=more, ports=at) as rig:
        reply = await rig.chat(messages=LARGE)
        assert (reply.status, reply.json["error"]["message"]) == (413, "far too long"), reply.body
        assert (await rig.chat()).status == 200
        reads_on.set()
        assert [settled.outcome for settled in await rig.settlements()] == ["not_billed", "ok"]


# upstreams that never stop -------------------------------------------------------------------------------------------


@asynccontextmanager
async def flooding(begin: bytes, piece: bytes) -> AsyncIterator[int]:
    """An upstream that says `begin`, and then `piece` again and again as fast as it is read; its port."""

    async def flood(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(begin)
            while not writer.is_closing():
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(0)
        writer.close()

    server = await asyncio.start_server(flood, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


@pytest.mark.parametrize("begun", [False, True])
async def test_endless_sse_comments_count_as_silence(tmp_path: Path, begun: bool) -> None:
    """Also where no moment passes without one."""
    begin = STREAM_HEAD + (encode_events(ROLE, HI) if begun else b"")
    more = {"one": {"first_token_ms": 500, "idle_ms": 500}}
    async with flooding(begin, b": still here\n\n") as port, call_rig(tmp_path, more=more, ports={"one": port}) as rig:
        async with asyncio.timeout(10):
            stream = await rig.stream()
        if begun:
            assert stream.text == "Hi " and "did not answer in time" in stream.errors[0]["message"]
        else:
            assert stream.facts["deployment"] == "two" and stream.done


async def test_an_endless_body_ends_with_the_deadline(tmp_path: Path) -> None:
    head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 60000000\r\n\r\n"
    settings = {"assistant": {"deadline_ms": 500, "attempts": 1}}
    async with flooding(head, b" ") as port:
        async with call_rig(tmp_path, ["one"], workloads=settings, ports={"one": port}) as rig:
            began = time.monotonic()
            assert (await rig.chat()).code == "upstream_failed"
            assert time.monotonic() - began < 5


async def test_a_new_connection_is_closed_if_nothing_may_be_sent_any_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lease of policy ran out while it was made, by a worker that stood still."""
    async with call_rig(tmp_path, ["one"]) as rig:
        live, made = rig.gateway.live, list[int]()
        assert isinstance(live, FixedPolicy)
        pool: Any = rig.gateway.targets.of(rig.plan("assistant").deployments_by_name["auto"][0]).pool

        def stood(_: float) -> float:
            made.append(len(pool._connections))
            live.seconds = 1e6 if pool._connections else 0.0
            return float(len(pool._connections))

        monkeypatch.setattr(rig.gateway.stalls, "stalled_seconds", stood)
        reply = await rig.chat()
        assert (reply.status, reply.code) == (503, "policy_lease_expired") and 1 in made
        await wait_until(lambda: not pool._connections)
        assert rig.models["one"].counted == 0
        await rig.books()


async def test_a_call_whose_deadline_passed_before_any_attempt_gets_a_clear_error(tmp_path: Path) -> None:
    async with call_rig(tmp_path, ["one"], limit=0, workloads={"assistant": {"deadline_ms": 50}}) as rig:

        async def acquire(token: Any, charges: Any, *_: Any) -> None:
            await asyncio.sleep(0.1)
            rig.slices.add_grant("all", "total", 10 * BOUND)
            assert rig.slices.reserve(token, charges) is None

        rig.grants.acquire = acquire  # type: ignore[method-assign, assignment]
        reply = await rig.chat()
        assert (reply.status, reply.code) == (503, "upstream_failed") and rig.models["one"].counted == 0
        assert "its deadline was over" in reply.json["error"]["message"]
