"""Streams that do not end are ended with an error event, once their time after a reload is over or at a stop."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from tests.integration.gateway_stack import parse_events
from tests.integration.zero_downtime import is_alive, open_stream, reload_workers, run_workers, wait_until

from groundplan.testing.database import Database


@pytest.mark.timeout(180)
@pytest.mark.parametrize("ends", ["its time is over", "a stop"])
async def test_a_stream_that_does_not_end_is_ended_with_an_error_event(
    database: Database, tmp_path: Path, ends: str
) -> None:
    leave = 2.0 if ends == "its time is over" else 600.0
    async with run_workers(database, tmp_path, drain=3.0, leave=leave) as run:
        _, asking = await open_stream(run, chunk_ms=2000, tokens=20)
        before = run.pids()
        assert (await reload_workers(run))["state"] == "done"
        if ends == "a stop":
            await asyncio.sleep(4.0)
            assert not asking.done()
            run.supervising.cancel()
            await asyncio.to_thread(run.supervisor.close)
        _, body, _ = await asyncio.wait_for(asking, 30)
        assert "stopped" in parse_events(body)[-1]["error"]["message"]
        await wait_until(lambda: not any(is_alive(pid) for pid in before.values()), 60)
