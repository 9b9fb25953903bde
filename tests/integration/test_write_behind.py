"""Facts on their way from a worker to PostgreSQL: bounded, added once, held up by nothing that can never be added."""

from __future__ import annotations

import asyncio
import logging

import psycopg
import pytest
from tests.integration.gates import wait_until

from groundplan.core.ids import new_id
from groundplan.gateway.app import Parts
from groundplan.gateway.call.grounding.citation_store import MOST, Citations, Verdict
from groundplan.testing.database import Database


def verdict(number: int, document: str = "d", start: int = 0) -> Verdict:
    return Verdict(new_id(), number, 1, document, 1, start, start, 0, 1, True)


def numbers(database: Database) -> list[int]:
    with psycopg.connect(database.superuser) as conn:
        return [row[0] for row in conn.execute("SELECT number FROM call_citation ORDER BY number").fetchall()]


async def test_what_can_never_be_added_holds_nothing_up(database: Database, caplog: pytest.LogCaptureFixture) -> None:
    kept = Citations(database.urls["gateway"])
    kept.add(*(verdict(n) for n in range(5)), verdict(5, "\0"), verdict(6, start=1 << 40), verdict(7))
    await kept.flush()
    assert numbers(database) == [0, 1, 2, 3, 4, 7] and not kept.waiting
    kept.add(verdict(8))
    with caplog.at_level(logging.WARNING):
        await kept.flush()
    assert numbers(database)[-1] == 8 and "2 citations were not kept" in caplog.text


async def test_what_cannot_be_added_now_waits_and_is_added_once(database: Database) -> None:
    one, url = verdict(1), database.urls["gateway"]
    kept = Citations("postgresql://nobody@127.0.0.1:1/none")
    kept.add(one, verdict(2))
    await kept.flush()
    kept.add(verdict(3))
    assert [each.number for each in kept.waiting] == [1, 2, 3], "in the order in which they came"
    kept._url = url
    await kept.put([one])
    await kept.flush()
    assert numbers(database) == [1, 2, 3] and not kept.waiting


async def test_a_flush_that_is_cut_off_loses_nothing(database: Database) -> None:
    kept = Citations(database.urls["gateway"])
    kept.add(verdict(1))
    with psycopg.connect(database.superuser) as conn:
        conn.execute("LOCK TABLE call_citation")
        flushing = asyncio.create_task(kept.flush())
        await asyncio.sleep(0.3)
        flushing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await flushing
    assert len(kept.waiting) == 1
    await kept.close()
    assert numbers(database) == [1]


async def test_what_is_being_added_as_its_worker_stops_is_added(database: Database) -> None:
    kept, parts = Citations(database.urls["gateway"]), Parts()
    kept.interval_seconds = 0.0
    kept.add(verdict(1))
    with psycopg.connect(database.superuser) as conn:
        conn.execute("LOCK TABLE call_citation")
        parts.run_until_end(kept)
        await wait_until(lambda: not kept.waiting)
        await asyncio.sleep(0.1)
        closing = asyncio.create_task(parts.aclose())
        await asyncio.sleep(0.1)
    await closing
    assert numbers(database) == [1]


def test_of_more_than_fits_the_oldest_go() -> None:
    kept = Citations("")
    kept.add(*(verdict(n) for n in range(MOST + 2)))
    assert len(kept.waiting) == MOST and kept.waiting[0].number == 2
