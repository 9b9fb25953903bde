"""An hour at half of what one worker can do: no error, memory flat, and afterwards a ledger that is exact to the call.

The hour is GROUNDPLAN_SOAK_SECONDS where that is set. What it measured is printed as one line of JSON.
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
"""What the worker may have more at the end than when it had warmed up: caches of sizes that are bounded."""


def load(stack: Stack, key: str, *options: str) -> dict[str, Any]:
    command = [sys.executable, str(LOAD), "--port", str(stack.port), "--key", key, *options]
    answer: dict[str, Any] = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    return answer


def memory_mib(pid: int) -> float:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024


@pytest.mark.soak
@pytest.mark.timeout(SECONDS * 1.5 + 600)
def test_an_hour_at_half_load(tmp_path: Path) -> None:
    with installation(tmp_path, workers=1, price="0/10", budget="1000000") as (stack, upstream):
        upstream.control(mode="ok", tokens=TOKENS)
        key = stack.key()
        full = load(stack, key, "--conc", "32", "--secs", "5")
        (worker,) = stack.pids("groundplan.gateway.app")
        rate, memory, answered, p99 = full["rps"] / 2, [], full["ok"], []
        for _ in range(PARTS):
            part = load(stack, key, "--conc", "16", "--rate", str(rate), "--secs", str(SECONDS / PARTS))
            assert part["errors"] == 0, part["sample_error"]
            answered += part["ok"]
            memory.append(memory_mib(worker))
            p99.append(part["p99_ms"])
        told = {"rate": rate, "calls": answered, "mib": [round(m, 1) for m in memory], "p99_ms": p99}
        print(json.dumps(told))
        assert stack.pids("groundplan.gateway.app") == [worker], "the worker was replaced"
        assert max(memory[-PARTS // 3 :]) <= max(memory[: PARTS // 3]) + GROWTH_MIB, told
        wait_until(lambda: stack.cli("cost")["calls"] >= answered, 300, "every call is in the ledger")
        cost = stack.cli("cost")
        assert cost["calls"] == answered == len(upstream.counted())
        assert Decimal(cost["total_usd"]) == COST * answered and cost["open_reservations"] == 0
        assert stack.cli("audit", "verify")["ok"]
