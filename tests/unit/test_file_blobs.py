"""What becomes of a file whose writer or reader is cancelled while a thread has it in hand, and who waits for a slow
disk."""

from __future__ import annotations

import asyncio
import errno
import os
import threading
import time
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest

from groundplan.core.errors import Unavailable
from groundplan.core.home import Home, sync_folder
from groundplan.core.ids import new_id
from groundplan.gateway.files import blobs
from groundplan.gateway.files.blobs import Blobs


@pytest.fixture
def place(tmp_path: Path) -> Blobs:
    home = Home(tmp_path)
    home.create()
    return Blobs(home, free=0)


async def cancelled(work: asyncio.Future[Any], times: int) -> None:
    """So often, with a turn of the loop after each but the last."""
    for _ in range(times - 1):
        work.cancel()
        await asyncio.sleep(0)
    work.cancel()


@pytest.mark.parametrize("times", [1, 2])
async def test_a_late_write_of_a_thread_reaches_no_file_opened_since(
    place: Blobs, monkeypatch: pytest.MonkeyPatch, times: int
) -> None:
    """A client went away; the number of its file's descriptor is another one's at once."""
    begun, write = threading.Event(), blobs._write

    def slow(descriptor: int, data: bytes) -> None:
        begun.set()
        time.sleep(0.2)
        write(descriptor, data)

    async def pieces() -> AsyncGenerator[bytes, None]:
        yield b"somebody's secret"

    monkeypatch.setattr(blobs, "_write", slow)
    keeping = asyncio.ensure_future(place.keep(new_id(), pieces()))
    await asyncio.to_thread(begun.wait)
    await cancelled(keeping, times)
    with pytest.raises(asyncio.CancelledError):
        await keeping
    other = place.home.root / "other"
    with other.open("wb", buffering=0):
        await asyncio.sleep(0.4)
    assert other.read_bytes() == b"" and place.kept() == []


@pytest.mark.parametrize("times", [1, 2])
async def test_a_late_read_of_a_thread_is_from_no_file_opened_since(
    place: Blobs, monkeypatch: pytest.MonkeyPatch, times: int
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
    await cancelled(reading, times)
    with pytest.raises(asyncio.CancelledError):
        await reading
    other = place.home.root / "other"
    other.write_bytes(b"another one's")
    with other.open("rb", buffering=0):
        await asyncio.sleep(0.4)
    assert got == [b"of this file"]


async def test_leftovers_of_a_killed_writer_do_not_block_rewriting(place: Blobs) -> None:
    async def pieces() -> AsyncGenerator[bytes, None]:
        yield b"whole"

    place.ready()
    id = new_id()
    (place.files / f".{id}.new").write_bytes(b"ha")
    assert await place.keep(id, pieces()) == 5 and place.path(id).read_bytes() == b"whole"


async def _whole() -> AsyncGenerator[bytes, None]:
    yield b"whole"


def failed(*_: Any) -> Any:
    raise OSError(errno.EIO, os.strerror(errno.EIO))


async def test_a_file_whose_client_disconnects_as_it_is_named_is_deleted(
    place: Blobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = threading.Event()

    def slow(folder: Path) -> None:
        begun.set()
        time.sleep(0.1)
        sync_folder(folder)

    monkeypatch.setattr(blobs, "sync_folder", slow)
    keeping = asyncio.ensure_future(place.keep(new_id(), _whole()))
    await asyncio.to_thread(begun.wait)
    keeping.cancel()
    with pytest.raises(asyncio.CancelledError):
        await keeping
    assert list(place.files.iterdir()) == [], "nobody would ever know of it"


async def test_a_client_disconnecting_as_a_file_is_opened_leaves_nothing_open(
    place: Blobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    await place.keep(id := new_id(), _whole())
    begun, opens, opened = threading.Event(), os.open, list[int]()

    def slow(path: Path, flags: int) -> int:
        begun.set()
        time.sleep(0.1)
        opened.append(opens(path, flags))
        return opened[0]

    monkeypatch.setattr(os, "open", slow)
    reading = asyncio.ensure_future(anext(place.read(id)))
    await asyncio.to_thread(begun.wait)
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    async with asyncio.timeout(20):
        while not opened or os.path.exists(f"/proc/self/fd/{opened[0]}"):  # noqa: ASYNC110, PTH110
            await asyncio.sleep(0.01)


async def test_a_slow_disk_occupies_no_thread_that_calls_need(place: Blobs, monkeypatch: pytest.MonkeyPatch) -> None:
    """Such as those of stored responses: there are as many as processors, and a few."""
    go = threading.Event()
    monkeypatch.setattr(blobs, "_write", lambda _descriptor, _data: go.wait(20))
    keeping = [asyncio.ensure_future(place.keep(new_id(), _whole())) for _ in range(40)]
    await asyncio.sleep(0.1)
    try:
        async with asyncio.timeout(5):
            assert await asyncio.to_thread(int) == 0
    finally:
        go.set()
        await asyncio.gather(*keeping)


async def test_small_pieces_are_written_together(place: Blobs, monkeypatch: pytest.MonkeyPatch) -> None:
    """An upload over a slow network comes a packet at a time; a turn of a thread for each would hold up calls."""
    write, written = blobs._write, list[int]()

    def counted(descriptor: int, data: bytes) -> None:
        written.append(len(data))
        write(descriptor, data)

    async def pieces() -> AsyncGenerator[bytes, None]:
        for number in range(200):
            yield b"%01400d" % number

    monkeypatch.setattr(blobs, "_write", counted)
    assert await place.keep(id := new_id(), pieces()) == 280_000
    assert place.path(id).read_bytes() == b"".join(b"%01400d" % number for number in range(200))
    assert len(written) == 5
    assert max([len(piece) async for piece in place.read(id)]) <= 64 << 10, "of each slow reader one is in memory"


@pytest.mark.parametrize("left", [b"", b"all of i", b"all of it and more"])
async def test_a_file_of_unexpected_length_is_not_served(place: Blobs, left: bytes) -> None:
    """Whoever asks for it would take a part for the whole."""
    id, whole = new_id(), b"all of it"

    async def pieces() -> AsyncGenerator[bytes, None]:
        yield whole

    assert await place.keep(id, pieces()) == len(whole)
    assert b"".join([piece async for piece in place.read(id, len(whole))]) == whole
    assert await place.part(id, 4, 5) == b"of it"
    place.path(id).write_bytes(left)
    with pytest.raises(Unavailable) as told:
        await anext(place.read(id, len(whole)))
    assert told.value.code == "file_damaged" and "doctor" in told.value.hint
    if len(left) < len(whole):
        with pytest.raises(Unavailable, match="file_damaged"):
            await place.part(id, 4, 5)


@pytest.mark.parametrize("failing", ["open", "read", "pread"])
async def test_an_unreadable_file_is_not_reported_as_missing(
    place: Blobs, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    """Whoever asks would look for it at another gateway."""
    await place.keep(part := new_id(), _whole())
    with monkeypatch.context() as disk, pytest.raises(Unavailable) as told:
        disk.setattr(os, failing, failed)
        if failing == "pread":
            await place.part(part, 0, 5)
        else:
            await anext(place.read(part, 5))
    assert told.value.code == "files_unavailable" and told.value.retry_after
    assert f"HOME/files/{part}, cannot be read: {os.strerror(errno.EIO)}" in told.value.message
    place.path(part).unlink()
    with pytest.raises(Unavailable, match="file_elsewhere"):
        await (place.part(part, 0, 5) if failing == "pread" else anext(place.read(part, 5)))


async def test_an_unreadable_part_is_reported_when_a_file_is_assembled(
    place: Blobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    await place.keep(part := new_id(), _whole())

    async def parts() -> AsyncGenerator[bytes, None]:
        async for piece in place.read(part, 5):
            yield piece

    monkeypatch.setattr(os, "read", failed)
    with pytest.raises(Unavailable, match="cannot be read"):
        await place.keep(new_id(), parts())
    assert place.kept() == [part], "nothing is left of it"
