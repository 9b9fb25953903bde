"""The archive format: what goes in comes out, and no damage goes unnoticed, whatever the files hold."""

from __future__ import annotations

import gzip
import io
import os
import tarfile
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from groundplan.core.errors import Conflict, Invalid
from groundplan.runtime.archive import MANIFEST, unpack, write_archive

NAMES = st.from_regex(r"[a-z]{1,8}(/[a-z]{1,8}\.[a-z]{1,3})?", fullmatch=True)


@settings(max_examples=40, deadline=None)
@given(st.dictionaries(NAMES, st.binary(max_size=3000), max_size=5), st.data())
def test_it_is_whole_or_refused(files: dict[str, bytes], data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        names = [one for one in files if not any(other.startswith(f"{one}/") for other in files)]
        source = folder / "source"
        with write_archive(folder / "archive", {"schema": "x"}) as archive:
            for one in names:
                source.write_bytes(files[one])
                archive.add(one, source)
        (folder / "out").mkdir()
        facts = unpack(folder / "archive", folder / "out")
        assert facts["schema"] == "x"
        assert {one: (folder / "out" / one).read_bytes() for one in names} == {one: files[one] for one in names}
        whole = (folder / "archive").read_bytes()
        at = data.draw(st.integers(0, len(whole) - 1))
        for number, body in enumerate((whole[:at], whole[:at] + bytes([whole[at] ^ 0xFF]) + whole[at + 1 :])):
            if number and (at in range(4, 10) or same(whole, body)):
                continue  # the time in gzip's header, and bits that stand for the same bytes
            (folder / "spoiled").write_bytes(body)
            (folder / f"out{number}").mkdir()
            with pytest.raises(Invalid, match="archive_damaged"):
                unpack(folder / "spoiled", folder / f"out{number}")


def same(one: bytes, other: bytes) -> bool:
    try:
        return gzip.decompress(one) == gzip.decompress(other)
    except Exception:  # noqa: BLE001 -- any damage at all means: not the same
        return False


@pytest.mark.parametrize("manifest", [b"[]", b"1", b"null", b"[" * 200_000], ids=["list", "number", "null", "deep"])
def test_a_manifest_that_is_no_object_is_refused(tmp_path: Path, manifest: bytes) -> None:
    """As an archive of another program may have one."""
    with tarfile.open(tmp_path / "archive", "w:gz") as tar:
        info = tarfile.TarInfo(MANIFEST)
        info.size = len(manifest)
        tar.addfile(info, io.BytesIO(manifest))
    (tmp_path / "out").mkdir()
    with pytest.raises(Invalid, match="archive_damaged"):
        unpack(tmp_path / "archive", tmp_path / "out")


def test_bytes_after_the_end_are_refused(tmp_path: Path) -> None:
    with write_archive(tmp_path / "archive", {}):
        pass
    with (tmp_path / "archive").open("ab") as file:
        file.write(b"more")
    with pytest.raises(Invalid, match="archive_damaged"):
        unpack(tmp_path / "archive", tmp_path)


def test_an_archive_appears_only_when_it_is_complete_and_replaces_nothing(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), write_archive(tmp_path / "archive", {}):
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "archive").write_text("precious")
    with pytest.raises(Conflict, match="archive_exists"), write_archive(tmp_path / "archive", {}):
        pass
    assert (tmp_path / "archive").read_text() == "precious"


def test_what_is_written_into_meanwhile_is_taken_without_holes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    growing, written, read = tmp_path / "segment", [100], os.pread
    growing.write_bytes(b"x" * written[0] + bytes(20_000))

    def busy(descriptor: int, size: int, at: int) -> bytes:
        with growing.open("r+b") as file:
            file.seek(written[0])
            written[0] += file.write(b"x" * 3000)
        return read(descriptor, size, at)

    monkeypatch.setattr(os, "pread", busy)
    with write_archive(tmp_path / "a", {}) as archive:
        archive.add_growing("segment", growing)
    (tmp_path / "out").mkdir()
    unpack(tmp_path / "a", tmp_path / "out")
    data = (tmp_path / "out" / "segment").read_bytes()
    assert len(data) == 20_100 and b"\0" not in data.rstrip(b"\0")
