"""Files that calls name: what a worker holds of them at a time, and how each surface writes them where ids were."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from msgspec.structs import replace
from psycopg import AsyncConnection
from tests.integration.gateway_stack import RATES, Reply, parse_reply, workload
from tests.unit.call_rig import Rig, call_rig
from tests.unit.test_gateway_experiments import books, rest, tried, trying

from groundplan.blueprint.model import Reliability
from groundplan.cli.doctor import _check_files
from groundplan.core.errors import Invalid, Unavailable
from groundplan.core.home import Home
from groundplan.core.ids import new_id, new_id_bytes
from groundplan.core.money import PICO, format_usd
from groundplan.gateway.call.exchange import Exchange
from groundplan.gateway.call.files_by_id import HELD_BYTES, MOST_BYTES, FilesById, kind_of
from groundplan.gateway.files import file_store
from groundplan.gateway.files.blobs import Blobs
from groundplan.gateway.files.file_store import StoredFile
from groundplan.gateway.http.collected_response import CollectedResponse
from groundplan.gateway.http.server import Request
from groundplan.gateway.policy.snapshot import KeyEntry
from groundplan.gateway.surfaces.chat.surface import CHAT
from groundplan.gateway.surfaces.file_references import NamedFile
from groundplan.gateway.surfaces.interface import Interface
from groundplan.gateway.surfaces.messages.surface import MESSAGES
from groundplan.gateway.surfaces.responses.surface import RESPONSES
from groundplan.ledger.model import Reservation
from groundplan.testing.database import Database

PNG = NamedFile("a.png", "image/png", "iVBORw==")
PDF = NamedFile("a.pdf", "application/pdf", "JVBERi0=")


def chat(*parts: dict[str, Any]) -> dict[str, Any]:
    return {"model": "auto", "messages": [{"role": "user", "content": list(parts)}]}


def ask_of(interface: Interface, body: dict[str, Any] | bytes) -> Any:
    request = Request(0.0)
    request.body = body if isinstance(body, bytes) else json.dumps(body).encode()
    return interface.read(request)


def exchange(id: UUID) -> Exchange:
    made = Exchange(new_id_bytes(), Request(0.0), CollectedResponse(), CHAT)
    made.key = KeyEntry(str(new_id()), "assistant", "", False, False, None)
    made.ask = ask_of(CHAT, chat({"type": "file", "file": {"file_id": f"file-{id.hex}"}}))
    return made


async def stored(database: Database, blobs: Blobs, id: UUID, data: bytes) -> FilesById:
    """Whoever puts that file into calls."""

    async def pieces() -> AsyncGenerator[bytes, None]:
        yield data

    @asynccontextmanager
    async def connected() -> AsyncIterator[AsyncConnection[Any]]:
        async with await AsyncConnection.connect(database.urls["gateway"], autocommit=True) as connection:
            yield connection

    size = await blobs.keep(id, pieces())
    async with connected() as connection:
        file = StoredFile(id, "assistant", "user_data", "a.pdf", size, datetime.now(UTC))
        await file_store.add(connection, file, None)
    return FilesById(connected, blobs)


async def test_a_file_of_which_the_disk_left_a_part_goes_into_no_call_and_doctor_names_it(
    database: Database, tmp_path: Path
) -> None:
    home, id = Home(tmp_path), new_id()
    home.create()
    files = await stored(database, Blobs(home), id, b"%PDF-1.4\n")
    asked, settings = exchange(id), database.settings(tmp_path)
    assert [check.state for check in _check_files(home, settings)] == ["ok"]
    (home.root / "files" / str(id)).write_bytes(b"%PDF")
    with pytest.raises(Unavailable) as told:
        await files.put_in(asked)
    assert told.value.code == "file_damaged"
    (check,) = _check_files(home, settings)
    assert check.state == "bad" and str(id) in check.message and "file_damaged" in check.hint


async def test_a_second_answer_beside_the_shown_one_gets_the_files_too(database: Database, tmp_path: Path) -> None:
    takes, id = {"accepts": ["file"], "context_tokens": 100}, new_id()
    async with trying(tmp_path, tried(), more={"one": takes, "two": takes}) as (rig, pairs):
        rig.gateway.files = await stored(database, Blobs(Home(tmp_path)), id, b"%PDF-1.4\n")
        part = {"type": "file", "file": {"file_id": f"file-{id.hex}"}}
        reply = await rig.chat(messages=[{"role": "user", "content": [{"type": "text", "text": "What?"}, part]}])
        assert reply.status == 200, reply.body
        await rest(rig)
        assert len(pairs.waiting) == 1
        for name in ("one", "two"):
            last = rig.models[name].last
            assert last is not None
            assert json.loads(last.body)["messages"][0]["content"][1]["file"] == {
                "filename": "a.pdf", "file_data": "data:application/pdf;base64,JVBERi0xLjQK",
            }  # fmt: skip
        assert rig.gateway.files.held == 0, "both have given back what they held"
        await books(rig)


async def test_an_estimate_looks_at_the_files_that_are_named(database: Database, tmp_path: Path) -> None:
    """It is what the call reserves, and an id that is not there is told as for a call."""
    takes: dict[str, Any] = {"accepts": ["file"], "context_tokens": 100, "rates": replace(RATES, input=10 * PICO)}
    id = new_id()

    def asked(rig: Rig, id: UUID) -> bytes:
        part = {"type": "file", "file": {"file_id": f"file-{id.hex}"}}
        return rig.request(messages=[{"role": "user", "content": [part]}])

    async def told(rig: Rig, request: bytes) -> Reply:
        reader, writer = await asyncio.open_connection("127.0.0.1", rig.port)
        writer.write(request.replace(b"\r\n\r\n", b"\r\ngroundplan-estimate: 1\r\n\r\n", 1))
        reply = parse_reply(await asyncio.wait_for(reader.read(), 20))
        writer.close()
        return reply

    async with call_rig(tmp_path, ["one"], more={"one": takes}) as rig:
        rig.gateway.files = await stored(database, Blobs(Home(tmp_path)), id, b"%PDF-1.4\n")
        estimate, unknown = await told(rig, asked(rig, id)), await told(rig, asked(rig, new_id()))
        assert (unknown.status, unknown.code) == (404, "file_not_found")
        assert rig.gateway.files.held == 0 and rig.models["one"].counted == 0
        part = {"type": "file", "file": {"file_id": f"file-{id.hex}"}}
        assert (await rig.chat(messages=[{"role": "user", "content": [part]}])).status == 200
        (made,) = [record for record in await rig.records() if isinstance(record, Reservation)]
        assert estimate.json["most_usd"] == format_usd(made.bound)


async def test_a_worker_holds_so_much_of_files_at_a_time(database: Database, tmp_path: Path) -> None:
    home = Home(tmp_path)
    home.create()
    id = new_id()
    files = await stored(database, Blobs(home), id, b"%PDF-".ljust(MOST_BYTES))
    fit = HELD_BYTES // (MOST_BYTES // 3 * 4)
    running = [exchange(id) for _ in range(fit)]
    for each in running:
        await files.put_in(each)
        each.ask = None  # what is counted is not kept by this test
    with pytest.raises(Unavailable) as caught:
        await files.put_in(exchange(id))
    assert caught.value.code == "memory_full" and caught.value.retry_after and fit == 8
    files.release(running[0])
    files.release(running[0])
    again = exchange(id)
    await files.put_in(again)
    assert again.ask is not None and again.ask.files == () and again.file_bytes_held == MOST_BYTES // 3 * 4
    with pytest.raises(Unavailable):
        await files.put_in(exchange(id))
    for each in running[1:3]:
        files.release(each)
    less = exchange(id)
    less.workload = workload("less", ["one"], reliability=Reliability(priority="low"))
    with pytest.raises(Unavailable):
        await files.put_in(less)
    await files.put_in(exchange(id))


async def test_files_leave_the_disk_room_for_the_journal(tmp_path: Path) -> None:
    home = Home(tmp_path)
    home.create()
    free = shutil.disk_usage(tmp_path).free

    async def endless() -> AsyncGenerator[bytes, None]:
        for _ in range(1000):
            yield bytes(1 << 20)

    with pytest.raises(Unavailable) as caught:
        await Blobs(home, free - (40 << 20)).keep(new_id(), endless(), 1 << 30)
    assert caught.value.code == "files_unavailable"
    assert list((home.root / "files").iterdir()) == [], "nothing is left of it"


def test_each_surface_writes_files_as_if_they_had_been_sent() -> None:
    image = {"type": "input_image", "file_id": "i", "detail": "low"}
    output = {"type": "function_call_output", "call_id": "c", "output": [{"type": "input_file", "file_id": "f"}]}
    call = {"type": "function_call", "call_id": "c", "name": "x", "arguments": '{"file_id":"f"}'}
    items = [{"role": "user", "content": [image]}, call, output]
    ask: Any = ask_of(RESPONSES, {"model": "auto", "input": items})
    assert ask.files == ("i", "f") and ask.needs == {"image", "file"} and ask.images == 1
    made: Any = RESPONSES.with_files(ask, {"i": PNG, "f": PDF})
    first, second, third = json.loads(bytes(made.fields["input"]))
    assert first["content"] == [{"type": "input_image", "detail": "low", "image_url": PNG.url}] and second == call
    assert third["output"] == [{"type": "input_file", "filename": "a.pdf", "file_data": PDF.url}]
    assert made.parsed.own_input == items, "what is stored keeps the ids"
    made = RESPONSES.with_files(ask_of(RESPONSES, {"model": "auto", "input": items[:2]}), {"i": PNG})
    told = made.parsed.translation().fields["messages"][0]["content"][0]
    assert told == {"type": "image_url", "image_url": {"url": PNG.url, "detail": "low"}}, "in chat, too"
    source = {"type": "file", "file_id": "f"}
    blocks = [
        {"type": "tool_use", "id": "t", "name": "x", "input": {"type": "document", "source": source}},
        {"type": "tool_result", "tool_use_id": "t", "content": [{"type": "document", "source": source}]},
    ]
    messages = {"model": "auto", "max_tokens": 1, "messages": [{"role": "user", "content": blocks}]}
    made = MESSAGES.with_files(ask_of(MESSAGES, messages), {"f": PDF})
    used, result = json.loads(bytes(made.fields["messages"]))[0]["content"]
    assert used == blocks[0], "what a function was called with is the caller's own"
    assert result["content"][0]["source"] == {"type": "base64", "media_type": PDF.kind, "data": PDF.data}


@pytest.mark.parametrize(
    ("interface", "field", "part", "odd"),
    [
        (CHAT, "messages", {"type": "file", "file": {"file_id": "f"}}, {"type": "file", "file": {"file_id": ["f"]}}),
        (RESPONSES, "input", {"type": "input_file", "file_id": "f"}, {"type": "input_image", "file_id": {"f": 1}}),
        (MESSAGES, "messages", {"type": "document", "source": {"type": "file", "file_id": "f"}},
         {"type": "image", "source": {"type": "file", "file_id": ["f"]}}),
    ],
)  # fmt: skip
def test_what_is_no_id_stays_as_it_is(interface: Interface, field: str, part: Any, odd: Any) -> None:
    """In a field that no surface knows, and a provider may: what is wrong with it is for that to say."""
    told = "source" if interface is RESPONSES else "output"
    body = {"model": "auto", "max_tokens": 9, field: [{"role": "user", "content": [part], told: [odd]}]}
    if interface is RESPONSES:
        del body["max_tokens"]
    (message,) = json.loads(bytes(interface.with_files(ask_of(interface, body), {"f": PDF}).fields[field]))
    assert message[told] == [odd] and "JVBERi0=" in json.dumps(message["content"])


def test_a_name_with_escapes_is_a_name() -> None:
    """Otherwise the id would go on as it is, to a provider that may know such a file of somebody else."""
    raw = json.dumps(chat({"type": "file", "file": {"file_id": "f"}})).encode().replace(b"file_id", b"file\\u005fid")
    ask = ask_of(CHAT, raw)
    assert ask.files == ("f",)
    sent = bytes(CHAT.with_files(ask, {"f": PDF}).fields["messages"])
    assert json.loads(sent)[0]["content"][0]["file"] == {"filename": "a.pdf", "file_data": PDF.url}


@pytest.mark.parametrize(
    ("interface", "body"),
    [
        (CHAT, chat({"type": "file", "file": {"file_id": "f", "file_data": PDF.url}})),
        (
            RESPONSES,
            {"model": "a", "input": [{"content": [{"type": "input_image", "file_id": "i", "image_url": "x"}]}]},
        ),
        (RESPONSES, {"model": "a", "input": [{"content": [{"type": "input_file", "file_id": "i", "file_url": "x"}]}]}),
        (RESPONSES, {"model": "a", "input": [{"content": [{"type": "input_file", "file_url": "http://127.0.0.1"}]}]}),
    ],
)
def test_an_id_stands_alone(interface: Interface, body: dict[str, Any]) -> None:
    with pytest.raises(Invalid) as caught:
        ask_of(interface, body)
    assert caught.value.code in ("file_twice", "file_data")


@pytest.mark.parametrize(
    ("begin", "name", "kind"),
    [
        (b"%PDF-1.7", "x.png", "application/pdf"),
        (b"\x89PNG\r\n\x1a\n", "x", "image/png"),
        (b"RIFF\0\0\0\0WEBP", "x", "image/webp"),
        (b"hello", "x.png", "application/octet-stream"),
        (b"hello", "x.txt", "text/plain"),
        (b"", 'x.";\r\n', "application/octet-stream"),
    ],
)
def test_a_file_is_what_its_bytes_say(begin: bytes, name: str, kind: str) -> None:
    assert kind_of(begin, name) == kind
