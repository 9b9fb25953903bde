"""kill -9 and SIGSTOP of workers and of the shipper at random moments: nothing acknowledged is lost, no budget is
exceeded."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
import pytest
from tests.integration.nursery import Worker, fork_program

from groundplan.core.audit.keys import create_keys
from groundplan.core.home import Home
from groundplan.testing.database import Database

WRITER = Path(__file__).with_name("journal_writer.py")
PICO = 10**12
DID_SOMETHING = 50
"""Calls that are durable before the end, however slow the machine is."""
SMALL = {"company": 8 * PICO, "team": 4 * PICO}
"""Used up within the test."""
LARGE = {"company": 8000 * PICO, "team": 4000 * PICO}


class Scene:
    """Two workers and a shipper over one home and database, each started again after it was killed."""

    def __init__(self, home: Home, database: Database, seed: int, limits: dict[str, int]) -> None:
        self.home, self.database, self.limits = home, database, limits
        self.random = random.Random(seed)
        self.files: list[Path] = []
        self.workers = [self.worker(), self.worker()]
        self.current = list(self.files)
        self.shipper = self.start_shipper()

    def worker(self) -> subprocess.Popen[bytes]:
        path = self.home.root / f"told-{len(self.files)}"
        self.files.append(path)
        limits = [f"{name}={limit}" for name, limit in self.limits.items()]
        arguments = [str(self.home.root), self.database.urls["gateway"], str(len(self.files)), *limits]
        with path.open("wb") as output:
            return subprocess.Popen([sys.executable, str(WRITER), *arguments], stdout=output)

    def start_shipper(self) -> Worker:
        environment = {**os.environ, "GROUNDPLAN_DATABASE_URL": self.database.dsn}
        return fork_program("groundplan.gateway.journal.shipper", ["--home", str(self.home.root)], 2, environment)

    def kill_one(self) -> None:
        number = self.random.randrange(3)
        if number == 2:
            kill(self.shipper)
            self.shipper = self.start_shipper()
        else:
            until(lambda: self.current[number].stat().st_size > 0)
            time.sleep(self.random.random() * 0.3)
            kill(self.workers[number])
            self.workers[number] = self.worker()
            self.current[number] = self.files[-1]

    def end(self) -> None:
        for worker in self.workers:
            kill(worker)
        kill(self.shipper)

    def lines(self) -> list[list[str]]:
        """What workers told; a line that was cut by the kill is what they did not tell."""
        return [
            line.split()
            for path in self.files
            for line in path.read_text().splitlines(keepends=True)
            if line.endswith("\n")
        ]


def kill(process: subprocess.Popen[bytes] | Worker) -> None:
    process.kill()
    process.wait()


def query(database: Database, text: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(database.superuser) as conn:
        return conn.execute(text.encode()).fetchall()


def until(condition: Callable[[], bool], seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "did not happen"
        time.sleep(0.05)


def epochs(database: Database) -> int:
    """Workers whose journals are not taken over."""
    ((count,),) = query(
        database, "SELECT count(*) FROM gateway WHERE epoch NOT IN (SELECT epoch FROM shipped WHERE done)"
    )
    return int(count)


def check(scene: Scene, database: Database) -> None:
    """Compare what workers told with what the ledger says."""
    reserved, billed, settled, durable = set(), {}, set(), set()
    for kind, *rest in scene.lines():
        if kind == "R":
            reserved.add((UUID(rest[0]), int(rest[1])))
        elif kind == "B":
            billed[UUID(rest[0]), int(rest[1])] = int(rest[2])
        elif kind == "S":
            settled.add((UUID(rest[0]), int(rest[1])))
        elif kind == "D":
            durable.add(UUID(rest[0]))
    assert len(durable) > DID_SOMETHING
    rows = query(database, "SELECT call_id, number, state, cost_usd, flags FROM attempt")
    attempts = {(call, number): (state, int(cost * PICO), flags) for call, number, state, cost, flags in rows}
    assert reserved <= attempts.keys(), "a written reservation was lost"
    for token in settled:
        assert attempts[token][:2] == ("settled", billed[token])
    for token, (state, cost, flags) in attempts.items():
        assert state in ("settled", "crashed") and (flags == ["crash"]) == (state == "crashed")
        assert cost >= billed.get(token, 0)
    calls = {row[0]: row[1] for row in query(database, "SELECT id, status FROM call")}
    assert all(calls[call] == "ok" for call in durable)
    assert calls.keys() == {call for call, _ in attempts}
    assert query(database, "SELECT count(*), count(DISTINCT subject) FROM audit_entry")[0][0] == len(calls)
    check_budgets(scene, database)


def check_budgets(scene: Scene, database: Database) -> None:
    """What is granted is to the picodollar what was charged: all slices came back, none twice."""
    charged = dict(query(database, "SELECT budget, sum(cost_usd) FROM charge GROUP BY budget"))
    granted = {row[0]: row[1:] for row in query(database, "SELECT budget, granted_usd, limit_usd FROM budget_period")}
    for budget, limit in scene.limits.items():
        assert granted[budget] == (charged[budget], Decimal(limit).scaleb(-12))
        assert charged[budget] <= Decimal(limit).scaleb(-12)
    assert query(database, "SELECT DISTINCT closed FROM budget_slice") == [(True,)]


SEEDS = [(1, SMALL), (2, LARGE), (3, LARGE)]
LONG = [pytest.param(seed, limits, marks=pytest.mark.soak) for seed in range(4, 31) for limits in (SMALL, LARGE)]


@pytest.mark.parametrize(("seed", "limits"), [*SEEDS, *LONG])
def test_killed_at_random_nothing_acknowledged_is_lost(
    database: Database, tmp_path: Path, seed: int, limits: dict[str, int]
) -> None:
    home = Home(tmp_path / "home")
    home.create()
    create_keys(home)
    scene = Scene(home, database, seed, limits)
    try:
        for _ in range(6):
            time.sleep(scene.random.random() * 0.3)
            scene.kill_one()
        until(lambda: sum(line[0] == "D" for line in scene.lines()) > DID_SOMETHING)
        for process in scene.workers:
            kill(process)
        until(lambda: not epochs(database), 120)
    finally:
        scene.end()
    check(scene, database)


def test_a_stopped_worker_keeps_its_slices_and_goes_on(database: Database, tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    home.create()
    create_keys(home)
    scene = Scene(home, database, 9, LARGE)
    try:
        until(lambda: all(b"D" in path.read_bytes() for path in scene.files))
        stopped = scene.workers[0]
        stopped.send_signal(signal.SIGSTOP)
        time.sleep(0.2)
        before = scene.files[0].stat().st_size
        kill(scene.workers[1])
        until(lambda: query(database, "SELECT count(*) FROM gateway WHERE state = 'fenced'") == [(1,)])
        until(lambda: epochs(database) == 1)
        time.sleep(0.5)
        assert epochs(database) == 1
        assert query(database, "SELECT count(*) FROM gateway WHERE state = 'live'") == [(1,)]
        stopped.send_signal(signal.SIGCONT)
        until(lambda: scene.files[0].stat().st_size > before)
        kill(stopped)
        until(lambda: not epochs(database))
    finally:
        scene.end()
    check_budgets(scene, database)
