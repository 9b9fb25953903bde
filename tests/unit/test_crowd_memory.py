"""A gateway worker gives back what a crowd of calls took, although some of what was made meanwhile lives on."""

from __future__ import annotations

import socket
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from groundplan.cli import processes
from groundplan.cli.listeners import Listeners
from groundplan.core.home import Home
from groundplan.core.settings import child_environment, mimalloc_environment

CROWD = """
import time
def mib():
    told = open("/proc/self/smaps_rollup").read()
    return int(told.partition("Pss:")[2].split()[0]) / 1024
before = mib()
made = [(n, [n], f"call {n}") for n in range(400_000)]
most = mib()
kept = made[::4000]
del made
for _ in range(40):
    time.sleep(0.02)
    rest = [(n, [n], bytes(n % 900)) for n in range(4_000)]
print(before, most, mib())
"""


def crowd(environment: dict[str, str]) -> float:
    """The share of what a crowd took that is still held when it is over."""
    done = subprocess.run(
        [sys.executable, "-c", CROWD], env=child_environment(environment), check=True, capture_output=True, text=True
    )
    before, most, after = map(float, done.stdout.split())
    assert most > before + 50
    return (after - before) / (most - before)


def test_memory_of_a_crowd_is_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYTHONMALLOC", raising=False)
    if sysconfig.get_config_var("WITH_MIMALLOC"):
        assert crowd(mimalloc_environment()) < 0.5
    else:
        assert mimalloc_environment() == {}


def test_workers_have_it_unless_somebody_chose_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYTHONMALLOC", raising=False)
    with socket.socket() as listening:
        listeners = Listeners(listening, listening, "127.0.0.1")
        assert processes.gateway(Home(tmp_path), listeners, 0, 1.0).env == mimalloc_environment()
    monkeypatch.setenv("PYTHONMALLOC", "malloc")
    assert mimalloc_environment() == {}
