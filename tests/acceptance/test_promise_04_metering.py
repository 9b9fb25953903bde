"""Promise 4: no usage is lost or counted twice, whatever process is killed, whenever.

Each round sends traffic while processes are killed with SIGKILL or paused. Afterwards every attempt that the upstream
counted durably has exactly one row, surplus rows are flagged open reservations, and spend is within the budget
(`chaos_books` checks these invariants). Three rounds inject every fault into each of the processes; `make soak` injects
random ones.
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
from tests.acceptance.chaos_books import ClientResult, faults
from tests.acceptance.chaos_traffic import parse_error
from tests.acceptance.chaos_world import CONTROL, UNRECOVERED, read_books
from tests.acceptance.stack import Stack, Upstream, installation, wait_until

TOKENS = 10
COST = Decimal("0.0001")
BUDGET = COST * 150
OPEN = "SELECT count(*) FROM attempt WHERE state = 'open'"
WORKER, SHIPPER = "groundplan.gateway.app", "groundplan.gateway.journal.shipper"
KILL, PAUSE = "kill", "pause"
Fault = tuple[str, str]
ROUNDS_OF_FAULTS: tuple[tuple[Fault, ...], ...] = (
    ((WORKER, KILL), (SHIPPER, PAUSE), ("up", KILL)),
    (("postgres", KILL), (WORKER, PAUSE), (CONTROL, KILL)),
    ((SHIPPER, KILL), ("postgres", PAUSE), (CONTROL, PAUSE)),
)
"""The faults of each round; every fault of every process is in one of them."""
PROCESSES = (WORKER, WORKER, SHIPPER, CONTROL, "postgres", "up")
MAY_REFUSE = frozenset({"policy_lease_expired", "budget_unreachable", "not_ready", "budget_exhausted"})
"""Error codes of a gateway without PostgreSQL (its lease, its slice, its start), and of an exhausted budget."""


def send(stack: Stack, key: str, results: list[ClientResult], stop: threading.Event, seed: float) -> None:
    chance = random.Random(seed)
    while not stop.is_set():
        kind = "stream" if chance.random() < 0.4 else "json"
        with contextlib.suppress(OSError, http.client.HTTPException):
            answer = stack.chat(key, "count me", timeout=15, max_tokens=TOKENS, stream=kind == "stream")
            data = answer.body if isinstance(answer.body, bytes) else json.dumps(answer.body).encode()
            call, error = answer.headers.get("groundplan-call-id", ""), parse_error(answer.status, kind, data)
            code, text = error.get("code", ""), error.get("text", "")
            results.append(ClientResult("assistant", answer.status, code, call, kind, text=text))
        time.sleep(0.02)


def random_fault(chance: random.Random) -> Fault:
    name = chance.choice(PROCESSES)
    return name, PAUSE if chance.random() < 0.4 and name != "up" else KILL


def inject_fault(stack: Stack, chance: random.Random, name: str, way: str) -> str:
    """Kill one process, or pause it for a moment; returns what was done."""
    assert stack.process is not None
    pids = [stack.process.pid] if name == "up" else stack.pids(name)
    if not pids:
        return f"no process named {name}"
    pid = chance.choice(pids)
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGSTOP if way == PAUSE else signal.SIGKILL)
        if way == PAUSE:
            time.sleep(chance.uniform(0.3, 2.0))
            os.kill(pid, signal.SIGCONT)
    if name == "up":
        stack.process.wait(10)
    return f"{way} {name}"


def has_settled(stack: Stack) -> bool:
    """Whether every worker is ready, every journal is in the ledger, and nothing is left to recover."""
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
def run_metered(folder: Path) -> Iterator[tuple[Stack, Upstream]]:
    with installation(folder, workers=2, price="0/10", budget=str(BUDGET)) as (stack, upstream):
        stack.retries_unreachable = False
        upstream.control(mode="ok", tokens=TOKENS, latency_ms=15, chunk_ms=2)
        yield stack, upstream


def run_round(
    stack: Stack,
    upstream: Upstream,
    key: str,
    results: list[ClientResult],
    chance: random.Random,
    planned: tuple[Fault, ...],
) -> list[str]:
    """Inject the planned faults during traffic and return what was done; what the clients get is added to `results`."""
    stop, before = threading.Event(), len(results)
    senders = [threading.Thread(target=send, args=(stack, key, results, stop, chance.random())) for _ in range(6)]
    for sender in senders:
        sender.start()
    injected = []
    for name, way in planned:
        time.sleep(chance.uniform(0.2, 1.2))
        injected.append(inject_fault(stack, chance, name, way))
        assert stack.process is not None
        if stack.process.poll() is not None:
            stack.start()
    time.sleep(0.5)
    stop.set()
    for sender in senders:
        sender.join()
    assert any(result.status == 200 for result in results[before:]), injected
    return injected


def raise_budget(stack: Stack, rounds: int) -> None:
    """Raise the budget to what this many rounds may spend together."""
    file = stack.workspace / "assistant.yaml"
    text, old_limit = file.read_text(), f"limit: {BUDGET.normalize()} USD/month"
    assert old_limit in text
    file.write_text(text.replace(old_limit, f"limit: {BUDGET * rounds} USD/month"))
    number = stack.cli("apply", "--workspace", str(stack.workspace))["blueprint"]
    file.write_text(text)
    wait_until(lambda: stack.serves_blueprint(number), 30, "every worker knows the budget")


def check_books(
    stack: Stack, upstream: Upstream, results: list[ClientResult], context: str, budget: Decimal = BUDGET
) -> None:
    end = time.monotonic() + 90
    while not has_settled(stack):
        assert time.monotonic() < end, f"not recovered: {context}: {stack.cli('status', code=None)} {stack.log()}"
        time.sleep(0.2)
    cost = stack.cli("cost")
    books = replace(
        read_books(owner_url(stack)),
        counted=tuple(upstream.counted()),
        client_results=tuple(results),
        covers={"assistant": frozenset({"assistant"})},
        may_refuse={"assistant": MAY_REFUSE},
    )
    violations = faults(books)
    assert not violations, f"{context}:\n" + "\n".join(violations[:40])
    assert cost["open_reservations"] == 0, context
    assert cost["crashed_attempts"] == sum("crash" in attempt.flags for attempt in books.attempts), context
    assert from_decimal(Decimal(cost["total_usd"])) == sum(attempt.cost for attempt in books.attempts), context
    assert Decimal(cost["total_usd"]) <= budget, context
    assert stack.cli("audit", "verify")["ok"] is True, context


def owner_url(stack: Stack) -> str:
    return database_url(Home(stack.home), load_settings({}), "owner")


def rows(stack: Stack, statement: str) -> list[tuple[Any, ...]]:
    """The rows that a query of the installation's database returns."""
    with connect(owner_url(stack), autocommit=True) as connection:
        return connection.execute(statement.encode()).fetchall()


@pytest.mark.timeout(400)
def test_metering_is_exact_after_each_process_was_killed_and_paused(tmp_path: Path) -> None:
    """All rounds run in one installation; the budget grows with each."""
    results: list[ClientResult] = []
    with run_metered(tmp_path) as (stack, upstream):
        key = stack.key()
        for number, planned in enumerate(ROUNDS_OF_FAULTS, 1):
            if number > 1:
                raise_budget(stack, number)
            injected = run_round(stack, upstream, key, results, random.Random(number), planned)
            check_books(stack, upstream, results, f"round {number}: {injected}", BUDGET * number)


def test_every_fault_of_every_process_is_injected_in_one_of_the_rounds() -> None:
    done = sorted(fault for faults_of_round in ROUNDS_OF_FAULTS for fault in faults_of_round)
    assert done == sorted({(name, way) for name in PROCESSES for way in (KILL, PAUSE)} - {("up", PAUSE)})


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(35))
def test_metering_is_exact_after_random_faults(tmp_path: Path, seed: int) -> None:
    chance, results = random.Random(5000 + seed), list[ClientResult]()
    with run_metered(tmp_path) as (stack, upstream):
        planned = tuple(random_fault(chance) for _ in range(3))
        injected = run_round(stack, upstream, stack.key(), results, chance, planned)
        check_books(stack, upstream, results, f"seed {seed}: {injected}")
