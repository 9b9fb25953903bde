"""How conversations end whose upstream says what nobody can look at, or whose client leaves: settled, always."""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs
from tests.contract.ways import Authority
from tests.unit.call_rig import BOUND, LIMIT, FixedPolicy, Rig, call_rig, read_records, wait_until
from websockets.asyncio.client import ClientConnection, connect
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.protocol import State

from groundplan.blueprint.model import Guardrails, Limit, PriceWindow, Rates
from groundplan.core.errors import Denied, GroundplanError, Unavailable
from groundplan.core.ids import new_id_bytes
from groundplan.core.money import PICO
from groundplan.gateway.call import steps
from groundplan.gateway.call.exchange import Exchange
from groundplan.gateway.call.pipeline import is_realtime
from groundplan.gateway.http.collected_response import CollectedResponse
from groundplan.gateway.http.listeners import Listeners, ListenSockets
from groundplan.gateway.http.server import Request
from groundplan.gateway.http.tls import ServerFiles
from groundplan.gateway.policy.catalog import index
from groundplan.gateway.policy.snapshot import KeyEntry
from groundplan.gateway.surfaces.realtime import conversation
from groundplan.gateway.surfaces.realtime.begin import Caller, is_outdated
from groundplan.gateway.surfaces.realtime.events import TRANSCRIPTION_COMPLETED
from groundplan.gateway.surfaces.realtime.permission import Permission, current_deployment
from groundplan.gateway.surfaces.realtime.response import REALTIME
from groundplan.gateway.upstream.health import FAILURES
from groundplan.gateway.upstream.pressure import Pressure
from groundplan.ledger.model import Charge, Finish, Reservation, Settlement


@asynccontextmanager
async def conversing(
    folder: Path, upstream: Callable[[ServerConnection], Awaitable[None]], rules: dict[str, Any], **more: Any
) -> AsyncIterator[tuple[Rig, ClientConnection]]:
    """A conversation with an upstream, under the rules of a workload. `more`: settings of its deployment."""
    async with serve(upstream, "127.0.0.1", 0) as server:
        places: dict[str, dict[str, Any]] = {
            "talker": {"kind": "realtime", "max_output_tokens": 20, "site": "there", **more},
            "ear": {"kind": "transcription", "max_output_tokens": 10, "site": "there"},
        }
        ports, workloads = dict.fromkeys(places, port_of(server)), {"assistant": {"also": list(places), **rules}}
        async with call_rig(folder, ["one", *places], ports=ports, more=places, workloads=workloads) as rig:
            rig.server.accepts_websocket, rig.gateway.ready = is_realtime, True
            at, key = f"ws://127.0.0.1:{rig.port}/v1/realtime?model=talker", {"Authorization": "Bearer assistant"}
            async with connect(at, additional_headers=key) as client:
                yield rig, client


def port_of(server: Server) -> int:
    port: int = next(iter(server.sockets)).getsockname()[1]
    return port


async def test_a_conversation_goes_on_for_as_long_as_everything_about_it_may(tmp_path: Path) -> None:
    """Of the person for whom a key acts, too, who may leave."""
    async with call_rig(tmp_path, ["one"]) as rig:
        live, plan, (hash, key) = rig.gateway.live, rig.plan("assistant"), *rig.gateway.live.policy.keys.items()
        assert isinstance(live, FixedPolicy) and live.catalog is not None
        (place,), now = plan.deployments_by_name["one"], rig.gateway.clock.now().timestamp()
        key = replace(key, person="ana", acts_for_others=True, expires=now + 1)
        good = replace(live.policy, keys={hash: key}, active=frozenset({"ana", "ben"}))
        request = Request(0.0, b"GET", b"/", {b"authorization": b"Bearer assistant"})
        admitted = Exchange(new_id_bytes(), request, None, REALTIME)  # type: ignore[arg-type]
        admitted.catalog, admitted.policy, admitted.plan, admitted.workload = live.catalog, good, plan, plan.workload
        admitted.key, admitted.person, live.policy = key, "ben", good
        (permission := Permission(rig.gateway, admitted)).check(place)

        def held(**more: Any) -> dict[bytes, KeyEntry]:
            return {hash: replace(key, **more)}

        scopes = ("company", "workload/assistant", f"key/{key.id}", f"site/{place.site}", f"model/{place.model}")
        changes: list[tuple[dict[str, Any], str]] = [
            ({"keys": {}}, "invalid_api_key"),
            ({"keys": held(revoked=True)}, "key_revoked"),
            ({"keys": held(expires=now)}, "key_expired"),
            ({"active": frozenset({"ben"})}, "key_user_inactive"),
            ({"active": frozenset({"ana"})}, "person_unknown"),
            *(({"kills": frozenset({each})}, "killed") for each in (*scopes, "deployment/one")),
        ]
        for change, code in changes:
            live.policy = replace(good, **change)
            with pytest.raises(GroundplanError, match=code):
                permission.check(place)
        live.policy, live.seconds = good, 3600.0
        with pytest.raises(GroundplanError, match="policy_lease_expired"):
            permission.check(place)
        live.seconds, before = 0.0, live.catalog
        for workloads, code in (
            ([structs.replace(plan.workload, residency=["US"])], "deployment_changed"),
            ([structs.replace(plan.workload, stage="retired")], "workload_not_running"),
            ([structs.replace(plan.workload, expires="2020-01-01")], "workload_expired"), ([], "workload_unknown"),
        ):  # fmt: skip
            live.catalog = index(structs.replace(before.blueprint, number=2, workloads=workloads))
            with pytest.raises(GroundplanError, match=code):
                permission.check(place)
        for refusing in ("check", "usable"):
            live.catalog = replace(before, approved=Withdrawn(refusing))  # type: ignore[arg-type]
            with pytest.raises(GroundplanError, match="approval_withdrawn"):
                permission.check(place)
        live.catalog = replace(before, approved=Withdrawn(""))  # type: ignore[arg-type]
        permission.check(place)


class Withdrawn:
    """What a workload rests on was approved, and is no more: one part of it, or all that it may use."""

    def __init__(self, refusing: str) -> None:
        self._refusing = refusing

    def check(self, *_: object) -> None:
        if self._refusing == "check":
            raise Denied("no", code="approval_withdrawn", hint="")

    def usable(self, *_: object) -> None:
        if self._refusing == "usable":
            raise Denied("no", code="approval_withdrawn", hint="")


async def test_conversations_end_where_it_is_told_anew_whose_certificates_are_taken(tmp_path: Path) -> None:
    """With the response that is being made; who came in the clear, which only this machine can, stays."""
    done = asyncio.Event()

    async def upstream(connection: ServerConnection) -> None:
        await connection.send('{"type":"session.created","session":{}}')
        if "response.create" in str(await connection.recv()):
            await connection.send('{"type":"response.created","response":{}}')
            await done.wait()
            used = '{"input_tokens":5,"output_tokens":3}'
            await connection.send(f'{{"type":"response.done","response":{{"status":"completed","usage":{used}}}}}')
        await connection.wait_closed()

    authority, callers, trusted = Authority(tmp_path), Authority(tmp_path, "callers"), tmp_path / "trusted.pem"
    trusted.write_bytes(callers.file.read_bytes())
    thief = callers.issue("thief")
    context = ssl.create_default_context(cafile=str(authority.file))
    context.load_cert_chain(*thief)
    files = ServerFiles(*authority.issue("gateway", "127.0.0.1"), trusted)
    async with conversing(tmp_path, upstream, {}) as (rig, local), asyncio.timeout(30):
        with socket.create_server(("127.0.0.1", 0)) as listening:
            front = Listeners(rig.server, ListenSockets(listening, files))
            await front.open()
            at, key = f"wss://127.0.0.1:{listening.getsockname()[1]}/v1/realtime?model=talker", "Bearer assistant"
            two = [connect(at, additional_headers={"Authorization": key}, ssl=context) for _ in range(2)]
            async with two[0] as silent, two[1] as talks:
                await talks.send('{"type":"response.create"}')
                while "response.created" not in str(await talks.recv()):
                    pass
                trusted.write_bytes(callers.file.read_bytes() + callers.revocation_list(thief[0]))
                assert front.reload_certificate()
                assert [each["type"] for each in await receive_all(silent)] == ["session.created", "error"]
                await asyncio.sleep(2 * conversation.CHECK_SECONDS)
                done.set()
                made, error = await receive_all(talks)
                assert made["type"] == "response.done" and error["error"]["code"] == "certificates_changed"
                assert error["error"]["hint"] and [each.close_code for each in (silent, talks)] == [1008, 1008]
            front.close()
        await wait_until(lambda: rig.gateway.running_calls == 1)
        assert local.state is State.OPEN
        (only,) = await rig.settlements()
        assert (only.outcome, only.usage.output, rig.slices.open_reservations) == ("ok", 3, 0)


async def receive_all(client: ClientConnection) -> list[dict[str, Any]]:
    """All events until the conversation is over."""
    found: list[dict[str, Any]] = []
    with suppress(ConnectionClosed):
        while True:
            found.append(json.loads(await client.recv()))
    return found


@pytest.mark.parametrize("odd", ["1e999", "1" * 5000, "[" * 9000 + "]" * 9000])
async def test_what_cannot_be_looked_at_ends_a_conversation(tmp_path: Path, odd: str) -> None:
    async def upstream(connection: ServerConnection) -> None:
        await connection.send('{"type":"session.created","session":{}}')
        await connection.recv()
        await connection.send('{"type":"conversation.item.input_audio_transcription.completed","item_id":[1]}')
        await connection.send(f'{{"type":"response.created","response":{{}},"x":{odd}}}')
        await connection.wait_closed()

    guard = Guardrails(output={"secrets": "block"}, unchecked=["audio"])
    async with conversing(tmp_path, upstream, {"guardrails": guard}) as (rig, client), asyncio.timeout(20):
        await client.send('{"type":"response.create"}')
        with pytest.raises(ConnectionClosed) as closed:
            while True:
                await client.recv()
        assert closed.value.rcvd is not None and closed.value.rcvd.code == 1011
        (only,) = await rig.settlements()
        assert only.outcome == "failed" and rig.slices.open_reservations == 0
        assert rig.gateway.health.is_failing("talker")


def upstream_ending_with(ended: dict[str, Any]) -> Callable[[ServerConnection], Awaitable[None]]:
    """An upstream that ends each response so."""

    async def upstream(connection: ServerConnection) -> None:
        await connection.send('{"type":"session.created","session":{}}')
        async for message in connection:
            if "response.create" in str(message):
                await connection.send('{"type":"response.created","response":{}}')
                await connection.send(json.dumps({"type": "response.done", "response": ended}))

    return upstream


async def ended(client: ClientConnection) -> None:
    while "response.done" not in str(await client.recv()):
        pass


async def test_a_response_costs_what_it_does_when_it_is_asked_for(tmp_path: Path) -> None:
    """Somebody may have been listened to since before the prices changed."""
    upstream = upstream_ending_with({"status": "completed", "usage": {"input_tokens": 5, "output_tokens": 3}})
    async with conversing(tmp_path, upstream, {}) as (rig, client), asyncio.timeout(20):
        live, folder = rig.gateway.live, rig.gateway.journal.folder
        assert isinstance(live, FixedPolicy) and live.catalog is not None
        await client.send('{"type":"input_audio_buffer.append","audio":"AAAA"}')
        await wait_until(lambda: any(isinstance(each, Reservation) for each in read_records(folder)))
        dear = [
            structs.replace(each, rates=Rates(input=0, output=70 * PICO)) for each in live.catalog.blueprint.deployments
        ]
        live.catalog = index(structs.replace(live.catalog.blueprint, number=2, deployments=dear))
        await client.send('{"type":"response.create"}')
        await ended(client)
        found = [(each.outcome, each.cost) for each in await rig.settlements()]
        assert found == [("not_billed", 0), ("ok", 3 * 70_000_000)]


async def test_what_was_begun_is_outdated_by_a_price_a_period_or_a_blueprint(tmp_path: Path) -> None:
    async with call_rig(tmp_path, ["one"]) as rig:
        (place,), live = rig.plan("assistant").deployments_by_name["one"], rig.gateway.live
        assert isinstance(live, FixedPolicy) and live.catalog is not None
        (budget,) = live.catalog.blueprint.budgets
        exchange = Exchange(new_id_bytes(), None, None, REALTIME)  # type: ignore[arg-type]
        exchange.catalog, exchange.deployments, exchange.deployment = live.catalog, [place], place
        exchange.charges = [(budget, "total")]
        assert not is_outdated(rig.gateway, exchange)
        exchange.charges = [(budget, "2020-01")]
        assert is_outdated(rig.gateway, exchange)
        exchange.charges = [(budget, "total")]
        now = PriceWindow(start=0, end=1440, rates=Rates(input=0, output=PICO))
        exchange.deployments = [structs.replace(place, rates=structs.replace(place.rates, windows=[now]))]
        assert is_outdated(rig.gateway, exchange)
        exchange.deployments = [place]
        live.catalog = index(structs.replace(live.catalog.blueprint, number=2))
        assert is_outdated(rig.gateway, exchange)


async def test_a_conversation_stays_with_what_it_is_connected_to(tmp_path: Path) -> None:
    """Its answers may be as long as was asked for when it was: they may not become dearer than what is reserved."""
    async with call_rig(tmp_path, ["talker"], more={"talker": {"kind": "realtime", "max_output_tokens": 20}}) as rig:
        assert rig.gateway.live.catalog is not None
        (place,) = rig.gateway.live.catalog.blueprint.deployments
        exchange = Exchange(new_id_bytes(), Request(0.0, b"GET", b"/", {}, b""), CollectedResponse(), REALTIME)
        for now, code in (
            ([structs.replace(place, max_output_tokens=20, rates=Rates(input=0, output=70 * PICO))], ""),
            ([structs.replace(place, max_output_tokens=30)], ""),
            ([structs.replace(place, max_output_tokens=19)], "deployment_changed"),
            ([structs.replace(place, url="http://127.0.0.1:9/v1")], "deployment_changed"),
            ([structs.replace(place, name="other")], "killed"), ([], "killed"),
        ):  # fmt: skip
            exchange.deployments = now
            if not code:
                assert current_deployment(exchange, place) is now[0]
                continue
            with pytest.raises(Denied) as refused:
                current_deployment(exchange, place)
            assert refused.value.code == code


async def test_a_response_that_failed_without_a_word_of_its_usage_costs_its_bound(tmp_path: Path) -> None:
    """It may have been worked on, and be billed."""
    upstream = upstream_ending_with({"status": "failed", "status_details": {"error": {"type": "server_error"}}})
    async with conversing(tmp_path, upstream, {}) as (rig, client), asyncio.timeout(20):
        await client.send('{"type":"response.create"}')
        await ended(client)
        (only,) = await rig.settlements()
        assert (only.outcome, only.estimated) == ("failed", True) and only.cost == BOUND


async def test_a_response_for_which_nothing_was_left_is_owed_though_nobody_says_what_it_used(tmp_path: Path) -> None:
    async def upstream(connection: ServerConnection) -> None:
        await connection.send('{"type":"session.created","session":{}}')
        await connection.recv()
        await connection.send('{"type":"response.created","response":{}}')
        await connection.wait_closed()

    async with conversing(tmp_path, upstream, {}) as (rig, client), asyncio.timeout(20):
        rig.slices.reserve((b"another", 0), [Charge("all", "total", LIMIT)])
        await client.send('{"type":"session.update","session":{}}')
        with pytest.raises(ConnectionClosed):
            while True:
                await client.recv()
        await wait_until(lambda: not (rig.gateway.running_calls or rig.gateway.background))
        (only,) = await rig.settlements()
        assert (only.outcome, only.estimated, only.cost) == ("cancelled", True, BOUND)


async def test_a_response_for_which_nothing_was_left_and_of_which_only_the_end_is_heard_is_owed(tmp_path: Path) -> None:
    """As of two that an upstream makes at once: what it said before was taken for the other one's."""

    async def upstream(connection: ServerConnection) -> None:
        await connection.send('{"type":"session.created","session":{}}')
        await connection.recv()
        done = {"status": "completed", "usage": {"input_tokens": 5, "output_tokens": 3}}
        await connection.send(json.dumps({"type": "response.done", "response": done}))
        await connection.wait_closed()

    async with conversing(tmp_path, upstream, {}) as (rig, client), asyncio.timeout(20):
        rig.slices.reserve((b"another", 0), [Charge("all", "total", LIMIT)])
        await client.send('{"type":"session.update","session":{}}')
        assert (await receive_all(client))[-1]["error"]["code"] == "budget_exhausted"
        await wait_until(lambda: not (rig.gateway.running_calls or rig.gateway.background))
        (only,) = await rig.settlements()
        assert (only.outcome, only.usage.output, only.estimated) == ("ok", 3, False)


@pytest.mark.parametrize("last", ["input_audio_buffer.committed", "input_audio_buffer.speech_started"])
async def test_a_second_turn_for_which_nothing_was_left_is_owed_where_it_is_answered(tmp_path: Path, last: str) -> None:
    """Surely so: it was taken for a turn, or its response began while the conversation ended."""

    async def upstream(connection: ServerConnection) -> None:
        await connection.send('{"type":"session.created","session":{}}')
        await connection.recv()
        done: dict[str, Any] = {"status": "completed", "usage": {"input_tokens": 5, "output_tokens": 3}}
        for said, response in (
            ("input_audio_buffer.committed", {}), ("response.created", {}), ("response.done", done), (last, {}),
        ):  # fmt: skip
            await connection.send(json.dumps({"type": said, "response": response}))
        if last.endswith("started"):
            await connection.recv()
            await connection.send('{"type":"response.created","response":{}}')
        await connection.wait_closed()

    async with conversing(tmp_path, upstream, {}) as (rig, client), asyncio.timeout(20):
        rig.slices.reserve((b"another", 0), [Charge("all", "total", LIMIT - BOUND)])
        await client.send('{"type":"input_audio_buffer.append","audio":"AAAA"}')
        with pytest.raises(ConnectionClosed):
            while True:
                await client.recv()
        await wait_until(lambda: not (rig.gateway.running_calls or rig.gateway.background))
        found = [(each.outcome, each.cost) for each in await rig.settlements()]
        assert found == [("ok", 3 * 10_000_000), ("cancelled", BOUND)]


def hearing(items: str, *, last: str) -> Callable[[ServerConnection], Awaitable[None]]:
    """An upstream that tells texts of these once it hears sound in which `last` stands."""

    async def upstream(connection: ServerConnection) -> None:
        await connection.send('{"type":"session.created","session":{}}')
        async for message in connection:
            if last not in str(message):
                continue
            await connection.send('{"type":"input_audio_buffer.committed","item_id":"a"}')
            for item in items:
                used = '{"type":"tokens","input_tokens":4,"output_tokens":2,"total_tokens":6}'
                await connection.send(f'{{"type":"{TRANSCRIPTION_COMPLETED}","item_id":"{item}","usage":{used}}}')

    return upstream


LISTENS = {"audio": {"input": {"transcription": {"model": "ear"}, "turn_detection": None}}}
LISTEN = json.dumps({"type": "session.update", "session": LISTENS})


async def texts_of(rig: Rig, client: ClientConnection, number: int) -> list[int]:
    """What so many texts cost that are told."""
    for _ in range(number):
        while TRANSCRIPTION_COMPLETED not in (told := str(await client.recv())):
            pass
        assert json.loads(told)["groundplan"]["deployment"] == "ear"
    await client.close()
    await wait_until(lambda: not (rig.gateway.running_calls or rig.gateway.background))
    records = await rig.records()
    made = [each.call for each in records if isinstance(each, Reservation) and each.deployment == "ear"]
    assert len(set(made)) == len(made) and not rig.slices.open_reservations
    return [each.cost for each in records if isinstance(each, Settlement) and each.call in made and each.cost]


async def test_a_text_costs_what_it_does_when_sound_comes_for_it(tmp_path: Path) -> None:
    async with conversing(tmp_path, hearing("a", last="AAAB"), {}) as (rig, client), asyncio.timeout(20):
        live, folder = rig.gateway.live, rig.gateway.journal.folder
        assert isinstance(live, FixedPolicy) and live.catalog is not None
        await client.send(LISTEN)
        await client.send('{"type":"input_audio_buffer.append","audio":"AAAA"}')
        await wait_until(lambda: sum(isinstance(each, Reservation) for each in read_records(folder)) == 2)
        dear = [
            structs.replace(each, rates=Rates(input=0, output=70 * PICO)) for each in live.catalog.blueprint.deployments
        ]
        live.catalog = index(structs.replace(live.catalog.blueprint, number=2, deployments=dear))
        await client.send('{"type":"input_audio_buffer.append","audio":"AAAB"}')
        assert await texts_of(rig, client, 1) == [2 * 70_000_000]


async def test_a_text_for_which_nothing_was_reserved_is_paid_too(tmp_path: Path) -> None:
    """As of a second turn in one piece of sound."""
    async with conversing(tmp_path, hearing("ab", last="AAAA"), {}) as (rig, client), asyncio.timeout(20):
        await client.send(LISTEN)
        await client.send('{"type":"input_audio_buffer.append","audio":"AAAA"}')
        assert await texts_of(rig, client, 2) == [2 * 10_000_000] * 2


@pytest.mark.parametrize("told", [None, {"model": "up-ear"}])
async def test_money_is_held_for_texts_while_the_upstream_says_that_it_makes_them(tmp_path: Path, told: object) -> None:
    """Though its client wants none any more, which is only asked for."""
    said = {"audio": {"input": {"transcription": told, "turn_detection": None}}}

    async def upstream(connection: ServerConnection) -> None:
        await connection.send('{"type":"session.created","session":{}}')
        async for message in connection:
            if "session.update" in str(message):
                await connection.send(json.dumps({"type": "session.updated", "session": said}))
            elif "response.create" in str(message):
                await connection.send('{"type":"response.created","response":{}}')

    async with conversing(tmp_path, upstream, {}) as (rig, client), asyncio.timeout(20):
        none = json.dumps({"type": "session.update", "session": {"audio": {"input": {"transcription": None}}}})
        for asked in (LISTEN, none):
            await client.send(asked)
            while "session.updated" not in str(await client.recv()):
                pass
        await client.send('{"type":"input_audio_buffer.append","audio":"AAAA"}')
        await client.send('{"type":"response.create"}')
        while "response.created" not in str(await client.recv()):
            pass
        await client.close()
        await wait_until(lambda: not (rig.gateway.running_calls or rig.gateway.background))
        made = [each.deployment for each in await rig.records() if isinstance(each, Reservation)]
        assert made.count("ear") == (told is not None)


async def test_sound_in_many_pieces_is_reserved_for_once(tmp_path: Path) -> None:
    async with conversing(tmp_path, hearing("a", last="AAAB"), {}) as (rig, client), asyncio.timeout(20):
        await client.send(LISTEN)
        for piece in ["AAAA"] * 5 + ["AAAB"]:
            await client.send(json.dumps({"type": "input_audio_buffer.append", "audio": piece}))
        assert await texts_of(rig, client, 1) == [2 * 10_000_000]
        made = [each for each in await rig.records() if isinstance(each, Reservation) and each.deployment == "ear"]
        assert len(made) == 1


async def test_a_deployment_that_is_not_reached_holds_no_place(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    places = {"talker": {"kind": "realtime", "max_output_tokens": 20}}
    async with call_rig(tmp_path, ["talker"], ports={"talker": port}, more=places) as rig:
        rig.server.accepts_websocket, rig.gateway.ready = is_realtime, True
        at, key = f"ws://127.0.0.1:{rig.port}/v1/realtime?model=talker", {"Authorization": "Bearer assistant"}
        for _ in range(FAILURES):
            assert rig.gateway.health.may_attempt("talker", rig.gateway.loop.time())
            with pytest.raises(InvalidStatus) as refused:
                async with connect(at, additional_headers=key):
                    pass
            assert refused.value.response.status_code == 503
        assert not rig.gateway.health.may_attempt("talker", rig.gateway.loop.time()), "it is asked last for a while"
        assert rig.gateway.live.catalog is not None
        places_held = [rig.gateway.loads.of(each).running for each in rig.gateway.live.catalog.blueprint.deployments]
        assert (places_held, rig.slices.open_reservations, rig.gateway.running_calls) == ([0], 0, 0)


async def test_a_key_that_is_a_word_is_hidden_in_refusals(tmp_path: Path) -> None:
    async def upstream(connection: ServerConnection) -> None:
        await connection.send('{"type":"session.created","session":{}}')
        await connection.recv()
        await connection.send('{"type":"error","error":{"message":"no such key: letmein"}}')
        await connection.wait_closed()

    (file := tmp_path / "key").write_text("letmein")
    async with conversing(tmp_path / "home", upstream, {}, key=f"file:{file}") as (_, client), asyncio.timeout(20):
        await client.send('{"type":"session.update","session":{}}')
        while '"error"' not in (told := str(await client.recv())):
            pass
        assert "no such key: [hidden]" in told


async def test_a_client_that_leaves_with_its_last_word_is_settled(tmp_path: Path) -> None:
    """As clients for Node and browsers do, while the upstream is still asked what its response has used."""
    asked, left = asyncio.Event(), asyncio.Event()

    async def upstream(connection: ServerConnection) -> None:
        await connection.send('{"type":"session.created","session":{}}')
        await connection.recv()
        await connection.send('{"type":"response.created","response":{}}')
        assert "response.cancel" in str(await connection.recv())
        asked.set()
        await left.wait()
        used = '{"input_tokens":5,"output_tokens":3}'
        await connection.send(f'{{"type":"response.done","response":{{"status":"cancelled","usage":{used}}}}}')
        await connection.wait_closed()

    async with conversing(tmp_path, upstream, {}) as (rig, client), asyncio.timeout(20):
        await client.send('{"type":"response.create"}')
        while "response.created" not in str(await client.recv()):
            pass
        client.transport.write(b"\x88\x82\0\0\0\0\x03\xe8")
        await asked.wait()
        client.transport.abort()
        await wait_until(lambda: not rig.server.connections)
        left.set()
        await wait_until(lambda: not (rig.gateway.running_calls or rig.gateway.background))
        (only,) = await rig.settlements()
        assert (only.outcome, only.usage.output, rig.slices.open_reservations) == ("cancelled", 3, 0)


async def test_a_conversation_that_fails_here_is_told_so_and_holds_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def fails(*_: object) -> None:
        raise ValueError("a fault of ours")

    monkeypatch.setattr(conversation, "connect", fails)
    async with call_rig(tmp_path, ["talker"], more={"talker": {"kind": "realtime", "max_output_tokens": 20}}) as rig:
        rig.server.accepts_websocket, rig.gateway.ready = is_realtime, True
        at, key = f"ws://127.0.0.1:{rig.port}/v1/realtime?model=talker", {"Authorization": "Bearer assistant"}
        with pytest.raises(InvalidStatus) as refused:
            async with connect(at, additional_headers=key):
                pass
        assert refused.value.response.status_code == 503 and b"internal_error" in (refused.value.response.body or b"")
        assert "a fault of ours" in caplog.text
        ids = {each.request_id for each in caplog.records if hasattr(each, "request_id")}
        assert ids == {refused.value.response.headers["x-request-id"]}
        assert (rig.slices.open_reservations, rig.gateway.running_calls) == (0, 0)


async def test_a_client_that_leaves_while_its_conversation_waits_for_money_holds_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has its place in limits by then."""
    few = Limit(name="few", covers="workload/assistant", type="concurrent", amount=1, period="now")
    waits = asyncio.Event()

    async def reserve(*_: object) -> None:
        waits.set()
        await asyncio.sleep(60)

    monkeypatch.setattr(steps, "reserve_locally", lambda *_: False)
    monkeypatch.setattr(steps, "reserve", reserve)
    places = {"talker": {"kind": "realtime", "max_output_tokens": 20}}
    async with call_rig(tmp_path, ["talker"], more=places, limits=[few]) as rig:
        rig.gateway.limit_slices.add_grant("concurrent/few", "now", 1)
        key = {b"authorization": b"Bearer assistant"}
        request = Request(0.0, b"GET", b"/v1/realtime?model=talker", key, b"")
        caller = Caller(rig.gateway, request, CollectedResponse(), None)
        for _ in range(2):
            waits.clear()
            going = asyncio.create_task(caller.admit(REALTIME, "talker", lambda _: None))
            async with asyncio.timeout(10):  # there is a place for the second one, too
                await waits.wait()
            going.cancel()
            with pytest.raises(asyncio.CancelledError):
                await going
        found = [each for each in await rig.records() if isinstance(each, Finish)]
        assert [(each.status, each.http_status) for each in found] == [("cancelled", 499)] * 2


async def test_a_worker_that_is_full_lets_no_conversation_in_and_ends_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    places = {"talker": {"kind": "realtime", "max_output_tokens": 20}}
    async with call_rig(tmp_path, ["talker"], more=places) as rig:
        monkeypatch.setattr(Pressure, "is_crowded", lambda *_: True)
        rig.gateway.pressure.level = 0
        request = Request(0.0, b"GET", b"/v1/realtime", {b"authorization": b"Bearer assistant"}, b"")
        caller = Caller(rig.gateway, request, CollectedResponse(), None)
        with pytest.raises(Unavailable):
            await caller.admit(REALTIME, "talker", lambda _: None, first=True)
        assert (await caller.admit(REALTIME, "talker", lambda _: None)).reservation is not None
