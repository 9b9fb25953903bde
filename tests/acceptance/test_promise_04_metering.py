"""Promise 4: no usage is lost or counted twice, whatever process is killed, whenever.

Each round sends traffic while a random process is killed with -9 or paused; afterwards every attempt that the upstream
counted durably has exactly one row, surplus rows are flagged open reservations, and spend is within the budget.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import random
import signal
import threading
import time
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.stack import Stack, Upstream, installation

TOKENS = 10
COST = Decimal("0.0001")
BUDGET = COST * 150
VICTIMS = ("groundplan.gateway.app", "groundplan.gateway.app", "groundplan.gateway.journal.shipper", "postgres", "up")


def send(stack: Stack, key: str, statuses: list[int], stop: threading.Event, seed: int) -> None:
    chance = random.Random(seed)
    while not stop.is_set():
        with contextlib.suppress(OSError, http.client.HTTPException):
            answer = stack.chat(key, "count me", timeout=15, max_tokens=TOKENS, stream=chance.random() < 0.4)
            statuses.append(answer.status)
        time.sleep(0.02)


def hurt(stack: Stack, chance: random.Random) -> str:
    """Kill or pause one process; whoever was paused goes on a little later."""
    name = chance.choice(VICTIMS)
    assert stack.process is not None
    pids = [stack.process.pid] if name == "up" else stack.pids(name)
    if not pids:
        return f"nobody named {name}"
    pid = chance.choice(pids)
    pause = chance.random() < 0.4 and name != "up"
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGSTOP if pause else signal.SIGKILL)
        if pause:
            time.sleep(chance.uniform(0.3, 2.0))
            os.kill(pid, signal.SIGCONT)
    if name == "up":
        stack.process.wait(10)
    return f"{'paused' if pause else 'killed'} {name}"


def settled(stack: Stack) -> dict[str, Any] | None:
    """The cost report once every journal is in the ledger; None while something still recovers."""
    status = stack.cli("status", code=None)
    cost: dict[str, Any] = stack.cli("cost", code=None)
    if "error" in status or "error" in cost:
        return None
    quiet = all(gateway["ready"] and gateway["journal_lag"] == 0 for gateway in status["gateways"])
    return cost if quiet and len(status["gateways"]) == stack.workers else None


def one_round(folder: Path, seed: int) -> None:
    chance = random.Random(seed)
    with installation(folder, workers=2, price="0/10", budget=str(BUDGET)) as (stack, upstream):
        upstream.control(mode="ok", tokens=TOKENS, latency_ms=15, chunk_ms=2)
        key = stack.key()
        statuses: list[int] = []
        stop = threading.Event()
        senders = [threading.Thread(target=send, args=(stack, key, statuses, stop, seed + n)) for n in range(6)]
        for sender in senders:
            sender.start()
        acts = []
        for _ in range(3):
            time.sleep(chance.uniform(0.2, 1.2))
            acts.append(hurt(stack, chance))
            assert stack.process is not None
            if stack.process.poll() is not None:
                stack.start()
        time.sleep(0.5)
        stop.set()
        for sender in senders:
            sender.join()
        check(stack, upstream, statuses, f"seed {seed}: {acts}")


def check(stack: Stack, upstream: Upstream, statuses: list[int], story: str) -> None:
    end = time.monotonic() + 60
    while (cost := settled(stack)) is None:
        assert time.monotonic() < end, f"not recovered: {story}: {stack.cli('status', code=None)} {stack.log()}"
        time.sleep(0.2)
    counted = len(upstream.counted())
    assert statuses.count(200) > 0, story
    assert counted >= statuses.count(200), story
    assert cost["calls"] >= counted, f"a counted attempt has no row: {story}"
    assert cost["calls"] - counted <= cost["open_reservations"], f"surplus rows that are not flagged: {story}"
    assert Decimal(cost["total_usd"]) <= BUDGET, story
    assert stack.cli("audit", "verify")["ok"] is True, story


@pytest.mark.parametrize("seed", range(5))
def test_killed_and_paused_at_random(tmp_path: Path, seed: int) -> None:
    one_round(tmp_path, 1000 + seed)


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(30))
def test_killed_and_paused_at_random_for_long(tmp_path: Path, seed: int) -> None:
    one_round(tmp_path, 5000 + seed)
