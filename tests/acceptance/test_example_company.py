"""The example company as `make run` starts it, without any action: support saves by routing and the cache while its
judged answers stay above the floors of tone and accuracy; finance keeps its large model, and says why.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.acceptance.example_company import floors_kept, run_example_company, trade_off_once_judged, trade_off_page
from tests.acceptance.stack import Stack, wait_until

JUDGED = 60
"""Number of answers that are judged in each dimension soon after the start."""
WHY = "takes none of these calls: its arithmetic is 31%, below the floor of 98%"


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with run_example_company(tmp_path_factory.mktemp("company")) as stack:
        yield stack


@pytest.mark.timeout(400)
def test_support_saves_above_its_floors(stack: Stack) -> None:
    def judged_and_cached() -> dict[str, Any] | None:
        trade_off = trade_off_once_judged(stack, "support-assistant", JUDGED)
        saved = trade_off["saved"] if trade_off else None
        both_save = saved and min(float(saved[f"by_{name}_usd"]) for name in ("routing", "cache")) > 0
        return trade_off if both_save else None

    support = wait_until(judged_and_cached, 240, "answers of support are judged, and some come from the cache")
    assert support["saved"]["strongest"] == "gpt-eu-large"
    quality = {each["dimension"]: each for each in support["quality"]}
    assert {name: (each["floor"], each["kept"]) for name, each in quality.items()} == {
        "accuracy": (0.9, "yes"), "tone": (0.9, "yes"),
    }  # fmt: skip
    for each in quality.values():
        assert each["low"] < each["share"] <= each["high"] and each["share"] >= each["floor"]
    assert quality["accuracy"]["share"] < 1, "wrong answers of the scripted model count"
    page_text = trade_off_page(stack, "support-assistant")
    assert "choosing models saved $" in page_text and "answers from the cache $" in page_text
    for name, each in quality.items():
        assert f"<td>{name}</td>" in page_text and f"{100 * each['floor']:.0f} %" in page_text
    assert floors_kept(stack.cli("routing", "explain", "support-assistant")) == {"accuracy": "yes", "tone": "yes"}
    assert all(call["demo"] for call in stack.control("GET", "/api/calls?workload=support-assistant").body["calls"])


@pytest.mark.timeout(400)
def test_finance_keeps_its_large_model_and_says_why(stack: Stack) -> None:
    finance = wait_until(
        lambda: trade_off_once_judged(stack, "finance-analytics", 5), 120, "answers of finance are sent and judged"
    )
    places = {each["deployment"]: each for each in finance["places"]}
    assert places["llama-rack"]["answers"] > 0 and places["smollm-rack"]["answers"] == 0
    assert float(places["smollm-rack"]["saves_usd"]) > 0
    assert any(WHY in line for line in finance["told"])
    assert WHY in trade_off_page(stack, "finance-analytics")
    assert any(WHY in line for line in stack.cli("routing", "explain", "finance-analytics")["told"])
    decided = [
        each for each in stack.control("GET", "/api/reviews?all=true").body["reviews"] if each["state"] == "released"
    ]
    assert len(decided) >= 5


def wait_until_approved(stack: Stack) -> list[dict[str, Any]]:
    """The applied changes, once the company's people have approved those of both workloads."""

    def applied_changes() -> list[dict[str, Any]] | None:
        changes: list[dict[str, Any]] = stack.control("GET", "/api/changes?state=applied").body["changes"]
        approved_subjects = {each["summary"]["subject"] for each in changes if each["type"] == "workload"}
        return changes if approved_subjects == {"workload/support-assistant", "workload/finance-analytics"} else None

    changes_applied: list[dict[str, Any]] = wait_until(applied_changes, 120, "both changes are approved and applied")
    return changes_applied


@pytest.mark.timeout(400)
def test_approvals_in_the_demo_are_marked_as_demo(stack: Stack) -> None:
    changes = wait_until_approved(stack)
    assert all(approval["demo"] and approval["proof"] == "demo" for each in changes for approval in each["approvals"])


@pytest.mark.timeout(400)
def test_a_demo_rollback_takes_no_workload_out_of_service(stack: Stack) -> None:
    wait_until_approved(stack)
    rollback = stack.control("POST", "/api/demo/rollback", {}).body
    assert len(rollback["told"]) == 2, rollback
    served = {each["name"] for each in stack.control("GET", "/api/workloads").body["workloads"] if each["served"]}
    assert {"support-assistant", "finance-analytics"} <= served
