"""The last verification of the audit log as pages show it, on real files: after growth, after damage, after a cut."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from groundplan.api.audit.data_room import delete_stale_exports
from groundplan.api.audit.log_check import LogCheck
from groundplan.api.genesis import prepare_home
from groundplan.core.audit.keys import load_private
from groundplan.core.audit.log import AuditLog
from groundplan.core.audit.tiles import tile_path
from groundplan.core.audit.verify import verify
from groundplan.core.clock import SystemClock
from groundplan.core.home import Home


@pytest.fixture
def home(tmp_path: Path) -> Home:
    made = Home(tmp_path / "home")
    prepare_home(made)
    return made


@pytest.fixture
def check(home: Home) -> Iterator[LogCheck]:
    grow(home, 700)
    found = LogCheck(home, SystemClock())
    found.start()
    yield found
    found.stop()


def grow(home: Home, to: int) -> None:
    with AuditLog(home.audit, load_private(home, "checkpoint")) as log:
        log.append([f"entry {n}".encode() for n in range(log.checkpoint.size, to)])


def damage(home: Home, bundle: int) -> None:
    file = home.audit / tile_path("entries", bundle)
    data = bytearray(file.read_bytes())
    data[-1] ^= 0x40
    file.write_bytes(bytes(data))


def wait_for_state(check: LogCheck, wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    deadline = time.monotonic() + 20
    while not wanted(found := check.latest()):
        assert time.monotonic() < deadline, found
        time.sleep(0.02)
    return found


def test_everything_first_and_then_only_what_was_added(home: Home, check: LogCheck) -> None:
    first = wait_for_state(check, lambda found: found["ok"] is not None)
    assert (first["ok"], first["entries"], first["newest"], first["signed"]) == (True, 700, 700, "trusted key")
    assert first["running"] is None and first["everything_at"] == first["checked_at"]
    assert check.latest() == first
    grow(home, 1500)
    later = wait_for_state(check, lambda found: found["entries"] == 1500)
    assert later["ok"] and later["checked_at"] > first["checked_at"]
    assert later["everything_at"] == first["everything_at"]


def test_damage_in_what_was_added_is_found_at_once_and_in_older_entries_when_asked(home: Home, check: LogCheck) -> None:
    wait_for_state(check, lambda found: found["ok"] is not None)
    damage(home, 0)
    grow(home, 1500)
    assert wait_for_state(check, lambda found: found["entries"] == 1500)["ok"]
    check.verify_everything()
    broken = wait_for_state(check, lambda found: found["ok"] is False)
    assert "altered" in broken["problems"][0]["message"]
    damage(home, 0)
    check.verify_everything()
    assert wait_for_state(check, lambda found: found["ok"] is True)["problems"] == []
    grow(home, 2000)
    damage(home, 6)
    assert wait_for_state(check, lambda found: found["ok"] is False)["problems"][0]["at"] == 1791


class Counting(SystemClock):
    """Counts how often it was asked, which each verification does once."""

    asked = 0

    def now(self) -> datetime:
        self.asked += 1
        return super().now()


def test_many_readers_at_once_cause_one_verification(home: Home) -> None:
    grow(home, 60_000)
    clock = Counting()
    check = LogCheck(home, clock)

    def look(turn: int) -> None:
        time.sleep(0.005 * turn)
        check.latest()

    check.start()
    try:
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(look, range(16)))
        assert wait_for_state(check, lambda found: found["running"] is None and found["ok"])["entries"] == 60_000
        assert clock.asked == 1
    finally:
        check.stop()


def test_a_log_that_was_cut_or_exchanged_is_found_without_reading_it_all(home: Home, check: LogCheck) -> None:
    wait_for_state(check, lambda found: found["ok"] is not None)
    shutil.rmtree(home.audit)
    grow(home, 600)
    cut = wait_for_state(check, lambda found: found["ok"] is False)
    assert "was cut" in cut["problems"][0]["message"]


def test_what_was_checked_before_is_not_read_again_and_its_hashes_are(home: Home, check: LogCheck) -> None:
    kept = (home.audit / "checkpoint").read_bytes()
    grow(home, 1300)
    (home.audit / tile_path("entries", 1)).unlink()
    assert not verify(home.audit).ok
    assert verify(home.audit, since=700, earlier=[kept]).ok
    tile = home.audit / tile_path(1, 0, 5)
    tile.write_bytes(bytes(32) + tile.read_bytes()[32:])
    assert not verify(home.audit, since=700, earlier=[kept]).ok
    (home.audit / tile_path("entries", 2)).unlink()
    assert not verify(home.audit, since=700, earlier=[kept]).ok


def test_what_killed_exports_left_is_deleted_by_a_later_one(tmp_path: Path) -> None:
    """Each has the archive, and a copy of the whole log."""
    home = Home(tmp_path)
    home.run.mkdir()
    now = datetime.now(UTC)
    for name, age in (("old", 2), ("new", 0)):
        (folder := home.run / f"room-{name}").mkdir()
        (folder / "tile").touch()
        (archive := home.run / f"room-{name}.zip").touch()
        for path in (folder, archive):
            at = (now - timedelta(days=age)).timestamp()
            os.utime(path, (at, at))
    (home.run / "up.json").touch()
    delete_stale_exports(home, now)
    assert {path.name for path in home.run.iterdir()} == {"room-new", "room-new.zip", "up.json"}
