"""While PostgreSQL is away, what waits for it is logged once and not at every try."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from pathlib import Path
from uuid import uuid4

import pytest

from groundplan.blueprint.model import Deployment, Rates
from groundplan.core.clock import SystemClock
from groundplan.core.errors import Unavailable
from groundplan.core.home import Home
from groundplan.gateway.caching.cache_store import AnswerStore
from groundplan.gateway.caching.semantic_checks import CheckStore
from groundplan.gateway.caching.semantic_counts import SemanticCounts
from groundplan.gateway.call.model_versions import ModelVersions
from groundplan.gateway.guard.counts import GuardCounts
from groundplan.gateway.telemetry.content_link import Content
from groundplan.gateway.telemetry.content_writer import ContentWriter
from groundplan.gateway.write_behind import WriteBehindQueue

NOBODY = "postgresql://nobody@127.0.0.1:1/none"


class Beside(WriteBehindQueue[int]):
    away = True

    async def put(self, facts: Sequence[int]) -> None:  # noqa: ARG002 -- nobody has them
        if self.away:
            raise Unavailable("PostgreSQL is away", code="database_unavailable", hint="Wait.")


def waits(caplog: pytest.LogCaptureFixture) -> int:
    return sum("for PostgreSQL" in each.getMessage() for each in caplog.records)


async def test_a_waiting_write_is_logged_once_while_it_waits(caplog: pytest.LogCaptureFixture) -> None:
    facts = Beside("facts", 10)
    for times in (1, 2):
        facts.add(times)
        facts.away = True
        for _ in range(3):
            await facts.flush()
        assert waits(caplog) == times and list(facts.waiting) == [times]
        facts.away = False
        await facts.flush()
        assert not facts.waiting


async def test_what_comes_after_an_unexpected_error_is_written(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Else nothing more is written for as long as the worker runs, and nobody is told."""
    facts, written = Beside("facts", 10), asyncio.Event()
    facts.interval_seconds = 0.005
    tries = iter((ZeroDivisionError, ZeroDivisionError, None))

    async def put(_: Sequence[int]) -> None:
        if (error := next(tries)) is not None:
            raise error
        written.set()

    monkeypatch.setattr(facts, "put", put)
    facts.add(1)
    writing = asyncio.create_task(facts.run())
    async with asyncio.timeout(10):
        await written.wait()
    writing.cancel()
    await asyncio.wait([writing])
    assert not facts.waiting and [each.getMessage() for each in caplog.records] == ["facts are not written"]


async def test_waiting_writes_of_every_part_of_a_worker_are_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    clock = SystemClock()
    counts, tally, checks, reported = (
        GuardCounts(NOBODY, clock),
        SemanticCounts(NOBODY, clock),
        CheckStore(NOBODY),
        ModelVersions(NOBODY),
    )
    counts.add(uuid4(), "assistant", {("input", "secrets", "blocked"): 1}, shadow=False)
    tally.add_lookup("assistant", 5)
    place = Deployment(
        name="mini", site="here", model="m", upstream_model="m", url="http://x/v1", rates=Rates(input=1, output=1)
    )
    reported.record_answer(place, b'{"model":"m-1"}')
    for _ in range(3):
        await counts.flush()
        await tally.flush()
        await checks.synchronize()
        await reported.flush()
    assert waits(caplog) == 4


class TriesLeft(threading.Event):
    """Set once somebody has waited for it so many times, which takes no time."""

    def __init__(self, tries: int) -> None:
        super().__init__()
        self._left = tries

    def wait(self, timeout: float | None = None) -> bool:  # noqa: ARG002 -- as of an event
        self._left -= 1
        if self._left <= 0:
            self.set()
        return self.is_set()


def test_the_shippers_threads_log_once_that_postgresql_is_away(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Each tries again every second."""
    writer, store = ContentWriter(Home(tmp_path), NOBODY), AnswerStore(Home(tmp_path), NOBODY)
    writer._enqueue(Content(bytes(16), 0, "assistant", "", "full", 60, b"{}", b"{}"))
    writer._stop, store._stop = TriesLeft(6), TriesLeft(6)
    writer._write()
    store._run()
    assert [each.getMessage() for each in caplog.records] == [
        "content is not written: Unavailable", "answers are not kept: Unavailable",
    ]  # fmt: skip
