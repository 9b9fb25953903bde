"""An hour at half of a worker's maximum load: no error, flat memory, and afterwards a ledger that is exact to the call;
and a worker that stands still for a moment under that load catches up.

GROUNDPLAN_SOAK_SECONDS sets another duration. The measurements are printed as one line of JSON.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from decimal import Decimal
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest

from tests.acceptance.stack import Stack, installation, wait_until

SECONDS = float(os.environ.get("GROUNDPLAN_SOAK_SECONDS", "3600"))
PARTS = 12
TOKENS = 10
COST = Decimal("0.0001")
LOAD = Path(__file__).resolve().parents[2] / "benchmarks" / "gateway_load.py"
GROWTH_MIB = 8
"""Allowed growth of the worker after its warm-up: caches of bounded size."""


STILL_S = 5.0
"""How long the worker stands still."""
FEW_CALLS = 300
"""No more run at half load while the worker keeps up; thousands while it does not."""
MAY_BE_REFUSED = 0.01
"""Of the load's calls. Where all that piled up begin at once, a twentieth is refused or more."""


def load_command(stack: Stack, key: str, *options: str) -> list[str]:
    return [sys.executable, str(LOAD), "--port", str(stack.port), "--key", key, *options]


def run_load(stack: Stack, key: str, *options: str) -> dict[str, Any]:
    run = subprocess.run(load_command(stack, key, *options), check=True, capture_output=True)
    answer: dict[str, Any] = json.loads(run.stdout)
    return answer


def running_calls(stack: Stack) -> float:
    with urlopen(f"http://127.0.0.1:{stack.port}/metrics", timeout=30) as answer:
        found = re.search(rb"^groundplan_gateway_running\S* (\S+)$", answer.read(), re.MULTILINE)
    assert found is not None
    return float(found[1])


def memory_mib(pid: int) -> float:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024


@pytest.mark.soak
@pytest.mark.timeout(SECONDS * 1.5 + 600)
def test_an_hour_at_half_load_is_error_free_and_memory_stays_flat(tmp_path: Path) -> None:
    with installation(tmp_path, workers=1, price="0/10", budget="1000000") as (stack, upstream):
        upstream.control(mode="ok", tokens=TOKENS)
        key = stack.key()
        full = run_load(stack, key, "--conc", "32", "--secs", "5")
        (worker,) = stack.pids("groundplan.gateway.app")
        rate, memory, calls, p99 = full["rps"] / 2, [], full["ok"], []
        for _ in range(PARTS):
            load_part = run_load(stack, key, "--conc", "16", "--rate", str(rate), "--secs", str(SECONDS / PARTS))
            assert load_part["errors"] == 0, load_part["sample_error"]
            calls += load_part["ok"]
            memory.append(memory_mib(worker))
            p99.append(load_part["p99_ms"])
        measured = {"rate": rate, "calls": calls, "mib": [round(m, 1) for m in memory], "p99_ms": p99}
        print(json.dumps(measured))
        assert stack.pids("groundplan.gateway.app") == [worker], "the worker was replaced"
        assert max(memory[-PARTS // 3 :]) <= max(memory[: PARTS // 3]) + GROWTH_MIB, measured
        wait_until(lambda: stack.cli("cost")["calls"] >= calls, 300, "every call is in the ledger")
        cost = stack.cli("cost")
        assert cost["calls"] == calls == len(upstream.counted())
        assert Decimal(cost["total_usd"]) == COST * calls and cost["open_reservations"] == 0
        assert stack.cli("audit", "verify")["ok"]


@pytest.mark.soak
@pytest.mark.timeout(300)
def test_a_worker_that_stood_still_at_half_load_catches_up_while_the_load_goes_on(tmp_path: Path) -> None:
    with installation(tmp_path, workers=1, price="0/10", budget="1000000") as (stack, upstream):
        upstream.control(mode="ok", tokens=TOKENS)
        key = stack.key()
        full = run_load(stack, key, "--conc", "32", "--secs", "5")
        (worker,) = stack.pids("groundplan.gateway.app")
        options = ("--conc", "16", "--rate", str(full["rps"] / 2), "--secs", "60")
        load = subprocess.Popen(load_command(stack, key, *options), stdout=subprocess.PIPE)
        try:
            time.sleep(5.0)
            os.kill(worker, signal.SIGSTOP)
            time.sleep(STILL_S)
            os.kill(worker, signal.SIGCONT)
            time.sleep(1.0)  # by then it has read what piled up
            wait_until(lambda: running_calls(stack) < FEW_CALLS, 35, "it has caught up")
            assert load.poll() is None
            measured = json.loads(load.communicate(timeout=120)[0])
        finally:
            load.kill()
            load.wait()
        print(json.dumps(measured))
        assert stack.pids("groundplan.gateway.app") == [worker], "the worker was replaced"
        assert measured["errors"] <= MAY_BE_REFUSED * measured["ok"], measured["sample_error"]
        assert stack.cli("audit", "verify")["ok"]
