"""What is kept is sampled once a day, and storage of past days is priced by that, whatever was deleted since."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from decimal import ROUND_HALF_EVEN, Decimal
from typing import Any

import msgspec
import psycopg
import pytest
from tests.integration.test_cost_versions import release
from tests.unit.test_placement_release import blueprint

from groundplan.api.cost import book as cost_book
from groundplan.api.cost.book import Days
from groundplan.api.watch import storage_samples
from groundplan.blueprint.model import Allocation, Blueprint, Grounding, Site, Workload
from groundplan.core.ids import new_id
from groundplan.core.money import PICO
from groundplan.ledger import kept_bytes_store
from groundplan.testing.database import Database

NOW = datetime(2026, 11, 10, 0, 5, tzinfo=UTC)
STORE = Allocation(name="store", term="object_storage", rate=PICO, per="gigabyte of documents", source="contract")
LOGS = Allocation(name="logs", term="logs", rate=PICO, per="gigabyte of content", source="contract")


def served() -> Blueprint:
    """Two workloads that are given one source, and one that is given none."""
    sites = [Site(name="rack", type="private", jurisdiction="EU")]
    workloads = [
        Workload(
            name=name, purpose="p", stage="pilot", sensitivity="internal", audience="employees", residency=[],
            deployments=["at-rack"], budgets=["b"],
            grounding=None if name == "idle" else Grounding(sources=["handbook"]),
        )
        for name in ("ask", "idle", "write")
    ]  # fmt: skip
    return msgspec.structs.replace(blueprint(workloads[0], sites), workloads=workloads, allocations=[STORE, LOGS])


def put(conn: psycopg.Connection[Any], source: str, text: str) -> None:
    conn.execute(
        "INSERT INTO source (name, sensitivity, owner, path) VALUES (%s, 'internal', 'hana', 'x')",
        (source,),
    )
    document = new_id()
    conn.execute(
        "INSERT INTO document (id, source, path, title, digest) VALUES (%s, %s, %s, 't', 'd')",
        (document, source, str(document)),
    )
    conn.execute(
        "INSERT INTO chunk (id, document_id, number, text, start_char, end_char, start_line, end_line, changed) "
        "VALUES (%s, %s, 0, %s, 0, 6, 1, 1, 1)",
        (new_id(), document, text),
    )


def paid(conn: psycopg.Connection[Any], first: date, last: date) -> dict[tuple[str, str], tuple[int, str]]:
    """(term, workload) -> (picodollars, basis); with days of both bases, what each of them makes."""
    found: dict[tuple[str, str], list[tuple[int, str]]] = {}
    for line in cost_book.allocated_lines(conn, Days(first, last)):
        found.setdefault((line.term, line.workload), []).append((line.amount, line.basis))
    return {
        key: (sum(amount for amount, _ in parts), " and ".join(sorted(basis for _, basis in parts)))
        for key, parts in found.items()
    }


def cost(count: int, days: int) -> int:
    """Every day is rounded to a picodollar by itself, so that days add up."""
    return days * int((Decimal(count) / 10**9 * 12 / 365 * PICO).to_integral_value(ROUND_HALF_EVEN))


def test_storage_of_past_days_is_priced_by_what_was_kept_then(database: Database) -> None:
    with psycopg.connect(database.urls["control"]) as conn:
        today = NOW.date()
        release(conn, served(), NOW - timedelta(days=1))
        assert not storage_samples.sample_if_due(conn, served(), NOW), "sampling begins with the first that is kept"
        assert kept_bytes_store.is_due(conn, today) and paid(conn, today, today) == {}
        put(conn, "handbook", "é" * 500_001)
        put(conn, "unused", "x" * 77)
        now = paid(conn, today - timedelta(days=1), today)
        assert now["object_storage", "ask"] == (cost(500_001, 2), "estimated"), "until then what is kept now"
        assert now["object_storage", ""] == (cost(77, 2), "estimated"), "what no workload is given is of nobody"
        conn.execute("INSERT INTO content_delta VALUES ('write', 3, 9000), ('gone', 2, 8000)")
        assert storage_samples.sample_if_due(conn, served(), NOW)
        assert not storage_samples.sample_if_due(conn, served(), NOW + timedelta(hours=3)), "a day is sampled once"
        conn.execute("DELETE FROM document")
        assert not kept_bytes_store.add_sample(conn, NOW + timedelta(hours=4), []), "and what was written stays"
        later = NOW + timedelta(days=2)
        assert storage_samples.sample_if_due(conn, served(), later)
        assert kept_bytes_store.samples(conn, "documents", today, today)[today] == {
            "": 77,
            "ask": 500_001,
            "write": 500_001,
        }
        logs = {("logs", "write"): (cost(9000, 1), "measured"), ("logs", ""): (cost(8000, 1), "measured")}
        expected = {
            ("object_storage", "ask"): (cost(500_001, 1), "measured"),
            ("object_storage", "write"): (cost(500_001, 1), "measured"),
            ("object_storage", ""): (cost(77, 1), "measured"),
            **logs,
        }
        assert paid(conn, today, today) == expected
        whole = sum(amount for (term, _), (amount, _) in expected.items() if term == "object_storage")
        assert whole == pytest.approx(cost(2 * 500_001 + 77, 1), abs=2), "every byte that is kept is paid once"
        two = paid(conn, today, today + timedelta(days=1))
        assert two["object_storage", "ask"] == (cost(500_001, 2), "estimated and measured"), (
            "the second day has no sample of its own"
        )
        assert paid(conn, later.date(), later.date()) == logs
        three = paid(conn, today, later.date())
        assert three["object_storage", "ask"][0] == cost(500_001, 2)
        days = [paid(conn, day, day) for day in (today, today + timedelta(days=1), later.date())]
        assert {key: amount for key, (amount, _) in three.items()} == {
            key: sum(day[key][0] for day in days if key in day) for key in three
        }, "days add up to the picodollar"
        with pytest.raises(psycopg.errors.InsufficientPrivilege), conn.transaction():
            conn.execute("UPDATE kept_bytes SET bytes = 0")
