"""Waiting for a local service that ended: one look for all, and not for what is gone."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.unit.call_rig import call_rig

from groundplan.core.endpoints import announce, withdraw
from groundplan.core.home import Home
from groundplan.gateway.call import search_client
from groundplan.gateway.stalls import stall_monitor_of
from groundplan.gateway.upstream import service_restart
from groundplan.gateway.upstream.connection import UpstreamFailure
from groundplan.gateway.upstream.service_restart import ServiceRestart


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """Where a service ended without a word."""
    home = Home(tmp_path)
    home.create()
    announce(home, "search", "http://127.0.0.1:1", "t")
    ended_again(home)
    return home


def ended_again(home: Home) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    file = home.run / "endpoints.d" / "search.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "pid": ended.pid}))


class Nothing(msgspec.Struct):
    """What is asked."""


async def test_all_waiting_calls_continue_when_the_service_is_announced_again(home: Home) -> None:
    loop = asyncio.get_running_loop()
    waits = ServiceRestart(home, loop)
    calls = [asyncio.create_task(waits.wait_until_back("search", loop.time() + 5)) for _ in range(50)]
    await asyncio.sleep(0.1)
    assert len(waits._polls) == 1 and not any(call.done() for call in calls)
    calls[0].cancel()
    announce(home, "search", "http://127.0.0.1:2", "t")
    assert await asyncio.gather(*calls[1:]) == [True] * 49


async def test_a_call_does_not_wait_beyond_its_deadline(home: Home) -> None:
    loop = asyncio.get_running_loop()
    waits, began = ServiceRestart(home, loop), loop.time()
    patient = asyncio.create_task(waits.wait_until_back("search", began + 5))
    assert await waits.wait_until_back("search", began + 0.1) is False and loop.time() - began < 1
    announce(home, "search", "http://127.0.0.1:2", "t")
    assert await patient is True


async def test_a_service_that_did_not_return_or_withdrew_is_not_waited_for(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop = asyncio.get_running_loop()
    monkeypatch.setattr(service_restart, "RESTART_SECONDS", 0.2)
    waits = ServiceRestart(home, loop)
    assert await waits.wait_until_back("search", loop.time() + 5) is False
    began = loop.time()
    assert await waits.wait_until_back("search", began + 5) is False and loop.time() - began < 0.04
    announce(home, "other", "http://127.0.0.1:2", str(os.getpid()))
    withdraw(home, "other")
    monkeypatch.setattr(service_restart, "RESTART_SECONDS", 30)
    began = loop.time()
    for name in ("other", "never"):
        assert await waits.wait_until_back(name, began + 20) is False and loop.time() - began < 10


async def test_an_unavailable_service_is_retried_until_a_wait_was_in_vain(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service_restart, "RESTART_SECONDS", 0.5)
    loop = asyncio.get_running_loop()
    waits, began = ServiceRestart(home, loop), loop.time()
    assert await waits.should_retry("search", began, began + 0.01) is False, "no time is left"
    asked = 0
    while await waits.should_retry("search", began, began + 0.5):
        asked += 1
    assert 1 <= asked <= 3
    now = loop.time()
    assert await waits.should_retry("search", now, now + 5) is False and loop.time() - now < 0.1


async def test_a_worker_that_was_stopped_itself_gives_up_no_service(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one that is stopped, or whose machine stalls: what it waited for may be there as soon as it looks."""
    monkeypatch.setattr(service_restart, "RESTART_SECONDS", 0.4)
    loop = asyncio.get_running_loop()
    stalls = stall_monitor_of(loop)
    stalls.start()
    waits = ServiceRestart(home, loop)
    loop.call_later(0.1, time.sleep, 1.0)
    loop.call_later(1.15, announce, home, "search", "http://127.0.0.1:2", "t")
    began = loop.time()
    assert await waits.wait_until_back("search", began + 0.4) is True and loop.time() - began > 1.0
    loop.call_later(0.1, time.sleep, 1.0)
    ended_again(home)
    loop.call_later(1.15, announce, home, "search", "http://127.0.0.1:2", "t")
    assert await waits.wait_until_back("search", loop.time() + 0.4, loop.time() + 0.4) is False, (
        "its caller has no more time"
    )
    stalls.stop()


async def test_a_call_repeats_its_search_although_its_worker_was_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search_client, "RESTART_SECONDS", 0.8)
    monkeypatch.setattr(service_restart, "RESTART_SECONDS", 0.8)
    asked = []

    async def ask(*_: Any, **__: Any) -> bytes:
        asked.append(1)
        if len(asked) == 1:
            time.sleep(1.0)  # noqa: ASYNC251 -- it stands still
        if len(asked) < 2:
            raise UpstreamFailure("unready", "not now", sent=False)
        return b"{}"

    monkeypatch.setattr(search_client, "ask_search", ask)
    async with call_rig(tmp_path, ["one"]) as rig:
        rig.gateway.stalls.start()
        try:
            assert await search_client.ask_search_patiently(rig.gateway, b"c", Nothing, bytes, b"/search") == b"{}"
        finally:
            rig.gateway.stalls.stop()
