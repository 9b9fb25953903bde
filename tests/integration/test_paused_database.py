"""PostgreSQL's processes are stopped in the middle of everything: they answer nothing, refuse nothing. Calls on slices
in hand are as fast as before, and when it goes on every call is in the ledger once.
"""

from __future__ import annotations

import asyncio
import os
import signal
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
from tests.acceptance.stack import descendants
from tests.integration.gateway_stack import Stack, blueprint, deployment, installation, scripted_upstream, workload
from tests.made_database import copy_database

from groundplan.core.home import Home
from groundplan.gateway.journal.shipper import Shipper
from groundplan.runtime.postgres import EmbeddedPostgres
from groundplan.testing.database import FAST, found_cluster
from groundplan.testing.scripted import Script

CALLS = 50
TOLD = "error_code IS DISTINCT FROM 'budget_unreachable'"
"""A call that is refused since a busy PostgreSQL says nothing in time is made again by `Stack.chat`."""
LEASE_AND_MORE = 1.5
"""Seconds after which the lease of policy has run out, and whoever asks the database hangs."""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[EmbeddedPostgres]:
    """A server of this test alone: others go on while it is stopped."""
    home = Home(tmp_path / "server")
    home.create()
    copy_database(home.root)
    made = EmbeddedPostgres(home, tuning=FAST)
    made.start()
    try:
        yield made
    finally:
        made.remove()


@contextmanager
def stopped(server: EmbeddedPostgres) -> Iterator[None]:
    assert server.pid is not None
    pids = [server.pid, *descendants(server.pid)]
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


def as_fast(seen: tuple[float, float]) -> bool:
    """Whether the median without a database is what it was with one."""
    before, meanwhile = seen
    return meanwhile < 3 * before + 0.02


async def times(stack: Stack, key: str) -> list[float]:
    """Seconds that calls take, one after another."""
    found = []
    for _ in range(CALLS):
        begun = time.monotonic()
        answer = await stack.chat(key)
        found.append(time.monotonic() - begun)
        assert answer.status == 200, answer.body
    return found


async def test_a_database_that_hangs_slows_no_call(server: EmbeddedPostgres, tmp_path: Path) -> None:
    with found_cluster(server.home.root).database() as database:
        async with scripted_upstream("one") as (model, port), installation(database, tmp_path) as stack:
            model.script = Script(tokens=1)
            stack.apply(blueprint(1, [deployment("one", port)], [workload("assistant", ["one"])]))
            stack.start()
            await stack.wait_until_ready()
            key = stack.key()
            await times(stack, key)
            seen: list[tuple[float, float]] = []
            while len(seen) < 3 and not any(map(as_fast, seen)):  # the best of three: others compute meanwhile, too
                before = statistics.median(await times(stack, key))
                with stopped(server):
                    await asyncio.sleep(LEASE_AND_MORE)
                    meanwhile = statistics.median(await times(stack, key))
                seen.append((before, meanwhile))
            assert any(map(as_fast, seen)), seen
            await times(stack, key)
            made = (2 + 2 * len(seen)) * CALLS
            with psycopg.connect(database.urls["shipper"], autocommit=True) as conn:
                shipper, end = Shipper(stack.home), time.monotonic() + 60
                while stack.sql(f"SELECT count(*) FROM call WHERE {TOLD}") != [(made,)]:
                    assert time.monotonic() < end, "every call is in the ledger"
                    shipper.run_round(conn)
                    await asyncio.sleep(0.05)
            assert model.counted == made
            assert stack.sql("SELECT count(*), count(DISTINCT call_id) FROM attempt") == [(made, made)]
            assert stack.sql(f"SELECT DISTINCT status FROM call WHERE {TOLD}") == [("ok",)]
