"""Conversations whose upstream says what nobody can look at: they end with a word, and are settled."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from tests.unit.call_rig import call_rig
from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from groundplan.blueprint.model import Guardrails
from groundplan.gateway.call.pipeline import upgrades


@pytest.mark.parametrize("odd", ["1e999", "1" * 5000, "[" * 9000 + "]" * 9000])
async def test_what_cannot_be_looked_at_ends_a_conversation(tmp_path: Path, odd: str) -> None:
    async def upstream(connection: ServerConnection) -> None:
        await connection.send('{"type":"session.created","session":{}}')
        await connection.recv()
        await connection.send('{"type":"conversation.item.input_audio_transcription.completed","item_id":[1]}')
        await connection.send(f'{{"type":"response.created","response":{{}},"x":{odd}}}')
        await connection.wait_closed()

    guard = Guardrails(output={"secrets": "block"}, unchecked=["audio"])
    rules = {"assistant": {"also": ["talker"], "guardrails": guard}}
    async with serve(upstream, "127.0.0.1", 0) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        places, more = {"talker": port}, {"talker": {"kind": "realtime", "max_output_tokens": 20}}
        async with call_rig(tmp_path, ["one", "talker"], ports=places, more=more, workloads=rules) as rig:
            rig.server.upgrades, rig.gateway.ready = upgrades, True
            at, key = f"ws://127.0.0.1:{rig.port}/v1/realtime?model=talker", {"Authorization": "Bearer assistant"}
            async with connect(at, additional_headers=key) as client, asyncio.timeout(20):
                await client.send('{"type":"response.create"}')
                with pytest.raises(ConnectionClosed) as closed:
                    while True:
                        await client.recv()
            assert closed.value.rcvd is not None and closed.value.rcvd.code == 1011
            (only,) = await rig.settlements()
            assert only.outcome == "failed" and rig.slices.open_count == 0
