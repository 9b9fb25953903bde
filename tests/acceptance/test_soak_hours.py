"""An hour at half of a worker's maximum load: no error, flat memory, and afterwards a ledger that is exact to the call.

GROUNDPLAN_SOAK_SECONDS sets another duration. The measurements are printed as one line of JSON.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.stack import Stack, installation, wait_until

SECONDS = float(os.environ.get("GROUNDPLAN_SOAK_SECONDS", "3600"))
PARTS = 12
TOKENS = 10
COST = Decimal("0.0001")
LOAD = Path(__file__).resolve().parents[2] / "benchmarks" / "gateway_load.py"
GROWTH_MIB = 8
"""Allowed growth of the worker after its warm-up: caches of bounded size."""


def run_load(stack: Stack, key: str, *options: str) -> dict[str, Any]:
    command = [sys.executable, str(LOAD), "--port", str(stack.port), "--key", key, *options]
    answer: dict[str, Any] = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    return answer


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
