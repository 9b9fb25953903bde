"""What is made as large as the machine is."""

from __future__ import annotations

from groundplan.runtime.postgres import room_for


def test_the_database_has_room_for_all_workers_and_their_successors() -> None:
    assert room_for(2) == {"max_connections": "100"}
    assert int(room_for(36)["max_connections"]) > 2 * 36 * 8
