"""What becomes of a file whose writer or reader is cancelled while a thread has it in hand."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

from groundplan.core.home import Home
from groundplan.core.ids import new_id
from groundplan.gateway.batches import shelf
from groundplan.gateway.batches.shelf import Shelf


@pytest.fixture
def place(tmp_path: Path) -> Shelf:
    home = Home(tmp_path)
    home.create()
    return Shelf(home, free=0)


async def test_what_a_thread_writes_reaches_no_file_that_was_opened_since(
    place: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client went away; the number of its file's descriptor is another one's at once."""
    begun, write = threading.Event(), shelf._write

    def slow(descriptor: int, data: bytes) -> None:
        begun.set()
        time.sleep(0.2)
        write(descriptor, data)

    async def pieces() -> AsyncGenerator[bytes, None]:
        yield b"somebody's secret"

    monkeypatch.setattr(shelf, "_write", slow)
    keeping = asyncio.ensure_future(place.keep(new_id(), pieces()))
    await asyncio.to_thread(begun.wait)
    keeping.cancel()
    with pytest.raises(asyncio.CancelledError):
        await keeping
    other = place.home.root / "other"
    with other.open("wb", buffering=0):
        await asyncio.sleep(0.4)
    assert other.read_bytes() == b"" and place.kept() == []


async def test_what_a_thread_reads_is_of_no_file_that_was_opened_since(
    place: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def pieces() -> AsyncGenerator[bytes, None]:
        yield b"of this file"

    await place.keep(id := new_id(), pieces())
    begun, read, got = threading.Event(), os.read, []

    def slow(descriptor: int, length: int) -> bytes:
        begun.set()
        time.sleep(0.2)
        got.append(read(descriptor, length))
        return got[-1]

    monkeypatch.setattr(os, "read", slow)
    reading = asyncio.ensure_future(anext(place.read(id)))
    await asyncio.to_thread(begun.wait)
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    other = place.home.root / "other"
    other.write_bytes(b"another one's")
    with other.open("rb", buffering=0):
        await asyncio.sleep(0.4)
    assert got == [b"of this file"]


async def test_what_a_killed_writer_left_keeps_nobody_from_writing_the_same_again(place: Shelf) -> None:
    async def pieces() -> AsyncGenerator[bytes, None]:
        yield b"whole"

    place.ready()
    id = new_id()
    (place.files / f".{id}.new").write_bytes(b"ha")
    assert await place.keep(id, pieces()) == 5 and place.path(id).read_bytes() == b"whole"
