"""The example company whose models answer badly from the start: its scores fall below the floors, which is shown."""

from __future__ import annotations

from pathlib import Path

import pytest

from groundplan.api.local_services import post_local
from groundplan.core.home import Home
from tests.acceptance.example_company import floors_kept, run_example_company, trade_off_once_judged, trade_off_page
from tests.acceptance.stack import wait_until

BAD = "Whatever. That is obviously your fault."
SCRIPTED = ("scripted-azure-sweden", "scripted-rack-1")
"""Both, since a cascade sends what the cloud answers without a passage to the rack."""


@pytest.mark.timeout(400)
def test_bad_answers_are_below_the_floors(tmp_path: Path) -> None:
    with run_example_company(tmp_path) as stack:
        for name in SCRIPTED:
            post_local(Home(stack.home), name, "/control", {"mode": "ok", "say": BAD})
        support = wait_until(
            lambda: trade_off_once_judged(stack, "support-assistant", 20), 240, "answers of support are judged"
        )
        assert floors_kept(support) == {"accuracy": "no", "tone": "no"}
        assert all(each["share"] < 0.3 and each["high"] < each["floor"] for each in support["quality"])
        assert trade_off_page(stack, "support-assistant").count('badge-stop">no</span>') == 2
        assert floors_kept(stack.cli("routing", "explain", "support-assistant")) == {"accuracy": "no", "tone": "no"}

        def five_refused() -> bool:
            reviews = stack.control("GET", "/api/reviews?all=true").body["reviews"]
            states = [each["state"] for each in reviews if each["workload"] == "finance-analytics"]
            return states.count("refused") >= 5

        wait_until(five_refused, 120, "answers of finance are refused before they are sent")

        def accuracy_below_floor() -> bool:
            trade_off = stack.control("GET", "/api/routing/trade-off?workload=finance-analytics").body
            return floors_kept(trade_off)["accuracy"] == "no"

        wait_until(accuracy_below_floor, 60, "refused answers count")
