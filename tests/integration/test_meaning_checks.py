"""What checks of answers by meaning found is known to every worker, and after a restart."""

from __future__ import annotations

import asyncio
from math import inf

import psycopg
from tests.integration.gates import wait_until

from groundplan.economics.semantic.regions import GIVE, Learned, Regions
from groundplan.gateway.caching.semantic_checks import DAYS, CheckStore
from groundplan.testing.database import Database

TERMS = ("support", "2 0.01 3.5")


async def test_what_workers_found_adds_up_and_is_read_by_the_next(database: Database) -> None:
    one, other = (CheckStore(database.urls["gateway"]) for _ in range(2))
    one.add(TERMS, b"\x01", wrong=False, raised=-inf)
    one.add(TERMS, b"\x01", wrong=True, raised=4.5)
    one.add(("sales", TERMS[1]), b"\x01", wrong=False, raised=-inf)
    await one.synchronize()
    other.add(TERMS, b"\x01", wrong=False, raised=-inf)
    other.add(TERMS, b"\x02", wrong=False, raised=-inf)
    await other.close()
    started = CheckStore(database.urls["gateway"])
    assert (started.learned(TERMS), started.version) == ([], 0)
    await started.synchronize()
    assert started.version == 1
    assert started.learned(TERMS) == [Learned(b"\x01", 3, 1, 4.5), Learned(b"\x02", 1, 0, -inf)]
    assert started.learned(("support", "2 0.02 3.5")) == []
    started.add(TERMS, b"\x02", wrong=False, raised=-inf)
    assert started.learned(TERMS)[1] == Learned(b"\x02", 2, 0, -inf)
    await started.synchronize()
    await started.synchronize()
    assert started.version == 2 and started.learned(TERMS)[1] == Learned(b"\x02", 2, 0, -inf)


async def test_what_cannot_be_added_waits(database: Database) -> None:
    checks = CheckStore("postgresql://nobody@127.0.0.1:9/none")
    checks.add(TERMS, b"\x01", wrong=False, raised=-inf)
    await checks.synchronize()
    checks._url = database.urls["gateway"]
    await checks.synchronize()
    assert checks.learned(TERMS) == [Learned(b"\x01", 1, 0, -inf)]


async def test_an_exchange_that_is_cut_off_loses_nothing(database: Database) -> None:
    checks = CheckStore(database.urls["gateway"])
    checks.add(TERMS, b"\x01", wrong=False, raised=-inf)
    with psycopg.connect(database.superuser) as conn:
        conn.execute("LOCK TABLE semantic_region")
        exchanging = asyncio.create_task(checks.synchronize())
        await wait_until(lambda: not checks._unsent)
        await asyncio.sleep(0.1)
        exchanging.cancel()
        await asyncio.wait([exchanging])
    await checks.close()
    assert exchanging.cancelled() and checks.learned(TERMS) == [Learned(b"\x01", 1, 0, -inf)]


async def test_a_region_that_others_proved_gives_after_a_restart(database: Database) -> None:
    before = CheckStore(database.urls["gateway"])
    for _ in range(60):
        before.add(TERMS, b"\xf0", wrong=False, raised=-inf)
    await before.close()
    after = CheckStore(database.urls["gateway"])
    await after.synchronize()
    regions = Regions(bound=0.05, check=0.05, evidence=20, threshold=3.0)
    regions.load(after.learned(TERMS))
    (region,) = regions.known.values()
    assert regions.decide(region, 3.1, 0.5) == GIVE


async def test_a_region_that_was_forgotten_begins_anew(database: Database) -> None:
    """What was right half a year ago is no evidence of what is right now."""
    checks = CheckStore(database.urls["gateway"])
    for first in (b"\x01", b"\x02"):
        for wrong in (False, True):
            checks.add(TERMS, first, wrong=wrong, raised=4.5)
    await checks.synchronize()
    with psycopg.connect(database.superuser, autocommit=True) as conn:
        conn.execute(
            "UPDATE semantic_region SET at = now() - make_interval(days => %s) WHERE first = %s", (DAYS + 1, b"\x01")
        )
    for first in (b"\x01", b"\x02"):
        checks.add(TERMS, first, wrong=False, raised=-inf)
    await checks.synchronize()
    assert checks.learned(TERMS) == [Learned(b"\x02", 3, 1, 4.5), Learned(b"\x01", 1, 0, -inf)]
