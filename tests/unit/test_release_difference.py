"""Differences in words: only what differs, amounts in USD, long texts told apart."""

from __future__ import annotations

import msgspec
from tests.integration.test_api_control import WORKSPACE
from tests.unit.test_calendar import compiled

from groundplan.blueprint.artifact import decode, encode
from groundplan.blueprint.model import (
    ApprovalTerms,
    Blueprint,
    Budget,
    Cache,
    Caps,
    Deployment,
    Hedge,
    Keep,
    PriceWindow,
    Rates,
    Reliability,
    Review,
    RouteRule,
    Routing,
    Semantic,
    Site,
    Workload,
)
from groundplan.release.difference import differences
from groundplan.release.model import Field
from groundplan.release.units import workload_digest

WORKLOAD = Workload(
    name="assistant",
    purpose="answers",
    stage="pilot",
    sensitivity="internal",
    audience="employees",
    residency=["EU"],
    deployments=["own"],
    budgets=["all"],
    owners={"business": ["ana@a.example"]},
    system_prompt="Be kind. " * 40,
)
OLD = Blueprint(
    number=1,
    company="acme",
    separation="enforced",
    sites=[Site(name="rack", type="private", jurisdiction="EU")],
    deployments=[
        Deployment(
            name="own",
            site="rack",
            model="own",
            upstream_model="own",
            url="http://127.0.0.1/v1",
            rates=Rates(input=150_000_000_000, output=10**12),
        )
    ],
    sources=[],
    workloads=[WORKLOAD],
    budgets=[Budget(name="all", covers="company", limit=200 * 10**12, period="month")],
    placements=[],
)


def changed(**parts: object) -> dict[str, tuple[Field, ...]]:
    new = msgspec.structs.replace(OLD, number=2, **parts)
    return {f"{item.type} {item.subject}": item.fields for item in differences(OLD, new)}


def test_a_number_alone_is_no_difference() -> None:
    assert changed() == {}


def test_amounts_are_told_in_usd() -> None:
    budget = msgspec.structs.replace(OLD.budgets[0], limit=12_500_000_000_000)
    assert changed(budgets=[budget]) == {"changed budget/all": (Field("limit", "200 USD", "12.50 USD"),)}
    cheaper = msgspec.structs.replace(OLD.deployments[0], rates=Rates(input=10**11, output=10**12))
    assert changed(deployments=[cheaper]) == {
        "changed deployment/own": (Field("rates.input", "0.15 USD/Mtok", "0.10 USD/Mtok"),)
    }


def test_nested_values_have_their_path_and_absent_ones_are_none() -> None:
    owners = {"business": ["ben@a.example"], "security": ["sam@a.example"]}
    assert changed(workloads=[msgspec.structs.replace(WORKLOAD, owners=owners)])["changed workload/assistant"] == (
        Field("owners.business", "ana@a.example", "ben@a.example"),
        Field("owners.security", None, "sam@a.example"),
    )
    assert changed(caps=Caps(people=None))["changed company"] == (Field("caps.people", "25", None),)


def test_long_texts_that_differ_at_the_end_are_told_apart() -> None:
    prompt = "Be kind. " * 39 + "Be brief."
    (field,) = changed(workloads=[msgspec.structs.replace(WORKLOAD, system_prompt=prompt)])[
        "changed workload/assistant"
    ]
    assert field.old and field.new and field.old != field.new
    assert "360 characters" in field.old and len(field.new) < 200


def test_added_and_removed() -> None:
    assert list(changed(workloads=[], budgets=[])) == ["removed workload/assistant", "removed budget/all"]
    first = {f"{item.type} {item.subject}" for item in differences(None, OLD)}
    assert first == {
        "added company", "added site/rack", "added deployment/own", "added workload/assistant", "added budget/all",
    }  # fmt: skip


def test_a_price_to_come_is_told_with_its_day() -> None:
    then = Rates(input=10**11, output=10**12, request=10**9)
    dated = msgspec.structs.replace(OLD.deployments[0].rates, then=then, then_from="2026-12-01")
    place = msgspec.structs.replace(OLD.deployments[0], rates=dated)
    (fields,) = changed(deployments=[place]).values()
    assert {each.field: each.new for each in fields} == {
        "rates.then.input": "0.10 USD/Mtok", "rates.then.output": "1 USD/Mtok", "rates.then.request": "0.001 USD",
        "rates.then.source": "declared", "rates.then_from": "2026-12-01",
    }  # fmt: skip


def test_money_of_a_workload_is_told_in_dollars() -> None:
    semantic = Semantic(wrong_cost=2 * 10**12, hour=50_000_000_000)
    cache = Cache(seconds=60, max_bytes=1000, scope="person", semantic=semantic)
    dear = msgspec.structs.replace(WORKLOAD, max_cost_per_call=20_000_000_000, cache=cache)
    (found,) = differences(OLD, msgspec.structs.replace(OLD, workloads=[dear]))
    told = {field.field: field.new for field in found.fields}
    assert told["max_cost_per_call"] == "0.02 USD"
    assert (told["cache.semantic.wrong_costs"], told["cache.semantic.processor"]) == ("2 USD", "0.05 USD/hour")
    assert told["cache.ttl"] == "1min"


MORE = """\
---
kind: workflow
name: cases
outcome: a case is closed
baseline: {cost_per_case: 12.90 USD, measured: 2026-08-31}
---
kind: limit
name: each-key
covers: key
requests: [60/minute, 5000/day]
cost: 5 USD/day
"""


def test_times_sizes_and_shares_are_told_as_the_workspace_writes_them() -> None:
    rule = RouteRule(name="at-stake", use="own", words=["refund", "lawyer"])
    served = msgspec.structs.replace(
        WORKLOAD, deadline_ms=45_000, grace_ms=0, file_bytes=64_000_000, batch_concurrent=8,
        cache=Cache(seconds=14_400, max_bytes=64_000_000, scope="person", semantic=Semantic(bound=0.02)),
        review=Review(within_ms=300_000, share=2_500),
        keep=Keep(content="full", seconds=30 * 86_400),
        reliability=Reliability(same=2, backoff_ms=500, hedge=Hedge(after_ms=250)),
        routing=Routing(rules=[rule], keep=0.975, quality={"own": {"tone": 0.93}}),
    )  # fmt: skip
    (found,) = differences(OLD, msgspec.structs.replace(OLD, workloads=[served]))
    told = {field.field: field.new for field in found.fields}
    assert {name: told[name] for name in (
        "deadline", "grace", "files.max_size", "batches.concurrent", "cache.ttl", "cache.max_size",
        "cache.semantic.wrong_at_most", "review.within", "review.share", "keep.for", "keep.share",
        "reliability.hedge.after", "reliability.hedge.at_most", "reliability.retries.backoff",
        "reliability.retries.same", "routing.keep", "routing.quality.own.tone",
        "routing.rules",
    )} == {
        "deadline": "45s", "grace": "0ms", "files.max_size": "64 MB", "batches.concurrent": "8", "cache.ttl": "4h",
        "cache.max_size": "64 MB", "cache.semantic.wrong_at_most": "2%", "review.within": "5min",
        "review.share": "25%", "keep.for": "30d", "keep.share": "100%", "reliability.hedge.after": "250ms",
        "reliability.hedge.at_most": "5%", "reliability.retries.backoff": "500ms", "reliability.retries.same": "2",
        "routing.keep": "97.5%", "routing.quality.own.tone": "93%",
        "routing.rules": "{name: at-stake, use: own, words: [refund, lawyer]}",
    }  # fmt: skip
    assert not [name for name in told if name.endswith(("_ms", "_bytes", "seconds"))]
    slower = msgspec.structs.replace(OLD.deployments[0], first_token_ms=300_000)
    assert changed(deployments=[slower]) == {"changed deployment/own": (Field("timeouts.first_token", "30s", "5min"),)}
    band = {
        field.field: field.new for field in changed(approval_terms=ApprovalTerms(price_band=0.15))["changed company"]
    }
    assert band["approvals.price_band"] == "15%"


def test_what_changes_money_without_a_price_is_told() -> None:
    """Rates of currencies, baselines of workflows and limits: a plan that says nothing of them is approved unread."""
    text = WORKSPACE.replace("deployments: [local]\n", "deployments: [local]\nworkflow: cases\n") + MORE
    rates = "format: 1\ncurrencies: {EUR: {source: bank, rates: [{from: 2026-01-01, rate: 1.08 USD}]}}\n"
    old = compiled(text.replace("format: 1\n", rates))
    assert [(each.name, each.workloads, each.cost_per_case) for each in old.workflows] == [
        ("cases", ["assistant"], 12_900_000_000_000)
    ]
    assert decode(encode(old)) == old

    def told(change: tuple[str, str]) -> list[tuple[str, str, list[tuple[str, str | None, str | None]]]]:
        assert change[0] in text.replace("format: 1\n", rates)
        new = compiled(text.replace("format: 1\n", rates).replace(*change))
        assert workload_digest(old, old.workloads[0]) == workload_digest(new, new.workloads[0]), "it ends no approval"
        return [
            (each.type, each.subject, [(f.field, f.old, f.new) for f in each.fields]) for each in differences(old, new)
        ]

    assert told(("1.08 USD", "1.12 USD")) == [
        ("changed", "company", [("currencies.EUR.2026-01-01", "1.08 USD", "1.12 USD")])
    ]
    assert told(("12.90 USD", "7.40 USD")) == [
        ("changed", "workflow/cases", [("cost_per_case", "12.90 USD", "7.40 USD")])
    ]
    assert told(("workflow: cases\n", "")) == [("removed", "workflow/cases", [])]
    assert told(("5000/day", "9000/day")) == [("changed", "limit/each-key", [("requests.day", "5000", "9000")])]
    assert told(("cost: 5 USD/day\n", "")) == [("changed", "limit/each-key", [("cost.day", "5 USD", None)])]


def test_prices_are_told_by_what_they_are_of_and_hours_by_their_time() -> None:
    night = Rates(input=10**10, output=10**11, long_above=200_000, long=Rates(input=2 * 10**10, output=10**11))
    rates = Rates(
        input=150_000_000_000, output=10**12, minute=6 * 10**9, characters=15 * 10**12,
        images={"1024x1024": 4 * 10**10}, windows=[PriceWindow(start=1320, end=1440, rates=night)],
    )  # fmt: skip
    (fields,) = changed(deployments=[msgspec.structs.replace(OLD.deployments[0], rates=rates)]).values()
    at = "rates.22:00-24:00."
    assert {each.field: each.new for each in fields if not each.field.endswith("source")} == {
        "rates.minute": "0.006 USD/minute", "rates.characters": "15 USD/Mchar", "rates.images.1024x1024": "0.04 USD",
        f"{at}input": "0.01 USD/Mtok", f"{at}output": "0.10 USD/Mtok", f"{at}long_above": "200000 tokens",
        f"{at}long.input": "0.02 USD/Mtok", f"{at}long.output": "0.10 USD/Mtok",
    }  # fmt: skip
