"""A learned router that no longer expects what is seen is told, and one that does is not."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest

from groundplan.api.watch import router_drift
from groundplan.core.database import connect
from groundplan.core.ids import new_id
from groundplan.economics.routing.watch.drift import LEAST, Verdict, find_drift
from groundplan.gateway.journal import ledger_store
from groundplan.ledger import finding_store
from groundplan.testing.database import Database

NOW = datetime(2026, 11, 20, 14, 30, tzinfo=UTC)


def add_outcomes(
    conn: Any,
    workload: str,
    accepted: int,
    count: int,
    *,
    router: str = "support@3",
    by: str = "ana",
    way: str = "learned",
) -> None:
    """Calls of which the router expected 90 %, and of which so many were accepted."""
    route = {"by": way, "router": router, "expected": {"acme/m": 0.9, "acme/large": 0.95}}
    rows: list[tuple[Any, ...]] = [
        (new_id(), NOW - timedelta(hours=1), workload, None, None, "care", "chat", "ok", 200, None, "acme/m", "own",
         "rack", 0, 0, 3, 2, "none", 1, new_id(), False, 12.5, 3.5, {"route": route}, 0, 0)
        for _ in range(count)
    ]  # fmt: skip
    ledger_store.insert_rows(conn, ledger_store.INSERT_CALLS, rows)
    for number, row in enumerate(rows):
        if by == "review":
            conn.execute(
                """INSERT INTO held_call
                     (id, kind, workload, key_id, gateway, at, due_at, state, decided_by, decided_at)
                   VALUES (%s, 'answer', %s, %s, %s, %s, %s, %s, 'ana', %s)""",
                (row[0], workload, new_id(), new_id(), NOW, NOW, "released" if number < accepted else "refused", NOW),
            )
        else:
            conn.execute(
                "INSERT INTO outcome (id, call_id, at, accepted, by) VALUES (%s, %s, %s, %s, %s)",
                (new_id(), row[0], NOW, number < accepted, by),
            )


@pytest.mark.parametrize("by", ["ana", "review"])
def test_a_router_that_expects_too_much_is_told_until_it_does_not(database: Database, by: str) -> None:
    with connect(database.urls["owner"], autocommit=True) as conn:
        add_outcomes(conn, "support", 120, 200, by=by)
        add_outcomes(conn, "calm", 178, 200, by=by)
        add_outcomes(conn, "few", 10, 30, by=by)
        told = router_drift.update_drift_findings(conn, NOW)
        assert (told.opened, told.closed) == (1, 0)
        (one,) = finding_store.list_findings(conn, kinds=["cost."])
        assert (one["kind"], one["subject"], one["severity"]) == ("cost.router_drift", "workload/support", "high")
        assert "60% were accepted of 200 calls, 90% were expected" in one["message"]
        assert one["detail"]["router"] == "support@3"
        assert router_drift.update_drift_findings(conn, NOW).kept == 1
        assert router_drift.update_drift_findings(conn, NOW + router_drift.HISTORY + timedelta(hours=1)).closed == 1


def test_outcomes_as_expected_are_no_drift_and_others_are() -> None:
    dice = np.random.default_rng(3)
    false = sum(
        bool(find_drift([Verdict("m", e, float(dice.random() < e)) for e in dice.uniform(0.5, 0.99, 300)]))
        for _ in range(200)
    )
    assert false == 0
    missed = sum(
        not find_drift([Verdict("m", e, float(dice.random() < e - 0.15)) for e in dice.uniform(0.5, 0.99, 300)])
        for _ in range(200)
    )
    assert missed <= 40
    assert find_drift([Verdict("m", 0.9, 0.0)] * (LEAST - 1)) == []
    assert find_drift([Verdict("m", 0.9, 0.0)] * LEAST)[0].difference == pytest.approx(-0.9)


def test_errors_that_leave_the_mean_as_it_was_are_drift() -> None:
    """Nothing can be told apart any more, though half of the answers are good, as was expected."""
    dice = np.random.default_rng(4)
    told = find_drift([Verdict("m", 0.1 if i % 2 else 0.9, float(dice.random() < 0.5)) for i in range(400)])
    assert [each.half for each in told] == ["least"]
    assert told[0].seen == pytest.approx(0.5, abs=0.1)
    assert (
        find_drift(
            [Verdict("m", 0.1 if i % 2 else 0.9, float(dice.random() < (0.1 if i % 2 else 0.9))) for i in range(400)]
        )
        == []
    )


@pytest.mark.parametrize("by", ["unsure", "cascade"])
def test_what_the_router_did_not_decide_is_no_drift(database: Database, by: str) -> None:
    with connect(database.urls["owner"], autocommit=True) as conn:
        add_outcomes(conn, "support", 120, 200, way=by)
        assert router_drift.update_drift_findings(conn, NOW).opened == 0
