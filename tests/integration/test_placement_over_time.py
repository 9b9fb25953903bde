"""Against PostgreSQL: steps of a change of place become blueprints when they are over, and plans read the gateways' own
facts of when calls come."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from psycopg_pool import ConnectionPool
from tests.integration.test_release import BASE, Conn, FixedClock, clock, conn, signing

from groundplan.api.context import Services
from groundplan.api.genesis import prepare_home
from groundplan.api.release import Releases
from groundplan.api.watch import placement_ramps
from groundplan.blueprint.model import Ramp
from groundplan.catalog.loader import load_files
from groundplan.core.database import connect
from groundplan.core.home import Home
from groundplan.core.ids import new_id
from groundplan.gateway.journal import ledger_store
from groundplan.ledger import finding_store
from groundplan.release import service
from groundplan.release.compile.placing import company_facts
from groundplan.release.observed import read_observations
from groundplan.release.publish import Signing
from groundplan.release.ramping import active_ramps
from groundplan.testing.database import Database

__all__ = ["clock", "conn", "signing"]

SECOND = """\
---
kind: deployment
name: other
site: rack
model: acme/other
url: http://127.0.0.1:9/v2
price: {input: 1 USD/Mtok, output: 2 USD/Mtok}
"""
RAMP = "placement: {curve: seen, ramp: {steps: [10%, 50%], every: 1h}}\n"


def files(order: str) -> dict[str, str]:
    made = BASE.replace("purpose: Answer staff questions\n", f"purpose: Answer staff questions\n{order}\n{RAMP}")
    return {"a.yaml": made + SECOND}


def ramp(conn: Conn) -> Ramp | None:
    current = service.current(conn)
    assert current is not None
    return active_ramps(current.blueprint).get("assistant")


def test_a_change_of_place_goes_over_blueprint_by_blueprint(conn: Conn, signing: Signing, clock: FixedClock) -> None:
    service.genesis(conn, signing, files("deployments: [own, other]"))
    assert service.advance_ramps(conn, signing).number is None
    applied = service.apply(conn, signing, "operator", files("deployments: [other, own]"))
    assert applied.number == 2 and (found := ramp(conn)) is not None and (found.to, found.share) == ("other", 10)
    clock.time += timedelta(minutes=59)
    assert service.advance_ramps(conn, signing).number is None
    clock.time += timedelta(minutes=1)
    assert service.advance_ramps(conn, signing, frozenset({"other"})).number is None
    assert service.advance_ramps(conn, signing).number == 3 and (found := ramp(conn)) is not None and found.share == 50
    assert service.advance_ramps(conn, signing).number is None, "looking twice is looking once"
    assert service.apply(conn, signing, "operator", files("deployments: [other, own]")).number is None
    clock.time += timedelta(hours=1)
    assert service.advance_ramps(conn, signing).number == 4 and ramp(conn) is None
    assert service.rollback(conn, signing, "operator", 1).number == 5 and ramp(conn) is None
    current = service.current(conn)
    assert current is not None and current.blueprint.workloads[0].deployments == ["own", "other"]


@pytest.fixture
def services(database: Database, clock: FixedClock, tmp_path: Path) -> Iterator[Services]:
    home = Home(tmp_path)
    prepare_home(home)
    with ConnectionPool(database.urls["control"], min_size=1, max_size=2) as pool:
        yield Services(home, database.settings(tmp_path), None, False, Releases(home, clock), pool, clock)


def attempts(database: Database, at: datetime, failed: int, ok: int) -> None:
    with connect(database.urls["owner"], autocommit=True) as conn:
        rows: list[tuple[Any, ...]] = [
            (new_id(), 1, at - timedelta(seconds=number), "other", "rack", "acme/other", "settled", outcome, 200, 0, 0,
             {}, False, [], 1.0, new_id(), 0.0, None, None, "assistant", 1, False, {}, "", "")
            for outcome, count in (("failed", failed), ("ok", ok))
            for number in range(count)
        ]  # fmt: skip
        ledger_store.insert_rows(conn, ledger_store.INSERT_ATTEMPTS, rows)


def test_a_new_place_at_which_calls_fail_gets_no_more_of_them(
    services: Services, database: Database, clock: FixedClock
) -> None:
    with services.transaction() as conn:
        services.releases.genesis(conn, files("deployments: [own, other]"))
        services.releases.apply(conn, "operator", files("deployments: [other, own]"), "cheaper")
    clock.time += timedelta(hours=2)
    attempts(database, clock.time, failed=10, ok=30)
    assert placement_ramps.advance_due_ramps(services) is None
    with services.transaction() as conn:
        (found,) = finding_store.list_findings(conn, kinds=[placement_ramps.KIND])
        assert "25% of the attempts at other fail: it keeps 10% of the calls" in found["message"]
    clock.time += timedelta(hours=2)
    attempts(database, clock.time, failed=0, ok=30)
    assert placement_ramps.advance_due_ramps(services) == 3
    with services.transaction() as conn:
        assert not finding_store.list_findings(conn, kinds=[placement_ramps.KIND]), "what no longer holds is closed"


def called(database: Database, now: datetime, days: int) -> None:
    """Sixty calls each Tuesday at nine, six in all other hours from eight to ten."""
    midnight = now.replace(hour=0, minute=0)
    rows: list[tuple[Any, ...]] = []
    for day in range(1, days + 1):
        for hour in (8, 9):
            at = midnight - timedelta(days=day) + timedelta(hours=hour)
            count = 60 if at.weekday() == 1 and hour == 9 else 6
            rows += [
                (new_id(), at + timedelta(seconds=number), "assistant", None, None, None, "chat", "ok", 200, None,
                 "acme/own", "own", "rack", 0, 0, 900, 180, "none", 1, new_id(), False, 4000.0, 400.0, {}, 0, 0)
                for number in range(count)
            ]  # fmt: skip
    with connect(database.urls["owner"], autocommit=True) as conn:
        ledger_store.insert_rows(conn, ledger_store.INSERT_CALLS, rows)


def test_a_curve_that_was_seen_is_what_plans_are_made_for(
    conn: Conn, signing: Signing, database: Database, clock: FixedClock
) -> None:
    service.genesis(conn, signing, files("deployments: [own, other]"))
    workspace = load_files(files("deployments: [own, other]"))
    called(database, clock.time, 6)
    assert read_observations(conn, workspace, clock.time).loads == {}, "six days say nothing of a week"
    facts = company_facts(workspace, (), None, clock.time.date())
    assert facts.workloads["assistant"].assumed[-1].startswith("business hours, until seven days")
    called(database, clock.time - timedelta(days=6), 8)
    seen = read_observations(conn, workspace, clock.time)
    load = seen.loads["assistant"]
    assert load.days == 14 and load.curve.index(max(load.curve)) == 24 + 9
    assert load.calls_month == pytest.approx((13 * 6 + 60) / 168 * 730)
    facts = company_facts(workspace, (), None, clock.time.date(), seen)
    w = facts.workloads["assistant"]
    assert w.curve == load.curve and w.peak == max(load.curve) > 20 and w.calls_month == load.calls_month
    (text,) = files("deployments: [own, other]").values()
    declared = {"a.yaml": text.replace("stage: pilot\n", "stage: pilot\ntraffic: {calls: 77/day}\n")}
    counted = company_facts(load_files(declared), (), None, clock.time.date(), seen).workloads["assistant"]
    assert counted.calls_month == pytest.approx(77 * 30, rel=0.03) and counted.curve == load.curve
