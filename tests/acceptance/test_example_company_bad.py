"""The example company where models answer badly from the start: what is judged falls below the floors, and says so."""

from __future__ import annotations

from pathlib import Path

import pytest

from groundplan.api.local_services import post_local
from groundplan.core.home import Home
from tests.acceptance.example_company import company, judged, kept, page
from tests.acceptance.stack import wait_until

BAD = "Whatever. That is obviously your fault."
SCRIPTED = ("scripted-azure-sweden", "scripted-rack-1")
"""Both: what the cloud answers without a passage, a cascade asks the rack for again."""


@pytest.mark.timeout(400)
def test_bad_answers_are_below_the_floors(tmp_path: Path) -> None:
    with company(tmp_path) as run:
        for name in SCRIPTED:
            post_local(Home(run.home), name, "/control", {"mode": "ok", "say": BAD})
        support = wait_until(lambda: judged(run, "support-assistant", 20), 240, "answers of support are judged")
        assert kept(support) == {"accuracy": "no", "tone": "no"}
        assert all(each["share"] < 0.3 and each["high"] < each["floor"] for each in support["quality"])
        assert page(run, "support-assistant").count('badge-stop">no</span>') == 2
        assert kept(run.cli("routing", "explain", "support-assistant")) == {"accuracy": "no", "tone": "no"}

        def refused() -> bool:
            reviews = run.control("GET", "/api/reviews?all=true").body["reviews"]
            mine = [each["state"] for each in reviews if each["workload"] == "finance-analytics"]
            return mine.count("refused") >= 5

        wait_until(refused, 120, "answers of finance are refused before they are sent")

        def told() -> bool:
            found = run.control("GET", "/api/routing/trade-off?workload=finance-analytics").body
            return kept(found)["accuracy"] == "no"

        wait_until(told, 60, "what was refused counts")
