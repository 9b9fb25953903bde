"""What a worker remembers of who calls: of people as many as somebody asks about."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from tests.integration.gateway_stack import blueprint, deployment, workload

from groundplan.core.clock import SystemClock
from groundplan.core.home import Home
from groundplan.core.ids import new_id
from groundplan.gateway.budgets.leases import Slices
from groundplan.gateway.policy import live as live_module
from groundplan.gateway.policy.live import LiveView
from groundplan.gateway.policy.snapshot import index


def test_nobody_is_remembered_where_nobody_counts_people(tmp_path: Path) -> None:
    live = LiveView("", Home(tmp_path), new_id(), SystemClock(), Slices())
    tasks = [workload("free", ["one"]), workload("pilot", ["one"], people=3)]
    live.catalog = index(blueprint(1, [deployment("one", 1)], tasks))
    for number in range(1000):
        live.count("free", f"person {number}")
        live.count("gone", f"person {number}")
    for name in ("ana", "bob", "ana", ""):
        live.count("pilot", name)
    assert live._users == {"pilot": {"ana", "bob"}}
    assert (live.people("pilot"), live.people("free")) == ({"ana", "bob"}, frozenset())


async def test_a_log_does_not_grow_with_how_long_postgresql_is_away(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker tries several times a second, and looks for kills twenty times."""
    monkeypatch.setattr(live_module, "HEARTBEAT_SECONDS", 0.01)
    home = Home(tmp_path)
    home.run.mkdir()
    (home.run / "kill.json").write_text("[{")
    live = LiveView("postgresql://127.0.0.1:1/none", home, new_id(), SystemClock(), Slices())
    following = asyncio.create_task(live.run())
    await asyncio.sleep(0.5)
    following.cancel()
    await asyncio.wait([following])
    told = sorted(each.getMessage() for each in caplog.records if each.name == live_module.__name__)
    assert told == [f"{home.run}/kill.json cannot be read", "cut off from live policy: OperationalError"]
    (home.run / "kill.json").write_text('[{"scope": "company"}]')
    live.read_kill_file()
    assert live.policy.kills == {"company"}
