"""A model that is judged below a floor of quality is told to the workload's owner, with how its calls go to the
strongest again; it closes when that is done, and few judgements prove nothing."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from tests.integration.test_release import BASE, Conn, FixedClock, clock, conn, signing

from groundplan.api.watch import quality_floors
from groundplan.core.database import connect
from groundplan.core.ids import new_id
from groundplan.economics.experiment.sequential import LEAST
from groundplan.economics.levers.quality_floor import Judged, find_below_floor
from groundplan.gateway.journal import ledger_store
from groundplan.ledger import finding_store
from groundplan.release import service
from groundplan.release.publish import Signing
from groundplan.testing.database import Database

__all__ = ["clock", "conn", "signing"]

MORE = """\
---
kind: deployment
name: small
site: rack
model: acme/small
url: http://127.0.0.1:9/v2
price: {input: 0.1 USD/Mtok, output: 0.2 USD/Mtok}
---
kind: model
name: acme/own
quality: [{task: tone, score: 97%}]
---
kind: model
name: acme/small
"""
WORKLOAD = "purpose: Answer staff questions\ndeployments: [small, own]\nobjectives: {quality: {tone: 90%}}\n"
FILES = {"a.yaml": BASE.replace("purpose: Answer staff questions\n", WORKLOAD) + MORE}


def judge(database: Database, clock: FixedClock, place: str, accepted: int, count: int, **more: Any) -> None:
    """Answers of one deployment, of which so many were accepted; `label`, `cache`."""
    at = clock.time - timedelta(hours=1)
    cache = more.get("cache", "none")
    rows: list[tuple[Any, ...]] = [
        (new_id(), at, "assistant", None, None, "care", "chat", "ok", 200, None, f"acme/{place}", place, "rack", 0, 0,
         3, 2, cache, 1, new_id(), False, 12.5, 3.5, {}, 0, 0)
        for _ in range(count)
    ]  # fmt: skip
    with connect(database.urls["owner"], autocommit=True) as conn:
        ledger_store.insert_rows(conn, ledger_store.INSERT_CALLS, rows)
        for number, row in enumerate(rows):
            conn.execute(
                "INSERT INTO outcome (id, call_id, at, accepted, label, by) VALUES (%s, %s, %s, %s, %s, 'ana')",
                (new_id(), row[0], at, number < accepted, more.get("label", "tone")),
            )


def test_a_model_below_the_floor_is_told_until_its_calls_go_elsewhere(
    database: Database, conn: Conn, signing: Signing, clock: FixedClock
) -> None:
    service.genesis(conn, signing, FILES)
    conn.commit()
    judge(database, clock, "own", 38, 40)
    judge(database, clock, "small", 24, 40)
    judge(database, clock, "small", 0, 200, cache="exact")
    judge(database, clock, "small", 0, 40, label="thumb")
    assert quality_floors.update_floor_findings(conn, clock.time).opened == 1
    (one,) = finding_store.list_findings(conn, kinds=[quality_floors.KIND])
    assert (one["subject"], one["owner"], one["severity"]) == ("workload/assistant", "ana@acme.example", "high")
    assert one["message"].startswith("Answers of acme/small in assistant are below the floor of 90% for tone: 60% ")
    assert "(99 %: 32% to 84%)" in one["message"]
    assert "of 40 that were judged in 30 days were accepted" in one["message"]
    assert "Let own take these calls again" in one["hint"] and "score: 60%" in one["hint"]
    detail = one["detail"]
    assert (detail["judged"], detail["accepted"], detail["strongest"], len(detail["refused"])) == (40, 24, "own", 5)
    assert quality_floors.update_floor_findings(conn, clock.time).kept == 1

    files = {"a.yaml": FILES["a.yaml"] + "quality: [{task: tone, score: 60%}]\n"}
    assert service.apply(conn, signing, "operator", files).number == 2
    current = service.current(conn)
    assert current is not None and (routing := current.blueprint.workloads[0].routing) is not None
    assert set(routing.barred) == {"small"}, "what the finding says to write sends the calls to the strongest"
    assert quality_floors.update_floor_findings(conn, clock.time).closed == 1


def test_what_is_long_ago_is_not_told_and_of_the_strongest_nobody_stronger_is_named(
    database: Database, conn: Conn, signing: Signing, clock: FixedClock
) -> None:
    service.genesis(conn, signing, FILES)
    conn.commit()
    judge(database, clock, "own", 10, 40)
    assert quality_floors.update_floor_findings(conn, clock.time).opened == 1
    (one,) = finding_store.list_findings(conn, kinds=[quality_floors.KIND])
    assert one["hint"].startswith("No stronger deployment may take these calls")
    assert quality_floors.update_floor_findings(conn, clock.time + quality_floors.HISTORY).closed == 1


@pytest.mark.parametrize(
    ("accepted", "judged", "found"), [(0, LEAST - 1, 0), (11, LEAST, 1), (16, LEAST, 0), (75, 100, 1), (85, 100, 0)]
)
def test_only_what_is_surely_below_is_told(accepted: int, judged: int, found: int) -> None:
    assert len(find_below_floor([Judged("m", "tone", accepted, judged)], {"tone": 0.9})) == found
    assert find_below_floor([Judged("m", "other", accepted, judged)], {"tone": 0.9}) == []
