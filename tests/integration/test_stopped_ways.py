"""A worker that stood still (SIGSTOP), where calls go other ways: to an upstream by HTTP/2, in conversations over
WebSocket, in uploads that are passed on. What holds is as in `test_stopped_worker`. Real processes.
"""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from tests.contract.h2_server import H2Server
from tests.integration.gateway_stack import (
    Reply,
    Stack,
    blueprint,
    deployment,
    installation,
    parse_events,
    parse_reply,
    workload,
)
from tests.integration.test_stopped_worker import (
    FAILS,
    GOOD_UPSTREAMS,
    JSON_ANSWER,
    LATE_SECONDS,
    SHORT_MS,
    PhasedUpstream,
    answer_across_stop,
    attempts,
    full_listener,
    gateway,
    pause_worker,
)
from tests.unit.test_multipart import form
from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from groundplan.blueprint.model import Rates
from groundplan.core.money import PICO
from groundplan.ledger.model import Settlement
from groundplan.testing.database import Database
from groundplan.testing.journal import read_segment

BODY_SECONDS = 30.0
"""Timeout of a body, and of a part of one that an upstream has to accept."""
EVENT_COUNT, LONG_EVENT = (
    300,
    json.dumps({"type": "conversation.item.retrieved", "event_id": "e", "item": {"audio": "A" * 100_000}}),
)
"""More events of this size than fit into all buffers on the way."""
TRANSCRIPT = b'{"text":"well","usage":{"type":"duration","seconds":2}}'
TRANSCRIPT_ANSWER = (
    b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: %d\r\n\r\n%b"
    % (
        len(TRANSCRIPT),
        TRANSCRIPT,
    )
)


# -- HTTP/2 -----------------------------------------------------------------------------------------------------------
@asynccontextmanager
async def http2_gateway(
    database: Database, folder: Path, *upstream: PhasedUpstream, context: ssl.SSLContext | None = None, **more: Any
) -> AsyncIterator[tuple[Stack, str]]:
    """As `gateway`, for upstreams with HTTP/2."""
    settings = {"first_token_ms": SHORT_MS, "idle_ms": SHORT_MS, "connect_ms": SHORT_MS, "http": 2, **more}
    async with AsyncExitStack() as exit_stack:
        places = []
        for number, each in enumerate(upstream):
            server = await asyncio.start_server(each.answer, "127.0.0.1", 0)
            exit_stack.callback(server.close)
            front = await exit_stack.enter_async_context(
                H2Server(server.sockets[0].getsockname()[1]).listening(context)
            )
            places.append(deployment(f"d{number}", front.port, **settings))
        stack = await exit_stack.enter_async_context(installation(database, folder))
        stack.apply(blueprint(1, places, [workload("assistant", [place.name for place in places])]))
        stack.start()
        await stack.wait_until_ready()
        yield stack, stack.key()
        for each in upstream:
            for writer in each.writers:
                writer.close()


@pytest.mark.parametrize("make_upstream", GOOD_UPSTREAMS)
async def test_a_stream_continues_after_a_stop_with_the_data_that_arrived_meanwhile(
    database: Database, tmp_path: Path, make_upstream: Callable[[], PhasedUpstream]
) -> None:
    failing, upstream = PhasedUpstream(FAILS), make_upstream()
    async with http2_gateway(database, tmp_path, failing, upstream) as (stack, key):
        reply = await answer_across_stop(stack, upstream, stack.chat(key, stream=True))
        *_, last = parse_events(reply.body)
        assert last == "[DONE]", last
        assert (failing.counted, upstream.counted) == (1, 1)


@pytest.mark.parametrize("said", [b"", JSON_ANSWER[:-20]], ids=["nothing", "nearly all"])
async def test_a_complete_answer_that_arrived_during_a_stop_is_used(
    database: Database, tmp_path: Path, said: bytes
) -> None:
    upstream, other = PhasedUpstream(said, during_stop=(JSON_ANSWER[len(said) :],)), PhasedUpstream(JSON_ANSWER)
    async with http2_gateway(database, tmp_path, upstream, other) as (stack, key):
        reply = await answer_across_stop(stack, upstream, stack.chat(key))
        assert reply.status == 200 and reply.headers["groundplan-deployment"] == "d0", reply.body
        assert (upstream.counted, other.counted) == (1, 0)


async def test_an_upstream_silent_after_a_stop_times_out_as_usual(database: Database, tmp_path: Path) -> None:
    upstream, other = PhasedUpstream(), PhasedUpstream(JSON_ANSWER)
    async with http2_gateway(database, tmp_path, upstream, other) as (stack, key):
        begun = asyncio.get_running_loop().time
        task = asyncio.ensure_future(stack.chat(key))
        await upstream.request_received.wait()
        await pause_worker(stack, lambda: None)
        since = begun()
        reply = await task
        assert reply.status == 200 and reply.headers["groundplan-deployment"] == "d1", reply.body
        assert begun() - since < 3 * SHORT_MS / 1000


async def test_a_connection_established_during_a_stop_is_used(database: Database, tmp_path: Path) -> None:
    """Nobody accepts, and when the kernel asks once more, a second after the first time, somebody does."""
    upstream, other = PhasedUpstream(JSON_ANSWER), PhasedUpstream(JSON_ANSWER)
    server = await asyncio.start_server(upstream.answer, "127.0.0.1", 0)
    front = H2Server(server.sockets[0].getsockname()[1])
    async with gateway(database, tmp_path, other) as (stack, key), AsyncExitStack() as exit_stack:
        listening, held = full_listener()
        port = listening.getsockname()[1]
        places = [deployment("slow", port, connect_ms=500, http=2)]
        stack.apply(blueprint(2, places, [workload("assistant", ["slow"])]))
        await stack.wait_until_ready(2)
        task = asyncio.ensure_future(stack.chat(key))
        await asyncio.sleep(0.2)
        await pause_worker(stack, lambda: exit_stack.enter_async_context(front.listening(None, listening)), 1.5)
        reply = await task
        assert reply.status == 200 and reply.headers["groundplan-deployment"] == "slow", reply.body
        assert await attempts(stack) == {"ok": 1}
        for each in held:
            each.close()
        for writer in upstream.writers:
            writer.close()
    server.close()


# -- conversations ----------------------------------------------------------------------------------------------------
class RealtimeUpstream:
    """An upstream of realtime conversations. `opens_late`: it accepts no connection until the worker is stopped."""

    def __init__(self, *, opens_late: bool = False) -> None:
        self.request_received, self.stopped, self.resumed = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self.opens_late = opens_late
        self.conversations = 0

    async def opening(self, *_: Any) -> None:
        self.request_received.set()
        if self.opens_late:
            await self.stopped.wait()
            await asyncio.sleep(LATE_SECONDS)

    async def converse(self, socket: ServerConnection) -> None:
        self.conversations += 1
        async for text in socket:
            kind = json.loads(text)["type"]
            if kind == "input_audio_buffer.clear":
                await self.stopped.wait()
                await asyncio.sleep(LATE_SECONDS)
                await socket.send('{"type":"input_audio_buffer.cleared","event_id":"e"}')
            elif kind == "response.create":
                await self.respond(socket)
            elif kind == "conversation.item.retrieve":
                for _ in range(EVENT_COUNT):
                    await socket.send(LONG_EVENT)

    async def respond(self, socket: ServerConnection) -> None:
        """Send one delta before the stop, one during it, and the end after it."""
        response: dict[str, Any] = {"object": "realtime.response", "id": "r", "output": [], "status": "in_progress"}
        delta = {"type": "response.output_text.delta", "event_id": "e", "response_id": "r", "item_id": "i",
                 "output_index": 0, "content_index": 0, "delta": "word "}  # fmt: skip
        await socket.send(json.dumps({"type": "response.created", "event_id": "e", "response": response}))
        await socket.send(json.dumps(delta))
        self.request_received.set()
        await self.stopped.wait()
        await asyncio.sleep(LATE_SECONDS)
        await socket.send(json.dumps(delta))
        await self.resumed.wait()
        usage = {"total_tokens": 2, "input_tokens": 0, "output_tokens": 2}
        done = {**response, "status": "completed", "usage": usage}
        await socket.send(json.dumps({"type": "response.done", "event_id": "e", "response": done}))


class Between:
    """Passes bytes on both ways, those of the upstream only while it is not `holding`."""

    def __init__(self) -> None:
        self.behind = 0
        self.flows = asyncio.Event()
        self.flows.set()
        self.request_received = asyncio.Event()
        """Something came for the upstream while its bytes are held."""

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, on = await asyncio.open_connection("127.0.0.1", self.behind)
        await asyncio.gather(self._pass(reader, on, asks=True), self._pass(there, writer, asks=False))

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, asks: bool) -> None:
        with suppress(OSError):
            while data := await reader.read(65536):
                if asks and not self.flows.is_set():
                    self.request_received.set()
                if not asks:
                    await self.flows.wait()
                writer.write(data)
                await writer.drain()
        writer.close()


@asynccontextmanager
async def realtime_gateway(
    database: Database, folder: Path, realtime_upstream: RealtimeUpstream, between: Between | None = None, **more: Any
) -> AsyncIterator[tuple[Stack, str]]:
    """A worker before that upstream, and the address of conversations."""
    async with AsyncExitStack() as exit_stack:
        server = await exit_stack.enter_async_context(
            serve(
                realtime_upstream.converse,
                "127.0.0.1",
                0,
                process_request=realtime_upstream.opening,
                ping_interval=None,
            )
        )
        port = next(iter(server.sockets)).getsockname()[1]
        if between is not None:
            between.behind = port
            relay = await asyncio.start_server(between.answer, "127.0.0.1", 0)
            exit_stack.callback(relay.close)
            port = relay.sockets[0].getsockname()[1]
        settings: dict[str, Any] = {"rates": Rates(input=0, output=10 * PICO), "max_output_tokens": 100, **more}
        place = deployment("talker", port, kind="realtime", **settings)
        stack = await exit_stack.enter_async_context(installation(database, folder))
        stack.apply(blueprint(1, [place, deployment("chat", port)], [workload("assistant", ["chat"], also=["talker"])]))
        stack.start()
        await stack.wait_until_ready()
        yield stack, f"ws://127.0.0.1:{stack.port}/v1/realtime?model=talker"


def headers(stack: Stack) -> dict[str, str]:
    return {"authorization": f"Bearer {stack.key()}"}


async def settlements(stack: Stack, count: int) -> list[Settlement]:
    async with asyncio.timeout(30):
        while True:
            paths = sorted(stack.home.journal.glob("*/*.seg"))
            found = [e.record for path in paths for e in read_segment(path)[0] if isinstance(e.record, Settlement)]
            if len(found) >= count:
                return found
            await asyncio.sleep(0.05)


async def test_a_conversation_accepted_upstream_during_a_stop_begins(database: Database, tmp_path: Path) -> None:
    realtime_upstream = RealtimeUpstream(opens_late=True)
    async with realtime_gateway(database, tmp_path, realtime_upstream, connect_ms=SHORT_MS) as (stack, url):
        task = asyncio.ensure_future(connect(url, additional_headers=headers(stack), proxy=None).__aenter__())
        await realtime_upstream.request_received.wait()
        await pause_worker(stack, realtime_upstream.stopped.set)
        socket = await task
        assert realtime_upstream.conversations == 1
        await socket.close()


async def test_a_response_continues_after_a_stop_with_the_data_that_arrived_meanwhile(
    database: Database, tmp_path: Path
) -> None:
    realtime_upstream = RealtimeUpstream()
    async with (
        realtime_gateway(database, tmp_path, realtime_upstream, first_token_ms=SHORT_MS, idle_ms=SHORT_MS) as (
            stack,
            url,
        ),
        connect(url, additional_headers=headers(stack), proxy=None) as socket,
    ):
        await socket.send('{"type":"response.create"}')
        await realtime_upstream.request_received.wait()
        await asyncio.sleep(0.1)
        await pause_worker(stack, realtime_upstream.stopped.set)
        realtime_upstream.resumed.set()
        said = [json.loads(await socket.recv()) for _ in range(4)]
        assert [each["type"] for each in said[1:3]] == ["response.output_text.delta"] * 2
        assert said[3]["type"] == "response.done" and said[3]["groundplan"]["deployment"] == "talker"
        (only,) = await settlements(stack, 1)
        assert (only.outcome, only.usage.output) == ("ok", 2)


@pytest.mark.parametrize("answers", [True, False])
async def test_a_conversation_continues_whose_pong_arrived_during_a_stop(
    database: Database, tmp_path: Path, answers: bool
) -> None:
    """And it is over where nobody answers, in the time in which an upstream may be silent."""
    realtime_upstream, between = RealtimeUpstream(), Between()
    async with (
        realtime_gateway(database, tmp_path, realtime_upstream, between, idle_ms=SHORT_MS) as (stack, url),
        connect(url, additional_headers=headers(stack), proxy=None, ping_interval=None) as socket,
    ):
        between.flows.clear()
        await between.request_received.wait()

        async def meanwhile() -> None:
            await asyncio.sleep(LATE_SECONDS)
            if answers:
                between.flows.set()

        await pause_worker(stack, meanwhile)
        if answers:
            for event in (realtime_upstream.stopped, realtime_upstream.resumed):
                event.set()
            await asyncio.sleep(2 * SHORT_MS / 1000)
            await socket.send('{"type":"response.create"}')
            said = [json.loads(await socket.recv())["type"] for _ in range(4)]
            assert said[-1] == "response.done"
        else:
            async with asyncio.timeout(3 * SHORT_MS / 1000):
                told = json.loads(await socket.recv())
            async with asyncio.timeout(20):
                with pytest.raises(ConnectionClosed) as caught:
                    await socket.recv()
            assert told["error"]["code"] == "stream_broken"
            assert caught.value.rcvd is not None and caught.value.rcvd.code == 1011
        between.flows.set()


async def test_a_conversation_continues_though_its_client_stops_reading_for_a_while(
    database: Database, tmp_path: Path
) -> None:
    """What its upstream answers to a ping waits behind all that the client has not taken."""
    realtime_upstream = RealtimeUpstream()
    for event in (realtime_upstream.stopped, realtime_upstream.resumed):
        event.set()
    async with (
        realtime_gateway(database, tmp_path, realtime_upstream, idle_ms=SHORT_MS) as (stack, url),
        connect(url, additional_headers=headers(stack), proxy=None, ping_interval=None, max_queue=1) as socket,
    ):
        await socket.send('{"type":"conversation.item.retrieve","item_id":"i"}')
        await asyncio.sleep(5 * SHORT_MS / 1000)
        async with asyncio.timeout(30):
            for _ in range(EVENT_COUNT):
                assert json.loads(await socket.recv())["type"] == "conversation.item.retrieved"
            await socket.send('{"type":"response.create"}')
            said = [json.loads(await socket.recv())["type"] for _ in range(4)]
        assert said[-1] == "response.done"


async def test_audio_that_the_upstream_discarded_during_a_stop_costs_nothing(
    database: Database, tmp_path: Path
) -> None:
    """It has a second to say so, and the worker stands still for longer."""
    realtime_upstream = RealtimeUpstream()
    async with realtime_gateway(database, tmp_path, realtime_upstream) as (stack, url):
        socket = await connect(url, additional_headers=headers(stack), proxy=None)
        await socket.send('{"type":"input_audio_buffer.append","audio":"AAAA"}')
        await asyncio.sleep(0.3)
        leaving = asyncio.ensure_future(socket.close())
        await asyncio.sleep(0.2)
        await pause_worker(stack, realtime_upstream.stopped.set, 2.0)
        await leaving
        (only,) = await settlements(stack, 1)
        assert (only.outcome, only.cost) == ("not_billed", 0)


# -- uploads ----------------------------------------------------------------------------------------------------------
class Ear:
    """An upstream of forms: it takes the first bytes of one, the rest once it is `taking`, and then answers."""

    def __init__(self, *, eager: bool = True) -> None:
        self.request_received, self.taking = asyncio.Event(), asyncio.Event()
        self.counted = 0
        if eager:
            self.taking.set()
        self.answering = asyncio.Event()

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        self.counted += 1
        self.request_received.set()
        await self.taking.wait()
        await reader.readuntil(b"\r\n0\r\n\r\n")
        await self.answering.wait()
        writer.write(TRANSCRIPT_ANSWER)
        await writer.drain()
        writer.close()


@asynccontextmanager
async def transcription_gateway(
    database: Database, folder: Path, *ears: Ear, **more: Any
) -> AsyncIterator[tuple[Stack, str]]:
    """A worker before upstreams of transcriptions."""
    settings: dict[str, Any] = {
        "rates": Rates(input=0, output=0, minute=PICO), "audio_seconds": 60, "kind": "transcription", **more,
    }  # fmt: skip
    servers = [await asyncio.start_server(each.answer, "127.0.0.1", 0, limit=64 << 20) for each in ears]
    ports = [server.sockets[0].getsockname()[1] for server in servers]
    places = [deployment(f"ear{number}", port, **settings) for number, port in enumerate(ports)]
    async with installation(database, folder) as stack:
        names = [place.name for place in places]
        stack.apply(
            blueprint(
                1,
                [deployment("chat", ports[0]), *places],
                [workload("assistant", ["chat"], also=names, deadline_ms=120_000)],
            )
        )
        stack.start()
        await stack.wait_until_ready()
        yield stack, stack.key()
    for server in servers:
        server.close()


def upload(key: str, model: str, size: int) -> tuple[bytes, bytes]:
    """Head and form of a transcription."""
    data = form(("model", model.encode(), None), ("file", bytes(size), "a.wav"))
    lines = f"host: g\r\nauthorization: Bearer {key}\r\ncontent-type: multipart/form-data; boundary=xyz\r\n"
    return f"POST /v1/audio/transcriptions HTTP/1.1\r\n{lines}content-length: {len(data)}\r\n\r\n".encode(), data


async def read_reply(reader: asyncio.StreamReader) -> Reply:
    return parse_reply(await asyncio.wait_for(reader.read(), 60))


async def test_an_upload_whose_answer_arrived_during_a_stop_is_answered(database: Database, tmp_path: Path) -> None:
    ear = Ear()
    async with transcription_gateway(database, tmp_path, ear, first_token_ms=SHORT_MS, idle_ms=SHORT_MS) as (
        stack,
        key,
    ):
        head, data = upload(key, "ear0", 3 << 20)
        reader, writer = await asyncio.open_connection("127.0.0.1", stack.port)
        writer.write(head + data)
        await writer.drain()
        await ear.request_received.wait()
        await asyncio.sleep(0.2)

        async def meanwhile() -> None:
            await asyncio.sleep(LATE_SECONDS)
            ear.answering.set()

        await pause_worker(stack, meanwhile)
        reply = await read_reply(reader)
        assert (reply.status, reply.json["text"], ear.counted) == (200, "well", 1), reply.body
        writer.close()


async def test_an_upload_continues_after_a_stop_longer_than_its_timeout(database: Database, tmp_path: Path) -> None:
    """One whose client sends the rest meanwhile, and one whose upstream takes it."""
    quick, slow = Ear(), Ear(eager=False)
    for each in (quick, slow):
        each.answering.set()
    async with transcription_gateway(database, tmp_path, quick, slow) as (stack, key):
        reader, writer = await asyncio.open_connection("127.0.0.1", stack.port)
        head, data = upload(key, "ear0", 3 << 20)
        writer.write(head + data[: 2 << 20])
        await writer.drain()
        other_reader, other_writer = await asyncio.open_connection("127.0.0.1", stack.port)
        other_head, other_data = upload(key, "ear1", 24 << 20)
        other_writer.write(other_head + other_data)
        await asyncio.gather(quick.request_received.wait(), slow.request_received.wait())
        await asyncio.sleep(1.0)

        async def meanwhile() -> None:
            await asyncio.sleep(LATE_SECONDS)
            writer.write(data[2 << 20 :])
            slow.taking.set()

        await pause_worker(stack, meanwhile, BODY_SECONDS + 1.5)
        for each_reader, each_writer in ((reader, writer), (other_reader, other_writer)):
            reply = await read_reply(each_reader)
            assert (reply.status, reply.json["text"]) == (200, "well"), reply.body
            each_writer.close()
        assert (quick.counted, slow.counted) == (1, 1)
