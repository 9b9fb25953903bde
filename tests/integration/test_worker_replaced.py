"""A worker that is killed is replaced within a second, and its open calls are settled. Real processes under constant
traffic."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from contextlib import suppress
from pathlib import Path

import pytest
from tests.integration.gateway_stack import installation
from tests.integration.zero_downtime import RunningWorkers, run_workers, wait_until

from groundplan.gateway.http.listeners import is_serving, serving_file
from groundplan.runtime.supervisor import STEADY_SECONDS
from groundplan.testing.database import Database


async def test_a_killed_worker_is_replaced_and_its_open_calls_are_settled(database: Database, tmp_path: Path) -> None:
    async with run_workers(database, tmp_path) as run, run.traffic() as traffic:
        victim = run.pids()["gateway-0"]
        assert victim is not None
        os.kill(victim, signal.SIGKILL)
        await wait_until(lambda: run.pids()["gateway-0"] not in (None, victim))
        successor = run.pids()["gateway-0"]
        await wait_until(lambda: successor is not None and serving_file(run.stack.home, successor).exists())
        counted = traffic.done, len(traffic.failed)
        await wait_until(lambda: traffic.done > counted[0] + 20)
        assert len(traffic.failed) == counted[1], "calls fail only with the worker that was killed"

        def settled() -> bool:
            live = run.stack.sql("SELECT count(*) FROM gateway WHERE state = 'live'")
            return live == [(2,)] and run.stack.sql("SELECT 1 FROM call LIMIT 1") == [(1,)]

        await wait_until(settled, 60)
        traffic.stop = True
        await wait_until(lambda: run.stack.sql("SELECT count(*) FROM attempt WHERE state = 'open'") == [(0,)], 60)


async def test_a_worker_serves_before_anything_is_declared(database: Database, tmp_path: Path) -> None:
    """`groundplan reload` waits for this: without it, it would take a minute and fail on an installation in which
    nothing is declared yet."""
    async with installation(database, tmp_path) as stack:
        stack.start()
        (worker,) = stack.workers
        await wait_until(lambda: is_serving(stack.home, worker.pid))
        assert (await stack.ask("GET", "/readyz", "")).status == 503, "a load balancer sends no calls yet"


async def wait_for_answer(run: RunningWorkers, key: str, ends: asyncio.Event) -> None:
    """Calls on connections of their own, one after another; those that a killed worker held break."""
    while not ends.is_set():
        with suppress(OSError, ValueError, IndexError):
            await run.stack.chat(key)
        await asyncio.sleep(0.05)


def waited(pid: int) -> float:
    """Seconds that a process was ready to run and others had the processors."""
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[1]) / 1e9


async def kill_and_replace(run: RunningWorkers, name: str) -> tuple[int, float]:
    """Kill a worker: its successor, and when its end was noticed, later by what the successor waited for others."""
    victim, told = run.pids()[name], len(run.notices)
    assert victim is not None
    os.kill(victim, signal.SIGKILL)
    await wait_until(lambda: len(run.notices) > told)
    noticed = time.time()
    await wait_until(lambda: run.pids()[name] not in (None, victim))
    successor = run.pids()[name]
    assert successor is not None
    await wait_until(lambda: serving_file(run.stack.home, successor).exists())
    return successor, noticed + waited(successor)


def first_answers(run: RunningWorkers) -> dict[int, float]:
    """pid -> when the first call that it answered was over."""
    rows = run.stack.sql(
        "SELECT g.pid, min(c.at) FROM call c JOIN gateway g USING (epoch) WHERE c.status = 'ok' GROUP BY 1"
    )
    return {pid: at.timestamp() for pid, at in rows}


@pytest.mark.timeout(300)
async def test_a_killed_long_running_worker_is_replaced_within_a_second(database: Database, tmp_path: Path) -> None:
    """Another process has answered a call a second after its end was noticed, on a machine that does nothing else: how
    long it waited for a processor is left out, and the best of three counts, three times where others compute much."""
    async with run_workers(database, tmp_path, count=3) as run:
        key, ends = run.stack.key(), asyncio.Event()
        asking = asyncio.create_task(wait_for_answer(run, key, ends))
        took: list[float] = []
        while len(took) < 9 and min(took, default=9.0) > 1.0:
            await asyncio.sleep(STEADY_SECONDS + 0.5)
            begun = dict([await kill_and_replace(run, name) for name in run.pids()])
            assert all("restarted in 0.0 s" in told for told in run.notices[-3:]), run.notices
            await wait_until(lambda begun=begun: begun.keys() <= first_answers(run).keys())
            took += [at - begun[pid] for pid, at in first_answers(run).items() if pid in begun]
        ends.set()
        await asking
        assert min(took) <= 1.0, took
