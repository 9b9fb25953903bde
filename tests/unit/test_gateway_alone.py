"""The count of a call's Python instructions without sockets and database."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest


def instructions_of_call(kind: str) -> float:
    """Instructions of a call in the modules of calls."""
    command = [sys.executable, "-m", "benchmarks.gateway_alone", "--kind", kind, "--calls", "64", "--json"]
    done = subprocess.run(command, capture_output=True, check=True, text=True)
    found: dict[str, float] = json.loads(done.stdout)
    return sum(number for name, number in found.items() if "/groundplan/gateway/call/" in name)


@pytest.mark.skipif(sys.version_info < (3, 12), reason="it counts by sys.monitoring")
def test_what_a_call_takes_is_the_same_in_each_run_and_less_from_the_cache() -> None:
    call, again, cached = (instructions_of_call(kind) for kind in ("call", "call", "cached"))
    assert call == pytest.approx(again, rel=0.02)
    assert 500 < cached < call < 10_000
