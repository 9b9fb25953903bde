"""The example company as `make run` starts it, while nobody does anything: support saves by routing and cache without
falling below its floors of tone and accuracy, as its answers are judged; finance keeps its large model, and says why.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.acceptance.example_company import company, judged, kept, page
from tests.acceptance.stack import Stack, wait_until

JUDGED = 60
"""Answers of which each dimension is judged soon after the start."""
WHY = "takes none of these calls: its arithmetic is 31%, below the floor of 98%"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with company(tmp_path_factory.mktemp("company")) as stack:
        yield stack


@pytest.mark.timeout(400)
def test_support_saves_above_its_floors(run: Stack) -> None:
    def seen() -> dict[str, Any] | None:
        found = judged(run, "support-assistant", JUDGED)
        saved = found["saved"] if found else None
        both = saved and min(float(saved[f"by_{name}_usd"]) for name in ("routing", "cache")) > 0
        return found if both else None

    support = wait_until(seen, 240, "answers of support are judged, and some come from the cache")
    assert support["saved"]["strongest"] == "gpt-eu-large"
    quality = {each["dimension"]: each for each in support["quality"]}
    assert {name: (each["floor"], each["kept"]) for name, each in quality.items()} == {
        "accuracy": (0.9, "yes"), "tone": (0.9, "yes"),
    }  # fmt: skip
    for each in quality.values():
        assert each["low"] < each["share"] <= each["high"] and each["share"] >= each["floor"]
    assert quality["accuracy"]["share"] < 1, "what the scripted model answers wrongly counts"
    shown = page(run, "support-assistant")
    assert "choosing models saved $" in shown and "answers from the cache $" in shown
    for name, each in quality.items():
        assert f"<td>{name}</td>" in shown and f"{100 * each['floor']:.0f} %" in shown
    assert kept(run.cli("routing", "explain", "support-assistant")) == {"accuracy": "yes", "tone": "yes"}
    assert all(call["demo"] for call in run.control("GET", "/api/calls?workload=support-assistant").body["calls"])


@pytest.mark.timeout(400)
def test_finance_keeps_its_large_model_and_says_why(run: Stack) -> None:
    finance = wait_until(lambda: judged(run, "finance-analytics", 5), 120, "answers of finance are sent and judged")
    places = {each["deployment"]: each for each in finance["places"]}
    assert places["llama-rack"]["answers"] > 0 and places["smollm-rack"]["answers"] == 0
    assert float(places["smollm-rack"]["saves_usd"]) > 0
    assert any(WHY in line for line in finance["told"])
    assert WHY in page(run, "finance-analytics")
    assert any(WHY in line for line in run.cli("routing", "explain", "finance-analytics")["told"])
    decided = [
        each for each in run.control("GET", "/api/reviews?all=true").body["reviews"] if each["state"] == "released"
    ]
    assert len(decided) >= 5


def approved(run: Stack) -> list[dict[str, Any]]:
    """What was applied, once the company's own people have approved both changes."""

    def seen() -> list[dict[str, Any]] | None:
        changes: list[dict[str, Any]] = run.control("GET", "/api/changes?state=applied").body["changes"]
        mine = {each["summary"]["subject"] for each in changes if each["type"] == "workload"}
        return changes if mine == {"workload/support-assistant", "workload/finance-analytics"} else None

    found: list[dict[str, Any]] = wait_until(seen, 120, "both changes are approved and applied")
    return found


@pytest.mark.timeout(400)
def test_who_approved_is_told_as_the_demo(run: Stack) -> None:
    changes = approved(run)
    assert all(said["demo"] and said["proof"] == "demo" for each in changes for said in each["approvals"])


@pytest.mark.timeout(400)
def test_rolling_back_in_the_demo_takes_no_workload_out_of_service(run: Stack) -> None:
    approved(run)
    told = run.control("POST", "/api/demo/rollback", {}).body
    assert len(told["told"]) == 2, told
    served = {each["name"] for each in run.control("GET", "/api/workloads").body["workloads"] if each["served"]}
    assert {"support-assistant", "finance-analytics"} <= served
