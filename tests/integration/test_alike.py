"""Teams that ask the same are found through real workers though nothing is kept, and what was asked is forgotten."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import psycopg
import pytest
from tests.integration.gateway_stack import Stack, blueprint, deployment, installation, scripted_upstream, workload

from groundplan.api.cost import levers
from groundplan.blueprint.model import Rates, Site
from groundplan.core.database import connect
from groundplan.core.money import PICO
from groundplan.economics.replay.opportunities import Opportunity
from groundplan.gateway.call.ask import Ask
from groundplan.gateway.call.repeats import is_sampled
from groundplan.ledger import opportunity_store
from groundplan.testing.database import Database

SAME = "the same asked by several teams"
WHOLE_SECONDS = 60.0
"""More than it takes all of it."""
EACH = 12
"""Requests of each workload that are looked at."""


def looked_at(day: datetime, start: str) -> list[str]:
    """Questions that are among those looked at."""
    found: list[str] = []
    for number in range(100_000):
        text = f"{start} {number}?"
        if is_sampled(Ask({}, "", 1, text, False, False, None, 1, 9), int(day.timestamp() // 86_400)):
            found.append(text)
        if len(found) == EACH:
            return found
    raise AssertionError("too few")


def opportunities(database: Database) -> list[Opportunity]:
    with connect(database.urls["control"]) as conn:
        return [each for each in levers.find_levers(conn, datetime.now(UTC), 7)[0] if each.lever == SAME]


async def wait_until_kept(stack: Stack, count: int) -> None:
    """Wait until `count` digests are stored."""
    end = asyncio.get_running_loop().time() + 60
    while (found := stack.sql("SELECT count(*) FROM asked")[0][0]) < count:
        assert asyncio.get_running_loop().time() < end, found
        await asyncio.sleep(0.1)


async def test_teams_with_the_same_requests_are_found_and_the_requests_are_forgotten(
    database: Database, tmp_path: Path
) -> None:
    left = 86_400 - datetime.now(UTC).timestamp() % 86_400
    if left < WHOLE_SECONDS:  # with the day what is looked at would end in the middle
        await asyncio.sleep(left + 0.1)
    async with scripted_upstream("one") as (_, port), installation(database, tmp_path) as stack:
        place = deployment("one", port, rates=Rates(input=PICO, output=100 * PICO))
        owned: dict[str, Any] = {"owners": {"business": ["ana@acme.example"]}}
        declared = [
            workload("faq", ["one"], team="care", **owned),
            workload("help", ["one"], team="sales", owners={"business": ["bo@acme.example"]}),
            workload("secret", ["one"], team="board", sensitivity="restricted", grace_ms=0),
            workload("other", ["one"], team="board"),
        ]
        sites = [Site(name=place.site, type="private", jurisdiction="EU")]
        stack.apply(msgspec.structs.replace(blueprint(1, [place], declared), sites=sites))
        stack.start()
        await stack.wait_until_ready()
        now = datetime.now(UTC)
        questions = looked_at(now, "What does the law say about")
        keys = {name: stack.key(name) for name in ("faq", "help", "secret", "other")}
        for name in ("faq", "help", "secret"):
            for question in questions:
                assert (await stack.chat(keys[name], question, user=f"{name}@acme.example")).status == 200
        for question in looked_at(now, "Which board paper is about"):
            assert (await stack.chat(keys["other"], question)).status == 200
        await wait_until_kept(stack, 3 * EACH)

        (told,) = await asyncio.to_thread(opportunities, database)
        assert told.about == ("faq", "help")
        assert "care, sales (ana@acme.example, bo@acme.example)" in told.what
        assert f"about {2 * EACH * 8 // 10 * 10} calls" in told.evidence
        assert told.saves_usd > 0

        said = str(stack.sql("SELECT * FROM asked")) + str(stack.sql("SELECT detail FROM call"))
        assert "law" not in said and "board paper" not in said
        assert {row[0] for row in stack.sql("SELECT DISTINCT workload FROM asked")} == {"faq", "help", "other"}
        for role in ("control", "gateway"):
            for table in ("asked", "asked_key"):
                with pytest.raises(psycopg.errors.InsufficientPrivilege), connect(database.urls[role]) as conn:
                    conn.execute(f"SELECT * FROM {table}".encode())

        with connect(database.urls["control"], autocommit=True) as conn:
            assert opportunity_store.roll_up_shared_requests(conn, now) == 0
            assert opportunity_store.roll_up_shared_requests(conn, now + timedelta(days=1, minutes=15)) == 3 * EACH
        assert stack.sql("SELECT (SELECT count(*) FROM asked) + (SELECT count(*) FROM asked_key)") == [(0,)]
        assert await asyncio.to_thread(opportunities, database) == [told]


def test_all_workers_share_a_days_key_and_past_days_get_none(database: Database) -> None:
    today = datetime.now(UTC).date()
    with connect(database.urls["gateway"], autocommit=True) as conn:
        made = [
            conn.execute("SELECT key_of_asked(%s)", (today + timedelta(days=n),)).fetchone() for n in (0, 0, 1, 2, -1)
        ]
    keys = [row[0] if row else None for row in made]
    assert keys[0] == keys[1] != keys[2] and len(keys[0] or b"") == 32
    assert keys[3:] == [None, None]
