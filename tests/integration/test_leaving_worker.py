"""What goes on without a connection as its worker is asked to leave or to stop: it is neither cut nor charged for more
than it was. Real processes.
"""

from __future__ import annotations

import asyncio
import json
import signal
from pathlib import Path
from typing import Any

import pytest
from tests.integration.gateway_stack import Stack, blueprint, deployment, installation, scripted_upstream, workload
from tests.unit.call_rig import read_records

from groundplan.gateway.http.listeners import LEAVE_SIGNAL, serving_file
from groundplan.ledger.model import Finish, Settlement
from groundplan.testing.database import Database
from groundplan.testing.scripted import Script

TOKENS = 20


def records(stack: Stack, kind: type[Any]) -> list[Any]:
    folders = [folder for folder in stack.home.journal.iterdir() if folder.is_dir()]
    return [each for folder in folders for each in read_records(folder) if isinstance(each, kind)]


async def call_and_disconnect(stack: Stack, key: str, *lines: str) -> None:
    """A call whose client goes away once its answer has begun to be made."""
    body = {"model": "auto", "messages": [{"role": "user", "content": "a b c"}], "max_tokens": TOKENS, "stream": True}
    data = json.dumps(body).encode()
    head = ["POST /v1/chat/completions HTTP/1.1", "host: g", f"authorization: Bearer {key}", *lines]
    reader, writer = await asyncio.open_connection("127.0.0.1", stack.port)
    writer.write("\r\n".join([*head, f"content-length: {len(data)}", "", ""]).encode() + data)
    await asyncio.wait_for(reader.readuntil(b"asked:"), 30)
    writer.transport.abort()


@pytest.mark.parametrize("number", [LEAVE_SIGNAL, signal.SIGTERM])
async def test_what_nobody_is_connected_for_goes_on_to_its_end(
    database: Database, tmp_path: Path, number: signal.Signals
) -> None:
    async with scripted_upstream("one") as (model, port), installation(database, tmp_path) as stack:
        place = deployment("one", port, billing_on_cancel="drain")
        stack.apply(blueprint(1, [place], [workload("assistant", ["one"])]))
        stack.start()
        await stack.wait_until_ready()
        key = stack.key()
        model.script = Script(tokens=TOKENS, chunk_ms=150)
        await call_and_disconnect(stack, key)
        await call_and_disconnect(stack, key, "idempotency-key: once")
        worker = stack.workers[0]
        worker.send_signal(number)
        assert await asyncio.to_thread(worker.wait, 30) == 0
        ends = sorted((each.status, each.http_status) for each in records(stack, Finish))
        assert ends == [("cancelled", 499), ("ok", 200)]
        settled = records(stack, Settlement)
        assert sorted(each.outcome for each in settled) == ["cancelled", "ok"]
        assert {(each.usage.output, each.estimated) for each in settled} == {(TOKENS, False)}


@pytest.mark.parametrize("number", [LEAVE_SIGNAL, signal.SIGTERM])
async def test_answers_go_on_to_their_end_also_where_nothing_can_be_deleted(
    database: Database, tmp_path: Path, number: signal.Signals
) -> None:
    """As in a HOME/run on a disk that has become read-only, with the journal on another one."""
    async with scripted_upstream("one") as (model, port), installation(database, tmp_path) as stack:
        stack.apply(blueprint(1, [deployment("one", port)], [workload("assistant", ["one"])]))
        stack.start()
        await stack.wait_until_ready()
        key = stack.key()
        model.script = Script(tokens=TOKENS, chunk_ms=100)
        worker = stack.workers[0]
        told = serving_file(stack.home, worker.pid)
        while not told.exists():  # noqa: ASYNC110 -- of another process
            await asyncio.sleep(0.05)
        told.unlink()
        told.mkdir()  # which cannot be deleted as a file is
        reply = asyncio.ensure_future(stack.chat(key, stream=True, max_tokens=TOKENS))
        while not model.counted:  # noqa: ASYNC110 -- of a server
            await asyncio.sleep(0.05)
        worker.send_signal(number)
        assert (await reply).body.endswith(b"data: [DONE]\n\n")
        assert await asyncio.to_thread(worker.wait, 30) == 0
