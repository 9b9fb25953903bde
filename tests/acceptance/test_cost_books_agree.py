"""A day of a company's traffic through the real gateway: what the providers reported attempt by attempt, the ledger,
the book, statements, FOCUS, features, outcomes and Parquet say the same, to the picodollar.

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
from tests.acceptance.company_day import BATCHES, MINUTES, PARTS, PRICES, WAGE, CompanyDay, company
from tests.acceptance.stack import request, wait_until

pytestmark = pytest.mark.timeout(400)
MILLION = 10**6
WORKER = "groundplan.gateway.app"
OPEN = "SELECT count(*) FROM attempt WHERE state = 'open'"


@dataclass(frozen=True)
class Attempt:
    """A row of the ledger: tokens of its parts, and what it cost."""

    name: str
    """As it was told to the upstream."""
    model: str
    state: str
    outcome: str
    estimated: bool
    into: int
    out: int
    cost: Decimal

    @property
    def sure(self) -> bool:
        return self.state == "settled" and not self.estimated and self.outcome == "ok"


@dataclass(frozen=True)
class Books:
    """Everything that was written down of one day."""

    first: str
    last: str
    """The same day, unless midnight passed meanwhile."""
    lived: CompanyDay
    attempts: list[Attempt]
    calls: list[tuple[str, str, str, str, str, Decimal]]
    """id, workload, feature, status, cache, cost"""
    billed: list[dict[str, Any]]
    """Of both upstreams."""
    book: list[dict[str, Any]]
    parquet: Path

    @property
    def kept(self) -> list[tuple[date, str]]:
        """The days with where their facts are as Parquet."""
        return [(date.fromisoformat(day), str(self.parquet)) for day in sorted({self.first, self.last})]

    def total(self, **wanted: str) -> Decimal:
        """Of lines of the book."""
        rows = [row for row in self.book if all(row[name] == value for name, value in wanted.items())]
        return usd(rows, "cost_usd")


def usd(rows: list[dict[str, Any]], name: str) -> Decimal:
    return sum((Decimal(row[name]) for row in rows), Decimal(0))


def settled(day: CompanyDay) -> bool:
    """Whether the workers that live, and no dead one, are told of, and all that they wrote is in the ledger."""
    status = day.stack.control("GET", "/api/status")
    gateways = status.body["gateways"] if status.status == 200 else []
    if len(gateways) != day.stack.workers or {each["pid"] for each in gateways} != set(day.stack.pids(WORKER)):
        return False
    return all(each["ready"] and each["journal_lag"] == 0 for each in gateways)


@pytest.fixture(scope="module")
def books(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Books]:
    folder = tmp_path_factory.mktemp("day")
    with company(folder) as lived:

        def noon() -> None:
            os.kill(lived.stack.pids(WORKER)[0], signal.SIGKILL)

        first = datetime.now(UTC).date()
        planned = lived.live(7, noon)
        assert sum(lived.seen.answered.values()) == planned, "everybody was answered in the end"
        url = database_url(Home(lived.stack.home), load_settings({}), "control")
        wait_until(lambda: settled(lived), 60, "every journal is in the ledger")
        with connect(url) as conn:

            def missing() -> set[str]:
                """Calls that were answered and are not in the ledger, and what is yet to be recovered or settled."""
                rows = conn.execute("SELECT id::text FROM call").fetchall()
                ((unrecovered,),) = conn.execute(UNRECOVERED).fetchall()
                ((open_attempts,),) = conn.execute(OPEN).fetchall()
                conn.rollback()
                left = {f"{unrecovered} journals"} if unrecovered else set()
                left |= {f"{open_attempts} open attempts"} if open_attempts else set()
                return (lived.seen.calls - {row[0] for row in rows}) | left

            with contextlib.suppress(AssertionError):
                wait_until(lambda: not missing(), 60, "every call that was answered is in the ledger")
            assert missing() == set(), "every call that was answered is in the ledger"
            attempts = [Attempt(*row) for row in conn.execute(_ATTEMPTS).fetchall()]
            calls = conn.execute(
                "SELECT id::text, workload, coalesce(detail ->> 'feature', ''), status, cache, cost_usd FROM call"
            ).fetchall()
            conn.rollback()
            last = datetime.now(UTC).date()
            for day in sorted({first, last}):
                with conn.transaction(force_rollback=True):
                    archive.archive_day(conn, str(folder / "facts"), day)
        billed = [
            line
            for upstream in (lived.main, lived.flaky)
            for line in request(upstream.port, "GET", "/billed").body["lines"]
        ]
        book = lived.stack.control("GET", f"/api/cost/book?by=term&first={first}&last={last}&lines=true").body
        assert Decimal(book["total_usd"]) == usd(book["lines"], "cost_usd") == usd(book["sums"], "cost_usd") > 0
        days = first.isoformat(), last.isoformat()
        yield Books(*days, lived, attempts, calls, billed, book["lines"], folder / "facts")


_ATTEMPTS = """SELECT call_id || '-' || number, split_part(model, '/', 2), state, outcome, estimated,
      coalesce((parts -> 'input' ->> 0)::bigint, 0), coalesce((parts -> 'output' ->> 0)::bigint, 0), cost_usd
    FROM attempt"""


def priced(model: str, into: int, out: int) -> Decimal:
    """By hand."""
    each = PRICES[model]
    return (each[0] * into + each[1] * out) / MILLION


def test_the_providers_reported_what_the_ledger_says_attempt_by_attempt(books: Books) -> None:
    mine = {each.name: each for each in books.attempts}
    assert len(mine) == len(books.attempts)
    theirs = {line["attempt"]: line for line in books.billed if line["attempt"]}
    assert len(theirs) == sum(bool(line["attempt"]) for line in books.billed), "nothing was sent twice"
    sure = {name: each for name, each in mine.items() if each.sure and name in theirs}
    for name, each in sure.items():
        usage = theirs[name]["usage"]
        told = (theirs[name]["model"], usage["prompt_tokens"], usage.get("completion_tokens", 0))
        assert (each.model, each.into, each.out) == told, name
        assert each.cost == priced(*told), name
    for name in theirs.keys() - sure.keys():
        each, usage = mine[name], theirs[name]["usage"]
        assert each.estimated or each.state == "crashed", f"{name} was billed, and is neither sure nor estimated"
        assert each.cost >= priced(each.model, usage["prompt_tokens"], usage.get("completion_tokens", 0)), name
    free = [each for each in books.attempts if each.name not in theirs and each.model != "nightly"]
    assert all(not each.sure and (each.cost == 0 or each.estimated) for each in free), "what nobody billed is not sure"
    counted = {*books.lived.main.counted(), *books.lived.flaky.counted()}
    assert {name for name in counted if "-" in name} <= mine.keys(), "every attempt that an upstream counted is a row"
    lines = [line["usage"] for line in books.billed if not line["attempt"]]
    batch = [each for each in books.attempts if each.model == "nightly"]
    assert len(lines) == len(batch) == BATCHES["archive"][1]
    into, out = (sum(usage[f"{name}_tokens"] for usage in lines) for name in ("prompt", "completion"))
    assert (sum(each.into for each in batch), sum(each.out for each in batch)) == (into, out)
    assert sum(each.cost for each in batch) == priced("nightly", into, out), "at the price of batches"
    assert len(sure) > 300


def test_the_day_was_one_of_retries_fallbacks_the_cache_and_rules(books: Books) -> None:
    by_model = Counter(each.model for each in books.attempts if each.outcome == "ok")
    assert min(by_model[name] for name in PRICES) > 0, by_model
    assert Counter(each.model for each in books.attempts if each.outcome != "ok")["shaky"] > 5
    caches = Counter(cache for _, _, _, status, cache, _ in books.calls if status == "ok")
    assert caches["exact"] >= books.lived.seen.cached > 10
    assert {workload for _, workload, _, _, cache, _ in books.calls if cache == "exact"} == {"sales"}
    assert all(cost == 0 for _, _, _, _, cache, cost in books.calls if cache == "exact")


def test_callers_were_told_what_the_ledger_says(books: Books) -> None:
    costs = {id: cost for id, *_, cost in books.calls}
    told = books.lived.seen.costs
    assert len(told) > 200
    assert {id: costs[id] for id in told} == told
    answered = Counter((workload, feature) for _, workload, feature, status, _, _ in books.calls if status == "ok")
    assert all(answered[key] >= count for key, count in books.lived.seen.answered.items())
    assert answered.total() - books.lived.seen.answered.total() <= books.lived.seen.again + 1


def test_ledger_book_statements_focus_and_features_agree(books: Books) -> None:
    stack = books.lived.stack
    spent = sum((each.cost for each in books.attempts), Decimal(0))
    assert spent == sum((cost for *_, cost in books.calls), Decimal(0))
    own = [row for row in books.book if row["basis"] == "measured" and not row["allocation"]]
    assert usd(own, "cost_usd") == sum((each.cost for each in books.attempts if not each.estimated), Decimal(0))
    beside = books.total(term="platform") + books.total(term="review")
    assert usd(books.book, "cost_usd") == spent + beside
    assert books.total(term="platform") == len({books.first, books.last})
    assert Decimal(stack.cli("cost")["total_usd"]) == spent

    stack.cli("cost", "export", str(books.parquet.parent / "focus.csv"), "--from", books.first, "--to", books.last)
    focus = list(csv.DictReader(io.StringIO((books.parquet.parent / "focus.csv").read_text())))
    assert usd(focus, "BilledCost") == spent + beside
    teams = {part.team for part in PARTS.values()} | {"night"}
    month = stack.control("GET", "/api/cost/book?by=team&lines=true").body["lines"]
    statements = {each["team"]: each for each in stack.cli("cost", "statement")["statements"]}
    assert teams <= statements.keys()
    for team, statement in statements.items():
        mine = [row for row in month if row["team"] == team]
        assert Decimal(statement["total_usd"]) == usd(mine, "cost_usd") == usd(statement["lines"], "cost_usd"), team
        theirs = [row for row in focus if row["SubAccountId"] == team]
        assert usd(theirs, "BilledCost") == books.total(team=team), team
    of_calls = [row for each in statements.values() for row in each["lines"] if not row["allocation"]]
    assert usd(of_calls, "cost_usd") == spent
    for workload in (*PARTS, *BATCHES):
        lines = [row for row in focus if json.loads(row["Tags"])["workload"] == workload]
        assert usd(lines, "BilledCost") == books.total(workload=workload) > 0, workload

    features = stack.control("GET", f"/api/cost/features?first={books.first}&last={books.last}").body["features"]
    assert usd(features, "cost_usd") == spent
    for row in features:
        mine = [each for each in books.calls if each[1:3] == (row["workload"], row["feature"])]
        assert Decimal(row["cost_usd"]) == sum((each[-1] for each in mine), Decimal(0))


def test_reviews_and_outcomes_are_in_the_book(books: Books) -> None:
    stack = books.lived.stack
    (reviewed,) = stack.control("GET", "/api/reviews").body["minutes"]
    assert (reviewed["workload"], Decimal(reviewed["minutes"])) == ("careful", MINUTES * reviewed["decided"])
    assert reviewed["decided"] >= PARTS["careful"].calls
    assert (
        books.total(term="review")
        == WAGE * MINUTES * reviewed["decided"] / 60
        == books.total(term="review", workload="careful")
    )
    rows = stack.control("GET", f"/api/cost/outcomes?first={books.first}&last={books.last}").body["outcomes"]
    said = Counter(workload for workload, _ in books.lived.seen.outcomes)
    good = Counter(workload for workload, accepted in books.lived.seen.outcomes if accepted)
    found = {row["workload"]: row for row in rows}
    assert said["support"] > 20
    assert (found["support"]["reported"], found["support"]["accepted"]) == (said["support"], good["support"])
    assert Decimal(found["support"]["value_usd"]) == good["support"] * Decimal("0.5")
    assert Decimal(found["support"]["cost_usd"]) == books.total(workload="support")


def test_parquet_answers_as_the_ledger_does(books: Books) -> None:
    _, rows = archive.query_facts(
        books.kept, "SELECT workload, count(*), sum(cost_usd) FROM calls GROUP BY 1 ORDER BY 1"
    )
    mine = {
        workload: [each[-1] for each in books.calls if each[1] == workload] for workload in {c[1] for c in books.calls}
    }
    assert {name: (count, cost) for name, count, cost in rows} == {
        name: (len(costs), sum(costs, Decimal(0))) for name, costs in mine.items()
    }
    _, rows = archive.query_facts(
        books.kept, "SELECT model, outcome, count(*), sum(cost_usd) FROM attempts GROUP BY ALL"
    )
    theirs = {(model.partition("/")[2], outcome): (count, cost) for model, outcome, count, cost in rows}
    for key in {(each.model, each.outcome) for each in books.attempts}:
        costs = [each.cost for each in books.attempts if (each.model, each.outcome) == key]
        assert theirs[key] == (len(costs), sum(costs, Decimal(0)))
