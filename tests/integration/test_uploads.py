"""Files that are sent in parts, by OpenAI's official client: durable part by part, made whole, tidied up."""

from __future__ import annotations

import asyncio
import hashlib
import io
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
import pytest
from openai import APIStatusError, AsyncOpenAI, ConflictError, NotFoundError
from openai.types import Upload
from openai.types.uploads import UploadPart
from tests.integration.gateway_stack import Reply, Stack, blueprint, deployment, installation, parse_reply, workload
from tests.integration.sdk_types import parse_strictly
from tests.integration.test_batch_kill import retry_until_served
from tests.unit.test_multipart import form

from groundplan.gateway.database import connect
from groundplan.gateway.files import blobs, files_api
from groundplan.testing.database import Database

CONTENT = os.urandom(700_000)
FORM = "multipart/form-data; boundary=xyz"
WAITING = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"


@dataclass
class Setup:
    stack: Stack

    def client(self, key: str) -> AsyncOpenAI:
        return AsyncOpenAI(base_url=f"http://127.0.0.1:{self.stack.port}/v1", api_key=key, max_retries=0)

    def on_disk(self) -> int:
        return len(list((self.stack.home.root / "files").glob("[0-9a-f]*")))

    def writing(self) -> int:
        return len(list((self.stack.home.root / "files").glob(".*.new")))

    async def begun(self, client: AsyncOpenAI, size: int = len(CONTENT), **more: Any) -> Upload:
        return await client.uploads.create(
            bytes=size, filename="a.pdf", mime_type="application/pdf", purpose="user_data", **more
        )


@pytest.fixture
async def setup(database: Database, tmp_path: Path) -> AsyncIterator[Setup]:
    async with installation(database, tmp_path) as stack:
        made = [workload("assistant", ["one"], file_bytes=4_000_000), workload("other", ["one"])]
        stack.apply(blueprint(1, [deployment("one", 9)], made))
        stack.start(2)
        await stack.wait_until_ready()
        yield Setup(stack)


async def refused(asking: Any) -> str:
    with pytest.raises(APIStatusError) as caught:
        await asking
    return str(caught.value.code)


async def test_a_file_is_assembled_from_its_parts_which_are_deleted(setup: Setup) -> None:
    key = setup.stack.key()
    async with setup.client(key) as client:
        for more in ({}, {"md5": hashlib.md5(CONTENT, usedforsecurity=False).hexdigest().upper()}):
            done = await client.uploads.upload_file_chunked(
                file=CONTENT, filename="a.pdf", bytes=len(CONTENT), mime_type="application/pdf", purpose="user_data",
                part_size=100_000, **more,
            )  # fmt: skip
            assert done.status == "completed" and done.file is not None
            assert (done.file.bytes, done.file.filename, done.file.purpose) == (len(CONTENT), "a.pdf", "user_data")
            assert (await client.files.content(done.file.id)).content == CONTENT
            await client.files.delete(done.file.id)
    assert setup.on_disk() == 0
    assert setup.stack.sql("SELECT count(*) FROM api_file WHERE deleted_at IS NULL") == [(0,)]


async def test_parts_belong_to_their_upload_and_workload_and_are_not_listed(setup: Setup) -> None:
    key, other = setup.stack.key(), setup.stack.key("other")
    async with setup.client(key) as client, setup.client(other) as stranger:
        upload = await setup.begun(client)
        raw = await setup.stack.ask(
            "POST", f"/v1/uploads/{upload.id}/parts", key, form(("data", CONTENT[:9], "x")), content_type=FORM
        )
        parse_strictly(UploadPart, raw.body)
        first, second = [
            await client.uploads.parts.create(upload.id, data=each) for each in (CONTENT[:400_000], CONTENT[400_000:])
        ]
        assert [file.id for file in (await client.files.list()).data] == [], "a part is nobody's file"
        with pytest.raises(NotFoundError):
            await client.files.content(first.id.replace("part_", "file-"))
        for method, path, refusal in (("POST", "nothing", (404, "path_unknown")), ("GET", "cancel", (405, "method"))):
            told = await setup.stack.ask(method, f"/v1/uploads/{upload.id}/{path}", key)
            assert told.status == refusal[0] and told.code.startswith(refusal[1]), "and nothing is given up"
        for asking in (
            stranger.uploads.parts.create(upload.id, data=b"x"),
            stranger.uploads.complete(upload.id, part_ids=[first.id, second.id]),
            stranger.uploads.cancel(upload.id),
        ):
            assert await refused(asking) == "upload_not_found"
        ids: Any
        for ids, code in (
            ([], "upload_parts"), (["x"], "upload_parts"), ([first.id, first.id], "upload_parts"),
            ([first.id], "upload_bytes"), ([first.id, second.id, raw.json["id"]], "upload_bytes"),
            ([first.id, upload.id.replace("upload_", "part_")], "upload_parts"),
        ):  # fmt: skip
            assert await refused(client.uploads.complete(upload.id, part_ids=ids)) == code
        wrong = client.uploads.complete(upload.id, part_ids=[second.id, first.id], md5=hashlib.md5(b"").hexdigest())
        assert await refused(wrong) == "upload_md5"
        damaged = setup.stack.home.root / "files" / str(UUID(first.id.removeprefix("part_")))
        damaged.write_bytes(b"")
        assert await refused(client.uploads.complete(upload.id, part_ids=[second.id, first.id])) == "file_damaged"
        damaged.write_bytes(CONTENT[:400_000])
        with psycopg.connect(setup.stack.database.superuser) as conn:
            conn.execute("SELECT FROM api_upload FOR UPDATE")
            asked = [client.uploads.complete(upload.id, part_ids=[second.id, first.id]) for _ in range(3)]
            both = asyncio.gather(*asked[:2])
            async with asyncio.timeout(20):
                while setup.stack.sql(WAITING) != [(2,)]:  # noqa: ASYNC110 -- each has written the whole
                    await asyncio.sleep(0.02)
        done, at_once = await both
        again = await asked[2]
        assert done.file is not None and at_once.file == again.file == done.file, "whoever asks once more is told that"
        assert (await client.files.content(done.file.id)).content == CONTENT[400_000:] + CONTENT[:400_000]
        with pytest.raises(ConflictError):
            await client.uploads.cancel(upload.id)
        with pytest.raises(ConflictError):
            await client.uploads.parts.create(upload.id, data=b"x")
        assert setup.on_disk() == 1


async def test_concurrent_completion_and_cancellation_are_told_the_outcome(setup: Setup) -> None:
    """As a client that asks once more where it was told nothing in time: whoever was first took the parts away."""
    async with setup.client(setup.stack.key()) as client:
        for _ in range(6):
            upload = await setup.begun(client)
            cut = range(0, len(CONTENT), 100_000)
            ids = [(await client.uploads.parts.create(upload.id, data=CONTENT[at : at + 100_000])).id for at in cut]
            done = await asyncio.gather(*[client.uploads.complete(upload.id, part_ids=ids) for _ in range(3)])
            (file,) = {each.file.id for each in done if each.file is not None}
            assert len(done) == 3 and (await client.files.content(file)).content == CONTENT
            await client.files.delete(file)
        for _ in range(6):
            upload = await setup.begun(client)
            part = await client.uploads.parts.create(upload.id, data=CONTENT)
            found = await asyncio.gather(
                client.uploads.complete(upload.id, part_ids=[part.id]), client.uploads.cancel(upload.id),
                client.uploads.complete(upload.id, part_ids=[part.id]), return_exceptions=True,
            )  # fmt: skip
            states = {each.status for each in found if isinstance(each, Upload)}
            codes = {each.code for each in found if isinstance(each, APIStatusError)}
            assert states in ({"completed"}, {"cancelled"}) and codes == {"upload_over"}, found
    assert setup.on_disk() == setup.stack.sql("SELECT count(*) FROM api_file WHERE deleted_at IS NULL")[0][0]


async def test_acknowledged_parts_survive_a_kill(setup: Setup) -> None:
    async with setup.client(setup.stack.key()) as client:
        upload = await setup.begun(client)
        parts = []
        for each in (CONTENT[:300_000], CONTENT[300_000:]):
            parts.append((await retry_until_served(partial(client.uploads.parts.create, upload.id, data=each))).id)
            for worker in setup.stack.workers:
                worker.kill()
                worker.wait()
            setup.stack.workers.clear()
            setup.stack.start(2)
        done = await retry_until_served(lambda: client.uploads.complete(upload.id, part_ids=parts))
        assert done.file is not None and (await client.files.content(done.file.id)).content == CONTENT


async def test_cancelled_and_expired_uploads_are_deleted_from_disk(setup: Setup) -> None:
    key = setup.stack.key()
    async with setup.client(key) as client:
        upload, late = await setup.begun(client), await setup.begun(client, expires_after=_HOUR)
        await client.uploads.parts.create(upload.id, data=CONTENT)
        part = await client.uploads.parts.create(late.id, data=CONTENT)
        gone = await setup.stack.ask("POST", f"/v1/uploads/{upload.id}/cancel", key)
        assert parse_strictly(Upload, gone.body).status == "cancelled" and setup.on_disk() == 1
        assert (await client.uploads.cancel(upload.id)).status == "cancelled"
        for table in ("api_upload", "api_file"):
            setup.stack.sql(f"UPDATE {table} SET expires_at = expires_at - interval '61 minutes'")
        assert await refused(client.uploads.parts.create(late.id, data=b"x")) == "upload_over"
        assert await refused(client.uploads.complete(late.id, part_ids=[part.id])) == "upload_over"
        async with await connect(setup.stack.database.urls["gateway"]) as connection:
            await files_api.remove_deleted(connection, blobs.Blobs(setup.stack.home))
            assert setup.on_disk() == 0
            assert await refused(client.uploads.complete(late.id, part_ids=[part.id])) == "upload_over", "for an hour"
            setup.stack.sql("UPDATE api_upload SET expires_at = now() - interval '2 hours'")
            await files_api.remove_deleted(connection, blobs.Blobs(setup.stack.home))
    assert setup.stack.sql("SELECT count(*) FROM api_upload") == [(0,)]


class OnItsWay:
    """A part of which the first half was sent, and is being written."""

    async def begin(self, setup: Setup, key: str, upload: str, content: bytes) -> None:
        data = form(("data", content, "x"))
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", setup.stack.port)
        head = f"POST /v1/uploads/{upload}/parts HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\n"
        lines = f"content-type: {FORM}\r\ncontent-length: {len(data)}\r\nconnection: close\r\n\r\n"
        half, self._rest, written = len(data) // 2, data[len(data) // 2 :], setup.writing()
        self._writer.write(f"{head}{lines}".encode() + data[:half])
        async with asyncio.timeout(20):
            while setup.writing() == written:  # noqa: ASYNC110 -- another process writes it
                await asyncio.sleep(0.02)

    async def end(self) -> Reply:
        self._writer.write(self._rest)
        told = parse_reply(await self._reader.read())
        self._writer.close()
        return told


async def test_a_part_in_transfer_of_a_cancelled_upload_leaves_nothing(setup: Setup) -> None:
    key, part = setup.stack.key(), OnItsWay()
    async with setup.client(key) as client:
        upload = await setup.begun(client)
        await part.begin(setup, key, upload.id, CONTENT)
        await client.uploads.cancel(upload.id)
    told = await part.end()
    assert (told.status, told.code, setup.on_disk()) == (409, "upload_over", 0)
    assert setup.stack.sql("SELECT count(*) FROM api_file") == [(0,)]


async def test_a_file_in_assembly_of_a_cancelled_upload_leaves_nothing(setup: Setup) -> None:
    async with setup.client(setup.stack.key()) as client:
        upload = await setup.begun(client)
        part = await client.uploads.parts.create(upload.id, data=CONTENT)
        place = setup.stack.database.superuser
        with psycopg.connect(place) as conn, psycopg.connect(place, autocommit=True) as other:
            conn.execute("UPDATE api_upload SET status = 'cancelled'")
            asked = asyncio.create_task(refused(client.uploads.complete(upload.id, part_ids=[part.id])))
            async with asyncio.timeout(20):
                while other.execute(WAITING).fetchall() != [(1,)]:  # noqa: ASYNC110 -- it is written, and entered next
                    await asyncio.sleep(0.02)
        assert await asked == "upload_over" and setup.on_disk() == 1, "the part is deleted by who gave it up"


async def test_concurrent_parts_take_no_more_than_the_available_space(setup: Setup) -> None:
    key, parts = setup.stack.key(), [OnItsWay() for _ in range(2)]
    async with setup.client(key) as client:
        upload = await setup.begun(client)
    for part in parts:
        await part.begin(setup, key, upload.id, bytes(2_500_000))
    told = await asyncio.gather(*(part.end() for part in parts))
    assert sorted(reply.status for reply in told) == [200, 413] and setup.on_disk() == 1


async def test_uploads_of_invalid_size_or_purpose_are_refused(setup: Setup) -> None:
    async with setup.client(setup.stack.key()) as client:
        assert await refused(setup.begun(client, 5_000_000)) == "files_full"
        assert await refused(setup.begun(client, 300 << 20)) == "file_too_large"
        assert await refused(setup.begun(client, 0)) == "upload_bytes"
        wrong: Any = client.uploads.create(bytes=1, filename="a", mime_type="a/b", purpose="fine-tune")
        assert await refused(wrong) == "purpose_unsupported"
        soon: Any = {"anchor": "created_at", "seconds": 5}
        assert await refused(setup.begun(client, expires_after=soon)) == "expires_after_range"
        used: Any = {"anchor": "last_active_at", "seconds": 3600}
        assert await refused(setup.begun(client, expires_after=used)) == "expires_after_anchor"
        upload = await setup.begun(client, 3_900_000, expires_after=_HOUR)
        part = await client.uploads.parts.create(upload.id, data=io.BytesIO(os.urandom(3_900_000)))
        full = client.uploads.parts.create(upload.id, data=os.urandom(200_000))
        assert await refused(full) == "files_full", "what is sent twice is counted twice until it is whole"
        assert setup.on_disk() == 1
        done = await client.uploads.complete(upload.id, part_ids=[part.id])
        assert done.status == "completed" and setup.on_disk() == 1, "its parts take the place of nothing"
        assert done.file is not None and done.file.expires_at == done.file.created_at + 3600
        upload = await setup.begun(client, 1)
    data, more = ("data", b"x", None), ("more", b"x", None)
    path, key = f"/v1/uploads/{upload.id}/parts", setup.stack.key()
    for odd, code in (
        ((data, more), "upload_field"),
        ((more,), "upload_field"),
        ((data, data), "upload_field"),
        ((), "file_missing"),
    ):
        told = await setup.stack.ask("POST", path, key, form(*odd), content_type=FORM)
        assert (told.status, told.code) == (400, code)


_HOUR: Any = {"anchor": "created_at", "seconds": 3600}
