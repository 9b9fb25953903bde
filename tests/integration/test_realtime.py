"""Conversations over WebSocket by OpenAI's own client: each response is a call, money and stops hold meanwhile."""

from __future__ import annotations

import asyncio
import json
import signal
import ssl
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from msgspec.structs import replace
from openai import AsyncOpenAI
from openai.resources.realtime.realtime import AsyncRealtimeConnection
from tests.contract.ways import Authority
from tests.integration import node_client
from tests.integration.gates import wait_until_acknowledged
from tests.integration.gateway_stack import (
    UNREACHABLE_TRIES,
    Stack,
    blueprint,
    deployment,
    installation,
    scripted_upstream,
    workload,
)
from tests.integration.patient import UNREACHABLE_CODES
from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.typing import Subprotocol

from groundplan.blueprint import artifact
from groundplan.blueprint.model import Grant, Guardrails, Limit, ProviderKey, Rates
from groundplan.core.money import PICO
from groundplan.gateway.http.listeners import LEAVE_SIGNAL, serving_file
from groundplan.gateway.surfaces.realtime.conversation import CHECK_SECONDS, Session
from groundplan.gateway.surfaces.realtime.session import SessionSettings
from groundplan.gateway.surfaces.realtime.transcripts import Transcripts
from groundplan.ledger.model import Finish, Reservation, Settlement
from groundplan.testing.database import Database
from groundplan.testing.journal import read_segment
from groundplan.testing.scripted import Script, ScriptedModel

RATES = Rates(input=0, output=10 * PICO)
BOUND = Decimal("0.001")
"""USD for a response of at most 100 output tokens."""


@dataclass
class Setup:
    stack: Stack
    model: ScriptedModel
    key: str
    client: AsyncOpenAI

    @asynccontextmanager
    async def conversation(self, **more: Any) -> AsyncIterator[AsyncRealtimeConnection]:
        """Connect a conversation; retried while a busy PostgreSQL does not answer in time what is left, as the refusal
        asks for."""
        async with AsyncExitStack() as stack:
            for tries in range(UNREACHABLE_TRIES):
                manager = self.client.realtime.connect(model="talker", **more)
                try:
                    connection = await stack.enter_async_context(manager)
                    break
                except InvalidStatus as refused:
                    body = refused.response.body or b""
                    if tries == UNREACHABLE_TRIES - 1 or not any(code in body for code in UNREACHABLE_CODES):
                        raise
            yield connection

    def records(self, kind: type[Any]) -> list[Any]:
        """The records of this type in the journal, without those of retried calls."""
        paths = sorted(self.stack.home.journal.glob("*/*.seg"))
        records = [e.record for path in paths for e in read_segment(path)[0] if isinstance(e.record, kind)]
        is_retried = [f'"{getattr(record, "error_code", "")}"'.encode() in UNREACHABLE_CODES for record in records]
        return [record for record, retried in zip(records, is_retried, strict=True) if not retried]

    async def settlements(self, count: int) -> list[Settlement]:
        """All settlements, once there are `count`; each attempt has one, and each call its `Finish`."""
        async with asyncio.timeout(30):
            while len(self.records(Settlement)) < count or len(self.records(Finish)) < count:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        assert len(self.records(Reservation)) == count
        return self.records(Settlement)

    async def assert_refused_after(self, made: int) -> None:
        """Wait until the journal has `made` responses and one refused call after them."""
        async with asyncio.timeout(30):
            while len(self.records(Finish)) <= made:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        assert len(self.records(Settlement)) == len(self.records(Reservation)) == made
        last = self.records(Finish)[made]
        assert (last.status, last.http_status, last.error_code) == ("refused", 429, "rate_limit_exceeded")


@pytest.fixture
async def setup(database: Database, tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Setup]:
    more: dict[str, Any] = dict(getattr(request, "param", {}))
    limits = more.pop("limits", [])
    for key in more.get("keys", ()):
        (tmp_path / key.key).write_text(f"secret of {key.key}")
    more |= {"keys": [replace(key, key=f"file:{tmp_path / key.key}") for key in more.get("keys", ())]}
    async with scripted_upstream("all") as (model, port), installation(database, tmp_path) as stack:
        talker = deployment("talker", port, kind="realtime", rates=RATES, max_output_tokens=100, **more)
        ear = replace(deployment("ear", port, kind="transcription", max_output_tokens=10), site=talker.site)
        deployments = [deployment("chat", port), talker, ear]
        declared = blueprint(
            1, deployments, [workload("assistant", ["chat"], also=["talker", "ear"])], limit=PICO // 400
        )
        stack.apply(replace(declared, limits=limits))
        stack.start()
        await stack.wait_until_ready()
        key, at = stack.key(), f"127.0.0.1:{stack.port}/v1"
        async with AsyncOpenAI(base_url=f"http://{at}", websocket_base_url=f"ws://{at}", api_key=key) as client:
            yield Setup(stack, model, key, client)


async def send_message(connection: AsyncRealtimeConnection, text: str) -> None:
    content: Any = [{"type": "input_text", "text": text}]
    await connection.conversation.item.create(item={"type": "message", "role": "user", "content": content})
    await connection.response.create()


async def read_until(connection: AsyncRealtimeConnection, event_type: str = "response.done") -> tuple[str, Any]:
    """Read events until one of this type; returns the text of the response, and that event."""
    text = ""
    async with asyncio.timeout(30):
        while (event := await connection.recv()).type != event_type:
            if event.type == "response.output_text.delta":
                text += event.delta
    return text.strip(), event


async def close_code(connection: AsyncRealtimeConnection) -> int:
    """Read until the conversation is closed; returns the close code."""
    with pytest.raises(ConnectionClosed) as caught:
        async with asyncio.timeout(30):
            while True:
                await connection.recv()
    assert caught.value.rcvd is not None
    return caught.value.rcvd.code


async def test_each_response_is_a_call_with_its_own_cost(setup: Setup) -> None:
    async with setup.conversation() as connection:
        assert (await connection.recv()).type == "session.created"
        await connection.session.update(session={"type": "realtime", "instructions": "Be short."})
        for words in ("hello there", "and again you"):
            await send_message(connection, words)
            text, done = await read_until(connection)
            assert text == f"You said: {words}"
            told = done.model_extra["groundplan"]
            assert Decimal(told["cost_usd"]) == Decimal(len(text.split())) * 10 / 10**6
            assert told["deployment"] == "talker" and not told["estimated"]
    settlements = await setup.settlements(2)
    assert [(s.outcome, s.usage.output) for s in settlements] == [("ok", 4), ("ok", 5)]
    assert {f.endpoint for f in setup.records(Finish)} == {"realtime"}
    assert len({f.call for f in setup.records(Finish)}) == 2


async def test_the_model_of_a_session_cannot_be_changed(setup: Setup) -> None:
    """It is named as at the upstream; some upstreams would switch to any model named later."""
    async with setup.conversation() as connection:
        assert (await connection.recv()).type == "session.created"
        for named, most, cap in (("talker", "inf", 100), ("scripted/talker", 5000, 100), ("auto", 7, 7)):
            session: Any = {"type": "realtime", "model": named, "max_output_tokens": most, "tracing": "auto"}
            await connection.session.update(session=session)
            updated: Any = await connection.recv()
            assert (updated.type, updated.session.model) == ("session.updated", "up-talker"), named
            assert updated.session.max_output_tokens == cap, "no longer answer than is reserved"
            assert updated.session.tracing is None, "nothing is kept at a provider"
        for other in ("chat", "gpt-dearer", 7):
            session = {"type": "realtime", "model": other}
            await connection.session.update(session=session)
            refused: Any = await connection.recv()
            assert (refused.type, refused.error.code) == ("error", "field_unsupported")


async def test_a_conversation_and_its_upstream_are_part_of_the_callers_trace(setup: Setup) -> None:
    parent = "00-" + "1" * 32 + "-" + "2" * 16 + "-01"
    headers = {"traceparent": parent, "tracestate": "vendor=1"}
    async with setup.conversation(extra_headers=headers, extra_query={"temperature": "0.8"}) as connection:
        for _ in range(2):
            await send_message(connection, "a")
            await read_until(connection)
    await setup.settlements(2)
    assert [finish.trace for finish in setup.records(Finish)] == [parent] * 2
    assert setup.model.last is not None
    sent = setup.model.last.headers
    assert (sent[b"traceparent"], sent[b"tracestate"]) == (parent.encode(), b"vendor=1")
    assert setup.model.last.target == b"/v1/realtime?model=up-talker&temperature=0.8"
    async with setup.conversation() as connection:
        await send_message(connection, "a")
        await read_until(connection)
    await setup.settlements(3)
    assert setup.records(Finish)[2].trace == "" and b"traceparent" not in setup.model.last.headers


async def test_an_out_of_band_response_waits_for_the_running_response(setup: Setup) -> None:
    """Providers make both at once: a response outside the conversation is not refused during another one."""
    setup.model.script = Script(chunk_ms=50)
    async with setup.conversation() as connection:
        await send_message(connection, "a")
        await connection.response.create(response={"conversation": "none", "output_modalities": ["text"]})
        await connection.response.create()
        assert (await read_until(connection, "error"))[1].error.code == "conversation_already_has_active_response"
        for _ in range(2):
            _, done = await read_until(connection)
            assert done.model_extra["groundplan"]["deployment"] == "talker"
    settlements = await setup.settlements(2)
    assert [(each.outcome, each.usage.output) for each in settlements] == [("ok", 3)] * 2


@pytest.mark.parametrize("listening", [False, True])
async def test_a_refused_response_costs_nothing_and_the_next_one_is_made(setup: Setup, listening: bool) -> None:
    """`listening`: audio was sent since, for which the budget is reserved, too."""
    async with setup.conversation() as connection:
        for _ in range(2):
            if listening:
                await connection.input_audio_buffer.append(audio="AAAA")
            await connection.response.create(response={"instructions": "refuse"})
            if listening:
                await connection.input_audio_buffer.append(audio="AAAA")
            _, refused = await read_until(connection, "error")
            assert refused.error.code == "refused"
        await send_message(connection, "hello there")
        text, done = await read_until(connection)
        assert text == "You said: hello there" and done.response.usage.output_tokens == 4
    async with asyncio.timeout(30):
        while len(setup.records(Settlement)) != len(setup.records(Reservation)) or not setup.records(Finish):  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    costs = sorted(settlement.cost for settlement in setup.records(Settlement))
    assert costs[-1] == 4 * 10_000_000 and not any(costs[:-1]), costs
    assert len(costs) <= (1 if not listening else 3), "what was reserved for one is for the next one"


async def test_a_failed_response_is_a_failed_call_and_the_next_one_is_made(setup: Setup) -> None:
    async with setup.conversation() as connection:
        for told in ("fail", "limit"):  # of what its provider's limit refuses it may say no usage
            await connection.response.create(response={"instructions": told})
            _, failed = await read_until(connection)
            assert failed.response.status == "failed"
            assert failed.model_extra["groundplan"]["cost_usd"] == "0.000000000000", told
        await send_message(connection, "a")
        assert (await read_until(connection))[0] == "You said: a"
    settlements = await setup.settlements(3)
    assert [s.outcome for s in settlements] == ["failed", "not_billed", "ok"]
    failed = ("failed", "upstream_failed")
    assert [(f.status, f.error_code) for f in setup.records(Finish)] == [failed, failed, ("ok", "")]


@pytest.mark.parametrize("setup", [{"keys": [ProviderKey(key="a"), ProviderKey(key="b")]}], indirect=True)
async def test_a_provider_key_whose_responses_fail_is_paused(setup: Setup) -> None:
    """OpenAI accepts connections with a key whose quota is used up, and fails each response."""
    used = []
    for told in ("limit", "a", "a"):
        async with setup.conversation() as connection:
            await connection.response.create(response={"instructions": told})
            await read_until(connection)
        assert setup.model.last is not None
        used.append(setup.model.last.headers[b"authorization"].removeprefix(b"Bearer secret of "))
    assert used == [b"a", b"b", b"b"]


async def test_a_conversation_after_a_refusal_costs_nothing(setup: Setup) -> None:
    async with setup.conversation() as connection:
        await connection.response.create(response={"instructions": "refuse"})
        await read_until(connection, "error")
    (only,) = await setup.settlements(1)
    assert (only.outcome, only.cost) == ("not_billed", 0)


async def test_a_response_that_the_model_starts_by_itself_is_charged(setup: Setup) -> None:
    clock = asyncio.get_running_loop().time
    async with setup.conversation() as connection:
        await connection.input_audio_buffer.append(audio="AAAA")
        await asyncio.sleep(0.2)
        began = clock()
        await connection.input_audio_buffer.commit()
        _, done = await read_until(connection)
        took = clock() - began
        assert done.model_extra["groundplan"]["cost_usd"] == "0.000020000000"
        await connection.input_audio_buffer.append(audio="AAAA")
    settlements = await setup.settlements(2)
    assert [(s.outcome, s.cost) for s in settlements] == [("ok", 20_000_000), ("not_billed", 0)]
    for microseconds in (settlements[0].duration_us, setup.records(Finish)[0].duration_us):
        assert microseconds < took * 1e6, "that somebody was listened to is no time of the response"


async def test_a_response_started_by_client_and_model_at_once_is_counted_once() -> None:
    """What one of both reserved would else be held by nobody."""
    session, made = Session.__new__(Session), list[Any]()
    session._active = session._reserved = session._ending = None
    session._settings, session._turn_ended, session._deployment = SessionSettings(), 0, deployment("x", 1)
    session._transcripts = Transcripts(cast(Any, SimpleNamespace(gateway=None)), session._settings)

    async def begun(**_: Any) -> Any:
        async with busy:
            if session._reserved is None:
                await asyncio.sleep(0.01)
                made.append(SimpleNamespace(first_byte=1, started=1, attempt_started=1))
                session._reserved = made[-1]
            return session._reserved

    busy, session._reserve_next = asyncio.Lock(), begun  # type: ignore[method-assign]
    created = b'{"type":"response.created","response":{"id":"r"}}'
    await asyncio.gather(session._may_begin("response.create"), session._handle_event(created))
    assert session._active is made[0]
    assert [each for each in made if each not in (session._active, session._reserved)] == []


@pytest.mark.parametrize("how", ["read", "unread", "gone", "asked", "over"])
async def test_audio_that_may_have_been_answered_is_charged_at_its_bound(setup: Setup, how: str) -> None:
    """The upstream took what it heard for a turn, or nobody can tell whether it did: its response was not read yet.
    `asked`: it says that it responds to none unless it is asked to; `over`: it ends the session, as OpenAI does after
    an hour, and had taken none."""
    async with setup.conversation() as connection:
        assert (await connection.recv()).type == "session.created"
        if how == "asked":
            listening: Any = {"type": "realtime", "audio": {"input": {"turn_detection": None}}}
            await connection.session.update(session=listening)
            assert (await connection.recv()).type == "session.updated"
        await connection.input_audio_buffer.append(audio=how if how in ("gone", "over") else "turn")
        if how in ("read", "asked"):
            assert (await connection.recv()).type == "input_audio_buffer.committed"
        if how in ("gone", "over"):
            assert await close_code(connection) == 1011
    (settlement,) = await setup.settlements(1)
    wanted = ("not_billed", 0) if how in ("asked", "over") else ("cancelled", int(BOUND * PICO))
    assert (settlement.outcome, settlement.cost) == wanted


async def test_transcription_is_charged_at_the_price_of_its_deployment(setup: Setup) -> None:
    """Each turn is a call of its own, also the one after which its client leaves; of one whose text is never told
    nobody knows the cost, and one that was not heard has none."""
    for language, told in (("en", True), ("fail", True), ("none", False), ("en", False)):
        async with setup.conversation() as connection:
            assert (await connection.recv()).type == "session.created"
            listens: Any = {"transcription": {"model": "scripted/ear", "language": language}, "turn_detection": None}
            await connection.session.update(session={"type": "realtime", "audio": {"input": listens}})
            updated: Any = await connection.recv()
            assert updated.session.audio.input.transcription.model == "up-ear"
            await connection.input_audio_buffer.append(audio="turn")
            if told:
                assert (await connection.recv()).type == "input_audio_buffer.committed"
                text: Any = await connection.recv()
                assert text.model_extra["groundplan"]["deployment"] == "ear"
                await connection.input_audio_buffer.append(audio="AAAA")
    async with asyncio.timeout(30):
        while len(setup.records(Settlement)) < 10 or len(setup.records(Finish)) < 10:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    ears = {each.call for each in setup.records(Reservation) if each.deployment == "ear"}
    costs = [(each.outcome, each.cost // 10_000_000) for each in setup.records(Settlement) if each.call in ears]
    read_until, unheard, unknown = ("ok", 2), ("not_billed", 0), ("cancelled", 10)
    assert costs == [read_until, unheard, unheard, unheard, unknown, read_until]
    assert {each.endpoint for each in setup.records(Finish) if each.call in ears} == {"audio.transcriptions"}
    assert {each.cost for each in setup.records(Settlement) if each.call not in ears} == {0}


async def test_a_running_response_is_completed_when_the_gateway_is_stopped(setup: Setup) -> None:
    setup.model.script = Script(tokens=10, chunk_ms=200)
    async with setup.conversation() as connection, setup.conversation() as quiet:
        await send_message(connection, "a")
        await read_until(connection, "response.output_text.delta")
        setup.stack.workers[0].send_signal(signal.SIGTERM)
        assert await close_code(quiet) == 1001
        text, done = await read_until(connection)
        assert len(text.split()) == 9 and done.model_extra["groundplan"]["deployment"] == "talker"
        _, error = await read_until(connection, "error")
        assert error.error.message == "this gateway is being stopped. Connect again."
        assert error.error.code == "stopping" and await close_code(connection) == 1001
    (settlement,) = await setup.settlements(1)
    assert (settlement.outcome, settlement.usage.output) == ("ok", 10)


async def test_a_conversation_goes_on_in_a_replaced_worker_until_the_gateway_is_stopped(
    setup: Setup,
) -> None:
    async with setup.conversation() as connection, setup.conversation() as quiet:
        setup.stack.workers[0].send_signal(LEAVE_SIGNAL)
        async with asyncio.timeout(30):
            while serving_file(setup.stack.home, setup.stack.workers[0].pid).exists():  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        await asyncio.sleep(3 * CHECK_SECONDS)
        for number in (1, 2):
            await send_message(connection, "a")
            _, done = await read_until(connection)
            assert done.response.status == "completed"
            assert len(await setup.settlements(number)) == number, "budgets hold, and what is made is metered"
        setup.stack.workers[0].send_signal(signal.SIGTERM)
        for each in (connection, quiet):
            _, error = await read_until(each, "error")
            assert error.error.code == "stopping" and await close_code(each) == 1001


async def test_idle_conversations_reserve_nothing(setup: Setup) -> None:
    async with AsyncExitStack() as stack:
        connections = [await stack.enter_async_context(setup.conversation()) for _ in range(5)]
        for connection in connections:  # the budget has room for two bounds
            await send_message(connection, "a")
            assert (await read_until(connection))[0] == "You said: a"
    assert len(await setup.settlements(5)) == 5


async def test_an_exhausted_budget_ends_the_conversation_cleanly(setup: Setup) -> None:
    setup.model.script = Script(tokens=100)
    async with setup.conversation() as connection:
        for _ in range(2):
            await send_message(connection, "a")
            await read_until(connection)
        await send_message(connection, "a")
        _, error = await read_until(connection, "error")
        assert error.error.code == "budget_exhausted" and error.error.type == "insufficient_quota"
        assert await close_code(connection) == 1008
    assert setup.model.counted == 2 and sum(s.cost for s in await setup.settlements(2)) == 2 * BOUND * PICO
    more: list[dict[str, Any]] = [{}, {"extra_headers": {"groundplan-estimate": "1"}}]
    for headers, status in zip(more, (429, 400), strict=True):
        with pytest.raises(InvalidStatus) as caught:
            async with setup.conversation(**headers):
                pass
        assert caught.value.response.status_code == status


async def test_the_last_response_within_the_budget_is_completed_though_audio_arrives_meanwhile(setup: Setup) -> None:
    """Whoever listens sends sound all the time: that there is no room for one more response cuts none off."""
    setup.model.script = Script(tokens=100)
    async with setup.conversation() as connection:
        await send_message(connection, "a")
        await read_until(connection)  # the budget has room for one and a half more
        setup.model.script = Script(tokens=20, chunk_ms=30)
    async with setup.conversation() as connection:
        await send_message(connection, "a")
        await read_until(connection, "response.output_text.delta")
        for _ in range(3):
            await connection.input_audio_buffer.append(audio="AAAA")
        text, done = await read_until(connection)
        assert len(text.split()) == 19 and done.model_extra["groundplan"]["deployment"] == "talker"
        _, error = await read_until(connection, "error")
        assert error.error.code == "budget_exhausted" and await close_code(connection) == 1008
    _, last = await setup.settlements(2)
    assert (last.outcome, last.usage.output, last.cost) == ("ok", 20, 200_000_000)


async def until_error(connection: AsyncRealtimeConnection) -> list[Any]:
    """All that is heard up to an error."""
    seen: list[Any] = [await connection.recv()]
    while seen[-1].type != "error":
        seen.append(await connection.recv())
    return seen


@pytest.mark.parametrize("pace", ["spoken", "at once"])
async def test_several_turns_in_one_piece_of_audio_are_each_charged_or_not_answered(setup: Setup, pace: str) -> None:
    """The budget has room for one and a half: of a second turn that is still spoken the sound is thrown away, and what
    is made of one all the same is broken off, and costs what it used."""
    heard_of: list[str] = []

    async def talker(connection: ServerConnection) -> None:
        async def tell(kind: str, **more: Any) -> None:
            await connection.send(json.dumps({"type": kind, **more}))

        async def respond(name: str, used: int = 0) -> None:
            counts = {"input_tokens": 0, "output_tokens": used, "total_tokens": used}
            made: Any = {"id": name, "status": "cancelled" if used else "in_progress", "output": [], "usage": counts}
            await tell("response.done" if used else "response.created", response=made)

        await tell("session.created", session={"type": "realtime"})
        async for text in connection:
            heard_of.append(kind := json.loads(text)["type"])
            if kind == "input_audio_buffer.append":
                await tell("input_audio_buffer.speech_started", item_id="a", audio_start_ms=0)
                await tell("input_audio_buffer.committed", item_id="a", previous_item_id=None)
                await respond("one")
                await tell("input_audio_buffer.speech_started", item_id="b", audio_start_ms=2000)
                if pace == "spoken":
                    assert "clear" in str(await connection.recv())
                    await tell("input_audio_buffer.cleared")
                await respond("one", used=60)
                if pace == "at once":
                    await tell("input_audio_buffer.committed", item_id="b", previous_item_id="a")
                    await respond("two")
            elif kind == "input_audio_buffer.clear":
                await tell("input_audio_buffer.cleared")
            else:
                await respond("two", used=5)

    async with serve(talker, "127.0.0.1", 0) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        places = [deployment("talker", port, kind="realtime", rates=RATES, max_output_tokens=100)]
        declared = workload("assistant", ["talker"], also=["talker"])
        setup.stack.apply(blueprint(2, places, [declared], limit=PICO // 650))
        await setup.stack.wait_until_ready(2)
        async with setup.conversation() as connection:
            await connection.input_audio_buffer.append(audio="AAAA")
            seen = await until_error(connection)
            assert "input_audio_buffer.cleared" not in {each.type for each in seen}, "the client asked for nothing"
            assert seen[-1].error.code == "budget_exhausted" and await close_code(connection) == 1008
        async with asyncio.timeout(30):
            while len(setup.records(Settlement)) < 1 + (pace == "at once"):  # noqa: ASYNC110
                await asyncio.sleep(0.05)
    assert [each.usage.output for each in setup.records(Settlement)] == ([60] if pace == "spoken" else [60, 5])
    assert heard_of.count("response.cancel") == (pace == "at once")


def limit(covers: str, type: str, amount: int, period: str = "day") -> dict[str, Any]:
    return {"limits": [Limit(name="few", covers=covers, type=type, amount=amount, period=period)]}


@pytest.mark.parametrize(
    "setup",
    [
        limit("deployment/talker", "requests", 2), limit("model/scripted/talker", "requests", 2),
        limit("deployment/talker", "tokens", deployment("x", 1).context_tokens + 100 + 5),
        limit("model/scripted/talker", "cost", int(BOUND * PICO) + 40_000_000),
        {"keys": [ProviderKey(key="a", requests=[(2, "day")])]},
    ],
    indirect=True,
    ids=["deployment", "model", "tokens", "cost", "key"],
)  # fmt: skip
async def test_a_limit_of_the_deployment_its_model_or_key_ends_the_conversation_cleanly(setup: Setup) -> None:
    """Two responses of one token in and three out fit; of a third one the most that it could be does not."""
    async with setup.conversation() as connection:
        for _ in range(2):
            await send_message(connection, "a")
            await read_until(connection)
        await send_message(connection, "a")
        _, error = await read_until(connection, "error")
        assert (error.error.code, error.error.type) == ("rate_limit_exceeded", "rate_limit_error")
        assert await close_code(connection) == 1008
    assert setup.model.counted == 2
    await setup.assert_refused_after(2)
    with pytest.raises(InvalidStatus) as caught:
        async with setup.conversation():
            pass
    assert caught.value.response.status_code == 429
    assert setup.model.counted == 2


@pytest.mark.parametrize("setup", [limit("workload/assistant", "requests", 1)], indirect=True)
async def test_a_conversation_refused_by_a_limit_is_told_the_remaining_amount(setup: Setup) -> None:
    async with setup.conversation() as connection:
        await send_message(connection, "a")
        await read_until(connection)
    with pytest.raises(InvalidStatus) as caught:
        async with setup.conversation():
            pass
    told = caught.value.response
    left = [told.headers[f"x-ratelimit-{name}-requests"] for name in ("limit", "remaining")]
    assert (told.status_code, left) == (429, ["1", "0"]) and told.headers["x-ratelimit-reset-requests"]
    assert told.headers["x-request-id"], "beside the id of the call"


@pytest.mark.parametrize("setup", [limit("workload/assistant", "requests", 1)], indirect=True)
async def test_a_conversation_without_a_response_counts_as_no_request(setup: Setup) -> None:
    """Also one that heard something, for which a response was reserved for."""
    async with setup.conversation() as connection:
        listening: Any = {"type": "realtime", "audio": {"input": {"turn_detection": None}}}
        await connection.session.update(session=listening)
        await read_until(connection, "session.updated")
        await connection.input_audio_buffer.append(audio="turn")
        await read_until(connection, "input_audio_buffer.committed")
    await setup.settlements(1)
    async with setup.conversation() as connection:
        await send_message(connection, "a")
        assert (await read_until(connection))[0] == "You said: a"
    with pytest.raises(InvalidStatus):
        async with setup.conversation():
            pass


@pytest.mark.parametrize(
    "setup", [limit("deployment/talker", "concurrent", 1, "now")], indirect=True, ids=["concurrent"]
)
async def test_a_response_releases_what_it_reserved_of_a_limit_at_its_end(setup: Setup) -> None:
    setup.model.script = Script(chunk_ms=300)
    async with setup.conversation() as one, setup.conversation() as two:
        for connection in (one, two, one):
            await send_message(connection, "a")
            assert (await read_until(connection))[0] == "You said: a"
        setup.model.script = Script(chunk_ms=300, tokens=100)
        await send_message(one, "a")
        await read_until(one, "response.output_text.delta")
        await send_message(two, "a")
        assert (await read_until(two, "error"))[1].error.code == "rate_limit_exceeded"


@pytest.mark.parametrize(
    "setup", [{"keys": [ProviderKey(key="a", requests=[(1, "day")]), ProviderKey(key="b")]}], indirect=True
)
async def test_a_conversation_uses_a_provider_key_whose_limit_has_room(setup: Setup) -> None:
    async with setup.conversation() as connection:
        await send_message(connection, "a")
        await read_until(connection)
        await send_message(connection, "a")
        assert (await read_until(connection, "error"))[1].error.code == "rate_limit_exceeded"
    for _ in range(2):
        async with setup.conversation() as connection:
            for _ in range(2):
                await send_message(connection, "a")
                assert (await read_until(connection))[0] == "You said: a"


@pytest.mark.parametrize("setup", [{"keys": [ProviderKey(key="one-of-ours")]}], indirect=True)
async def test_a_provider_key_in_an_upstreams_message_is_not_passed_on(setup: Setup) -> None:
    async with setup.conversation() as connection:
        await send_message(connection, "is it secret of one-of-ours or not")
        _, added = await read_until(connection, "conversation.item.added")
        assert added.item.content[0].text == "is it [hidden] or not"


@pytest.mark.parametrize("what", ["revoked", "killed"])
async def test_a_kill_or_revocation_ends_a_conversation_within_a_second(setup: Setup, what: str) -> None:
    """The better of two tries, since the machine may be busy."""
    took = await seconds_until_stopped(setup, what, 1)
    if took >= 2:
        setup.stack.policy("lift", "x", "UPDATE kill_switch SET lifted_at = now()")
        await wait_until_acknowledged(setup.stack)
        setup.client.api_key = setup.stack.key()
        took = await seconds_until_stopped(setup, what, 2)
    assert took < 2


async def test_a_conversation_refused_to_a_known_key_is_recorded_as_its_call(setup: Setup) -> None:
    setup.stack.policy("key", "x", "UPDATE api_key SET networks = '{203.0.113.0/24}'")
    told: bytes | bytearray = b""
    async with asyncio.timeout(30):
        while b"key_network" not in told:
            try:
                async with setup.conversation() as connection:  # until the worker knows it
                    await connection.close()
            except InvalidStatus as refused:
                told = refused.response.body or b""
    last = setup.records(Finish)[-1]
    assert (last.status, last.error_code, last.workload) == ("refused", "key_network", "assistant") and last.key


async def test_killing_the_transcription_deployment_ends_a_conversation(setup: Setup) -> None:
    async with setup.conversation() as connection:
        assert (await connection.recv()).type == "session.created"
        listens: Any = {"transcription": {"model": "scripted/ear"}, "turn_detection": None}
        await connection.session.update(session={"type": "realtime", "audio": {"input": listens}})
        assert (await connection.recv()).type == "session.updated"
        setup.stack.policy("kill", "x", KILL, "deployment/ear")
        _, error = await read_until(connection, "error")
        assert error.error.code == "killed" and await close_code(connection) == 1008


KILL = "INSERT INTO kill_switch (id, scope, reason, by) VALUES (gen_random_uuid(), %s, 'r', 'b')"


async def seconds_until_stopped(setup: Setup, what: str, made: int) -> float:
    """Seconds until a conversation ends that is stopped in its response, which is the one of that number."""
    setup.model.script = Script(tokens=100, chunk_ms=200)
    async with setup.conversation() as connection:
        await send_message(connection, "a")
        await read_until(connection, "response.output_text.delta")
        if what == "revoked":
            setup.stack.policy("key", "x", "UPDATE api_key SET revoked_at = now()")
        else:
            setup.stack.policy("kill", "x", KILL, "deployment/talker")
        began = asyncio.get_running_loop().time()
        _, error = await read_until(connection, "error")
        assert error.error.code == ("key_revoked" if what == "revoked" else "killed")
        assert await close_code(connection) == 1008
        took = asyncio.get_running_loop().time() - began
    settlement = (await setup.settlements(made))[-1]
    assert settlement.outcome == "cancelled" and settlement.cost == settlement.usage.output * 10_000_000 < BOUND * PICO
    return took


async def test_a_kill_ends_a_conversation_whose_client_reads_nothing(setup: Setup) -> None:
    """Its upstream is stopped as soon as that of a client that reads."""
    setup.model.script = Script(tokens=5000)
    async with setup.conversation() as connection:
        await send_message(connection, "x" * 100_000)
        await asyncio.sleep(2)  # until every buffer on the way is full
        setup.stack.policy(
            "kill", "x", "INSERT INTO kill_switch (id, scope, reason, by) VALUES (gen_random_uuid(), %s, 'r', 'b')",
            "deployment/talker",
        )  # fmt: skip
        (settled,) = await setup.settlements(1)
        assert settled.outcome == "cancelled"
        connection._connection.transport.abort()


@pytest.mark.parametrize("setup", [{"concurrent": 1}], indirect=True)
async def test_a_deployment_has_no_more_conversations_than_its_concurrency_limit(setup: Setup) -> None:
    async with setup.conversation() as connection:
        await send_message(connection, "a")
        await read_until(connection)
        with pytest.raises(InvalidStatus) as refused:
            async with setup.conversation():
                pass
        assert refused.value.response.status_code == 503
        assert b"as many conversations as it may" in (refused.value.response.body or b"")
    async with asyncio.timeout(20):
        while True:
            try:
                async with setup.conversation() as connection:
                    await send_message(connection, "b")
                    assert (await read_until(connection))[0] == "You said: b"
                    return
            except InvalidStatus:  # the first one is just ending
                await asyncio.sleep(0.05)


async def test_a_conversation_ends_when_its_persons_grant_ends(setup: Setup) -> None:
    person = setup.stack.person("ana@acme.example")
    made = setup.stack.sql("SELECT body FROM blueprint WHERE number = 1")
    first = artifact.decode(bytes(made[0][0]))
    work = replace(first.workloads[0], use=[Grant(name="ana", to=["ana@acme.example"])])
    setup.stack.apply(replace(first, number=2, workloads=[work]))
    await setup.stack.wait_until_ready(2)
    setup.client.api_key = setup.stack.key(person=person)
    async with setup.conversation() as connection:
        await send_message(connection, "a")
        await read_until(connection)
        setup.stack.apply(replace(first, number=3, workloads=[replace(work, use=[Grant(name="hr", to=["hr"])])]))
        _, error = await read_until(connection, "error")
        assert error.error.code == "use_not_granted"
        assert await close_code(connection) == 1008


async def test_blueprints_and_kills_apply_to_a_running_conversation(setup: Setup) -> None:
    """A conversation may last an hour, and is subject to changes like every other call."""
    made = artifact.decode(bytes(setup.stack.sql("SELECT body FROM blueprint WHERE number = 1")[0][0]))
    made = replace(made, budgets=[replace(budget, limit=PICO) for budget in made.budgets])
    async with setup.conversation() as connection:
        await connection.response.create(response={"instructions": "call lookup"})
        await read_until(connection)
        work = replace(made.workloads[0], guardrails=Guardrails(input={"secrets": "block"}))
        setup.stack.apply(replace(made, number=2, workloads=[work]))
        await setup.stack.wait_until_ready(2)
        secret: Any = [{"type": "input_text", "text": "sk-" + "proj-" + "abcdefghijklmnopqrstuvwx"}]
        await connection.conversation.item.create(item={"type": "message", "role": "user", "content": secret})
        assert (await read_until(connection, "error"))[1].error.code == "guardrail_secrets"
        await send_message(connection, "a")
        assert (await read_until(connection))[0] == "You said: a", "it goes on"
        kill = "INSERT INTO kill_switch (id, scope, reason, by) VALUES (gen_random_uuid(), %s, 'r', 'b')"
        setup.stack.policy("kill", "x", kill, "tool/lookup")
        await wait_until_acknowledged(setup.stack)
        await connection.response.create(response={"instructions": "call lookup"})
        assert (await read_until(connection, "error"))[1].error.code == "guardrail_tools"
        assert await close_code(connection) == 1008
    setup.stack.apply(replace(made, number=3))
    await setup.stack.wait_until_ready(3)
    async with setup.conversation() as connection:
        await connection.response.create(response={"instructions": "call lookup"})
        assert (await read_until(connection, "error"))[1].error.code == "guardrail_tools", (
            "where nothing else is guarded, too"
        )
    setup.stack.policy("lift", "x", "UPDATE kill_switch SET lifted_at = now()")
    await wait_until_acknowledged(setup.stack)
    async with setup.conversation() as connection:
        await send_message(connection, "a")
        await read_until(connection)
        places = [replace(place, upstream_model=f"{place.upstream_model}-mini") for place in made.deployments]
        setup.stack.apply(replace(made, number=4, deployments=places))
        await setup.stack.wait_until_ready(4)
        await send_message(connection, "b")
        assert (await read_until(connection, "error"))[1].error.code == "deployment_changed", (
            "its price is another model's"
        )
    setup.stack.apply(replace(made, number=5))
    await setup.stack.wait_until_ready(5)
    async with setup.conversation() as connection:
        await send_message(connection, "a")
        await read_until(connection)
        work = replace(made.workloads[0], residency=["EU"])
        sites = [replace(site, jurisdiction="US") for site in made.sites]
        setup.stack.apply(replace(made, number=6, sites=sites, workloads=[work]))
        error = (await read_until(connection, "error"))[1].error
        assert error.code == "deployment_changed", "nothing more is said to what is elsewhere"
        assert await close_code(connection) == 1008
        assert await close_code(connection) == 1008


async def test_a_broken_upstream_connection_is_reported_and_settled(setup: Setup) -> None:
    setup.model.script = Script(mode="cut", tokens=10)
    async with setup.conversation() as connection:
        await send_message(connection, "a")
        _, error = await read_until(connection, "error")
        assert error.error.code == "stream_broken" and await close_code(connection) == 1011
    (settlement,) = await setup.settlements(1)
    assert (settlement.outcome, settlement.estimated, settlement.cost) == ("failed", True, int(BOUND * PICO))


async def test_an_upstream_that_stops_reading_times_out(setup: Setup) -> None:
    """However much lies before it that it was sent, and the place of the conversation is free then."""
    gone = asyncio.Event()

    async def stuck(connection: ServerConnection) -> None:
        await connection.send('{"type":"session.created"}')
        connection.transport.pause_reading()
        await gone.wait()
        connection.transport.abort()

    async def pour(connection: AsyncRealtimeConnection) -> None:
        while True:
            await connection.input_audio_buffer.append(audio="A" * (1 << 20))

    async with serve(stuck, "127.0.0.1", 0) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        more: dict[str, Any] = {"kind": "realtime", "rates": RATES, "max_output_tokens": 100, "idle_ms": 1000}
        places = [deployment("talker", port, concurrent=1, **more)]
        setup.stack.apply(blueprint(2, places, [workload("assistant", ["talker"], also=["talker"])]))
        await setup.stack.wait_until_ready(2)
        for _ in range(2):
            async with setup.conversation() as connection:
                pouring = asyncio.create_task(pour(connection))
                assert await close_code(connection) == 1011
                pouring.cancel()
                await asyncio.wait([pouring])
        gone.set()
    settled = await setup.settlements(2)
    assert {each.outcome for each in settled} == {"cancelled"}


@pytest.mark.parametrize("way", ["handshake", "event"])
@pytest.mark.parametrize("setup", [{"keys": [ProviderKey(key="a"), ProviderKey(key="b")]}], indirect=True)
async def test_a_refused_provider_key_is_paused_and_another_key_or_deployment_is_used(
    setup: Setup, tmp_path: Path, way: str
) -> None:
    """OpenAI takes every connection, and refuses in its first event."""
    asked: list[str] = []
    bad: set[str] = set()
    unknown = {"type": "invalid_request_error", "code": "invalid_api_key", "message": "Incorrect API key provided"}

    def refuse(connection: ServerConnection, request: Any) -> Any:
        asked.append(request.headers["authorization"].removeprefix("Bearer secret of "))
        return connection.respond(401, "unknown") if way == "handshake" and asked[-1] in bad else None

    async def first(connection: ServerConnection) -> None:
        if asked[-1] in bad:
            await connection.send(json.dumps({"type": "error", "error": unknown}))
            await connection.close(3000, "invalid_request_error.invalid_api_key")
            return
        await connection.send('{"type":"session.created","session":{"id":"other"}}')
        await connection.wait_closed()

    async with serve(first, "127.0.0.1", 0, process_request=refuse) as server:
        made = artifact.decode(bytes(setup.stack.sql("SELECT body FROM blueprint WHERE number = 1")[0][0]))
        talker = next(each for each in made.deployments if each.name == "talker")
        port = next(iter(server.sockets)).getsockname()[1]
        refusing = replace(talker, name="first", url=f"http://127.0.0.1:{port}/v1")
        work = replace(made.workloads[0], deployments=["first"], also=["first", "talker"])
        setup.stack.apply(replace(made, number=2, deployments=[refusing, talker], workloads=[work]))
        await setup.stack.wait_until_ready(2)
        for bad, wanted in (({"a"}, ["a", "b"]), ({"a"}, ["b"]), ({"a", "b"}, ["b"])):
            asked.clear()
            async with setup.client.realtime.connect(model=talker.model) as connection:
                created: Any = await connection.recv()
                assert (created.session.id == "other") == (bad != {"a", "b"}), "else the next deployment takes it up"
            assert asked == wanted


async def test_redirects_of_an_upstream_are_not_followed(setup: Setup) -> None:
    """Whoever it names is declared nowhere: no sound and no text goes there."""
    async with scripted_upstream("elsewhere") as (_, elsewhere):

        async def lead(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            told = b"HTTP/1.1 307 X\r\nlocation: ws://127.0.0.1:%d/v1/realtime?model=m\r\ncontent-length: 0\r\n\r\n"
            writer.write(told % elsewhere)
            writer.close()

        async with await asyncio.start_server(lead, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            places = [deployment("talker", port, kind="realtime", rates=RATES, max_output_tokens=100)]
            declared = workload("assistant", ["talker"], also=["talker"])
            setup.stack.apply(blueprint(2, places, [declared], limit=PICO // 400))
            await setup.stack.wait_until_ready(2)
            with pytest.raises(InvalidStatus) as refused:
                async with setup.conversation():
                    pass
            assert refused.value.response.status_code == 503
            assert b"upstream_failed" in (refused.value.response.body or b"")
    async with asyncio.timeout(30):
        while not (told := setup.records(Finish)):  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    assert [(f.status, f.http_status, f.error_code) for f in told] == [("refused", 503, "upstream_failed")]
    assert setup.records(Reservation) == []


@pytest.mark.parametrize("base", ["/v1", "/openai/v1"])
async def test_a_client_without_headers_may_send_its_key_as_a_subprotocol(setup: Setup, base: str) -> None:
    """Also below the base URL that Azure has."""
    url = f"ws://127.0.0.1:{setup.stack.port}{base}/realtime?model=talker"
    for key in (setup.key, "gp_wrong"):
        offered = [Subprotocol("realtime"), Subprotocol(f"openai-insecure-api-key.{key}")]
        conversation = connect(url, subprotocols=offered, proxy=None)
        if key == setup.key:
            async with conversation as socket:
                assert socket.subprotocol == "realtime" and "session.created" in str(await socket.recv())
            continue
        with pytest.raises(InvalidStatus) as refused:
            await conversation
        assert refused.value.response.status_code == 401


@node_client.needed
async def test_the_official_node_client_holds_a_conversation(setup: Setup, tmp_path: Path) -> None:
    """It talks over TLS only, which ends before the gateway here, as at a load balancer."""
    authority = Authority(tmp_path)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*authority.issue("gateway", "127.0.0.1"))

    async def passed(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        writer.close()

    async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, onward = await asyncio.open_connection("127.0.0.1", setup.stack.port)
        await asyncio.gather(passed(reader, onward), passed(there, writer))

    async with await asyncio.start_server(forward, "127.0.0.1", 0, ssl=context) as front:
        url = f"https://127.0.0.1:{front.sockets[0].getsockname()[1]}/v1"
        said = await node_client.run_script("node_realtime.cjs", url, setup.key, authority=authority.file)
        found = json.loads(said)
    assert found == {"text": "You said: hello there", "status": "completed", "deployment": "talker"}


async def test_a_client_of_the_earlier_api_gets_its_events(setup: Setup) -> None:
    """OpenAI's clients say so in a header, or among the subprotocols where they have none."""
    url = f"ws://127.0.0.1:{setup.stack.port}/v1/realtime?model=talker"
    offered = ("realtime", f"openai-insecure-api-key.{setup.key}", "openai-beta.realtime-v1")
    async with connect(url, subprotocols=[Subprotocol(each) for each in offered], proxy=None) as socket:
        assert "session.created" in str(await socket.recv())
    assert setup.model.last is not None and setup.model.last.headers[b"openai-beta"] == b"realtime=v1"
    async with setup.client.beta.realtime.connect(model="talker") as connection:
        assert (await connection.recv()).type == "session.created"
    assert setup.model.last.headers[b"openai-beta"] == b"realtime=v1"
    async with setup.conversation():
        pass
    assert b"openai-beta" not in setup.model.last.headers


@pytest.mark.parametrize("mode", ["ok", "stall"])
async def test_a_conversation_whose_client_disconnects_is_settled(setup: Setup, mode: str) -> None:
    """By what its response used until its upstream broke it off, where that says so."""
    setup.model.script = Script(mode=mode, tokens=10, chunk_ms=200 if mode == "ok" else 0)
    async with setup.conversation() as connection:
        await send_message(connection, "a")
        for _ in range(5 if mode == "stall" else 1):  # of which it makes half
            await read_until(connection, "response.output_text.delta")
        await connection.response.create(event_id="mine")
        error = (await read_until(connection, "error"))[1].error
        assert (error.code, error.event_id) == ("conversation_already_has_active_response", "mine")
    (settlement,) = await setup.settlements(1)
    assert settlement.outcome == "cancelled"
    if mode == "stall":
        assert settlement.cost == BOUND * PICO
    else:
        assert 0 < settlement.cost == settlement.usage.output * 10_000_000 < BOUND * PICO


async def test_features_billed_outside_responses_are_refused_by_name(setup: Setup) -> None:
    async with setup.conversation() as connection:
        session: Any = {"type": "realtime", "audio": {"input": {"transcription": {"model": "whisper-1"}}}}
        await connection.session.update(session=session, event_id="mine")
        _, error = await read_until(connection, "error")
        assert error.error.code == "field_unsupported" and "transcription" in error.error.message
        assert error.error.event_id == "mine", "so that the client knows what was refused"
        await connection.session.update(session={"type": "realtime", "tools": [{"type": "mcp", "server_label": "x"}]})
        _, error = await read_until(connection, "error")
        assert "tools of type function" in error.error.message
        await connection.session.update(session={"type": "realtime", "prompt": {"id": "pmpt_1"}})
        assert "prompt is not supported" in (await read_until(connection, "error"))[1].error.message
        for turns in ({"type": "server_vad", "idle_timeout_ms": 5000}, {"type": "server_vad", "idle_timeout_ms": None}):
            listening: Any = {"type": "realtime", "audio": {"input": {"turn_detection": turns}}}
            await connection.session.update(session=listening)
        assert "idle_timeout_ms is not supported" in (await read_until(connection, "error"))[1].error.message
        image: Any = {"type": "input_image", "image_url": "http://127.0.0.1/secret.png"}
        await connection.conversation.item.create(item={"type": "message", "role": "user", "content": [image]})
        assert (await read_until(connection, "error"))[1].error.code == "image_url"
        await send_message(connection, "still here")
        assert (await read_until(connection))[0] == "You said: still here"


async def test_an_event_that_two_parsers_read_differently_is_refused(setup: Setup) -> None:
    """Otherwise a response could begin that nothing was reserved for, or a session get tools past the check."""
    async with setup.conversation() as connection:
        for told, code in (
            ('{"type":"response.create","type":"session.update","session":{}}', "duplicate_key"),
            ('{"type":"session.update","session":{"tools":[{"type":"mcp"}],"to\\u006fls":[]}}', "duplicate_key"),
            ('{"type":"x","Type":"response.create"}', "duplicate_key"),
            ('{"type":"session.update","Session":{"tools":[{"type":"mcp"}]}}', "duplicate_key"),
            ('{"type":"session.update","session":{"Tools":[{"type":"mcp"}]}}', "duplicate_key"),
            ('{"type":"session.update","x":' + "[" * 600 + "]" * 600 + "}", "body_not_json"),
        ):
            await connection._connection.send(told)
            assert (await read_until(connection, "error"))[1].error.code == code
        await send_message(connection, "still here")
        assert (await read_until(connection))[0] == "You said: still here"


async def test_requests_that_start_no_conversation_are_refused(setup: Setup) -> None:
    url = f"ws://127.0.0.1:{setup.stack.port}"
    for path, key, status in (
        ("/v1/realtime?model=talker", "gp_wrong", 401),
        ("/v1/realtime?model=unknown", setup.key, 404),
        ("/v1/chat/completions", setup.key, 426),
        ("/realtime?model=talker", setup.key, 426),
        ("/openai/realtime?deployment=talker&api-version=2024-10-01-preview", setup.key, 426),
    ):
        with pytest.raises(InvalidStatus) as caught:
            async with connect(url + path, additional_headers={"Authorization": f"Bearer {key}"}, proxy=None):
                pass
        assert caught.value.response.status_code == status
        assert status != 426 or b"at /v1/realtime" in (caught.value.response.body or b"")
    for more, name in (({"call_id": "rtc_1"}, b"call_id"), ({"extra_query": {"intent": "transcription"}}, b"intent")):
        with pytest.raises(InvalidStatus) as caught:
            async with setup.client.realtime.connect(model="talker", **more):
                pass
        told = caught.value.response.body or b""
        assert caught.value.response.status_code == 400 and b"field_unsupported" in told and name in told, told
    plain = await setup.stack.ask("GET", "/v1/realtime?model=talker", setup.key)
    assert plain.code == "upgrade_required"
    assert setup.model.counted == 0 and setup.records(Reservation) == []
