"""What checks of answers by meaning found is known to every worker, and after a restart."""

from __future__ import annotations

import asyncio
from math import inf

import psycopg
from tests.integration.gates import until

from groundplan.economics.semantic.regions import GIVE, Learned, Regions
from groundplan.gateway.caching.semantic_checks import DAYS, Checks
from groundplan.testing.database import Database

TERMS = ("support", "2 0.01 3.5")


async def test_what_workers_found_adds_up_and_is_read_by_the_next(database: Database) -> None:
    one, other = (Checks(database.urls["gateway"]) for _ in range(2))
    one.add(TERMS, b"\x01", wrong=False, raised=-inf)
    one.add(TERMS, b"\x01", wrong=True, raised=4.5)
    one.add(("sales", TERMS[1]), b"\x01", wrong=False, raised=-inf)
    await one.exchange()
    other.add(TERMS, b"\x01", wrong=False, raised=-inf)
    other.add(TERMS, b"\x02", wrong=False, raised=-inf)
    await other.close()
    started = Checks(database.urls["gateway"])
    assert (started.known(TERMS), started.edition) == ([], 0)
    await started.exchange()
    assert started.edition == 1
    assert started.known(TERMS) == [Learned(b"\x01", 3, 1, 4.5), Learned(b"\x02", 1, 0, -inf)]
    assert started.known(("support", "2 0.02 3.5")) == []
    started.add(TERMS, b"\x02", wrong=False, raised=-inf)
    assert started.known(TERMS)[1] == Learned(b"\x02", 2, 0, -inf)
    await started.exchange()
    await started.exchange()
    assert started.edition == 2 and started.known(TERMS)[1] == Learned(b"\x02", 2, 0, -inf)


async def test_what_cannot_be_added_waits(database: Database) -> None:
    checks = Checks("postgresql://nobody@127.0.0.1:9/none")
    checks.add(TERMS, b"\x01", wrong=False, raised=-inf)
    await checks.exchange()
    checks._url = database.urls["gateway"]
    await checks.exchange()
    assert checks.known(TERMS) == [Learned(b"\x01", 1, 0, -inf)]


async def test_an_exchange_that_is_cut_off_loses_nothing(database: Database) -> None:
    checks = Checks(database.urls["gateway"])
    checks.add(TERMS, b"\x01", wrong=False, raised=-inf)
    with psycopg.connect(database.superuser) as conn:
        conn.execute("LOCK TABLE semantic_region")
        exchanging = asyncio.create_task(checks.exchange())
        await until(lambda: not checks._waiting)
        await asyncio.sleep(0.1)
        exchanging.cancel()
        await asyncio.wait([exchanging])
    await checks.close()
    assert exchanging.cancelled() and checks.known(TERMS) == [Learned(b"\x01", 1, 0, -inf)]


async def test_a_region_that_others_proved_gives_after_a_restart(database: Database) -> None:
    before = Checks(database.urls["gateway"])
    for _ in range(60):
        before.add(TERMS, b"\xf0", wrong=False, raised=-inf)
    await before.close()
    after = Checks(database.urls["gateway"])
    await after.exchange()
    regions = Regions(bound=0.05, check=0.05, evidence=20, threshold=3.0)
    regions.load(after.known(TERMS))
    (region,) = regions.known.values()
    assert regions.decide(region, 3.1, 0.5) == GIVE


async def test_a_region_that_was_forgotten_begins_anew(database: Database) -> None:
    """What was right half a year ago is no evidence of what is right now."""
    checks = Checks(database.urls["gateway"])
    for first in (b"\x01", b"\x02"):
        for wrong in (False, True):
            checks.add(TERMS, first, wrong=wrong, raised=4.5)
    await checks.exchange()
    with psycopg.connect(database.superuser, autocommit=True) as conn:
        conn.execute(
            "UPDATE semantic_region SET at = now() - make_interval(days => %s) WHERE first = %s", (DAYS + 1, b"\x01")
        )
    for first in (b"\x01", b"\x02"):
        checks.add(TERMS, first, wrong=False, raised=-inf)
    await checks.exchange()
    assert checks.known(TERMS) == [Learned(b"\x02", 3, 1, 4.5), Learned(b"\x01", 1, 0, -inf)]
