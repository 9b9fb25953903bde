"""The end of a worker that is replaced by another one."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from tests.unit.call_rig import call_rig, reliability, wait_until

from groundplan.core.home import Home
from groundplan.gateway.app import Worker
from groundplan.gateway.upstream.pressure import LATE_TICKS, RANKS


async def test_a_worker_that_was_late_as_it_was_asked_to_leave_refuses_nobody_once_it_is_not(tmp_path: Path) -> None:
    async with call_rig(tmp_path, workloads={"assistant": reliability(priority="critical")}) as rig:
        gateway, worker = rig.gateway, object.__new__(Worker)
        rig.server.limits = replace(rig.server.limits, drain_idle_seconds=30.0)
        live = SimpleNamespace(fenced=asyncio.Event(), read_kill_file=frozenset, ready=True)
        parts: Any = {"_live": live, "_listeners": SimpleNamespace(close=lambda: None), "_runners": ()}
        for name, part in parts.items():
            setattr(worker, name, part)
        worker._gateway, worker._home, worker._server = gateway, Home(tmp_path), rig.server
        worker._stop, worker._leave, worker._tasks = asyncio.Event(), asyncio.Event(), [asyncio.ensure_future(_rest())]
        for _ in range(LATE_TICKS):
            gateway.pressure.record_lag(9.0)
        gateway.pressure.start()
        gateway.running_calls += 1  # a stream that goes on
        reader, writer = await asyncio.open_connection("127.0.0.1", rig.port)
        ending = asyncio.ensure_future(worker.end(0, 0.1, 30))
        await wait_until(lambda: gateway.pressure.level > RANKS["critical"])
        writer.write(rig.request())
        assert (await asyncio.wait_for(reader.read(), 20)).startswith(b"HTTP/1.1 200 ")
        writer.close()
        gateway.running_calls -= 1
        await asyncio.wait_for(ending, 20)


async def _rest() -> None:
    await asyncio.Event().wait()
