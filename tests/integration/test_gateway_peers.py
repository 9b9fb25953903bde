"""Other gateways in the benchmark: one that takes its time is waited for, one that is not there is told so."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from benchmarks.gateway_bed import HERE, Installation
from benchmarks.gateway_peers import Peer, measure_peer

UPSTREAM = f"{sys.executable} {HERE / 'gateway_upstream.py'} --port"


@pytest.fixture
def made(tmp_path: Path) -> Iterator[Installation]:
    with ExitStack() as stack:
        installation = Installation(stack, tmp_path)
        stack.callback(installation.listening.close)
        installation.spawn("upstream", *UPSTREAM.split(), str(installation.upstream))
        yield installation


def test_a_peer_that_is_not_there_at_once_is_waited_for(made: Installation) -> None:
    late = f"sleep 1; exec {UPSTREAM} {{port}} --forward {{upstream}}"
    found = measure_peer(made, Peer("late", late), 0.5)
    assert isinstance(found, dict), found
    assert found["ok"] > 0 and found["errors"] == 0


def test_a_peer_that_chooses_its_port_says_so(made: Installation) -> None:
    found = measure_peer(made, Peer("own", f"echo port={made.upstream}; exec sleep 60"), 0.5)
    assert isinstance(found, dict), found
    assert found["ok"] > 0


def test_a_peer_that_cannot_start_is_told_absent(made: Installation) -> None:
    began = time.monotonic()
    found = measure_peer(made, Peer("gone", "echo no such library; exit 3"), 0.5)
    assert found == "absent or failed (exit 3): no such library"
    assert time.monotonic() - began < 30
