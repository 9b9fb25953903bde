"""How many processors there are for us: those that we are bound to, and what a container has time for."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from groundplan.runtime.postgres import connection_settings
from groundplan.runtime.processors import processors


@pytest.mark.parametrize(
    ("files", "found"),
    [
        ({"cpu.max": "150000 100000"}, 2),
        ({"cpu.max": "max 100000"}, 64),
        ({"cpu.max": "9900000 100000"}, 64),
        ({"cpu/cpu.cfs_quota_us": "50000", "cpu/cpu.cfs_period_us": "100000"}, 1),
        ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, 64),
        ({}, 64),
    ],
)
def test_a_container_has_its_share(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: dict[str, str], found: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)))
    (tmp_path / "cpu").mkdir()
    for name, text in files.items():
        (tmp_path / name).write_text(f"{text}\n")
    assert processors(tmp_path) == found


def test_the_database_has_room_for_all_workers_and_their_successors() -> None:
    assert connection_settings(2) == {"max_connections": "100"}
    assert int(connection_settings(36)["max_connections"]) > 2 * 36 * 8
