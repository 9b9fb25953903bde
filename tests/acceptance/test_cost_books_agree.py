"""A day of a company's traffic through the real gateway: the usage that the providers reported for each attempt, the
ledger, the book, statements, FOCUS, features, outcomes and Parquet agree to the picodollar.

The day (`company_day`) has teams, workloads, features, streams, batches, answers from the cache, retries, fallbacks,
reviews and outcomes, and a worker that is killed at noon.
"""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
import signal
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from groundplan.core.database import connect, database_url
from groundplan.core.home import Home
from groundplan.core.settings import load_settings
from groundplan.ledger import archive
from tests.acceptance.chaos_world import UNRECOVERED
from tests.acceptance.company_day import BATCHES, MINUTES, PRICES, TRAFFIC, WAGE, CompanyDay, run_company_day
from tests.acceptance.stack import request, wait_until

pytestmark = pytest.mark.timeout(400)
MILLION = 10**6
WORKER = "groundplan.gateway.app"
OPEN = "SELECT count(*) FROM attempt WHERE state = 'open'"


@dataclass(frozen=True)
class Attempt:
    """A row of the ledger: the attempt's tokens and cost."""

    name: str
    """`call-number`, as it was sent to the upstream."""
    model: str
    state: str
    outcome: str
    estimated: bool
    input_tokens: int
    output_tokens: int
    cost: Decimal

    @property
    def is_exact(self) -> bool:
        return self.state == "settled" and not self.estimated and self.outcome == "ok"


@dataclass(frozen=True)
class Books:
    """All records of one day."""

    first: str
    last: str
    """ISO dates; the same one unless midnight (UTC) passed during the test."""
    day: CompanyDay
    attempts: list[Attempt]
    calls: list[tuple[str, str, str, str, str, Decimal]]
    """id, workload, feature, status, cache, cost"""
    billed: list[dict[str, Any]]
    """The billing lines of both upstreams."""
    book: list[dict[str, Any]]
    parquet: Path

    @property
    def facts_by_day(self) -> list[tuple[date, str]]:
        """(day, folder of its facts as Parquet) of each day."""
        return [(date.fromisoformat(day), str(self.parquet)) for day in sorted({self.first, self.last})]

    def total(self, **filters: str) -> Decimal:
        """The cost of the lines of the book whose fields have these values."""
        rows = [row for row in self.book if all(row[name] == value for name, value in filters.items())]
        return usd(rows, "cost_usd")


def usd(rows: list[dict[str, Any]], name: str) -> Decimal:
    return sum((Decimal(row[name]) for row in rows), Decimal(0))


def has_settled(day: CompanyDay) -> bool:
    """Whether the status lists exactly the running workers, and all their journals are in the ledger."""
    status = day.stack.control("GET", "/api/status")
    gateways = status.body["gateways"] if status.status == 200 else []
    if len(gateways) != day.stack.workers or {each["pid"] for each in gateways} != set(day.stack.pids(WORKER)):
        return False
    return all(each["ready"] and each["journal_lag"] == 0 for each in gateways)


@pytest.fixture(scope="module")
def books(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Books]:
    folder = tmp_path_factory.mktemp("day")
    with run_company_day(folder) as day:

        def kill_a_worker() -> None:
            os.kill(day.stack.pids(WORKER)[0], signal.SIGKILL)

        first = datetime.now(UTC).date()
        planned = day.run(7, kill_a_worker)
        assert sum(day.results.answered.values()) == planned, "every planned call was answered"
        url = database_url(Home(day.stack.home), load_settings({}), "control")
        wait_until(lambda: has_settled(day), 60, "every journal is in the ledger")
        with connect(url) as conn:

            def missing_facts() -> set[str]:
                """Answered calls that are not in the ledger yet, unrecovered journals and open attempts."""
                rows = conn.execute("SELECT id::text FROM call").fetchall()
                ((unrecovered,),) = conn.execute(UNRECOVERED).fetchall()
                ((open_attempts,),) = conn.execute(OPEN).fetchall()
                conn.rollback()
                unfinished = {f"{unrecovered} journals"} if unrecovered else set()
                unfinished |= {f"{open_attempts} open attempts"} if open_attempts else set()
                return (day.results.calls - {row[0] for row in rows}) | unfinished

            with contextlib.suppress(AssertionError):
                wait_until(lambda: not missing_facts(), 60, "every call that was answered is in the ledger")
            assert missing_facts() == set(), "every call that was answered is in the ledger"
            attempts = [Attempt(*row) for row in conn.execute(_ATTEMPTS).fetchall()]
            calls = conn.execute(
                "SELECT id::text, workload, coalesce(detail ->> 'feature', ''), status, cache, cost_usd FROM call"
            ).fetchall()
            conn.rollback()
            last = datetime.now(UTC).date()
            for archived in sorted({first, last}):
                with conn.transaction(force_rollback=True):
                    archive.archive_day(conn, str(folder / "facts"), archived)
        billed = [
            line
            for upstream in (day.main, day.flaky)
            for line in request(upstream.port, "GET", "/billed").body["lines"]
        ]
        book = day.stack.control("GET", f"/api/cost/book?by=term&first={first}&last={last}&lines=true").body
        assert Decimal(book["total_usd"]) == usd(book["lines"], "cost_usd") == usd(book["sums"], "cost_usd") > 0
        days = first.isoformat(), last.isoformat()
        yield Books(*days, day, attempts, calls, billed, book["lines"], folder / "facts")


_ATTEMPTS = """SELECT call_id || '-' || number, split_part(model, '/', 2), state, outcome, estimated,
      coalesce((parts -> 'input' ->> 0)::bigint, 0), coalesce((parts -> 'output' ->> 0)::bigint, 0), cost_usd
    FROM attempt"""


def expected_price(model: str, input_tokens: int, output_tokens: int) -> Decimal:
    """The cost computed from the declared prices, in USD."""
    each = PRICES[model]
    return (each[0] * input_tokens + each[1] * output_tokens) / MILLION


def test_the_providers_usage_equals_the_ledger_attempt_by_attempt(books: Books) -> None:
    in_ledger = {each.name: each for each in books.attempts}
    assert len(in_ledger) == len(books.attempts)
    by_provider = {line["attempt"]: line for line in books.billed if line["attempt"]}
    assert len(by_provider) == sum(bool(line["attempt"]) for line in books.billed), "nothing was sent twice"
    exact = {name: each for name, each in in_ledger.items() if each.is_exact and name in by_provider}
    for name, each in exact.items():
        usage = by_provider[name]["usage"]
        reported = (by_provider[name]["model"], usage["prompt_tokens"], usage.get("completion_tokens", 0))
        assert (each.model, each.input_tokens, each.output_tokens) == reported, name
        assert each.cost == expected_price(*reported), name
    for name in by_provider.keys() - exact.keys():
        each, usage = in_ledger[name], by_provider[name]["usage"]
        assert each.estimated or each.state == "crashed", f"{name} was billed, and is neither exact nor estimated"
        assert each.cost >= expected_price(each.model, usage["prompt_tokens"], usage.get("completion_tokens", 0)), name
    unbilled = [each for each in books.attempts if each.name not in by_provider and each.model != "nightly"]
    assert all(not each.is_exact and (each.cost == 0 or each.estimated) for each in unbilled), (
        "attempts that nobody billed are not exact"
    )
    counted = {*books.day.main.counted(), *books.day.flaky.counted()}
    assert {name for name in counted if "-" in name} <= in_ledger.keys(), (
        "every attempt that an upstream counted is a row"
    )
    lines = [line["usage"] for line in books.billed if not line["attempt"]]
    batch = [each for each in books.attempts if each.model == "nightly"]
    assert len(lines) == len(batch) == BATCHES["archive"][1]
    input_tokens, output_tokens = (sum(usage[f"{name}_tokens"] for usage in lines) for name in ("prompt", "completion"))
    assert (sum(each.input_tokens for each in batch), sum(each.output_tokens for each in batch)) == (
        input_tokens,
        output_tokens,
    )
    assert sum(each.cost for each in batch) == expected_price("nightly", input_tokens, output_tokens), (
        "at the price of batches"
    )
    assert len(exact) > 300


def test_the_day_has_retries_fallbacks_cache_hits_and_routing_rules(books: Books) -> None:
    by_model = Counter(each.model for each in books.attempts if each.outcome == "ok")
    assert min(by_model[name] for name in PRICES) > 0, by_model
    assert Counter(each.model for each in books.attempts if each.outcome != "ok")["shaky"] > 5
    caches = Counter(cache for _, _, _, status, cache, _ in books.calls if status == "ok")
    assert caches["exact"] >= books.day.results.cached > 10
    assert {workload for _, workload, _, _, cache, _ in books.calls if cache == "exact"} == {"sales"}
    assert all(cost == 0 for _, _, _, _, cache, cost in books.calls if cache == "exact")


def test_the_cost_told_to_callers_equals_the_ledger(books: Books) -> None:
    costs = {id: cost for id, *_, cost in books.calls}
    reported = books.day.results.costs
    assert len(reported) > 200
    assert {id: costs[id] for id in reported} == reported
    answered = Counter((workload, feature) for _, workload, feature, status, _, _ in books.calls if status == "ok")
    assert all(answered[key] >= count for key, count in books.day.results.answered.items())
    assert answered.total() - books.day.results.answered.total() <= books.day.results.retried + 1


def test_ledger_book_statements_focus_and_features_agree(books: Books) -> None:
    stack = books.day.stack
    spent = sum((each.cost for each in books.attempts), Decimal(0))
    assert spent == sum((cost for *_, cost in books.calls), Decimal(0))
    own = [row for row in books.book if row["basis"] == "measured" and not row["allocation"]]
    assert usd(own, "cost_usd") == sum((each.cost for each in books.attempts if not each.estimated), Decimal(0))
    other_costs = books.total(term="platform") + books.total(term="review")
    assert usd(books.book, "cost_usd") == spent + other_costs
    assert books.total(term="platform") == len({books.first, books.last})
    assert Decimal(stack.cli("cost")["total_usd"]) == spent

    stack.cli("cost", "export", str(books.parquet.parent / "focus.csv"), "--from", books.first, "--to", books.last)
    focus = list(csv.DictReader(io.StringIO((books.parquet.parent / "focus.csv").read_text())))
    assert usd(focus, "BilledCost") == spent + other_costs
    teams = {part.team for part in TRAFFIC.values()} | {"night"}
    month = stack.control("GET", "/api/cost/book?by=team&lines=true").body["lines"]
    statements = {each["team"]: each for each in stack.cli("cost", "statement")["statements"]}
    assert teams <= statements.keys()
    for team, statement in statements.items():
        ledger_rows = [row for row in month if row["team"] == team]
        assert Decimal(statement["total_usd"]) == usd(ledger_rows, "cost_usd") == usd(statement["lines"], "cost_usd"), (
            team
        )
        focus_rows = [row for row in focus if row["SubAccountId"] == team]
        assert usd(focus_rows, "BilledCost") == books.total(team=team), team
    of_calls = [row for each in statements.values() for row in each["lines"] if not row["allocation"]]
    assert usd(of_calls, "cost_usd") == spent
    for workload in (*TRAFFIC, *BATCHES):
        lines = [row for row in focus if json.loads(row["Tags"])["workload"] == workload]
        assert usd(lines, "BilledCost") == books.total(workload=workload) > 0, workload

    features = stack.control("GET", f"/api/cost/features?first={books.first}&last={books.last}").body["features"]
    assert usd(features, "cost_usd") == spent
    for row in features:
        ledger_rows = [each for each in books.calls if each[1:3] == (row["workload"], row["feature"])]
        assert Decimal(row["cost_usd"]) == sum((each[-1] for each in ledger_rows), Decimal(0))


def test_reviews_and_outcomes_are_in_the_book(books: Books) -> None:
    stack = books.day.stack
    (reviewed,) = stack.control("GET", "/api/reviews").body["minutes"]
    assert (reviewed["workload"], Decimal(reviewed["minutes"])) == ("careful", MINUTES * reviewed["decided"])
    assert reviewed["decided"] >= TRAFFIC["careful"].calls
    assert (
        books.total(term="review")
        == WAGE * MINUTES * reviewed["decided"] / 60
        == books.total(term="review", workload="careful")
    )
    rows = stack.control("GET", f"/api/cost/outcomes?first={books.first}&last={books.last}").body["outcomes"]
    reported = Counter(workload for workload, _ in books.day.results.outcomes)
    accepted_count = Counter(workload for workload, accepted in books.day.results.outcomes if accepted)
    by_workload = {row["workload"]: row for row in rows}
    assert reported["support"] > 20
    assert (by_workload["support"]["reported"], by_workload["support"]["accepted"]) == (
        reported["support"],
        accepted_count["support"],
    )
    assert Decimal(by_workload["support"]["value_usd"]) == accepted_count["support"] * Decimal("0.5")
    assert Decimal(by_workload["support"]["cost_usd"]) == books.total(workload="support")


def test_parquet_equals_the_ledger(books: Books) -> None:
    _, rows = archive.query_facts(
        books.facts_by_day, "SELECT workload, count(*), sum(cost_usd) FROM calls GROUP BY 1 ORDER BY 1"
    )
    in_ledger = {
        workload: [each[-1] for each in books.calls if each[1] == workload] for workload in {c[1] for c in books.calls}
    }
    assert {name: (count, cost) for name, count, cost in rows} == {
        name: (len(costs), sum(costs, Decimal(0))) for name, costs in in_ledger.items()
    }
    _, rows = archive.query_facts(
        books.facts_by_day, "SELECT model, outcome, count(*), sum(cost_usd) FROM attempts GROUP BY ALL"
    )
    from_parquet = {(model.partition("/")[2], outcome): (count, cost) for model, outcome, count, cost in rows}
    for key in {(each.model, each.outcome) for each in books.attempts}:
        costs = [each.cost for each in books.attempts if (each.model, each.outcome) == key]
        assert from_parquet[key] == (len(costs), sum(costs, Decimal(0)))
