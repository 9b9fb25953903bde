"""PostgreSQL says nothing any more, and nobody closes the connection: a machine that is gone, or stands still."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.abc import PQGen
from psycopg_pool import PoolTimeout
from tests.integration.quiet_way import SilenceableProxy, silenceable_proxy

from groundplan.api import app
from groundplan.api.genesis import prepare_home
from groundplan.core.clock import SystemClock
from groundplan.core.database import connect, external_url
from groundplan.core.errors import Unavailable
from groundplan.core.home import Home
from groundplan.core.ids import new_id
from groundplan.core.last_known_address import TimeLimitedConnection
from groundplan.core.settings import load_settings
from groundplan.gateway import database as reached
from groundplan.gateway import search_app, thread_connections
from groundplan.gateway.budgets.leases import Slices
from groundplan.gateway.policy.live import LiveView
from groundplan.gateway.thread_connections import ThreadConnections
from groundplan.testing.database import Database

AT_MOST = 3.0
"""Seconds of a busy machine; without a bound it would be ten, or for ever."""


@pytest.fixture
def way(database: Database) -> Iterator[SilenceableProxy]:
    with silenceable_proxy(database.urls["gateway"]) as made:
        yield made


@asynccontextmanager
async def in_threads(url: str) -> AsyncIterator[ThreadConnections]:
    made = ThreadConnections(
        url, "shelf", 1, lambda: Unavailable("it is away", code="database_unavailable", hint="Wait.")
    )
    yield made
    await made.close()


async def test_a_statement_that_nobody_waits_for_is_given_up_with_its_connection(way: SilenceableProxy) -> None:
    async with await reached.connect(way.url) as connection:
        await connection.execute("SELECT 1")
        began = time.monotonic()
        with way.silent(), pytest.raises(TimeoutError):
            await reached.fetched(connection, "SELECT 1", (), 0.05)
        assert time.monotonic() - began < AT_MOST
        assert connection.closed


async def test_one_that_only_takes_long_leaves_its_connection_as_it_was(way: SilenceableProxy) -> None:
    async with await reached.connect(way.url) as connection:
        with pytest.raises(TimeoutError):
            await reached.fetched(connection, "SELECT pg_sleep(20)", (), 0.05)
        assert await reached.fetched(connection, "SELECT 1", (), 20) == [(1,)]


async def test_a_thread_does_not_wait_for_it_for_ever(way: SilenceableProxy, monkeypatch: pytest.MonkeyPatch) -> None:
    async with in_threads(way.url) as database:
        assert await database.run(lambda conn: conn.execute("SELECT 1").fetchone()) == (1,)
        monkeypatch.setattr(thread_connections, "TIMEOUT_SECONDS", 0.1)
        monkeypatch.setattr(database._pool, "timeout", 0.1)
        monkeypatch.setattr(thread_connections, "UNANSWERED_SECONDS", 0.1)
        async with asyncio.timeout(20):
            with way.silent(), pytest.raises(Unavailable):  # as it looks whether it is there
                await database.run(lambda conn: conn.execute("SELECT 1").fetchone())


def test_whoever_asks_the_control_api_is_told(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And not kept waiting beyond what commands and people wait for."""
    monkeypatch.setattr(app, "CONNECTION_CHECK_SECONDS", 0.1)
    monkeypatch.setattr(app, "POOL_WAIT_SECONDS", 0.3)
    home = Home(tmp_path)
    prepare_home(home)
    with silenceable_proxy(database.dsn) as way:
        settings = load_settings({"GROUNDPLAN_DATABASE_URL": way.url})
        with app.create_app(home, settings).state.services.pool as pool:
            pool.wait()
            began = time.monotonic()
            with way.silent():
                with pytest.raises(PoolTimeout), pool.connection():
                    pass
                assert time.monotonic() - began < AT_MOST
            with pool.connection(20) as connection:
                assert connection.execute("SELECT 1, pg_sleep(0.2)").fetchone()[0] == 1, "which may take long"


def test_what_ships_and_searches_gives_a_connection_up_over_which_nothing_is_heard(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its way may take everything and pass nothing on, so that neither side ends it: no keepalive tells that."""
    assert issubclass(search_app._Asked, TimeLimitedConnection)
    with (
        silenceable_proxy(database.urls["shipper"]) as way,
        connect(way.url, autocommit=True, kind=TimeLimitedConnection) as connection,
    ):
        assert connection.execute("SELECT 1 FROM pg_sleep(0.3)").fetchall() == [(1,)], "which may take long"
        monkeypatch.setattr(TimeLimitedConnection, "max_statement_seconds", 0.1)
        began = time.monotonic()
        with way.silent(), pytest.raises(psycopg.OperationalError):
            connection.execute("SELECT 1")
        assert time.monotonic() - began < AT_MOST
        assert connection.closed


@pytest.mark.parametrize("at", range(2))
def test_what_came_while_this_process_stood_still_is_read(
    database: Database, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    """As on a machine that stalls, as a statement is sent, or as its answer is read: the connection was given up."""

    wait, steps = psycopg.Connection.wait, itertools.count()

    def stands_still(gen: PQGen[Any]) -> PQGen[Any]:
        try:
            waits = next(gen)
            while True:
                ready = yield waits
                if next(steps) == at:
                    time.sleep(0.6)
                waits = gen.send(ready)
        except StopIteration as end:
            return end.value

    def waited(connection: Any, gen: PQGen[Any], *more: Any) -> Any:
        return wait(connection, stands_still(gen), *more)

    with connect(database.urls["shipper"], autocommit=True, kind=TimeLimitedConnection) as connection:
        monkeypatch.setattr(TimeLimitedConnection, "max_statement_seconds", 0.5)
        monkeypatch.setattr(psycopg.Connection, "wait", waited)
        (text,) = connection.execute("SELECT repeat('x', 2000000)").fetchone() or ("",)
        assert len(text) == 2_000_000


@pytest.mark.parametrize("seconds", [0.25, 0.7])
async def test_live_policy_is_followed_though_every_answer_takes_a_while(
    way: SilenceableProxy, tmp_path: Path, seconds: float
) -> None:
    """As of a busy server: what begins to follow takes several answers, each of which may take its time. So does a
    connection, for which two seconds may be too short."""
    way.answer_delay_seconds = seconds
    live = LiveView(way.url, Home(tmp_path), new_id(), SystemClock(), Slices())
    following = asyncio.create_task(live.run())
    try:
        async with asyncio.timeout(60):
            while live.age() > 20:  # noqa: ASYNC110 -- nothing tells it
                await asyncio.sleep(0.05)
    finally:
        following.cancel()
        await asyncio.wait([following])


async def test_threads_speak_as_the_gateways_role_wherever_the_database_is(database: Database) -> None:
    """Its login may do everything there."""
    async with in_threads(external_url(f"{database.dsn}?options=-c%20work_mem%3D8MB", "gateway")) as made:
        asked = "SELECT current_user::text, current_setting('work_mem'), current_setting('statement_timeout')"
        found = await made.run(lambda conn: conn.execute(asked).fetchone())
    assert found == (f"{database.name}_gateway", "8MB", "2s")
