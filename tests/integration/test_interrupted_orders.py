"""Files that are sent, and batches that are ordered, by clients who go away at any moment: what is kept is whole, and
what is not leaves nothing behind."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import psycopg
import pytest
from tests.integration.gateway_stack import parse_reply
from tests.unit.call_rig import FixedPolicy, Rig, call_rig
from tests.unit.interrupted import Interruption, InterruptionKind, find_leftovers, interrupting, track_call_tasks
from tests.unit.interrupted import held_resources as holds

from groundplan.core.home import Home
from groundplan.gateway.batches.batches_api import BatchesApi
from groundplan.gateway.call.pipeline import Pipeline, has_streamed_body
from groundplan.gateway.files.blobs import Blobs
from groundplan.testing.database import Database

FORM = (
    b'--xyz\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nuser_data\r\n'
    b'--xyz\r\nContent-Disposition: form-data; name="file"; filename="a.pdf"\r\n\r\n%PDF-1.4\r\n--xyz--\r\n'
)
CALL = {"model": "auto", "max_tokens": 5, "messages": [{"role": "user", "content": "hi"}]}
ORDERS = {
    "file": ("/v1/files", "content-type: multipart/form-data; boundary=xyz\r\n", FORM),
    "message batch": (
        "/v1/messages/batches",
        "content-type: application/json\r\nanthropic-version: 2023-06-01\r\n",
        json.dumps({"requests": [{"custom_id": "a", "params": CALL}]}).encode(),
    ),
}
_names = itertools.count()


def request(what: str, name: int, mark: str = "x-cut: 1\r\n") -> bytes:
    path, lines, body = ORDERS[what]
    head = f"POST {path} HTTP/1.1\r\nhost: g\r\nauthorization: Bearer assistant\r\nconnection: close\r\n{mark}{lines}"
    return f"{head}idempotency-key: {name}\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body


async def sent(rig: Rig, asked: bytes, connected: Callable[[Any], None] = lambda _: None) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", rig.port)
    connected(writer.transport)
    writer.write(asked)
    try:
        with suppress(OSError):
            return await asyncio.wait_for(reader.read(), 20)
        return b""
    finally:
        writer.close()


@asynccontextmanager
async def ordering(database: Database, folder: Path) -> AsyncIterator[tuple[Rig, Path]]:
    """A worker that takes orders and makes none of them, and the folder of its files."""
    async with call_rig(folder, ["one"]) as rig:
        live, blobs = rig.gateway.live, Blobs(Home(folder))
        assert isinstance(live, FixedPolicy)
        with psycopg.connect(database.superuser, autocommit=True) as connection:
            for digest, key in live.policy.keys.items():
                connection.execute(
                    "INSERT INTO api_key (id, hash, prefix, workload, created_by) VALUES (%s, %s, 'gp', %s, 'x')",
                    (key.id, digest, key.workload),
                )
        batches = BatchesApi(rig.gateway, database.urls["gateway"], blobs)
        rig.server.handler, rig.server.is_streamed = Pipeline(rig.gateway, batches=batches).handle, has_streamed_body
        try:
            yield rig, blobs.files
        finally:
            asyncio.get_running_loop().set_task_factory(None)
            await batches.close()


def stored_file_ids(database: Database) -> set[str]:
    with psycopg.connect(database.superuser) as connection:
        return {str(id) for (id,) in connection.execute("SELECT id FROM api_file WHERE deleted_at IS NULL")}


@pytest.mark.parametrize("how", ["cancelled", "just_ready", "again", "gone"])
@pytest.mark.parametrize("what", ORDERS)
async def test_what_a_client_who_goes_away_sent_is_whole_or_not_there(
    database: Database, tmp_path: Path, what: str, how: InterruptionKind
) -> None:
    async with ordering(database, tmp_path) as (rig, files):
        assert parse_reply(await sent(rig, request(what, next(_names), ""))).status == 200
        track_call_tasks(rig.gateway.loop)
        before = holds(rig)
        for at in itertools.count(1):
            cut, name = Interruption(at, how), next(_names)

            def connected(transport: Any, cut: Interruption = cut) -> None:
                cut.disconnect_client = transport.abort

            with interrupting(rig.server, cut):
                await sent(rig, request(what, name), connected)
            held = [each for each in await find_leftovers(rig, before) if not each.startswith(("task", "timer"))]
            cut.is_over = True
            assert (held, {path.name for path in files.iterdir()}) == ([], stored_file_ids(database)), (
                cut.interrupted_line
            )
            if not cut.is_reached:
                break
            # whoever sends it again is told of what is there
            assert parse_reply(await sent(rig, request(what, name, ""))).status == 200
            assert {path.name for path in files.iterdir()} == stored_file_ids(database), cut.interrupted_line
