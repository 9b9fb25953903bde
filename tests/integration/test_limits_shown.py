"""What people see of limits: how far each is used, who is near, and a finding where a budget that warns is crossed."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import msgspec
import psycopg
import pytest
from tests.integration.gateway_stack import blueprint, deployment, workload

from groundplan.api import store
from groundplan.api.budgets import current_budget_use
from groundplan.api.limits import limits_json
from groundplan.api.routes import limits as limits_routes
from groundplan.blueprint.model import Blueprint, Budget, Limit, ProviderKey
from groundplan.console.cost_figures import budget_view
from groundplan.core.ids import new_id
from groundplan.core.money import PICO
from groundplan.ledger import finding_store, queries
from groundplan.testing.database import Database

NOW = datetime(2026, 11, 25, 14, 33, tzinfo=UTC)


@pytest.fixture
def conn(database: Database) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(database.urls["owner"], autocommit=True) as made:
        yield made


def declared(*limits: Limit) -> Blueprint:
    return msgspec.structs.replace(blueprint(1, [], []), limits=list(limits))


def span(conn: psycopg.Connection[Any], name: str, key: str, amount: int, granted: int, ends: str) -> None:
    conn.execute("INSERT INTO limit_span VALUES (%s, %s, %s, %s, 1, %s)", (name, key, amount, granted, ends))


def test_limits_are_sorted_by_use_without_past_or_undeclared_ones(conn: psycopg.Connection[Any]) -> None:
    ana = str(new_id())
    made = declared(
        Limit(name="daily", covers="workload/assistant", type="requests", amount=100, period="day"),
        Limit(name="each", covers="user", type="tokens", amount=1000, period="minute"),
        Limit(name="slots", covers="company", type="concurrent", amount=4, period="now"),
        Limit(name="money", covers="model/m", type="cost", amount=PICO, period="month"),
    )
    span(conn, "requests/daily", "2026-11-25", 100, 30, "2036-11-26")
    span(conn, f"tokens/each/{ana}", "2026-11-25T14:33", 1000, 950, "2036-11-26")
    span(conn, "concurrent/slots", "now", 4, 1, "infinity")
    span(conn, "cost/money", "2026-11", PICO, PICO // 2, "2036-12-01")
    made = msgspec.structs.replace(made, workloads=[workload("pilot", [], calls_per_day=50)])
    span(conn, "requests/pilot#calls", "2026-11-25", 50, 45, "2036-11-26")
    span(conn, "requests/retired#calls", "2026-11-25", 50, 45, "2036-11-26")
    pool = [ProviderKey(key=f"env:{each}", tokens=[(1000, "day")]) for each in ("FIRST", "SECOND")]
    made = msgspec.structs.replace(made, deployments=[deployment("gpt", 1, keys=pool)])
    span(conn, f"tokens/gpt#{pool[1].fingerprint}", "2026-11-25", 1000, 10, "2036-11-26")
    span(conn, "tokens/gpt#1", "2026-11-25", 1000, 10, "2036-11-26")
    span(conn, "requests/gone", "2026-11-25", 10, 10, "2036-11-26")
    span(conn, "requests/daily", "2026-11-24", 100, 100, "2006-11-25")
    span(conn, "requests/daily", "2026-11-26", 100, 100, "2036-11-27")  # held of the next one already
    found = limits_json(made, store.limit_spans(conn), [], {ana: "ana@acme.example"})["limits"]
    assert [(row["limit"], row["who"], row["taken"], row["near"]) for row in found] == [
        ("each", "ana@acme.example", 950, True),
        ("calls_per_day", "workload/pilot", 45, True),
        ("money", "model/m", "0.500000000000", False),
        ("daily", "workload/assistant", 30, False),
        ("slots", "company", 1, False),
        ("gpt#1", "key 2 of deployment/gpt", 10, False),
    ]
    assert found[-2]["frees_at"] is None and found[0]["frees_at"].year == 2036


def test_budgets_of_every_calendar_are_shown_with_their_current_period(conn: psycopg.Connection[Any]) -> None:
    periods = (
        "2026-11", "2026-10", "total", "2026-11-23..2026-11-30", "2026-11-16..2026-11-23",
        "2026-11-24T23:00..2026-11-25T23:00", "2026-11-25T23:00..2026-11-26T23:00",
    )  # fmt: skip
    for number, period in enumerate(periods):
        conn.execute("INSERT INTO budget_period (budget, period, limit_usd) VALUES (%s, %s, 5)", (f"b{number}", period))
    found = [row["period"] for row in queries.budget_use(conn, NOW)]
    assert found == [periods[0], periods[2], periods[3], periods[5]]


def test_budget_periods_of_past_days_are_not_read(conn: psycopg.Connection[Any]) -> None:
    """Each key may have one a day, for years."""
    for table, columns in (
        ("budget_period", "budget, period, limit_usd"),
        ("charge_total", "budget, period, cost_usd"),
    ):
        conn.execute(
            f"""INSERT INTO {table} ({columns}) SELECT 'key/' || k, to_char(date '2026-11-25' - d, 'YYYY-MM-DD'), 5
                FROM generate_series(1, 100) k, generate_series(0, 99) d""".encode()
        )
    conn.execute("ANALYZE budget_period, charge_total")
    conn.execute("INSERT INTO charge_delta VALUES ('key/7', '2026-11-25', 1), ('key/7', '2026-11-25', 2)")
    with conn.transaction():
        found = {row["budget"]: row["spent_usd"] for row in queries.budget_use(conn, NOW)}
        read = """SELECT sum(seq_tup_read + coalesce(idx_tup_fetch, 0)) FROM pg_stat_xact_user_tables
            WHERE relname IN ('budget_period', 'charge_total')"""
        assert conn.execute(read).fetchall()[0][0] <= 500
    assert len(found) == 100 and found["key/7"] == "8.000000000000" and found["key/8"] == "5.000000000000"


def test_budgets_of_ended_experiments_and_revoked_keys_are_not_shown(conn: psycopg.Connection[Any]) -> None:
    """Each night's replays and each experiment have a budget of their own, which would be shown for ever."""
    ran, over, replay, revoked = (new_id() for _ in range(4))
    for each, state in ((ran, "running"), (over, "ended")):
        conn.execute(
            """INSERT INTO experiment (id, name, workload, type, candidate, judge, share, split, tolerance,
                 guard_tolerance, level, budget_usd, until, reason, asked_by, state)
               VALUES (%s, 'e', %s, 'ab', 'c', '', 1, 'person', 0.1, 0.1, 0.95, 1, now(), '', 'a', %s)""",
            (each, state, state),
        )
    for each, purpose in ((replay, "replay"), (revoked, "")):
        conn.execute(
            """INSERT INTO api_key (id, hash, prefix, workload, created_by, revoked_at, purpose)
               VALUES (%s, %s, 'gp_', 'w', 'a', now(), %s)""",
            (each, each.bytes, purpose),
        )
    names = [f"experiment/{ran}", f"experiment/{over}", f"key/{replay}", f"key/{revoked}"]
    for name in names:
        conn.execute("INSERT INTO budget_period (budget, period, limit_usd) VALUES (%s, 'total', 5)", (name,))
    assert [row["budget"] for row in queries.budget_use(conn, NOW)] == [names[0], names[3]]


def test_a_crossed_soft_budget_is_one_finding_per_period(conn: psycopg.Connection[Any]) -> None:
    told = [("soft", "2026-11", "The budget soft is crossed.")]
    assert [store.update_crossed_budget_findings(conn, told) for _ in range(3)] == [1, 0, 0]
    assert store.update_crossed_budget_findings(conn, [("soft", "2026-11", "by more")]) == 0
    assert [row["message"] for row in finding_store.list_findings(conn)] == ["by more"]
    assert store.update_crossed_budget_findings(conn, [("soft", "2026-12", "again"), ("other", "2026-12", "too")]) == 2
    assert {row["message"] for row in finding_store.list_findings(conn)} == {"again", "too"}, "November is over"
    assert store.update_crossed_budget_findings(conn, []) == 0
    assert finding_store.list_findings(conn) == [], "more may be spent now"
    assert store.update_crossed_budget_findings(conn, [("soft", "2026-12", "again")]) == 0
    (open_again,) = finding_store.list_findings(conn)
    finding_store.close(conn, open_again["id"], "person/x", "known")
    for _ in range(2):
        assert store.update_crossed_budget_findings(conn, [("soft", "2026-12", "by more")]) == 0
        assert finding_store.list_findings(conn) == [], "somebody said that it is settled"


def test_a_nearly_used_up_budget_is_reported() -> None:
    made = msgspec.structs.replace(
        declared(), budgets=[Budget(name="b", covers="company", limit=10 * PICO, period="month", hard=False)]
    )
    used = [{"budget": "b", "period": "2026-11", "limit_usd": "10.000000000000", "spent_usd": "8.000000000000"}]
    (row,) = limits_json(made, [], used, {})["budgets"]
    assert (row["near"], row["hard"], row["covers"], row["share"], row["title"]) == (True, False, "company", 0.8, "b")


def test_budgets_of_keys_and_experiments_are_shown_with_their_names(conn: psycopg.Connection[Any]) -> None:
    key, tried = new_id(), new_id()
    conn.execute(
        "INSERT INTO api_key (id, hash, prefix, workload, created_by) VALUES (%s, %s, 'gp_agent', 'a', 'test')",
        (key, key.bytes),
    )
    assert store.actor_names(conn, [str(key), str(tried), "staff"]) == {str(key): "key gp_agent..."}
    used = [
        {"budget": f"{kind}/{id}", "period": "2026-11", "limit_usd": "1.000000000000", "spent_usd": "0.900000000000"}
        for kind, id in (("key", key), ("experiment", tried))
    ]
    who = {**store.actor_names(conn, [str(key)]), str(tried): "experiment rack"}
    found = limits_json(declared(), [], used, who)["budgets"]
    assert [row["title"] for row in found] == ["key gp_agent...", "experiment rack"]
    assert [(view.name, view.covers) for view in map(budget_view, found)] == [
        ("key gp_agent...", "key gp_agent..."), ("experiment rack", "experiment rack"),
    ]  # fmt: skip


def test_the_subject_of_a_nearly_used_up_limit_is_named_among_many(conn: psycopg.Connection[Any]) -> None:
    """Of 600 keys the oldest, of two people one; what is nobody's stays as it is."""
    ana, ben, key = new_id(), new_id(), new_id()
    for person, email in ((ana, "ana@acme.example"), (ben, "ben@acme.example")):
        conn.execute("INSERT INTO person (id, email, name) VALUES (%s, %s, 'x')", (person, email))
    for place in range(600):
        conn.execute(
            """INSERT INTO api_key (id, hash, prefix, workload, created_at, created_by)
               VALUES (%s, sha256(%s::text::bytea), %s, 'assistant', now() - make_interval(days => 600 - %s), 'x')""",
            (key if place == 0 else new_id(), f"{place}", f"gp_{place}", place),
        )
    made = declared(Limit(name="each", covers="user", type="tokens", amount=1000, period="minute"))
    for subject in (ana, key, "nobody"):
        span(conn, f"tokens/each/{subject}", "2026-11-25T14:33", 1000, 900, "2036-11-26")
    assert len(store.limit_spans(conn, 0.9)) == 3 and not store.limit_spans(conn, 0.91)
    near = limits_routes.near_limits(conn, made, NOW)
    assert sorted(near) == sorted(f"each of {who} at 90 %" for who in ("ana@acme.example", "key gp_0...", "nobody"))


def test_a_raised_budget_is_shown_before_any_gateway_leases_it(conn: psycopg.Connection[Any]) -> None:
    """A budget that was raised since all of it was used up is not near its end, though nobody has called since."""
    raised = Budget(name="raised", covers="company", limit=20 * PICO, period="month")
    other = Budget(name="otherwise", covers="company", limit=PICO, period="day")
    made = msgspec.structs.replace(
        declared(Limit(name="daily", covers="company", type="requests", amount=400, period="day")),
        budgets=[raised, other],
    )
    for name in ("raised", "otherwise", "gone", "key/unused"):
        conn.execute(
            "INSERT INTO budget_period (budget, period, limit_usd, granted_usd) VALUES (%s, '2026-11', 10, 10)", (name,)
        )
    span(conn, "requests/daily", "2026-11-25", 100, 100, "2036-11-26")
    assert {row["budget"]: row["limit_usd"] for row in current_budget_use(conn, made, NOW)} == {
        "raised": "20.000000000000", "key/unused": "10.000000000000",
    }, "one that is gone, or has another period, is near no end"  # fmt: skip
    used = current_budget_use(conn, made, NOW, 0.8)
    assert [row["budget"] for row in used] == ["raised"]
    assert [row["limit_usd"] for row in current_budget_use(conn, None, NOW)] == ["10.000000000000"] * 4
    (limit,) = limits_json(made, store.limit_spans(conn), used, {})["limits"]
    assert (limit["most"], limit["share"], limit["near"]) == (400, 0.25, False)
