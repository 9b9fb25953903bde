"""What a killed worker, a client that went away and a failed first attempt cost is no useless retry; what a retry cost
that failed, too, is. Real workers, killed with kill -9."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
from tests.integration.gateway_stack import Stack, blueprint, deployment, installation, scripted_upstream, workload
from tests.integration.nursery import fork_program

from groundplan.api.cost import levers
from groundplan.blueprint.model import Rates, Site
from groundplan.core.database import connect
from groundplan.core.money import PICO
from groundplan.economics.replay.opportunities import Opportunity
from groundplan.testing.database import Database
from groundplan.testing.script import Script
from groundplan.testing.scripted import ScriptedModel

DEAR = Rates(input=PICO, output=1_000 * PICO)
"""An answer of twenty tokens costs two cents, so that every lever is told."""


def find_levers_by_deployment(database: Database) -> dict[tuple[str, str], Opportunity]:
    with connect(database.urls["control"]) as conn:
        found = levers.find_levers(conn, datetime.now(UTC), 7)[0]
    return {
        (each.lever, each.deployment): each for each in found if each.lever in ("useless retries", "failed attempts")
    }


async def until(condition: Callable[[], bool], seen: Callable[[], object] = lambda: "it did not happen") -> None:
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end, seen()
        await asyncio.sleep(0.05)


async def leave(stack: Stack, key: str, model: ScriptedModel) -> None:
    """Ask, and go away once the model was asked."""
    before = model.counted
    body = json.dumps({"model": "auto", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 20}).encode()
    _, writer = await asyncio.open_connection("127.0.0.1", stack.port)
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: g\r\nauthorization: Bearer {key}\r\n"
    writer.write(head.encode() + b"content-length: %d\r\n\r\n" % len(body) + body)
    await until(lambda: model.counted > before)
    writer.transport.abort()


async def wait_until_attempts(stack: Stack, condition: str, count: int) -> None:
    """Until so many attempts are in the ledger."""

    def rows() -> list[tuple[Any, ...]]:
        return stack.sql("SELECT number, state, outcome, flags FROM attempt")

    await until(lambda: stack.sql(f"SELECT count(*) FROM attempt WHERE {condition}")[0][0] == count, rows)


async def test_who_is_killed_or_goes_away_is_no_useless_retry(database: Database, tmp_path: Path) -> None:
    async with (
        scripted_upstream("one") as (one, first),
        scripted_upstream("two") as (two, second),
        installation(database, tmp_path) as s,
    ):
        places = [deployment(name, port, rates=DEAR) for name, port in (("one", first), ("two", second))]
        sites = [Site(name=place.site, type="private", jurisdiction="EU") for place in places]
        declared = [workload("faq", ["one", "two"], attempts=2)]
        s.apply(msgspec.structs.replace(blueprint(1, places, declared), sites=sites))
        s.start()
        await s.wait_until_ready()
        key = s.key("faq")
        environment = {**os.environ, "GROUNDPLAN_DATABASE_URL": database.dsn}
        s.workers.append(
            fork_program("groundplan.gateway.journal.shipper", ["--home", str(s.home.root)], 2, environment)
        )

        one.script = Script(mode="stall")
        await leave(s, key, one)  # at the first attempt
        one.script, two.script = Script(mode="cut"), Script(mode="stall")
        await leave(s, key, two)  # while it was tried again
        await wait_until_attempts(s, "outcome = 'cancelled'", 2)
        found = await asyncio.to_thread(find_levers_by_deployment, database)
        assert {name: each.evidence[:9] for name, each in found.items()} == {("failed attempts", "one"): "1 attempt"}

        two.script = Script(mode="cut")
        assert (await s.ask_once(key)).status == 503
        two.script = Script(mode="stall")
        asked = asyncio.ensure_future(s.ask_once(key))
        await until(lambda: two.counted == 3)
        killed = s.workers.pop(0)
        killed.kill()
        await asyncio.gather(asked, return_exceptions=True)
        killed.wait()
        await wait_until_attempts(s, "state = 'crashed' AND number = 1", 1)
        found = await asyncio.to_thread(find_levers_by_deployment, database)
        assert {name: each.evidence[:10] for name, each in found.items()} == {
            ("failed attempts", "one"): "3 attempts",
            ("useless retries", "two"): "1 attempts",
        }, "who was killed while it was tried again is not told"
        failed = s.sql("SELECT sum(cost_usd) FROM attempt WHERE outcome = 'failed'")[0][0]
        assert sum((each.saves_usd for each in found.values()), Decimal(0)) == failed * 30
