"""What cannot be right of prices, currencies, allocations, evaluation sets is refused: what, where, and what to do."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.unit.test_catalog_check import BASE

from groundplan.catalog.check import validate_files
from groundplan.core.errors import Invalid, Problem
from groundplan.economics.routing.learn.evaluation_set import read_matrix

PRICED = BASE.replace("url: https://acme.example/v1", "url: https://acme.example/v1\nprice: PRICE", 1)
RULE = "---\nkind: allocation\nname: {}\nterm: platform\ncost: {}\nsource: contract\n{}"


def problem_of(text: str, **options: object) -> Problem:
    with pytest.raises(Invalid) as refused:
        validate_files({"acme.yaml": text}, **options)  # type: ignore[arg-type]
    return refused.value.problems[0]


@pytest.mark.parametrize(
    ("price", "told"),
    [
        ("{input: -0.40 USD/Mtok, output: 1 USD/Mtok}", "price"),
        ("{input: 0.40 USD/Mtok}", "output"),
        ("{input: 0.40, output: 1 USD/Mtok}", "price"),
        ("{input: 0.40 USD/Mtok, output: 1 USD/Mtok, request: -1 USD}", "amount"),
        ("{input: 0.40 EUX/Mtok, output: 1 EUX/Mtok}", "ISO 4217"),
        ("{input: 0.40 EUR/Mtok, output: 1 NOK/Mtok}", "one currency"),
        ("[{input: 1 USD/Mtok, output: 1 USD/Mtok}, {input: 2 USD/Mtok, output: 2 USD/Mtok}]", "from"),
        (
            "[{input: 1 USD/Mtok, output: 1 USD/Mtok, from: 2026-01-01}, "
            "{input: 2 USD/Mtok, output: 2 USD/Mtok, from: 2026-01-01}]",
            "from: date",
        ),
    ],
)
def test_prices_that_cannot_be(price: str, told: str) -> None:
    problem = problem_of(PRICED.replace("PRICE", price))
    assert told in f"{problem.message} {problem.hint}"
    assert problem.hint and problem.where is not None and problem.where.file == "acme.yaml"


@pytest.mark.parametrize(
    ("declared", "label", "told"),
    [
        ("{EUR: {source: bank, rates: []}}", "currencies.EUR.rates is", "Write at least 1 of them."),
        ("{EUR: {source: bank, rates: [{from: 2026-01-01, rate: 0 USD}]}}", "currencies.EUR.rates.rate is", "than 0"),
        ("{EUR: {source: bank, rates: [{from: 2026-01-01, rate: -1 USD}]}}", "EUR.rates.rate is", "12.50 USD"),
        ("{EUX: {source: bank, rates: [{from: 2026-01-01, rate: 1 USD}]}}", "currencies.EUX is", "ISO 4217"),
    ],
)
def test_rates_of_currencies_that_cannot_be(declared: str, label: str, told: str) -> None:
    """One problem of what is wrong, and none of the list that is empty without it."""
    with pytest.raises(Invalid) as refused:
        validate_files({"acme.yaml": BASE.replace("name: acme\n", f"name: acme\ncurrencies: {declared}\n", 1)})
    (problem,) = refused.value.problems
    assert label in problem.message and told in (problem.hint or "")


def test_a_model_without_any_price() -> None:
    problem = problem_of(BASE, known_price=lambda _: False)
    assert problem.code == "price_missing" and "price:" in problem.hint


@pytest.mark.parametrize(
    ("rules", "code"),
    [
        ([("a", "10 USD/month", ""), ("b", "10 USD/month", "")], "allocation_twice"),
        ([("a", "10 USD/month", "until: 2026-02-10\n"), ("b", "1 USD/day", "from: 2026-02-10\n")], "allocation_twice"),
        ([("a", "10 USD/month", ""), ("b", "12 USD/month", "from: 2026-12-01\n")], "allocation_twice"),
        ([("a", "10 USD/month", "from: 2026-12-01\n"), ("b", "9 USD/month", "")], "allocation_twice"),
        (
            [("a", "10 USD/month", "from: 2026-01-01\n"), ("b", "1 USD/day", "from: 2026-02-10\nuntil: 2026-03-01\n")],
            "allocation_twice",
        ),
        ([("a", "10 EUR/month", "from: 2026-01-01\n")], "currency_unknown"),
        ([("a", "10 USD/month", "by: shares\nshares: {nobody: 1}\n")], "unknown_workload"),
    ],
)
def test_allocations_that_cannot_be(rules: list[tuple[str, str, str]], code: str) -> None:
    problem = problem_of(BASE + "".join(RULE.format(*each) for each in rules))
    assert problem.code == code and problem.hint


def test_allocations_one_after_the_other_are_in_order() -> None:
    after = [("a", "10 USD/month", "until: 2026-02-10\n"), ("b", "1 USD/day", "from: 2026-02-11\n")]
    assert len(validate_files({"a.yaml": BASE + "".join(RULE.format(*each) for each in after)}).allocations) == 2


CAMERA = (
    "---\nkind: allocation\nname: {}\nterm: device\npurchase: 900 USD\nlife: 1095d\ncount: {}\nfrom: {}\nsource: {}\n"
)
WAGE = "---\nkind: allocation\nname: {}\nterm: review\nrate: {} USD\nper: review hour\nsource: HR 2026\n"


def test_several_costs_of_one_term_are_told_by_what_they_are_from() -> None:
    first, second = ("cameras", 40, "2026-01-01", "invoice 9"), ("more-cameras", 20, "2027-01-01", "invoice 31")
    made = validate_files({"a.yaml": BASE + CAMERA.format(*first) + CAMERA.format(*second)}).allocations
    assert list(made) == ["cameras", "more-cameras"]
    again = ("again", 40, "2026-06-01", "invoice 9")
    problem = problem_of(BASE + CAMERA.format(*first) + CAMERA.format(*again))
    assert problem.code == "allocation_twice" and "say by source" in problem.hint
    followed = ("again", 40, "2026-06-01", "invoice 10")
    assert len(validate_files({"a.yaml": BASE + CAMERA.format(*first) + CAMERA.format(*followed)}).allocations) == 2
    wages = WAGE.format("wages", 45) + WAGE.format("desks", 6)
    assert len(validate_files({"a.yaml": BASE + wages}).allocations) == 2
    platforms = RULE.format("a", "10 USD/month", "") + RULE.format("b", "25 USD/month", "").replace("contract", "two")
    assert len(validate_files({"a.yaml": BASE + platforms}).allocations) == 2


@pytest.mark.parametrize(
    ("lines", "told", "line"),
    [
        ("rate: 0.50 USD\nper: gigabyte of answer", "Did you mean gigabyte of answers?", 5),
        ("rate: 0.50 USD\nper: hour", "review hour, gigabyte of documents,", 5),
        ("rate: 45 USD/hour\nper: review hour", "12.50 USD or 11.60 EUR", 4),
        ("cost: 45 USD/hour", "rate: 45 USD with per: review hour", 4),
        ("cost: -5 USD/month", "0 or more", 4),
        ("cost: 5 USD/total", "day, week, month, quarter or year", 4),
        ("cost: 5 USD/month\ncovers: sites/rack", "workload/NAME, deployment/NAME or site/NAME", 5),
        ("rate: 45 EUR\nper: review hour", "currencies: {EUR:", 4),
        ("purchase: 900 EUR\nlife: 365d\nfrom: 2026-01-01", "currencies: {EUR:", 4),
    ],
)
def test_a_first_allocation_is_told_its_line_and_what_to_write(lines: str, told: str, line: int) -> None:
    rule = f"kind: allocation\nname: first\nterm: platform\n{lines}\nsource: contract\n"
    with pytest.raises(Invalid) as refused:
        validate_files({"a.yaml": BASE, "costs.yaml": rule})
    (problem,) = refused.value.problems
    assert told in (problem.hint or "") and "literal" not in problem.message, problem
    assert problem.where is not None and (problem.where.file, problem.where.line) == ("costs.yaml", line)


def test_uses_of_tools_are_of_workloads_and_not_of_places() -> None:
    rule = "---\nkind: allocation\nname: crm\nterm: tools\nrate: 5 USD\nper: 1000 tool uses\nsource: contract\n"
    assert validate_files({"a.yaml": BASE + rule}).allocations["crm"].per == "1000 tool uses"
    assert "tools are used by workloads" in problem_of(f"{BASE}{rule}covers: site/rack\n").hint.lower()


def test_an_evaluation_set_with_leaks_between_folds(tmp_path: Path) -> None:
    file = tmp_path / "set.jsonl"
    rows = [
        {"id": n, "group": f"g{n}", "prompt": f"question {n}", "scores": {"a": 1, "b": 0}, "costs": {"a": 2, "b": 1}}
        for n in range(30)
    ]
    file.write_text("\ufeff" + "\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    assert len(read_matrix(file).samples) == 30, "a mark of the byte order is no part of it"
    rows[17]["prompt"] = "  QUESTION 4? "
    file.write_text("\n".join(json.dumps(row) for row in rows))
    with pytest.raises(Invalid) as refused:
        read_matrix(file)
    assert refused.value.code == "evaluation_leak" and "one group" in refused.value.hint
    assert refused.value.where is not None and getattr(refused.value.where, "line", 0) == 18
