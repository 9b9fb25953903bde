"""Costs of past days are those of their own blueprints: rules, teams and prices of then, whatever is declared now."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from types import MappingProxyType
from typing import Any

import msgspec
import pdfplumber
import psycopg
import pytest
from tests.unit.test_placement_release import blueprint

from groundplan.api.cost import book as cost_book
from groundplan.api.cost import breakdowns as cost_spread
from groundplan.api.cost import declared_costs as cost_rules
from groundplan.api.cost import own_hardware as cost_own
from groundplan.api.cost import receipt as cost_receipt
from groundplan.api.cost import what_if as cost_what_if
from groundplan.api.cost.book import Days
from groundplan.blueprint import artifact
from groundplan.blueprint.model import Allocation, Blueprint, Rates, Site, Workflow, Workload
from groundplan.core.ids import new_id
from groundplan.core.money import PICO, format_usd, from_decimal, to_decimal
from groundplan.economics.allocate.model import Line
from groundplan.economics.export.statement import statement_csv, statements
from groundplan.economics.export.statement_pdf import statement_pdf
from groundplan.economics.prices.time_of_day import with_windows
from groundplan.gateway.journal import ledger_store
from groundplan.ledger import queries, rollup_store
from groundplan.release import store
from groundplan.testing.database import Database

Conn = psycopg.Connection[Any]
FIRST = date(2026, 11, 2)
"""When blueprint 1 was released; every two days another one is."""
LAST = FIRST + timedelta(days=9)
TODAY = LAST + timedelta(days=20)
SITES = [Site(name=name, type="private", jurisdiction="EU") for name in ("rack", "cloud")]


def days_after_first(days: int) -> date:
    return FIRST + timedelta(days=days)


def morning_of(day: date) -> datetime:
    return datetime.combine(day, time(9), UTC)


FILES = """\
kind: company
name: acme
format: 1
---
kind: workflow
name: letters
---
kind: workload
name: ask
purpose: p
stage: pilot
workflow: letters
"""


def release(conn: Conn, made: Blueprint, when: datetime, files: Mapping[str, str] = MappingProxyType({})) -> None:
    """As a release stores it."""
    body = artifact.encode(made)
    store.insert_blueprint(
        conn,
        store.StoredBlueprint(
            made.number, body, artifact.digest(body), "s", "k", files, when, "test", "test", None, made.number == 1
        ),
    )


def declared(number: int, teams: dict[str, str], rules: Sequence[Allocation], **place: Any) -> Blueprint:
    workloads = [
        Workload(
            name=name, team=team, purpose="p", stage="pilot", sensitivity="internal", audience="employees",
            residency=[], deployments=["at-rack"], budgets=["b"],
        )
        for name, team in teams.items()
    ]  # fmt: skip
    made = blueprint(workloads[0], SITES)
    places = [msgspec.structs.replace(each, **place) if each.name == "at-rack" else each for each in made.deployments]
    return msgspec.structs.replace(
        made, number=number, workloads=workloads, deployments=places, allocations=list(rules)
    )


def add_call(
    conn: Conn, day: date, workload: str, number: int, team: str, *,
    tokens: Sequence[tuple[str, int]] = (("rack", 100),), cost: int = PICO, feature: str = "", person: Any = None,
    cache: str = "none", document: str = "", endpoint: str = "chat", midnight: bool = False,
) -> None:  # fmt: skip
    """One call with an attempt at each place: the last one answered, with `midnight` on the day after."""
    id, lead, last = new_id(), tokens[-1][0], morning_of(day + timedelta(days=midnight))
    attempts: list[Any] = [
        (id, n, last if n == len(tokens) - 1 else morning_of(day), f"at-{place}", place, "acme/m", "settled", "ok", 200,
         to_decimal(cost), to_decimal(cost), {"input": count}, False, [], 1.0, new_id(), 0.0, None, None, workload,
         number, False, {"input": [count, cost]}, "", "")
        for n, (place, count) in enumerate(tokens)
    ]  # fmt: skip
    detail: dict[str, Any] = {"sources": [[document, "a.md", 1, 2]] if document else []}
    if feature:
        detail["feature"] = feature
    whole = to_decimal(cost * len(tokens)) if cache == "none" else 0
    call = (
        id, morning_of(day), workload, person, None, team or None, endpoint, "ok", 200, None, "acme/m", f"at-{lead}",
        lead, whole, whole, sum(count for _, count in tokens), 0, cache, number, new_id(), False, 2.5, 1.5, detail, 0,
        0,
    )  # fmt: skip
    if cache == "none":
        ledger_store.insert_rows(conn, ledger_store.INSERT_ATTEMPTS, attempts)
    ledger_store.insert_rows(conn, ledger_store.INSERT_CALLS, [call])


@pytest.fixture
def conn(database: Database) -> Iterator[Conn]:
    with psycopg.connect(database.urls["owner"], autocommit=True) as opened:
        yield opened


def book(conn: Conn, first: date, last: date) -> list[Line]:
    return cost_book.cost_lines(conn, Days(first, last), TODAY)


def sum_by(lines: Sequence[Line], *names: str) -> dict[Any, int]:
    found: dict[Any, int] = {}
    for line in lines:
        key = tuple(getattr(line, name) for name in names)
        found[key if len(names) > 1 else key[0]] = found.get(key if len(names) > 1 else key[0], 0) + line.amount
    return found


def platform(amount: int, how: str = "calls") -> Allocation:
    return Allocation(name="platform", term="platform", amount=amount, period="day", by=how, source="contract")


def test_a_cost_without_a_first_day_begins_with_the_company(conn: Conn) -> None:
    """That is with its first blueprint, or with a call before it; one that says `from` is spent from then on."""
    dated = msgspec.structs.replace(platform(PICO), name="hall", since=days_after_first(-40).isoformat())
    release(conn, declared(1, {"ask": "care"}, [platform(4 * PICO), dated]), morning_of(FIRST))
    assert sum_by(book(conn, date(2019, 1, 1), date(2019, 12, 31)), "allocation") == {}
    assert sum_by(book(conn, days_after_first(-45), days_after_first(1)), "allocation") == {
        "platform": 2 * 4 * PICO,
        "hall": 42 * PICO,
    }
    add_call(conn, days_after_first(-3), "ask", 1, "care")
    assert sum_by(book(conn, days_after_first(-45), days_after_first(-1)), "allocation") == {
        "": PICO,
        "platform": 3 * 4 * PICO,
        "hall": 40 * PICO,
    }
    assert sum_by(book(conn, days_after_first(-45), days_after_first(-4)), "allocation") == {"hall": 37 * PICO}


def test_what_is_taken_off_is_in_every_sum_and_on_every_statement(conn: Conn) -> None:
    """By whatever is asked the sums are the book's, also where a workload is paid back more than it cost."""
    grant = Allocation(name="grant", term="credit", amount=-7 * PICO - 1, period="day", by="cost", source="grant 9")
    rack = msgspec.structs.replace(grant, name="rack", amount=-PICO // 3, covers="site/rack", source="grant 10")
    release(
        conn,
        declared(1, {"ask": "care", "write": "sales", "idle": "sales"}, [platform(3), grant, rack]),
        morning_of(FIRST),
    )
    add_call(conn, FIRST, "ask", 1, "care", cost=5, feature="triage", document=str(new_id()))
    add_call(conn, FIRST, "ask", 1, "care", cost=1, feature="", tokens=[("cloud", 7), ("rack", 30)])
    add_call(conn, FIRST, "write", 1, "sales", cost=PICO, cache="exact")
    days = Days(FIRST, days_after_first(1))
    lines = book(conn, FIRST, days_after_first(1))
    total = sum(line.amount for line in lines)
    assert total == 7 + 2 * (3 - 7 * PICO - 1) - PICO // 3 * 2 - 2 and total < 0
    flows = cost_book.workflows_of_lines(conn, lines)
    for name in cost_book.DIMENSIONS:
        rows = cost_book.sum_by(lines, name, flows)
        assert sum(from_decimal(Decimal(row["cost_usd"])) for row in rows) == total, name
    for name in cost_spread.DIMENSIONS:
        assert sum(amount for _, _, amount, _ in cost_spread.breakdown(conn, lines, days, name)) == total, name
    made = statements(lines, FIRST, days_after_first(1))
    assert sum(each.total for each in made) == total and {each.team for each in made} >= {"care", "sales"}
    for each in made:
        *rows, last = csv.DictReader(io.StringIO(statement_csv(each)))
        assert sum(from_decimal(Decimal(row["cost_usd"])) for row in rows) == each.total
        assert from_decimal(Decimal(last["cost_usd"])) == each.total
        with pdfplumber.open(io.BytesIO(statement_pdf(each, "acme"))) as document:
            text = "".join(page.extract_text() for page in document.pages)
        assert f"Together {format_usd(each.total)} USD." in text


def test_each_team_carries_the_days_on_which_the_workload_was_its_own(conn: Conn) -> None:
    release(conn, declared(1, {"ask": "zebra", "other": "care"}, [platform(4 * PICO)]), morning_of(FIRST))
    release(conn, declared(2, {"ask": "ants", "other": "care"}, [platform(4 * PICO)]), morning_of(days_after_first(3)))
    for n in range(5):
        number, team = (1, "zebra") if n < 3 else (2, "ants")
        add_call(conn, days_after_first(n), "ask", number, team, cost=(n + 1) * PICO)
    lines = book(conn, FIRST, days_after_first(4))
    measured = sum_by([line for line in lines if line.term == "input"], "team")
    assert measured == {"zebra": 6 * PICO, "ants": 9 * PICO}
    assert sum_by([line for line in lines if line.term == "platform"], "team") == {"zebra": 12 * PICO, "ants": 8 * PICO}
    assert cost_book.blueprint_numbers(lines) == [1, 2]
    assert {line.blueprints for line in lines if line.team == "ants"} == {(2,)}


def test_a_blueprint_of_before_workflows_has_those_of_its_files(conn: Conn) -> None:
    """And none, where they cannot be read any more."""
    flow = Workflow(name="cases", workloads=["ask"])
    for number, flows, files in ((1, [], {"a.yaml": FILES}), (2, [], {"a.yaml": "kind: gone"}), (3, [flow], {})):
        made = msgspec.structs.replace(declared(number, {"ask": "care"}, []), workflows=flows)
        release(conn, made, morning_of(days_after_first(number)), files)
    found = cost_rules.workflows_by_blueprint(conn, [0, 1, 2, 3, 99])
    assert found == {0: {"ask": "cases"}, 1: {"ask": "letters"}, 2: {}, 3: {"ask": "cases"}, 99: {}}


def test_a_team_is_booked_as_it_was_declared_then(conn: Conn) -> None:
    for number, centers in ((1, {"care": "4100"}), (2, {"care": "9000"})):
        made = declared(number, {"ask": "care"}, [platform(4 * PICO)])
        release(conn, msgspec.structs.replace(made, cost_centers=centers), morning_of(days_after_first(number - 1)))
        add_call(conn, days_after_first(number - 1), "ask", number, "care")
    days = [book(conn, days_after_first(n), days_after_first(n)) for n in (0, 1)]
    assert [cost_book.cost_centers(conn, lines)["care"] for lines in days] == ["4100", "9000"]
    assert cost_book.cost_centers(conn, [*days[0], *days[1]]) == {"care": "9000"}


def test_editing_a_rule_leaves_days_that_are_over_as_they_were(conn: Conn) -> None:
    release(conn, declared(1, {"ask": "care", "write": "sales"}, [platform(4 * PICO)]), morning_of(FIRST))
    for n in range(4):
        add_call(conn, days_after_first(n), "ask", 1, "care")
        add_call(conn, days_after_first(n), "write", 1, "sales")
    before = sum_by(book(conn, FIRST, days_after_first(3)), "workload", "term")
    release(
        conn,
        declared(2, {"ask": "care", "write": "sales"}, [platform(40 * PICO, "equal")]),
        morning_of(days_after_first(4)),
    )
    assert sum_by(book(conn, FIRST, days_after_first(3)), "workload", "term") == before
    release(conn, declared(3, {"ask": "care"}, []), morning_of(days_after_first(4)) + timedelta(hours=1))
    assert sum_by(book(conn, FIRST, days_after_first(3)), "workload", "term") == before
    release(
        conn,
        declared(4, {"ask": "care", "write": "sales"}, [platform(6 * PICO)]),
        morning_of(days_after_first(4)) + timedelta(hours=2),
    )
    later = [line for line in book(conn, days_after_first(4), days_after_first(4)) if line.term == "platform"]
    assert sum_by(later, "workload") == {"ask": 3 * PICO, "write": 3 * PICO}, "the last of a day counts for it"
    assert {line.blueprints for line in later} == {(4,)}
    add_call(conn, days_after_first(-3), "ask", 1, "care")
    earlier = [line for line in book(conn, days_after_first(-9), days_after_first(-1)) if line.term == "platform"]
    assert sum_by(earlier, "blueprints") == {(1,): 12 * PICO}, (
        "days before the first blueprint count as its day, from a call on"
    )


def test_any_two_spans_are_what_both_are_together(conn: Conn) -> None:
    room = Allocation(name="room", term="energy", amount=7 * PICO + 1, period="month", covers="site/rack")
    desk = Allocation(name="desk", term="support", rate=PICO // 3 + 1, per="1000 calls", source="contract")
    for number in range(1, 6):
        teams = {"ask": "care" if number % 2 else "sales", **({"write": "sales"} if number != 3 else {})}
        rules = [platform(4 * PICO + number, "tokens"), room, desk]
        release(conn, declared(number, teams, rules), morning_of(days_after_first(2 * number - 2)))
    for n in range(10):
        number = 1 + n // 2
        add_call(
            conn, days_after_first(n), "ask", number, "care" if number % 2 else "sales", tokens=[("rack", 7 * n + 1)]
        )
        if number != 3:
            add_call(conn, days_after_first(n), "write", number, "sales", tokens=[("cloud", 30), ("rack", 5 + n)])
    conn.execute(
        "INSERT INTO semantic_day (day, workload, looked, spent_us) VALUES (%s, 'ask', 1, 777)", (days_after_first(4),)
    )
    keys = ("workload", "team", "term", "basis", "allocation", "deployment")
    whole = sum_by(book(conn, days_after_first(-2), days_after_first(11)), *keys)
    for split in (days_after_first(-2), days_after_first(1), days_after_first(4), days_after_first(9)):
        one, two = (
            sum_by(book(conn, *span), *keys)
            for span in ((days_after_first(-2), split), (split + timedelta(days=1), days_after_first(11)))
        )
        assert whole == {key: one.get(key, 0) + two.get(key, 0) for key in {*one, *two}}
        rollup_store.roll_up(conn)


def test_a_removed_deployment_keeps_the_term_and_price_that_it_had(conn: Conn) -> None:
    made = declared(1, {"ask": "care"}, [], kind="embeddings")
    (place,) = [each for each in made.deployments if each.name == "at-rack"]
    rates = msgspec.structs.replace(place.rates, source="declared acme.yaml:12")
    release(conn, declared(1, {"ask": "care"}, [], kind="embeddings", rates=rates), morning_of(FIRST))
    add_call(conn, FIRST, "ask", 1, "care")
    gone = declared(2, {"ask": "care"}, [])
    release(conn, msgspec.structs.replace(gone, deployments=[]), morning_of(days_after_first(1)))
    (line,) = book(conn, FIRST, FIRST)
    assert (line.term, line.source, line.blueprints) == ("embedding", "declared acme.yaml:12", (1,))
    assert line.rule == "input x price of at-rack"


def test_the_book_and_own_hardware_measure_the_same_use(conn: Conn) -> None:
    rack = Allocation(
        name="rack", term="capacity", amount=10 * PICO, period="day", covers="deployment/at-rack", capacity=1000,
        source="invoice 7",
    )  # fmt: skip
    made = declared(1, {"ask": "care"}, [rack])
    release(conn, made, morning_of(FIRST))
    add_call(conn, FIRST, "ask", 1, "care", tokens=[("rack", 300), ("cloud", 50)])  # it fell back: both worked
    add_call(conn, FIRST, "ask", 1, "care", tokens=[("rack", 100)])
    add_call(conn, FIRST, "ask", 1, "care", tokens=[("rack", 500)], cache="exact")  # nothing worked
    told = {line.term: line.amount for line in book(conn, FIRST, FIRST) if line.allocation}
    assert told == {"capacity": 4 * PICO, "idle": 6 * PICO}
    (own,) = cost_own.own_hardware_json(conn, made, Days(FIRST, FIRST))
    assert (own["used"], own["cost_usd"]) == (0.4, format_usd(10 * PICO))


@pytest.mark.parametrize("hours", [[], [(8 * 60, 10 * 60)], [(8 * 60, 9 * 60 + 30), (9 * 60 + 30, 10 * 60)]])
def test_own_hardware_is_compared_with_a_price_by_the_request_too(conn: Conn, hours: list[tuple[int, int]]) -> None:
    """Also where it holds at the hour of the calls, and is dearer at others."""
    rack = Allocation(
        name="rack", term="capacity", amount=10 * PICO, period="day", covers="deployment/at-rack", capacity=1000,
        source="invoice 7",
    )  # fmt: skip
    made = declared(1, {"ask": "care"}, [rack])
    by_call = Rates(input=PICO, output=PICO, request=PICO // 2)
    if hours:
        dear = Rates(input=5 * PICO, output=5 * PICO, request=PICO)
        by_call = with_windows(dear, [(first, last, by_call) for first, last in hours])
    places = [
        msgspec.structs.replace(each, rates=by_call) if each.name == "at-cloud" else each for each in made.deployments
    ]
    mine = msgspec.structs.replace(made.workloads[0], deployments=["at-rack", "at-cloud"])
    made = msgspec.structs.replace(made, deployments=places, workloads=[mine])
    release(conn, made, morning_of(FIRST))
    for _ in range(3):
        add_call(conn, FIRST, "ask", 1, "care", tokens=[("rack", 100)])
    (own,) = cost_own.own_hardware_json(conn, made, Days(FIRST, FIRST))
    assert (own["other"], own["used"]) == ("at-cloud", 0.3)
    assert own["other_usd"] == format_usd(3 * PICO // 2 + 300 * PICO // 1_000_000)


def test_own_hardware_that_embeds_is_compared_with_what_embeds(conn: Conn) -> None:
    rack = Allocation(
        name="rack", term="capacity", amount=10 * PICO, period="day", covers="deployment/at-rack", capacity=1000,
        source="invoice 7",
    )  # fmt: skip
    made = declared(1, {"ask": "care"}, [rack], kind="embeddings")
    (chat,) = [each for each in made.deployments if each.name == "at-cloud"]
    rates = msgspec.structs.replace(chat.rates, input=PICO)
    places = [msgspec.structs.replace(each, rates=rates) for each in made.deployments]
    (ask,) = made.workloads
    mine = msgspec.structs.replace(ask, deployments=["at-cloud"], embeddings=["at-rack"])
    made = msgspec.structs.replace(made, deployments=places, workloads=[mine])
    release(conn, made, morning_of(FIRST))
    add_call(conn, FIRST, "ask", 1, "care")
    assert [row["other"] for row in cost_own.own_hardware_json(conn, made, Days(FIRST, FIRST))] == [None], (
        "nobody embeds by chat"
    )
    vectors = msgspec.structs.replace(places[0], name="vectors", kind="embeddings")
    mine = msgspec.structs.replace(mine, embeddings=["at-rack", "vectors"])
    made = msgspec.structs.replace(made, deployments=[*places, vectors], workloads=[mine])
    assert [row["other"] for row in cost_own.own_hardware_json(conn, made, Days(FIRST, FIRST))] == ["vectors"]


def test_another_model_would_not_embed(conn: Conn) -> None:
    """Nor would what embeds be asked more with a longer context; as people and prices change, so does all of it."""
    made = declared(1, {"ask": "care"}, [], kind="embeddings")
    (chat,) = [each for each in made.deployments if each.name == "at-cloud"]
    dear = msgspec.structs.replace(chat, model="acme/dear", rates=Rates(input=10**6 * PICO, output=0, source="mine"))
    places = [dear if each.name == "at-cloud" else each for each in made.deployments]
    made = msgspec.structs.replace(made, deployments=places)
    release(conn, made, morning_of(FIRST))
    add_call(conn, FIRST, "ask", 1, "care", tokens=[("rack", 100)])
    add_call(conn, FIRST, "ask", 1, "care", tokens=[("cloud", 7)])
    days = Days(FIRST, FIRST)
    for model in ("at-cloud", "acme/dear"):
        told = cost_what_if.scenario(conn, days, None, ["context=2"], model)
        assert (told["before_usd"], told["price_source"]) == (format_usd(2 * PICO), "mine")
        assert told["after_usd"] == format_usd(PICO + 14 * PICO), "14 tokens at a dollar each, the embedding as it was"
    assert cost_what_if.scenario(conn, days, None, ["users=3"], None)["after_usd"] == format_usd(6 * PICO)


def test_a_rate_of_a_place_counts_what_was_done_there(conn: Conn) -> None:
    rates = [
        Allocation(name=name, term=term, rate=PICO, per=per, covers="deployment/at-rack", source="contract")
        for name, term, per in (("desk", "support", "1000 calls"), ("power", "energy", "1M tokens"))
    ]
    release(conn, declared(1, {"ask": "care"}, rates), morning_of(FIRST))
    for place, count in (("rack", 400_000), ("cloud", 900_000), ("rack", 600_000)):
        add_call(conn, FIRST, "ask", 1, "care", tokens=[(place, count)])
    add_call(conn, FIRST, "ask", 1, "care", tokens=[("rack", 70_000)], cache="exact")  # nothing was asked there
    told = {line.term: line.amount for line in book(conn, FIRST, FIRST) if line.allocation}
    assert told == {"support": 2 * PICO // 1000, "energy": PICO}


@pytest.mark.parametrize("folded", [False, True])
def test_own_hardware_is_told_by_what_was_made_on_it(conn: Conn, database: Database, folded: bool) -> None:
    rack = Allocation(
        name="rack", term="capacity", amount=10 * PICO, period="day", covers="deployment/at-rack", source="invoice 7"
    )
    release(conn, declared(1, {"ask": "care"}, [rack]), morning_of(FIRST))
    people = {}
    for name in ("ana", "bo"):
        people[name] = new_id()
        conn.execute("INSERT INTO person (id, email, name) VALUES (%s, %s, %s)", (people[name], name, name))
    documents = {}
    with psycopg.connect(database.urls["control"]) as control:
        for source in ("handbook", "prices"):
            documents[source] = str(new_id())
            control.execute(
                "INSERT INTO source (name, sensitivity, owner, path) VALUES (%s, 'internal', 'hana', 'x')", (source,)
            )
            control.execute(
                "INSERT INTO document (id, source, path, title, digest) VALUES (%s, %s, 'a', 't', 'd')",
                (documents[source], source),
            )
    local: dict[str, Any] = {"feature": "local", "person": people["ana"], "document": documents["handbook"], "cost": 0}
    paid: dict[str, Any] = {
        "feature": "paid",
        "person": people["bo"],
        "document": documents["prices"],
        "cost": 9 * PICO,
    }
    add_call(conn, FIRST, "ask", 1, "care", tokens=[("rack", 200)], **local)
    add_call(conn, FIRST, "ask", 1, "care", tokens=[("rack", 100)], **local)
    add_call(conn, FIRST, "ask", 1, "care", tokens=[("cloud", 800)], **paid)
    add_call(conn, FIRST, "ask", 1, "care", tokens=[("rack", 100)], **{**paid, "cost": 0})
    if folded:
        rollup_store.roll_up(conn)
    with psycopg.connect(database.urls["control"]) as control:
        lines = book(control, FIRST, FIRST)
        for days in (Days(FIRST, FIRST), Days(FIRST.replace(day=1), FIRST.replace(day=30))):
            for dimension, own, elsewhere in (
                ("feature", "local", "paid"), ("person", "ana", "bo"), ("source", "handbook", "prices"),
            ):  # fmt: skip
                sums = cost_spread.breakdown(control, lines, days, dimension)
                assert {(key, basis): amount for key, basis, amount, _ in sums} == {
                    (own, "allocated"): 15 * PICO // 2, (elsewhere, "allocated"): 5 * PICO // 2,
                    (elsewhere, "measured"): 9 * PICO,
                }  # fmt: skip


def test_an_hour_of_review_is_paid_by_what_covers_it_most_closely() -> None:
    def wage(name: str, usd: int, covers: str, **more: Any) -> Allocation:
        return Allocation(name=name, term="review", rate=usd * PICO, per="review hour", covers=covers, **more)

    rules = [
        wage("a-company", 30, "company"), wage("b-desks", 5, "company"), wage("c-legal", 90, "team/legal"),
        wage("d-ask", 50, "workload/ask"), wage("e-later", 70, "workload/write", since="2027-01-01"),
    ]  # fmt: skip
    made = cost_rules.declared_costs(declared(1, {"ask": "legal", "read": "legal", "write": "care"}, rules))
    told = {name: cost_rules.hourly_review_cost(made, FIRST, name) for name in ("ask", "read", "write", "gone")}
    assert told == {"ask": 50 * PICO, "read": 90 * PICO, "write": 35 * PICO, "gone": 35 * PICO}
    assert (
        cost_rules.hourly_review_cost(cost_rules.declared_costs(declared(1, {"ask": ""}, rules[2:4])), FIRST, "read")
        is None
    )


def test_a_receipt_has_its_part_of_what_is_allocated(conn: Conn) -> None:
    rules = [
        platform(10 * PICO),
        Allocation(name="store", term="database", amount=PICO, period="day", by="cost", source="contract"),
        Allocation(
            name="rack", term="capacity", amount=9 * PICO, period="day", covers="deployment/at-rack", source="invoice 7"
        ),
        Allocation(name="desk", term="support", rate=3 * PICO, per="1000 calls", source="contract"),
        Allocation(name="grant", term="credit", amount=-7, period="day", by="calls", source="contract"),
    ]
    release(conn, declared(1, {"ask": "care", "write": "sales"}, rules), morning_of(FIRST))
    add_call(conn, FIRST, "ask", 1, "care", tokens=[("rack", 100), ("cloud", 50)], cost=PICO)
    add_call(conn, FIRST, "ask", 1, "care", tokens=[("rack", 200)], cost=0)
    add_call(conn, FIRST, "write", 1, "sales", tokens=[("rack", 600)], cost=2 * PICO)
    calls = [row[0] for row in conn.execute("SELECT id FROM call ORDER BY id").fetchall()]
    found = [cost_receipt.allocated_to_call(conn, queries.receipt(conn, id), TODAY) for id in calls]
    told = [{term["term"]: from_decimal(Decimal(term["cost_usd"])) for term in each["terms"]} for each in found]
    lines = sum_by(cost_book.allocated_lines(conn, Days(FIRST, FIRST)), "workload", "term")
    assert told[0]["capacity"] == PICO and told[1]["capacity"] == 2 * PICO and told[2]["capacity"] == 6 * PICO
    assert told[0]["database"] == PICO // 2 == lines["ask", "database"] and "database" not in told[1]
    assert told[0]["platform"] == told[1]["platform"] == lines["ask", "platform"] // 2
    assert told[0]["support"] == 3 * PICO // 1000
    for (workload, term), amount in lines.items():
        mine = [each.get(term, 0) for each, id in zip(told, calls, strict=True) if _of(conn, id) == workload]
        assert abs(amount) - len(mine) < abs(sum(mine)) <= abs(amount)
    assert told[0]["credit"] == told[1]["credit"] == -2 and lines["ask", "credit"] == -5
    (part,) = [term for term in found[0]["terms"] if term["term"] == "capacity"]
    assert part["rule"] == f"100 of 300 tokens at at-rack of ask on {FIRST}: by tokens at at-rack (allocation rack)"
    assert (part["basis"], part["source"], part["blueprints"]) == ("allocated", "invoice 7", [1])
    assert found[0]["cost_usd"] == format_usd(sum(told[0].values()))
    today = cost_receipt.allocated_to_call(conn, queries.receipt(conn, calls[0]), FIRST)
    assert not today["known"] and today["terms"] == [] and "is over" in today["told"]


def test_a_receipt_counts_the_tokens_of_its_day_alone(conn: Conn) -> None:
    rack = Allocation(name="rack", term="capacity", amount=9 * PICO, period="day", covers="deployment/at-rack")
    release(conn, declared(1, {"ask": "care"}, [rack]), morning_of(FIRST))
    add_call(conn, FIRST, "ask", 1, "care", tokens=[("rack", 100), ("rack", 400)], midnight=True)
    ((call,),) = conn.execute("SELECT id FROM call").fetchall()
    found = cost_receipt.allocated_to_call(conn, queries.receipt(conn, call), TODAY)
    assert found["cost_usd"] == format_usd(9 * PICO)
    assert found["terms"][0]["rule"].startswith("100 of 100 tokens at at-rack")


def test_minutes_of_reviewers_are_measured_where_counted_and_estimated_where_said(conn: Conn) -> None:
    wage = Allocation(name="people", term="review", rate=60 * PICO, per="review hour", source="HR 2026")
    release(conn, declared(1, {"ask": "care"}, [wage]), morning_of(FIRST))
    for _ in range(3):
        add_call(conn, FIRST, "ask", 1, "care")
    calls = [row[0] for row in conn.execute("SELECT id FROM call ORDER BY id").fetchall()]
    for id, minutes, said in ((calls[0], 4, False), (calls[1], 6, True), (new_id(), 12, False)):
        conn.execute(
            """INSERT INTO held_call (id, kind, workload, key_id, gateway, due_at, state, decided_at, minutes,
                 minutes_said) VALUES (%s, 'answer', 'ask', %s, %s, now(), 'released', %s, %s, %s)""",
            (id, new_id(), new_id(), morning_of(FIRST), minutes, said),
        )
    lines = [line for line in book(conn, FIRST, FIRST) if line.allocation]
    assert {line.basis: line.amount for line in lines} == {"measured": 16 * PICO, "estimated": 6 * PICO}
    assert {line.basis: line.rule for line in lines} == {
        "measured": "0.266667 x rate for each review hour (allocation people)",
        "estimated": "0.1 x rate for each review hour, as it was said (allocation people)",
    }
    found = [cost_receipt.allocated_to_call(conn, queries.receipt(conn, id), TODAY) for id in calls]
    assert [[(term["basis"], term["cost_usd"]) for term in each["terms"]] for each in found] == [
        [("measured", format_usd(4 * PICO))], [("estimated", format_usd(6 * PICO))], [],
    ], "of the answers that somebody looked at, and of no other"  # fmt: skip


def test_uses_of_tools_are_a_term_of_their_own(conn: Conn) -> None:
    crm = Allocation(name="crm", term="tools", rate=8 * PICO, per="1000 tool uses", source="contract 9")
    release(conn, declared(1, {"ask": "care", "write": "sales"}, [crm]), morning_of(FIRST))
    for workload, endpoint, count in (("ask", "mcp", 3), ("ask", "responses", 5), ("write", "mcp", 1)):
        for _ in range(count):
            add_call(conn, FIRST, workload, 1, "", endpoint=endpoint, cost=0)
    (ask, write) = [line for line in book(conn, FIRST, FIRST) if line.allocation]
    assert (ask.term, ask.basis, ask.amount, write.amount) == ("tools", "measured", 24 * PICO // 1000, 8 * PICO // 1000)
    assert ask.rule == "0.003 x rate for each 1000 tool uses (allocation crm)"
    rows = conn.execute("SELECT id FROM call WHERE workload = 'ask' ORDER BY endpoint DESC, id").fetchall()
    told = [cost_receipt.allocated_to_call(conn, queries.receipt(conn, id), TODAY)["cost_usd"] for (id,) in rows]
    assert told == [format_usd(0)] * 5 + [format_usd(PICO * 8 // 1000)] * 3


def _of(conn: Conn, call: Any) -> str:
    row = conn.execute("SELECT workload FROM call WHERE id = %s", (call,)).fetchone()
    assert row is not None
    return str(row[0])
