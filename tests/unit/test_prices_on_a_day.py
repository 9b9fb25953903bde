"""Which declared price holds on a day: free ones have theirs like any, and `check` tells what says nothing yet."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pytest
from tests.unit.test_release_plan import BASE, plan_of
from typer.testing import CliRunner

from groundplan.blueprint.model import Rates
from groundplan.catalog.loader import load_files
from groundplan.catalog.workspace import Workspace
from groundplan.cli.main import app
from groundplan.core.errors import Invalid, Problem
from groundplan.core.money import PICO
from groundplan.release.compile import pricing

OWN = BASE.replace("model: openai/gpt-4.1-mini\n", "model: acme/own\nprice: PRICE\n")
EUR = "approvals: {parts: []}\ncurrencies: {EUR: {source: the bank, rates: [{from: 2026-06-01, rate: 1.10 USD}]}}\n"


def workspace(price: str, *, euro: bool = False) -> Workspace:
    text = OWN.replace("PRICE", price)
    return load_files({"a.yaml": text.replace("approvals: {parts: []}\n", EUR) if euro else text})


def price_on(read: Workspace, day: str) -> Rates | Problem:
    return pricing.declared_or_listed(read, read.deployments["gpt-eu"], date.fromisoformat(day))


def inputs(read: Workspace, *days: str) -> list[int | str]:
    found = (price_on(read, day) for day in days)
    return [each.input // PICO if isinstance(each, Rates) else each.code for each in found]


FREE, LATER = "input: 0 USD/Mtok, output: 0 USD/Mtok", "from: 2026-06-01, "
PAID = "input: 3 USD/Mtok, output: 2 USD/Mtok"


@pytest.mark.parametrize(
    ("price", "said"),
    [
        (f"[{{{PAID}}}, {{{LATER}{FREE}}}]", [3, 0]),
        (f"[{{{FREE}}}, {{{LATER}{PAID}}}]", [0, 3]),
        (f"{{{LATER}{FREE}}}", ["price_missing", 0]),
        (f"[{{from: 2026-01-01, {PAID}}}, {{{LATER}{FREE}}}]", [3, 0]),
    ],
)
def test_a_price_of_nothing_has_its_day_like_any(price: str, said: list[int | str]) -> None:
    read = workspace(price)
    assert inputs(read, "2026-05-31", "2026-06-01") == said
    free = price_on(read, "2026-06-01" if said[1] == 0 else "2026-05-31")
    assert isinstance(free, Rates) and free.source == "declared free"


def test_a_blueprint_has_what_follows_for_a_month_of_weeks() -> None:
    """Else calls would cost the first of them for as long as nobody makes the next blueprint."""
    weeks = ", ".join(f"{{from: 2026-06-{day:02d}, rate: 1.{day:02d} USD}}" for day in (1, 8, 15, 22, 29))
    prices = f"[{{{PAID}}}, {{from: 2026-06-01, input: 100 EUR/Mtok, output: 200 EUR/Mtok}}]"
    text = OWN.replace("PRICE", prices).replace(
        "approvals: {parts: []}\n", EUR.replace(EUR[EUR.index("{from") : EUR.index("]}}")], weeks)
    )
    read = load_files({"a.yaml": text})
    held = pricing.rates_with_successors(read, read.deployments["gpt-eu"], date(2026, 5, 1))
    told = []
    while isinstance(held, Rates) and held.then is not None:
        told.append((held.then_from, held.then.input // PICO))
        held = held.then
    assert told == [(f"2026-06-{day:02d}", 100 + day) for day in (1, 8, 15, 22, 29)]


@pytest.mark.parametrize("more", ["cache_read: 1 USD/Mtok", "batch: {input: 1 USD/Mtok}", "reasoning: 1 USD/Mtok"])
def test_what_costs_in_any_class_is_not_free(more: str) -> None:
    read = workspace(f"{{input: 0 USD/Mtok, output: 0 USD/Mtok, {more}}}")
    found = price_on(read, "2026-06-01")
    assert isinstance(found, Rates) and found.source != "declared free"
    assert PICO in (found.cache_read, found.reasoning, found.batch and found.batch.input)


@pytest.mark.parametrize("other", ["priority: {", "batch: {", "hours: {hours: 01:00-02:00, "])
@pytest.mark.parametrize(
    ("its", "of_long", "said"),
    [
        ("input: 3 USD/Mtok", "cache_read: 1 USD/Mtok", 3),  # what was read costs as any input there
        ("cache_read: 1 USD/Mtok", "input: 4 USD/Mtok", 4),
        ("cache_read: 5 USD/Mtok", "cache_read: 4 USD/Mtok", 5),
        ("input: 1 USD/Mtok", "input: 2 USD/Mtok", None),
    ],
)
def test_a_long_prompt_in_another_class_of_service_costs_the_dearer_of_both(
    other: str, its: str, of_long: str, said: int | None
) -> None:
    read = workspace(f"{{input: 2 USD/Mtok, output: 9 USD/Mtok, long: {{above: 9, {of_long}}}, {other}{its}}}}}")
    found = price_on(read, "2026-06-01")
    assert isinstance(found, Rates)
    made = found.priority or found.batch or found.windows[1].rates
    assert made.long is not None and made.long.cache_read == (said and said * PICO)


def test_a_price_that_was_replaced_needs_no_rate_of_its_currency() -> None:
    replaced = "[{input: 1 EUR/Mtok, output: 2 EUR/Mtok}, {from: 2026-02-01, input: 5 USD/Mtok, output: 6 USD/Mtok}]"
    read = workspace(replaced, euro=True)
    assert inputs(read, "2026-01-31", "2026-02-01") == ["currency_rate_missing", 5]
    assert inputs(workspace("{input: 0 EUR/Mtok, output: 0 EUR/Mtok}", euro=True), "2026-01-31") == [0]


@pytest.mark.parametrize(
    ("price", "code"),
    [
        ("{from: 2026-12-01, input: 1 USD/Mtok, output: 2 USD/Mtok}", "price_missing"),
        ("{input: 1 EUR/Mtok, output: 2 EUR/Mtok}", "currency_rate_missing"),
    ],
)
def test_what_plan_refuses_of_a_price_check_tells(price: str, code: str, tmp_path: Path) -> None:
    text, day = OWN.replace("PRICE", price).replace("approvals: {parts: []}\n", EUR), date(2026, 5, 1)
    (told,) = pricing.price_problems(load_files({"a.yaml": text}), day)
    assert told.code == code and told.where is not None
    assert ("for the time before" if code == "price_missing" else "Add {from: 2026-05-01") in told.hint
    assert text.splitlines()[told.where.line - 1].startswith("price:")
    assert code in {each.code for each in plan_of(text, today=day).refusals}
    (tmp_path / "handbook").mkdir()
    (tmp_path / "a.yaml").write_text(text.replace("2026", "2999"))
    refused = CliRunner().invoke(app, ["check", str(tmp_path)]).exception
    assert isinstance(refused, Invalid) and [each.code for each in refused.problems] == [code]


def test_of_a_listed_model_the_list_holds_until_the_declared_price_begins() -> None:
    text = BASE.replace(
        "model: openai/gpt-4.1-mini\n",
        "model: openai/gpt-4.1-mini\nprice: {from: 2999-01-01, input: 1 USD/Mtok, output: 2 USD/Mtok}\n",
    )
    assert list(pricing.price_problems(load_files({"a.yaml": text}), date(2026, 5, 1))) == []
