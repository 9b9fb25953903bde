"""How long a worker tries to connect to PostgreSQL."""

from __future__ import annotations

from typing import Any

import pytest
from psycopg import OperationalError
from psycopg.errors import ConnectionTimeout

from groundplan.gateway import database


async def test_a_server_that_was_too_slow_to_connect_to_has_longer_the_next_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A connection takes several answers; a server that is gone is left after two seconds as long as another one is
    there."""
    had, now, outcome = list[int](), 0.0, "answers"

    async def connect(_: str, *, connect_timeout: int, **__: Any) -> str:
        nonlocal now
        had.append(connect_timeout)
        if outcome == "refuses":
            raise OperationalError("refused")
        now += connect_timeout if outcome == "times out" else 0.1 if outcome == "answers" else 1.5
        if outcome == "times out":
            raise ConnectionTimeout("connection timeout expired")
        return "connection"

    monkeypatch.setattr(database._Prompt, "connect", connect)
    monkeypatch.setattr(database, "monotonic", lambda: now)
    for outcome, seconds in (
        ("answers", 2), ("refuses", 2), ("times out", 2), ("refuses", 4), ("times out", 4), ("times out", 6),
        ("answers late", 6), ("answers", 6), ("answers", 2),
    ):  # fmt: skip
        try:
            await database.connect("postgresql://one/")
        except OperationalError:
            assert outcome != "answers"
        assert had.pop() == seconds
        had.clear()
    assert not database._connect_seconds
