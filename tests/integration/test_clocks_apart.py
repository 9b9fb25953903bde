"""A worker whose clock is apart from PostgreSQL's takes of the minutes that the others take of.

The worker is the real one, in this process so that it can be given a clock.
"""

from __future__ import annotations

import asyncio
import signal
from datetime import datetime, timedelta
from pathlib import Path

import msgspec
import pytest
from tests.integration.gateway_stack import blueprint, deployment, installation, scripted_upstream, workload
from tests.integration.test_clock_set_back import ready

from groundplan.blueprint.model import Limit
from groundplan.core.clock import SystemClock
from groundplan.gateway.app import serve
from groundplan.gateway.http.listeners import ListenSockets
from groundplan.testing.database import Database
from groundplan.testing.scripted import Script


class Apart:
    """The machine's clock, so many seconds ahead; less than 0: behind."""

    def __init__(self, seconds: float) -> None:
        self._clock = SystemClock()
        self._ahead = seconds

    def now(self) -> datetime:
        return self._clock.now() + timedelta(seconds=self._ahead)

    def seconds(self) -> float:
        return self._clock.seconds() + self._ahead

    def monotonic(self) -> float:
        return self._clock.monotonic()


@pytest.mark.parametrize("apart", [-90, 90, -3600])
async def test_windows_are_those_of_postgresql(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, apart: int
) -> None:
    """One that is behind found each minute used up by the others, and one that is ahead used it up before them. Of
    minutes that were over for long by PostgreSQL's clock nothing was lent."""
    monkeypatch.setenv("GROUNDPLAN_DATABASE_URL", database.dsn)
    async with scripted_upstream("one") as (model, port), installation(database, tmp_path) as stack:
        model.script = Script(tokens=20)
        made = blueprint(1, [deployment("one", port)], [workload("assistant", ["one"])])
        limit = Limit(name="few", covers="company", type="requests", amount=3, period="minute")
        stack.apply(msgspec.structs.replace(made, limits=[limit]))
        stack.sql(
            """INSERT INTO limit_span (name, span, amount, granted, ends)
               SELECT 'requests/few', to_char(m, 'YYYY-MM-DD"T"HH24:MI'), 3, 3, now()
               FROM generate_series(1, 3) AS n, timezone('UTC', now() - n * interval '1 minute') AS m
               RETURNING 1"""
        )
        worker = asyncio.create_task(serve(stack.home, ListenSockets(stack.listening), 0, clock=Apart(apart)))
        try:
            await asyncio.wait_for(ready(stack, worker), 60)
            key = await asyncio.to_thread(stack.key)
            ((before,),) = stack.sql("SELECT to_char(now() AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI')")
            reply = await stack.chat(key)
            ((after,),) = stack.sql("SELECT to_char(now() AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI')")
            assert reply.status == 200, reply.body
            taken = stack.sql("SELECT DISTINCT span FROM limit_slice WHERE name = 'requests/few'")
            assert {span for (span,) in taken} <= {before, after}
            *minutes, seconds = reply.headers["x-ratelimit-reset-requests"].removesuffix("s").split("m")
            assert 0 < 60 * sum(map(int, minutes)) + int(seconds) <= 61
        finally:
            if not worker.done():
                signal.raise_signal(signal.SIGTERM)
            await worker
