"""The cost of a routing decision with the embedding, requested as the gateway does: from the search process, over HTTP.

The search process is the one that `up` runs, without a database, which embedding does not need. CPU is that of both
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
WARM_UP_QUESTIONS = 20
"""Questions before the measurement starts."""
QUIET_SECONDS, QUIET_SHARE = 0.5, 0.02
"""The service still works on its start when it first answers: it is measured once it uses less of a core than this."""


def measure_decisions(router: Router, prompts: Sequence[str]) -> dict[str, Any]:
    """Milliseconds of a decision, CPU and elapsed, over those whose question was embedded in time."""
    with _search_process() as (home, child):
        return measure_calls(home, child, router, prompts)


def measure_calls(home: Home, child: int, router: Router, prompts: Sequence[str]) -> dict[str, Any]:
    """The same for a running search process of this home, with this process id; `router` has an operating point."""
    return uvloop.run(_measure_decisions(home, child, router, prompts))


async def _measure_decisions(home: Home, child: int, router: Router, prompts: Sequence[str]) -> dict[str, Any]:
    allowed, point = frozenset(router.models), next(iter(router.points))
    loop = asyncio.get_running_loop()
    targets = Targets(home, loop)
    gateway = SimpleNamespace(loop=loop, routes=SimpleNamespace(router=lambda *_: router), targets=targets)
    workload = SimpleNamespace(routing=SimpleNamespace(router="w@1", digest=None), is_routed=lambda _: True)

    async def decide(prompt: str) -> bool:
        chat_request = SimpleNamespace(model="auto", query=prompt)
        exchange = SimpleNamespace(id=str(new_id()).encode(), question_vector=None)
        await read_question(cast(Any, gateway), cast(Any, exchange), cast(Any, workload), cast(Any, chat_request))
        vector: Floats | None = exchange.question_vector
        choose(router, prompt, vector, allowed, point)
        return vector is not None

    for prompt in prompts[:WARM_UP_QUESTIONS]:
        await decide(prompt)
    await _wait_until_idle(child)
    cpu_seconds, elapsed_seconds, late = [], [], 0
    for prompt in prompts[WARM_UP_QUESTIONS:]:
        # the child's CPU first: reading its threads is no part of a decision
        cpu_before, started = _cpu_seconds(child) + time.process_time(), time.perf_counter()
        in_time = await decide(prompt)
        elapsed, cpu = time.perf_counter() - started, time.process_time() + _cpu_seconds(child) - cpu_before
        if in_time:
            cpu_seconds.append(cpu)
            elapsed_seconds.append(elapsed)
        late += not in_time
    targets.close()  # a loop with an open connection ends when the other side, a minute later, closes it
    await asyncio.sleep(0)
    figures: dict[str, Any] = {
        "decision_by_gateway_late": late,
        "decision_by_gateway_asked": len(prompts) - WARM_UP_QUESTIONS,
    }
    if cpu_seconds:
        figures |= {f"decision_by_gateway_cpu_ms_p{percent}": _ms(cpu_seconds, percent) for percent in (50, 95)}
        figures |= {f"decision_by_gateway_ms_p{percent}": _ms(elapsed_seconds, percent) for percent in (50, 95)}
    return figures


async def _wait_until_idle(child: int) -> None:
    """Wait until a process is idle. Raises TimeoutError."""
    async with asyncio.timeout(START_SECONDS):
        while True:
            cpu_before = _cpu_seconds(child)
            await asyncio.sleep(QUIET_SECONDS)
            if abs(_cpu_seconds(child) - cpu_before) < QUIET_SHARE * QUIET_SECONDS:
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


def _cpu_seconds(pid: int) -> float:
    """CPU seconds of all threads of a process so far; on Linux only."""
    total = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        try:
            total += int((task / "schedstat").read_text().split()[0])
        except (OSError, IndexError):  # it has ended
            continue
    return total / 1e9


def _ms(seconds: Sequence[float], percent: float) -> float:
    return round(float(np.percentile(seconds, percent)) * 1000, 3)
