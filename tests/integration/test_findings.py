"""Findings are known again, close when they no longer hold, and can be settled or silenced."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from groundplan.core.errors import NotFound
from groundplan.core.ids import new_id
from groundplan.ledger import finding_store as store
from groundplan.ledger.finding import Finding, Severity
from groundplan.testing.database import Database


@pytest.fixture
def conn(database: Database) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(database.urls["control"], autocommit=True) as made:
        yield made


def stale(document: str, severity: Severity = "medium", mark: str = "") -> Finding:
    return Finding(
        kind="knowledge.stale", subject=f"document/{document}", message=f"{document} is old.", hint="Review it.",
        severity=severity, mark=mark, detail={"days": 400}, owner="ana@acme.example",
    )  # fmt: skip


def test_telling_it_again_is_no_second_one_and_brings_it_up_to_date(conn: psycopg.Connection[Any]) -> None:
    first, new = store.report(conn, stale("a"))
    again, second = store.report(conn, stale("a", "high"))
    assert (first, new, second) == (again, True, False)
    other, _ = store.report(conn, stale("a", mark="v2"))
    assert other != first
    shown = store.list_findings(conn, kinds=["knowledge."])
    assert [(row["severity"], row["detail"], row["owner"]) for row in shown] == [
        ("high", {"days": 400}, "ana@acme.example"),
        ("medium", {"days": 400}, "ana@acme.example"),
    ]
    assert sum(store.count_by_kind(conn).values()) == 2


def test_what_is_no_longer_told_closes_and_only_within_its_kinds_and_subjects(conn: psycopg.Connection[Any]) -> None:
    store.report(conn, Finding(kind="cost.anomaly", subject="workload/w", message="m", hint="h"))
    told = store.replace_findings(conn, [stale("a"), stale("b")], kinds=["knowledge.stale"])
    assert (told.opened, told.kept, told.closed) == (2, 0, 0)
    told = store.replace_findings(conn, [stale("b")], kinds=["knowledge.stale"], within="document/")
    assert (told.opened, told.kept, told.closed) == (0, 1, 1)
    assert {row["subject"] for row in store.list_findings(conn)} == {"document/b", "workload/w"}
    closed = [row for row in store.list_findings(conn, closed=True) if row["closed_at"]]
    assert [(row["subject"], row["closed_reason"]) for row in closed] == [("document/a", "no longer holds")]
    told = store.replace_findings(conn, [stale("a"), stale("b")], kinds=["knowledge.stale"])
    assert (told.opened, told.kept) == (1, 1), "one that holds again is a new one"


def test_of_what_is_over_the_newest_come_first(conn: psycopg.Connection[Any]) -> None:
    """Whatever was grave a year ago is not what was unusual last week."""
    for name, days in (("old", 400), ("older", 500), ("new", 1)):
        store.report(conn, stale(name, "medium" if name == "new" else "high"))
        conn.execute("UPDATE finding SET at = at - %s WHERE subject = %s", (timedelta(days=days), f"document/{name}"))
    store.replace_findings(conn, [], kinds=["knowledge.stale"])
    store.report(conn, stale("open", "low"))
    rows = store.list_findings(conn, closed=True, limit=2)
    assert [row["subject"] for row in rows] == ["document/open", "document/new"]
    lately = store.list_findings(conn, closed=True, since=datetime.now(UTC) - timedelta(days=7))
    assert [row["subject"] for row in lately] == ["document/open", "document/new"]


def test_one_is_settled_or_silenced_by_somebody(conn: psycopg.Connection[Any]) -> None:
    one, _ = store.report(conn, stale("a"))
    store.snooze(conn, one, datetime.now(UTC) + timedelta(days=1))
    assert store.list_findings(conn) == [] and sum(store.count_by_kind(conn).values()) == 0
    store.snooze(conn, one, datetime.now(UTC) - timedelta(seconds=1))
    assert [row["id"] for row in store.list_findings(conn)] == [one]
    store.close(conn, one, "person/x", "reviewed")
    row = store.get_finding(conn, one)
    assert (row["closed_by"], row["closed_reason"]) == ("person/x", "reviewed")
    for missing in (one, new_id()):
        with pytest.raises(NotFound, match="no open finding"):
            store.close(conn, missing, "person/x", "again")


def test_who_pages_through_sees_each_once_whatever_comes_and_goes_meanwhile(conn: psycopg.Connection[Any]) -> None:
    severities: tuple[Severity, ...] = ("low", "high", "medium", "high", "medium", "low", "critical")
    for number, severity in enumerate(severities):
        store.report(conn, stale(f"{number}", severity))
    over, _ = store.report(conn, stale("over"))
    store.close(conn, over, "ana", "done")
    shown: list[dict[str, Any]] = []
    behind: store.ListPosition | None = None
    while page := store.list_findings(conn, closed=True, limit=2, behind=behind):
        shown += page
        behind = store.ListPosition.of(page[-1])
        if page[-1]["closed_at"] is None:
            store.close(conn, page[-1]["id"], "ana", "settled while it is shown")  # so it is told again at the end
        store.report(conn, stale(f"new {len(shown)}", "critical"))
    ids = [row["id"] for row in shown if row["closed_at"] is None]
    assert [row["subject"] for row in shown[:2]] == ["document/6", "document/3"]
    assert len(ids) == len(set(ids)) == len(severities)
    assert over in {row["id"] for row in shown}
