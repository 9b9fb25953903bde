"""Waiting for a local service that ended: one look for all, and not for what is gone."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from groundplan.core.endpoints import announce, withdraw
from groundplan.core.home import Home
from groundplan.gateway.upstream import returning
from groundplan.gateway.upstream.returning import Returning


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """Where a service ended without a word."""
    home = Home(tmp_path)
    home.create()
    announce(home, "search", "http://127.0.0.1:1", "t")
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    file = home.run / "endpoints.d" / "search.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "pid": ended.pid}))
    return home


async def test_all_who_wait_go_on_when_it_is_announced_again(home: Home) -> None:
    loop = asyncio.get_running_loop()
    waits = Returning(home, loop)
    calls = [asyncio.create_task(waits.back("search", loop.time() + 5)) for _ in range(50)]
    await asyncio.sleep(0.1)
    assert len(waits._looks) == 1 and not any(call.done() for call in calls)
    calls[0].cancel()
    announce(home, "search", "http://127.0.0.1:2", "t")
    assert await asyncio.gather(*calls[1:]) == [True] * 49


async def test_who_has_less_time_does_not_wait_longer(home: Home) -> None:
    loop = asyncio.get_running_loop()
    waits, began = Returning(home, loop), loop.time()
    patient = asyncio.create_task(waits.back("search", began + 5))
    assert await waits.back("search", began + 0.1) is False and loop.time() - began < 1
    announce(home, "search", "http://127.0.0.1:2", "t")
    assert await patient is True


async def test_what_did_not_come_back_or_took_itself_back_is_not_waited_for(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop = asyncio.get_running_loop()
    monkeypatch.setattr(returning, "BACK_SECONDS", 0.2)
    waits = Returning(home, loop)
    assert await waits.back("search", loop.time() + 5) is False
    began = loop.time()
    assert await waits.back("search", began + 5) is False and loop.time() - began < 0.04
    announce(home, "other", "http://127.0.0.1:2", str(os.getpid()))
    withdraw(home, "other")
    for name in ("other", "never"):
        assert await waits.back(name, loop.time() + 5) is False


async def test_what_cannot_answer_now_is_asked_again_until_somebody_waited_in_vain(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(returning, "BACK_SECONDS", 0.5)
    loop = asyncio.get_running_loop()
    waits, began = Returning(home, loop), loop.time()
    assert await waits.ready("search", began, began + 0.01) is False, "no time is left"
    asked = 0
    while await waits.ready("search", began, began + 0.5):
        asked += 1
    assert 1 <= asked <= 3
    now = loop.time()
    assert await waits.ready("search", now, now + 5) is False and loop.time() - now < 0.1
