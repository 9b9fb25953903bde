"""What a worker remembers of who calls: of people as many as somebody asks about."""

from __future__ import annotations

import asyncio
import dataclasses
import time
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from msgspec.structs import replace
from psycopg import AsyncConnection
from tests.integration.gateway_stack import blueprint, deployment, workload

from groundplan.blueprint.model import Budget
from groundplan.core.clock import SystemClock
from groundplan.core.errors import Denied
from groundplan.core.home import Home
from groundplan.core.ids import new_id, new_id_bytes
from groundplan.gateway import stalls
from groundplan.gateway.budgets.leases import Slices
from groundplan.gateway.call.admit import covering_budgets
from groundplan.gateway.call.exchange import Exchange
from groundplan.gateway.http.collected_response import CollectedResponse
from groundplan.gateway.http.server import Request
from groundplan.gateway.policy import key_store
from groundplan.gateway.policy import live as live_module
from groundplan.gateway.policy.catalog import index
from groundplan.gateway.policy.live import LiveView
from groundplan.gateway.policy.snapshot import PEOPLE_DAYS
from groundplan.gateway.surfaces.chat.surface import CHAT
from groundplan.testing import ManualClock


def test_people_are_not_tracked_unless_counted(tmp_path: Path) -> None:
    view = LiveView("", Home(tmp_path), new_id(), SystemClock(), Slices())
    tasks = [workload("free", ["one"]), workload("pilot", ["one"], people=3)]
    view.catalog = index(blueprint(1, [deployment("one", 1)], tasks))
    for number in range(1000):
        view.record_person("free", f"person {number}")
        view.record_person("gone", f"person {number}")
    for name in ("ana", "bob", "ana", ""):
        view.record_person("pilot", name)
    assert view._users == {"pilot": {"ana", "bob"}}
    assert (view.people("pilot"), view.people("free")) == ({"ana", "bob"}, frozenset())


async def test_inactive_people_free_their_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However long a worker runs: as many count as PostgreSQL names, and those who asked here and are not there yet."""
    clock, rows = ManualClock(), [("pilot", "ana"), ("pilot", "eve")]
    view: Any = LiveView("", Home(tmp_path), new_id(), clock, Slices())
    view.catalog = index(blueprint(1, [deployment("one", 1)], [workload("pilot", ["one"], people=3)]))

    async def found(*_: Any) -> list[tuple[str, str]]:
        return rows

    monkeypatch.setattr(live_module, "_fetch", found)
    await view._load_people(None)
    view.record_person("pilot", "bob")
    assert view.people("pilot") == {"ana", "eve", "bob"}
    rows.remove(("pilot", "ana"))
    await view._load_people(None)
    assert view.people("pilot") == {"eve", "bob"}, "the ledger may not have what was asked here a moment ago"
    clock.advance((PEOPLE_DAYS + 1) * 86_400)
    await view._load_people(None)
    assert view.people("pilot") == {"eve"}


def test_a_key_knows_its_rotation_line() -> None:
    first, second, third, other = (str(new_id()) for _ in range(4))
    lines, line = {first: first, second: first, third: first, other: other}, frozenset((first, second, third))
    rows: list[tuple[Any, ...]] = [
        (id.encode(), id, "assistant", None, False, None, None, family, [], [], None, None, "")
        for id, family in lines.items()
    ]
    known = key_store._lines([(first, f"{third} {second}")])
    keys = {key.id: key for key in key_store._entries(rows, known).values()}
    assert {id: key.line for id, key in keys.items()} == {
        first: line, second: line, third: line, other: frozenset(),
    }  # fmt: skip
    budget = Budget(name="second", covers=f"key/{second}", limit=1, period="total")
    catalog = index(replace(blueprint(1, [], [workload("assistant", [])]), budgets=[budget]))
    covered = []
    for id, key in keys.items():
        exchange = Exchange(new_id_bytes(), Request(0.0), CollectedResponse(), CHAT)
        exchange.catalog, exchange.key = catalog, key
        plan = catalog.plans["assistant"]
        with suppress(Denied):  # no other budget covers it
            covered += [(id, each.name) for each, _ in covering_budgets(exchange, plan, 0.0)]
    assert covered == [(first, "second"), (second, "second"), (third, "second")]


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
    assert told == [
        f"{home.run}/kill.json cannot be read: stopped is company",
        "cut off from live policy: OperationalError",
    ]
    (home.run / "kill.json").write_text('[{"scope": "company"}]')
    live.read_kill_file()
    assert live.policy.kills == {"company"}


async def test_each_host_of_the_address_has_its_own_timeout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bound for all of them together is over when the first one, whose machine is gone, has had its own."""

    class Reached(Exception):
        """The last of them."""

    async def connect(_: str) -> None:
        await asyncio.sleep(0.05)
        raise Reached

    class Soon(stalls.Alarm):
        def __init__(self, loop: asyncio.AbstractEventLoop, _: float, *more: Any) -> None:
            super().__init__(loop, 0.01, *more)

    monkeypatch.setattr(stalls, "Alarm", Soon)
    monkeypatch.setattr(live_module, "connect", connect, raising=False)
    monkeypatch.setattr(AsyncConnection, "connect", lambda *_, **__: connect(""))
    with pytest.raises(Reached):
        await LiveView("", Home(tmp_path), new_id(), SystemClock(), Slices())._follow()


def test_policy_is_outdated_after_the_machine_slept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """To whoever revoked a key meanwhile it was said that it is effective."""
    told = {time.CLOCK_MONOTONIC: 10.0, time.CLOCK_BOOTTIME: 10.0}
    monkeypatch.setattr(time, "clock_gettime", told.__getitem__)
    view = LiveView("", Home(tmp_path), new_id(), SystemClock(), Slices())
    view._confirmed = view._clock.monotonic(), view._clock.seconds()
    told[time.CLOCK_BOOTTIME] += 3600  # the other one stands still
    assert view.age() == 3600


async def test_policy_is_outdated_after_a_virtual_machine_was_paused(tmp_path: Path) -> None:
    """For it no time has passed; only its wall clock is set right."""
    clock = ManualClock()
    view: Any = LiveView("", Home(tmp_path), new_id(), clock, Slices())

    async def beat(*_: Any) -> list[bytes]:
        clock.advance(0.5)
        return [b"-1", b"0", b"%f" % clock.seconds()]

    view._is_new_connection = False
    await view.refresh(SimpleNamespace(connection=None, execute=beat))
    assert view.age() == 0.5
    clock.set_now(clock.now() + timedelta(minutes=10))
    assert view.age() == 600.5
    clock.set_now(clock.now() - timedelta(hours=1))
    assert view.age() == 0.5


async def test_policy_that_changes_while_it_is_loaded_is_confirmed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where keys are made faster than a busy PostgreSQL answers: each load has what was there before it began."""
    clock, ages = ManualClock(), list[float]()
    view: Any = LiveView("", Home(tmp_path), new_id(), clock, Slices())
    view._is_new_connection = False

    async def beat(*_: Any) -> list[bytes]:
        ages.append(view.age())
        newest = min(len(ages), 100)
        return [b"%d" % newest, b"0", b"%f" % clock.seconds()]

    async def load(*_: Any) -> None:
        clock.advance(2.0)
        view.policy = dataclasses.replace(view.policy, number=len(ages))

    monkeypatch.setattr(view, "_load_policy", load)
    await view.refresh(SimpleNamespace(connection=None, execute=beat))
    assert view.policy.number == 100 and view.is_following
    assert ages == [float("inf"), *[2.0] * 100], "since before each load"


async def test_a_clock_differing_from_postgresqls_is_reported_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Else nobody knows why limits of windows that PostgreSQL takes for over have no room."""
    clock = ManualClock()
    view: Any = LiveView("", Home(tmp_path), new_id(), clock, Slices())
    view._is_new_connection = False
    for ahead in (0.0, -59.0, -3600.0, -3600.0, 0.0, 61.0):
        there = clock.seconds() - ahead

        async def beat(*_: Any, there: float = there) -> list[bytes]:
            return [b"-1", b"0", b"%f" % there]

        await view.refresh(SimpleNamespace(connection=None, execute=beat))
    told = [record.getMessage() for record in caplog.records]
    assert ["3600 s behind" in each for each in told] == [True, False] and "61 s ahead of" in told[1]


@pytest.mark.parametrize(("there", "lost"), [([("mine",)], False), ([("another",)], True), ([], True)])
async def test_another_blueprint_of_the_same_number_is_not_the_one_that_is_served(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, there: list[tuple[str]], lost: bool
) -> None:
    """As in a database that was restored, and got another one since."""
    view: Any = LiveView("", Home(tmp_path), new_id(), ManualClock(), Slices())
    view._signature = "mine"

    async def signed(*_: Any) -> list[tuple[str]]:
        return there

    monkeypatch.setattr(live_module, "_fetch", signed)
    assert await view._has_lost_blueprint(None, 3) is lost
