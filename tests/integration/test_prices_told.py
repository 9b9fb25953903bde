"""Against PostgreSQL: a price that will change and a model that will go are told with what a month would have cost."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any

from tests.integration.test_dated_prices import FILES
from tests.integration.test_release import Conn, FixedClock, clock, conn, signing

from groundplan.api.watch import price_changes
from groundplan.core.database import connect
from groundplan.core.ids import new_id
from groundplan.gateway.journal import ledger_store
from groundplan.ledger import finding_store
from groundplan.release import service
from groundplan.release.publish import Signing
from groundplan.testing.database import Database

__all__ = ["clock", "conn", "signing"]
TODAY = date(2026, 11, 20)
GOING = """\
---
kind: deployment
name: going
site: rack
model: avian/deepseek/deepseek-v3.2
url: http://127.0.0.1:9/v3
"""


def used(conn: Conn, deployment: str, day: date, tokens: int) -> None:
    """One attempt there, its tokens half of the input and half of the output."""
    cost, half = Decimal("0.01"), tokens // 2
    row: tuple[Any, ...] = (
        new_id(), 0, datetime.combine(day, time(9), UTC), deployment, "rack", "acme/m", "settled", "ok", 200, cost,
        cost, {"input": half}, False, [], 1.0, new_id(), 0.0, None, None, "w", 1, False,
        {"input": [half, 5_000_000_000], "output": [half, 5_000_000_000]}, "", "",
    )  # fmt: skip
    ledger_store.insert_rows(conn, ledger_store.INSERT_ATTEMPTS, [row])


def price_findings(conn: Conn, today: date) -> dict[tuple[str, str], dict[str, Any]]:
    price_changes.update_price_findings(conn, today)
    rows = finding_store.list_findings(conn, kinds=["cost."])
    return {(row["kind"], row["subject"].removeprefix("deployment/")): row for row in rows}


def test_prices_to_come_and_models_that_go_are_told_with_what_a_month_cost(
    database: Database, conn: Conn, signing: Signing, clock: FixedClock
) -> None:
    clock.time = datetime.combine(TODAY, time(12), UTC)
    service.genesis(conn, signing, {"a.yaml": FILES["a.yaml"] + GOING})
    with connect(database.urls["owner"], autocommit=True) as owner:
        for back in (1, 30):
            used(owner, "own", TODAY - timedelta(days=back), 2_000_000)
        for back in (0, 31):
            used(owner, "own", TODAY - timedelta(days=back), 8_000_000)
        used(owner, "going", TODAY - timedelta(days=1), 1000)
    found = price_findings(conn, TODAY)
    assert set(found) == {("cost.repriced", "own"), ("cost.repriced", "euro"), ("cost.retired", "going")}
    own = found["cost.repriced", "own"]
    assert "acme/own has another price from 2026-12-01 on" in own["message"]
    assert "the last 30 days at own would have cost $14.00 instead of $6.00" in own["message"]
    assert (own["severity"], found["cost.retired", "going"]["severity"]) == ("medium", "high")
    assert "about to retire it" in found["cost.retired", "going"]["message"]
    assert price_findings(conn, TODAY).keys() == found.keys(), "looking again tells nothing twice"
    clock.time = datetime(2026, 12, 1, tzinfo=UTC)
    service.reprice(conn, signing)
    assert set(price_findings(conn, date(2026, 12, 1))) == {("cost.retired", "going")}, "the price holds now"


def test_a_plan_with_another_price_says_what_the_last_month_would_have_cost(
    database: Database, conn: Conn, signing: Signing, clock: FixedClock
) -> None:
    clock.time = datetime.combine(TODAY, time(12), UTC)
    files = {"a.yaml": FILES["a.yaml"]}
    service.genesis(conn, signing, files)
    with connect(database.urls["owner"], autocommit=True) as owner:
        used(owner, "own", TODAY - timedelta(days=30), 2_000_000)
        used(owner, "own", TODAY - timedelta(days=31), 8_000_000)
    assert not [note for note in service.preview(conn, signing, files).notes if "would have cost" in note]
    files["a.yaml"] = files["a.yaml"].replace(
        "{input: 1 USD/Mtok, output: 2 USD/Mtok}", "{input: 2 USD/Mtok, output: 3 USD/Mtok}"
    )
    (note,) = [note for note in service.preview(conn, signing, files).notes if "would have cost" in note]
    assert note == "deployment/own: at the new price the last 30 days would have cost $5.00 instead of $3.00"
    files["a.yaml"] = FILES["a.yaml"].replace(
        "{input: 1 USD/Mtok, output: 2 USD/Mtok}", "{input: 1 USD/Mtok, output: 2 USD/Mtok, request: 0.25 USD}"
    )
    (note,) = [note for note in service.preview(conn, signing, files).notes if "would have cost" in note]
    assert note == "deployment/own: at the new price the last 30 days would have cost $3.25 instead of $3.00"
    files["a.yaml"] = FILES["a.yaml"].replace(
        "{input: 1 USD/Mtok, output: 2 USD/Mtok}",
        "{input: 1 USD/Mtok, output: 2 USD/Mtok, hours: {hours: 20:00-16:00, output: 0.50 USD/Mtok}}",
    )
    (note,) = [note for note in service.preview(conn, signing, files).notes if "would have cost" in note]
    assert note == "deployment/own: at the new price the last 30 days would have cost $1.50 instead of $3.00"
    files["a.yaml"] = FILES["a.yaml"].replace("{from: 2026-12-01, input: 3", "{from: 2026-12-02, input: 5")
    (note,) = [note for note in service.preview(conn, signing, files).notes if "would have cost" in note]
    assert note == (
        "deployment/own: at the price from 2026-12-02 on the last 30 days would have cost $9.00 instead of $3.00"
    )
