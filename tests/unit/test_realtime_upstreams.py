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
from tests.unit.call_rig import Fixed, Rig, call_rig, until
from websockets.asyncio.client import ClientConnection, connect
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.protocol import State

from groundplan.blueprint.model import Guardrails
from groundplan.core.errors import GroundplanError
from groundplan.core.ids import new_id_bytes
from groundplan.gateway.call.exchange import Exchange
from groundplan.gateway.call.pipeline import upgrades
from groundplan.gateway.http.front import Front, Sockets
from groundplan.gateway.http.tls import ServerFiles
from groundplan.gateway.policy.catalog import index
from groundplan.gateway.policy.snapshot import KeyEntry
from groundplan.gateway.surfaces import realtime
from groundplan.gateway.surfaces.realtime_permission import Permission
from groundplan.gateway.surfaces.realtime_response import REALTIME


@asynccontextmanager
async def conversing(
    folder: Path, upstream: Callable[[ServerConnection], Awaitable[None]], rules: dict[str, Any]
) -> AsyncIterator[tuple[Rig, ClientConnection]]:
    """A conversation with an upstream, under the rules of a workload."""
    async with serve(upstream, "127.0.0.1", 0) as server:
        places, more = {"talker": port_of(server)}, {"talker": {"kind": "realtime", "max_output_tokens": 20}}
        workloads = {"assistant": {"also": ["talker"], **rules}}
        async with call_rig(folder, ["one", "talker"], ports=places, more=more, workloads=workloads) as rig:
            rig.server.upgrades, rig.gateway.ready = upgrades, True
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
        assert isinstance(live, Fixed) and live.catalog is not None
        (place,), now = plan.names["one"], rig.gateway.clock.now().timestamp()
        key = replace(key, person="ana", acts_for_others=True, expires=now + 1)
        good = replace(live.policy, keys={hash: key}, active=frozenset({"ana", "ben"}))
        admitted = Exchange(new_id_bytes(), None, None, REALTIME)  # type: ignore[arg-type]
        admitted.catalog, admitted.policy, admitted.plan, admitted.workload = live.catalog, good, plan, plan.workload
        admitted.key, admitted.person, live.policy = key, "ben", good
        permission = Permission(rig.gateway, admitted)
        permission.check(place)

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
        live.seconds = 0.0
        elsewhere = structs.replace(plan.workload, residency=["US"])
        live.catalog = index(structs.replace(live.catalog.blueprint, number=2, workloads=[elsewhere]))
        with pytest.raises(GroundplanError, match="deployment_changed"):
            permission.check(place)


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
            front = Front(rig.server, Sockets(listening, files))
            await front.open()
            at, key = f"wss://127.0.0.1:{listening.getsockname()[1]}/v1/realtime?model=talker", "Bearer assistant"
            two = [connect(at, additional_headers={"Authorization": key}, ssl=context) for _ in range(2)]
            async with two[0] as silent, two[1] as talks:
                await talks.send('{"type":"response.create"}')
                while "response.created" not in str(await talks.recv()):
                    pass
                trusted.write_bytes(callers.file.read_bytes() + callers.revoked(thief[0]))
                assert front.renew()
                assert [each["type"] for each in await heard(silent)] == ["session.created", "error"]
                await asyncio.sleep(2 * realtime.LOOK_SECONDS)
                done.set()
                made, error = await heard(talks)
                assert made["type"] == "response.done" and error["error"]["code"] == "certificates_changed"
                assert error["error"]["hint"] and [each.close_code for each in (silent, talks)] == [1008, 1008]
            front.close()
        await until(lambda: rig.gateway.running == 1)
        assert local.state is State.OPEN
        (only,) = await rig.settlements()
        assert (only.outcome, only.usage.output, rig.slices.open_count) == ("ok", 3, 0)


async def heard(client: ClientConnection) -> list[dict[str, Any]]:
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
        assert only.outcome == "failed" and rig.slices.open_count == 0


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
        await until(lambda: not rig.server.connections)
        left.set()
        await until(lambda: not (rig.gateway.running or rig.gateway.background))
        (only,) = await rig.settlements()
        assert (only.outcome, only.usage.output, rig.slices.open_count) == ("cancelled", 3, 0)


async def test_a_conversation_that_fails_here_is_told_so_and_holds_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def fails(*_: object) -> None:
        raise ValueError("a fault of ours")

    monkeypatch.setattr(realtime, "reach", fails)
    async with call_rig(tmp_path, ["talker"], more={"talker": {"kind": "realtime", "max_output_tokens": 20}}) as rig:
        rig.server.upgrades, rig.gateway.ready = upgrades, True
        at, key = f"ws://127.0.0.1:{rig.port}/v1/realtime?model=talker", {"Authorization": "Bearer assistant"}
        with pytest.raises(InvalidStatus) as refused:
            async with connect(at, additional_headers=key):
                pass
        assert refused.value.response.status_code == 503 and b"internal_error" in (refused.value.response.body or b"")
        assert "a fault of ours" in caplog.text
        ids = {each.request_id for each in caplog.records if hasattr(each, "request_id")}
        assert ids == {refused.value.response.headers["x-request-id"]}
        assert (rig.slices.open_count, rig.gateway.running) == (0, 0)
