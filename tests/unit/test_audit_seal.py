"""Sealed copies of the log in a folder: each file is whole or not there, however a run ended."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import pytest

from groundplan.core.audit.keys import create_keys, load_private
from groundplan.core.audit.log import AuditLog
from groundplan.core.audit.seal import seal
from groundplan.core.audit.verify import verify
from groundplan.core.errors import Unavailable
from groundplan.core.home import Home

pytest.importorskip("fsspec")


@pytest.fixture
def home(tmp_path: Path) -> Home:
    made = Home(tmp_path / "home")
    made.create()
    create_keys(made)
    more(made, 600)
    return made


def more(home: Home, to: int) -> None:
    with AuditLog(home.audit, load_private(home, "checkpoint")) as log:
        log.append([b"%d" % number for number in range(log.checkpoint.size, to)])


def test_a_copy_verifies_as_the_log_does_and_full_tiles_are_written_once(home: Home, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    done = seal(home.audit, f"file://{copy}")
    assert (done.entries, done.segments) == (600, 4) and verify(copy).ok
    more(home, 700)
    assert seal(home.audit, f"file://{copy}").segments == 0
    verdict = verify(copy)
    assert verdict.ok and verdict.entries == 700
    assert not [path for path in copy.rglob("*") if path.name.endswith(".tmp")]


@pytest.mark.parametrize("writes", [0, 1, 2, 5, 8, 9])
def test_a_run_that_the_disk_cut_off_is_made_good_by_the_next(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, writes: int
) -> None:
    """Half of a full tile was taken for the tile, by every later run."""
    copy, done, real = tmp_path / "copy", 0, Path.write_bytes

    def cut(path: Path, data: Any) -> int:
        nonlocal done
        done += 1
        if done > writes:
            real(path, data[: len(data) // 2])
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(path, data)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "write_bytes", cut)
        with pytest.raises(Unavailable, match="No space left") as refused:
            seal(home.audit, f"file://{copy}")
    assert refused.value.code == "seal_store" and not list(copy.rglob(".*.tmp"))
    assert seal(home.audit, f"file://{copy}").entries == 600
    assert verify(copy).ok


def test_what_a_loss_of_power_left_of_a_copy_is_written_again(home: Home, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    seal(home.audit, f"file://{copy}")
    tile = copy / "tile" / "0" / "000"
    whole = tile.read_bytes()
    for left in (b"", whole[:100]):
        tile.write_bytes(left)
        assert not verify(copy).ok
        assert seal(home.audit, f"file://{copy}").segments == 1
        assert verify(copy).ok and tile.read_bytes() == whole
