"""Writing the files of HOME: whatever the system refuses, the old bytes or the new ones are there, and it is told."""

from __future__ import annotations

import errno
import os
import time
from pathlib import Path
from typing import Any

import pytest

from groundplan.cli.client import ControlClient
from groundplan.cli.output import error_from_os
from groundplan.core import file_store
from groundplan.core.errors import Invalid
from groundplan.core.file_store import put_file
from groundplan.core.home import STALE_SECONDS, sync_folder, write_atomically, write_files


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EDQUOT, errno.EMFILE, errno.EACCES])
@pytest.mark.parametrize("call", ["open", "fchmod", "write", "fsync", "replace"])
def test_what_cannot_be_written_stays_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, number: int
) -> None:
    file = tmp_path / "state"
    write_atomically(file, b"old")

    def refused(*_: Any, **__: Any) -> Any:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patched:
        where: Any = Path if call == "replace" else os
        patched.setattr(where, call, refused)
        with pytest.raises(OSError, match="state") as told:
            write_atomically(file, b"new")
    assert told.value.errno == number and str(file) in error_from_os(told.value).message
    assert file.read_bytes() == b"old" and [path.name for path in tmp_path.iterdir()] == ["state"]
    write_atomically(file, b"new")
    assert file.read_bytes() == b"new" and file.stat().st_mode & 0o777 == 0o600


def test_a_folder_that_cannot_be_synced_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(_: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fsync", refused)
    with pytest.raises(OSError, match="Input/output error") as told:
        sync_folder(tmp_path)
    assert told.value.filename == str(tmp_path)


def test_what_a_command_could_save_in_part_is_not_in_its_way_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk is full: a part of an archive said that it is there, and the next try was refused for it."""
    client, file = ControlClient("http://127.0.0.1:1", "t"), tmp_path / "room.zip"
    monkeypatch.setattr(client, "send", lambda *_, **__: b"archive")
    real = Path.open

    class Full:
        """A file on a disk that is full when it is closed."""

        def __init__(self, path: Path) -> None:
            self._file = real(path, "xb")

        def __enter__(self) -> Any:
            return self._file

        def __exit__(self, *_: object) -> None:
            self._file.close()
            raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(Path, "open", lambda path, _: Full(path))
        with pytest.raises(Invalid, match="No space left"):
            client.save("/api/exports/room", file)
    assert client.save("/api/exports/room", file) == 7 and file.read_bytes() == b"archive"


@pytest.mark.parametrize("writes", range(3))
def test_a_workspace_that_could_be_written_in_part_is_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, writes: int
) -> None:
    """A part of a new one was in the way of the next try, and a file of an old one was empty."""
    (tmp_path / "old.yaml").write_text("old")
    (tmp_path / "old.yaml").chmod(0o640)
    files, done, real = {"one.yaml": "1", "old.yaml": "new", "two.yaml": "2"}, 0, os.open

    def full(path: Any, *more: Any, **named: Any) -> int:
        nonlocal done
        done += 1
        if done > writes:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(path, *more, **named)

    def text(path: Path, data: str, **_: Any) -> int:
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT))
        return path.write_bytes(data.encode())

    with monkeypatch.context() as patched:
        patched.setattr(os, "open", full)
        patched.setattr(Path, "write_text", text)
        patched.setattr("groundplan.core.home.sync_folder", lambda _: None)
        with pytest.raises(OSError, match="No space left") as told:
            write_files(tmp_path, files)
    assert str(tmp_path) in str(told.value.filename)
    assert [path.name for path in tmp_path.iterdir()] == ["old.yaml"]
    assert (tmp_path / "old.yaml").read_text() == ("new" if writes == 2 else "old")
    write_files(tmp_path, files)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == files
    assert (tmp_path / "old.yaml").stat().st_mode & 0o777 == 0o640


def test_what_an_archive_has_no_room_for_takes_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each process that tried left as much of it."""
    pytest.importorskip("fsspec")
    file, store = tmp_path / "facts", tmp_path / "store"
    file.write_bytes(b"facts")

    def full(_: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(file_store, "_sync", full)
        with pytest.raises(Invalid, match="store_unwritable"):
            file_store.put_file(f"file://{store}", "calls/day.parquet", file)
    assert list((store / "calls").iterdir()) == []
    file_store.put_file(f"file://{store}", "calls/day.parquet", file)
    assert (store / "calls" / "day.parquet").read_bytes() == b"facts"


def test_what_a_killed_writer_left_goes_with_the_next_write_of_that_name(tmp_path: Path) -> None:
    """One that is being written by another process at this moment does not, nor what is anybody's own."""
    old, fresh, other, own = (tmp_path / name for name in (".a.11.tmp", ".a.12.tmp", ".ab.13.tmp", ".a.x.tmp"))
    long_ago = time.time() - STALE_SECONDS - 1
    for each in (old, fresh, other, own):
        each.write_bytes(b"half")
    for each in (old, other, own):
        os.utime(each, (long_ago, long_ago))
    write_atomically(tmp_path / "a", b"whole")
    assert sorted(path.name for path in tmp_path.iterdir()) == [".a.12.tmp", ".a.x.tmp", ".ab.13.tmp", "a"]


def test_parts_of_what_was_archived_go_alike(tmp_path: Path) -> None:
    sent = tmp_path / "sent"
    sent.write_bytes(b"facts")
    store = tmp_path / "store"
    store.mkdir()
    (left := store / ".day.7.tmp").write_bytes(b"fac")
    os.utime(left, (0, 0))
    put_file(str(store), "day", sent)
    assert [path.name for path in store.iterdir()] == ["day"]
