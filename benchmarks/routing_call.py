"""What a decision with the embedding costs, asked as the gateway asks: of the search process, over HTTP.

The search process is the one that `up` runs, without a database, which embedding needs none of. CPU is that of both
processes. Imported by `routing.py`.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import uvloop
from benchmarks.asked_often import ask_often

from groundplan.core.endpoints import lookup
from groundplan.core.home import Home
from groundplan.core.ids import new_id
from groundplan.economics.routing.decide.choose import choose
from groundplan.economics.routing.model import Floats, Router
from groundplan.gateway.routing.question_embedding import read_question
from groundplan.gateway.upstream.targets import Targets

SEARCH = "search"
START_SECONDS = 90.0
WARM = 20
"""Questions before any is measured."""
QUIET_SECONDS, QUIET_SHARE = 0.5, 0.02
"""The service goes on with its own start after it answers: it is measured once it uses no more of a core than this."""


def measured(router: Router, prompts: Sequence[str]) -> dict[str, Any]:
    """Milliseconds of a decision: of CPU, and by the clock, of those whose question was embedded in time."""
    with _search_process() as (home, child):
        return measure_calls(home, child, router, prompts)


def measure_calls(home: Home, child: int, router: Router, prompts: Sequence[str]) -> dict[str, Any]:
    """The same of a search process that runs for this home, with this id; `router` has an operating point."""
    return uvloop.run(_asked(home, child, router, prompts))


async def _asked(home: Home, child: int, router: Router, prompts: Sequence[str]) -> dict[str, Any]:
    allowed, point = frozenset(router.models), next(iter(router.points))
    loop = asyncio.get_running_loop()
    targets = Targets(home, loop)
    gateway = SimpleNamespace(loop=loop, routes=SimpleNamespace(router=lambda *_: router), targets=targets)
    workload = SimpleNamespace(routing=SimpleNamespace(router="w@1", digest=None), chooses=lambda _: True)

    async def decided(prompt: str) -> bool:
        ask = SimpleNamespace(model="auto", query=prompt)
        exchange = SimpleNamespace(id=str(new_id()).encode(), question_vector=None)
        await read_question(cast(Any, gateway), cast(Any, exchange), cast(Any, workload), cast(Any, ask))
        vector: Floats | None = exchange.question_vector
        choose(router, prompt, vector, allowed, point)
        return vector is not None

    for prompt in prompts[:WARM]:
        await decided(prompt)
    await _quiet(child)
    cpu, clock, late = [], [], 0
    for prompt in prompts[WARM:]:
        # the child first: reading its threads is no part of a decision
        before, began = _cpu(child) + time.process_time(), time.perf_counter()
        in_time = await decided(prompt)
        took, used = time.perf_counter() - began, time.process_time() + _cpu(child) - before
        if in_time:
            cpu.append(used)
            clock.append(took)
        late += not in_time
    targets.close()  # a loop with an open connection ends when the other side, a minute later, closes it
    await asyncio.sleep(0)
    told: dict[str, Any] = {"decision_by_gateway_late": late, "decision_by_gateway_asked": len(prompts) - WARM}
    if cpu:
        told |= {f"decision_by_gateway_cpu_ms_p{p}": _ms(cpu, p) for p in (50, 95)}
        told |= {f"decision_by_gateway_ms_p{p}": _ms(clock, p) for p in (50, 95)}
    return told


async def _quiet(child: int) -> None:
    """Until a process has nothing to do beside what it is asked. Raises TimeoutError."""
    async with asyncio.timeout(START_SECONDS):
        while True:
            before = _cpu(child)
            await asyncio.sleep(QUIET_SECONDS)
            if abs(_cpu(child) - before) < QUIET_SHARE * QUIET_SECONDS:
                return


@contextmanager
def _search_process() -> Iterator[tuple[Home, int]]:
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "GROUNDPLAN_HOME": folder}
        command = [sys.executable, "-m", "groundplan.gateway.search_app", "--home", folder]
        with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as child:
            try:
                home, deadline = Home(Path(folder)), time.monotonic() + START_SECONDS
                while (endpoint := lookup(home, SEARCH)) is None:
                    if child.poll() is not None or time.monotonic() > deadline:
                        raise TimeoutError("the search process did not start")
                    time.sleep(0.1)
                ask_often(endpoint)
                yield home, child.pid
            finally:
                child.terminate()
                child.wait(30)


def _cpu(process: int) -> float:
    """Seconds of CPU of all threads of a process so far; Linux alone tells."""
    total = 0
    for task in Path(f"/proc/{process}/task").iterdir():
        try:
            total += int((task / "schedstat").read_text().split()[0])
        except (OSError, IndexError):  # it has ended
            continue
    return total / 1e9


def _ms(seconds: Sequence[float], percent: float) -> float:
    return round(float(np.percentile(seconds, percent)) * 1000, 3)
