"""Promise 4: no usage is lost or counted twice, whatever process is killed, whenever.

Each round sends traffic while processes are killed with -9 or paused; afterwards every attempt that the upstream
counted durably has exactly one row of its name, surplus rows are flagged open reservations, and spend is within the
budget (`chaos_books` says what must hold). Three rounds do all that is done to each of the processes; in `make soak` it
is left to chance.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import random
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from groundplan.core.database import connect, database_url
from groundplan.core.errors import Unavailable
from groundplan.core.home import Home
from groundplan.core.money import from_decimal
from groundplan.core.settings import load_settings
from tests.acceptance.chaos_books import Seen, faults
from tests.acceptance.chaos_traffic import error_of
from tests.acceptance.chaos_world import CONTROL, UNRECOVERED, read_books
from tests.acceptance.stack import Stack, Upstream, installation, wait_until

TOKENS = 10
COST = Decimal("0.0001")
BUDGET = COST * 150
OPEN = "SELECT count(*) FROM attempt WHERE state = 'open'"
WORKER, SHIPPER = "groundplan.gateway.app", "groundplan.gateway.journal.shipper"
KILL, PAUSE = "kill", "pause"
Act = tuple[str, str]
EACH: tuple[tuple[Act, ...], ...] = (
    ((WORKER, KILL), (SHIPPER, PAUSE), ("up", KILL)),
    (("postgres", KILL), (WORKER, PAUSE), (CONTROL, KILL)),
    ((SHIPPER, KILL), ("postgres", PAUSE), (CONTROL, PAUSE)),
)
"""What is done in each round; whatever can be done to a process is in one of them."""
VICTIMS = (WORKER, WORKER, SHIPPER, CONTROL, "postgres", "up")
MAY_REFUSE = frozenset({"policy_lease_expired", "budget_unreachable", "not_ready", "budget_exhausted"})
"""Of a gateway from which PostgreSQL is away (its lease, its slice, its start), and of a budget that is used up."""


def send(stack: Stack, key: str, seen: list[Seen], stop: threading.Event, seed: float) -> None:
    chance = random.Random(seed)
    while not stop.is_set():
        kind = "stream" if chance.random() < 0.4 else "json"
        with contextlib.suppress(OSError, http.client.HTTPException):
            answer = stack.chat(key, "count me", timeout=15, max_tokens=TOKENS, stream=kind == "stream")
            data = answer.body if isinstance(answer.body, bytes) else json.dumps(answer.body).encode()
            call, told = answer.headers.get("groundplan-call-id", ""), error_of(answer.status, kind, data)
            code, text = told.get("code", ""), told.get("text", "")
            seen.append(Seen("assistant", answer.status, code, call, kind, text=text))
        time.sleep(0.02)


def at_random(chance: random.Random) -> Act:
    name = chance.choice(VICTIMS)
    return name, PAUSE if chance.random() < 0.4 and name != "up" else KILL


def hurt(stack: Stack, chance: random.Random, name: str, way: str) -> str:
    """Kill or pause one process; whoever was paused goes on a little later."""
    assert stack.process is not None
    pids = [stack.process.pid] if name == "up" else stack.pids(name)
    if not pids:
        return f"nobody named {name}"
    pid = chance.choice(pids)
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGSTOP if way == PAUSE else signal.SIGKILL)
        if way == PAUSE:
            time.sleep(chance.uniform(0.3, 2.0))
            os.kill(pid, signal.SIGCONT)
    if name == "up":
        stack.process.wait(10)
    return f"{way} {name}"


def settled(stack: Stack) -> bool:
    """Whether every journal is in the ledger and every worker serves; not while something still recovers."""
    try:
        status = stack.control("GET", "/api/status")
    except (OSError, http.client.HTTPException):
        return False
    if status.status != 200:
        return False
    quiet = [each["ready"] and not each["journal_lag"] for each in status.body["gateways"]]
    if len(quiet) != stack.workers or not all(quiet):
        return False
    with contextlib.suppress(Unavailable):
        return rows(stack, UNRECOVERED) == rows(stack, OPEN) == [(0,)]
    return False


@contextlib.contextmanager
def metered(folder: Path) -> Iterator[tuple[Stack, Upstream]]:
    with installation(folder, workers=2, price="0/10", budget=str(BUDGET)) as (stack, upstream):
        stack.patient = False
        upstream.control(mode="ok", tokens=TOKENS, latency_ms=15, chunk_ms=2)
        yield stack, upstream


def one_round(
    stack: Stack, upstream: Upstream, key: str, seen: list[Seen], chance: random.Random, told: tuple[Act, ...]
) -> list[str]:
    """Do what is told to processes in the midst of traffic: what was done. `seen` gets what the clients see."""
    stop, before = threading.Event(), len(seen)
    senders = [threading.Thread(target=send, args=(stack, key, seen, stop, chance.random())) for _ in range(6)]
    for sender in senders:
        sender.start()
    acts = []
    for name, way in told:
        time.sleep(chance.uniform(0.2, 1.2))
        acts.append(hurt(stack, chance, name, way))
        assert stack.process is not None
        if stack.process.poll() is not None:
            stack.start()
    time.sleep(0.5)
    stop.set()
    for sender in senders:
        sender.join()
    assert any(one.status == 200 for one in seen[before:]), acts
    return acts


def raise_budget(stack: Stack, rounds: int) -> None:
    """Declare what so many rounds may spend together."""
    declared = stack.workspace / "assistant.yaml"
    text, told = declared.read_text(), f"limit: {BUDGET.normalize()} USD/month"
    assert told in text
    declared.write_text(text.replace(told, f"limit: {BUDGET * rounds} USD/month"))
    number = stack.cli("apply", "--workspace", str(stack.workspace))["blueprint"]
    declared.write_text(text)
    wait_until(lambda: stack.serve(number), 30, "every worker knows the budget")


def check(stack: Stack, upstream: Upstream, seen: list[Seen], story: str, budget: Decimal = BUDGET) -> None:
    end = time.monotonic() + 90
    while not settled(stack):
        assert time.monotonic() < end, f"not recovered: {story}: {stack.cli('status', code=None)} {stack.log()}"
        time.sleep(0.2)
    cost = stack.cli("cost")
    books = replace(
        read_books(owner_url(stack)),
        counted=tuple(upstream.counted()),
        seen=tuple(seen),
        covers={"assistant": frozenset({"assistant"})},
        may_refuse={"assistant": MAY_REFUSE},
    )
    found = faults(books)
    assert not found, f"{story}:\n" + "\n".join(found[:40])
    assert cost["open_reservations"] == 0, story
    assert cost["crashed_attempts"] == sum("crash" in attempt.flags for attempt in books.attempts), story
    assert from_decimal(Decimal(cost["total_usd"])) == sum(attempt.cost for attempt in books.attempts), story
    assert Decimal(cost["total_usd"]) <= budget, story
    assert stack.cli("audit", "verify")["ok"] is True, story


def owner_url(stack: Stack) -> str:
    return database_url(Home(stack.home), load_settings({}), "owner")


def rows(stack: Stack, statement: str) -> list[tuple[Any, ...]]:
    """What the installation's own database answers."""
    with connect(owner_url(stack), autocommit=True) as connection:
        return connection.execute(statement.encode()).fetchall()


@pytest.mark.timeout(400)
def test_each_process_is_killed_and_paused(tmp_path: Path) -> None:
    """Round after round in one installation; the budget grows by as much for each."""
    seen: list[Seen] = []
    with metered(tmp_path) as (stack, upstream):
        key = stack.key()
        for number, told in enumerate(EACH, 1):
            if number > 1:
                raise_budget(stack, number)
            acts = one_round(stack, upstream, key, seen, random.Random(number), told)
            check(stack, upstream, seen, f"round {number}: {acts}", BUDGET * number)


def test_whatever_can_be_done_to_a_process_is_done_in_one_round() -> None:
    done = sorted(act for acts in EACH for act in acts)
    assert done == sorted({(name, way) for name in VICTIMS for way in (KILL, PAUSE)} - {("up", PAUSE)})


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(35))
def test_killed_and_paused_at_random(tmp_path: Path, seed: int) -> None:
    chance, seen = random.Random(5000 + seed), list[Seen]()
    with metered(tmp_path) as (stack, upstream):
        told = tuple(at_random(chance) for _ in range(3))
        acts = one_round(stack, upstream, stack.key(), seen, chance, told)
        check(stack, upstream, seen, f"seed {seed}: {acts}")
