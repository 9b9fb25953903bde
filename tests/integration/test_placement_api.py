"""Placement through the control process: the plan of the example company, its reasons, what if, drift and re-plan."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urljoin
from urllib.request import HTTPCookieProcessor, build_opener

import pdfplumber
import pytest
from tests.integration.nursery import fork_program
from typer.testing import CliRunner

from groundplan.api.genesis import prepare_home
from groundplan.cli.main import app
from groundplan.core.database import connect
from groundplan.core.home import Home
from groundplan.core.ids import new_id
from groundplan.gateway.journal import ledger_store
from groundplan.testing.database import Cluster, Database

COMPANY = Path(__file__).parents[2] / "examples" / "company"


@dataclass(frozen=True)
class Planner:
    """A running control process with the example company."""

    home: Home
    port: int
    database: Database

    def ask(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=170)
        headers = {"Authorization": f"Bearer {self.home.operator_token.read_text().strip()}"}
        data = None if body is None else json.dumps(body)
        if data is not None:
            headers["Content-Type"] = "application/json"
        try:
            connection.request(method, path, data, headers)
            reply = connection.getresponse()
            raw = reply.read()
        finally:
            connection.close()
        return reply.status, json.loads(raw) if raw.startswith((b"{", b"[")) else raw.decode()

    def page(self, path: str) -> tuple[int, str]:
        """As a browser of the operator's shows it."""
        url = self.ask("POST", "/api/login-links", {"person": None})[1]["url"]
        browser = build_opener(HTTPCookieProcessor())
        browser.open(url, timeout=60).close()
        with browser.open(urljoin(url, path), timeout=170) as reply:
            return reply.status, reply.read().decode()


@pytest.fixture(scope="module")
def planner(postgres_cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Planner]:
    with postgres_cluster.database() as database, running(database, tmp_path_factory.mktemp("planner")) as found:
        yield found


@contextmanager
def running(database: Database, tmp_path: Path) -> Iterator[Planner]:
    home, workspace = Home(tmp_path / "home"), tmp_path / "company"
    shutil.copytree(COMPANY, workspace)
    prepare_home(home)
    listener = socket.create_server(("127.0.0.1", 0))
    log = (tmp_path / "control.log").open("wb")
    process = fork_program(
        "groundplan.console.app", ["--home", str(home.root), "--workspace", str(workspace), "--demo"], log.fileno(),
        {**os.environ, "GROUNDPLAN_DATABASE_URL": database.dsn}, listener.fileno(),
    )  # fmt: skip
    found = Planner(home, listener.getsockname()[1], database)
    listener.close()
    try:
        deadline = time.monotonic() + 90
        while True:
            assert process.poll() is None and time.monotonic() < deadline, (tmp_path / "control.log").read_text()
            try:
                if found.ask("GET", "/livez")[0] == 200:
                    break
            except OSError:
                time.sleep(0.05)
        yield found
    finally:
        process.terminate()
        process.wait(60)
        log.close()


def test_the_plan_is_shown_verified_with_its_gap_and_comparisons(planner: Planner) -> None:
    status, plan = planner.ask("GET", "/api/placement")
    assert status == 200 and plan["verified"] and plan["proven"] == "proven optimal"
    places = {row["workload"]: row["place"]["site"] for row in plan["workloads"]}
    assert places["support-assistant"] == "azure-sweden" and places["finance-analytics"] == "rack-1"
    assert places["line-inspector"] == "line-3"
    assert {row["with"] for row in plan["compared"]} == {"today", "all cloud", "all private", "each alone"}
    assert "outside EU" in plan["excluded"]["support-assistant"]["cloud-us"]
    assert [build["site"] for build in plan["to_build"]] == ["line-3"]
    _, one = planner.ask("GET", "/api/placement?limit=1&search=Line")
    assert [row["workload"] for row in one["workloads"]] == [*one["excluded"]] == [*one["curves"]] == ["line-inspector"]
    assert one["usd_month"] == plan["usd_month"] and sum(site["workloads"] for site in one["sites"]) == len(places)
    assert (one["total"], one["next"]) == (1, None)
    _, first = planner.ask("GET", "/api/placement?limit=2")
    _, rest = planner.ask("GET", f"/api/placement?limit=100&after={first['next']}")
    assert [row["workload"] for row in (*first["workloads"], *rest["workloads"])] == sorted(places)
    assert first["total"] == rest["total"] == len(places) and rest["next"] is None
    _, served = planner.ask("GET", "/api/placement/served?limit=1")
    _, behind = planner.ask("GET", f"/api/placement/served?after={served['next']}")
    assert served["total"] == 1 + len(behind["placements"]) and behind["next"] is None
    _, named = planner.ask("GET", f"/api/placement/served?among=nobody,{served['next']}")
    assert [row["workload"] for row in named["placements"]] == [served["next"]] and named["total"] == 1


def test_the_page_has_also_what_is_planned_and_not_served(planner: Planner) -> None:
    _, plan = planner.ask("GET", "/api/placement")
    _, served = planner.ask("GET", "/api/placement/served")
    planned = {row["workload"] for row in plan["workloads"]}
    assert planned > {row["workload"] for row in served["placements"]}
    status, page = planner.page("/placement")
    assert status == 200 and all(f'<a href="/placement/{name}">' in page for name in planned)
    status, page = planner.page("/placement?search=line-inspector")
    assert status == 200 and "1 of 1 workload" in page and "None of these workloads is served yet" in page


def test_why_tells_the_same_on_both_ways(planner: Planner) -> None:
    status, told = planner.ask("GET", "/api/placement/why/research-reader")
    assert status == 200 and told["place"]["burst"] == "gpt-eu" and told["runner_up"]["extra_usd_month"] > 0
    status, also = planner.ask("GET", "/api/why/placement/research-reader")
    assert status == 200 and also["kind"] == "placement" and also["because"] == told["words"]
    status, refused = planner.ask("GET", "/api/placement/why/nobody")
    assert status == 404 and refused["error"]["code"] == "workload_unknown"


def test_what_if_flips_what_it_must_and_refuses_what_it_cannot_read(planner: Planner) -> None:
    status, found = planner.ask("POST", "/api/placement/what-if", {"price": ["gpt-eu=x10"], "demand": ["all=x1"]})
    assert status == 200 and "support-assistant" in {each["workload"] for each in found["flips"]}
    for body in ({}, {"demand": ["support-assistant=3"]}, {"drop_site": ["atlantis"]}, {"set": ["sites.rack-1.pue=9"]}):
        status, refused = planner.ask("POST", "/api/placement/what-if", body)
        assert status == 400 and refused["error"]["hint"]
    status, found = planner.ask("POST", "/api/placement/stress", {"futures": 200, "seed": 3})
    assert status == 200 and found["plan"]["regret"]["mean"] >= 0 and found["words"]
    status, coming = planner.ask("GET", "/api/placement/ahead?months=6&step=3")
    assert status == 200 and coming["periods"][-1]["to"] == 6 and coming["usd"] > 0 and coming["words"]
    assert planner.ask("GET", "/api/placement/ahead?months=5&step=3")[1]["error"]["code"] == "ahead_range"
    assert planner.ask("GET", "/api/placement/front")[1]["ways"][0]["name"].startswith("the plan")


def calls(database: Database, factor: int) -> None:
    """Twelve days on which the staff assistant has so many times the calls that it was planned for."""
    now = datetime.now(UTC).replace(hour=12)  # so that the seconds of a day are all of that day
    with connect(database.urls["owner"], autocommit=True) as conn:
        rows: list[tuple[Any, ...]] = [
            (new_id(), now - timedelta(days=day, seconds=number), "staff-assistant", None, None, None, "chat", "ok",
             200, None, "openai/gpt-4.1-mini", "gpt-eu", "azure-sweden", 0.01, 0.01, 900, 180, "none", 1, new_id(),
             False, 900.0, 610.0, {}, 0, 0)
            for day in range(1, 13)
            for number in range(20 * factor)
        ]  # fmt: skip
        ledger_store.insert_rows(conn, ledger_store.INSERT_CALLS, rows)


def test_a_pilot_is_projected_and_drift_becomes_a_finding_with_a_replan(planner: Planner) -> None:
    status, refused = planner.ask("GET", "/api/placement/pilot/staff-assistant")
    assert status == 400 and refused["error"]["code"] == "pilot_no_facts"
    calls(planner.database, 2)
    status, found = planner.ask("GET", "/api/placement/pilot/staff-assistant")
    assert status == 200 and found["breaks_first"] is not None and found["days"] >= 12
    assert [each["factor"] for each in found["scaled"]] == [1, 10, 100]
    status, drift = planner.ask("GET", "/api/placement/drift")
    assert status == 200 and drift["drifts"] and drift["replan"]["words"]
    off = {row["figure"]: row for row in drift["charts"] if row["workload"] == "staff-assistant"}
    assert off["calls_day"]["drifts"] and off["calls_day"]["factor"] < 0.1
    status, part = planner.ask("GET", "/api/placement/drift?search=CALLS%20day&limit=1")
    about = [row for row in drift["charts"] if row["figure"] == "calls_day" and row["points"]]
    assert status == 200 and part["total"] == len(about) >= 1 and len(part["charts"]) == 1
    assert part["charts"][0]["drifts"] and part["drifts"] == drift["drifts"]
    seen = off["calls_day"]["expected"] * off["calls_day"]["factor"]
    assert part["calls_day"]["staff-assistant"] == pytest.approx(seen, rel=0.01)
    assert not (planner.home.logs / "planning.log").exists()  # a company of this size needs no process for its plans


def test_a_replan_is_one_request_away_and_waits_like_any_change(planner: Planner) -> None:
    """Written into the declared files as what was seen, so that the drift is gone once it is served."""
    before = planner.ask("GET", "/api/blueprints/current")[1]["number"]
    status, done = planner.ask("POST", "/api/placement/replan", {"reason": "seen for twelve days"})
    assert status == 200, done
    seen = done["calls_day"]["staff-assistant"]
    assert (
        f"+traffic: {{calls: {seen}/day" in done["difference"].replace("  ", "")
        or f"calls: {seen}/day" in done["difference"]
    )
    assert done["released"]["blueprint"] == before + 1 or done["released"]["pending"]
    reasons = [row["reason"] for row in planner.ask("GET", "/api/blueprints")[1]["blueprints"]]
    waiting = planner.ask("GET", "/api/changes?state=pending")[1]["changes"]
    assert "seen for twelve days" in reasons or any(each["reason"] == "seen for twelve days" for each in waiting)
    if done["released"]["blueprint"] == before + 1 and not done["released"]["pending"]:
        status, refused = planner.ask("POST", "/api/placement/replan", {})
        assert status == 409 and refused["error"]["code"] == "replan_nothing"


def test_the_commands_show_it(planner: Planner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GROUNDPLAN_URL", f"http://127.0.0.1:{planner.port}")
    monkeypatch.setenv("GROUNDPLAN_HOME", str(planner.home.root))
    run = CliRunner().invoke
    shown = run(app, ["placement", "show"])
    assert shown.exit_code == 0 and "research-reader" in shown.output and "proven optimal" in shown.output
    assert "moves from" in run(app, ["placement", "what-if", "--price", "gpt-eu=x10"]).output
    assert "futures" in run(app, ["placement", "stress", "--futures", "100"]).output
    assert "nearly full" in run(app, ["placement", "ahead"]).output
    assert json.loads(run(app, ["placement", "drift", "--json"]).output)["charts"]
    assert "What decides" in run(app, ["why", "placement/support-assistant"]).output
    to = tmp_path / "plan.html"
    assert run(app, ["placement", "report", str(to)]).exit_code == 0
    page = to.read_text()
    assert page.startswith("<!doctype html>") and page.count("<svg") >= 9, "one page that loads nothing"
    assert "http://" not in page.replace("http://www.w3.org", "") and "src=" not in page and "<script" not in page
    assert 'rel="icon" href="data:,"' in page, "no browser asks the server for one"
    assert "support-assistant runs at azure-sweden" in page
    assert run(app, ["placement", "report", str(to)]).exit_code != 0
    paper = tmp_path / "plan.pdf"
    assert run(app, ["placement", "report", str(paper)]).exit_code == 0
    with pdfplumber.open(paper) as pages:
        text = "\n".join(page.extract_text() for page in pages.pages)
        assert len(pages.pages) >= 3 and sum(len(page.images) for page in pages.pages) >= 9
    assert "What a month costs" in text and "support-assistant" in text and "Not at cloud-us" in text


def test_the_serving_model_is_shown_beside_own_traffic(planner: Planner) -> None:
    now = datetime.now(UTC).replace(hour=12)
    with connect(planner.database.urls["owner"], autocommit=True) as conn:
        rows: list[tuple[Any, ...]] = [
            (new_id(), now - timedelta(days=day, seconds=number), "finance-analytics", None, None, None, "chat", "ok",
             200, None, "acme/llama-3.1-8b", "llama-rack", "rack-1", 0, 0, 900, 180, "none", 1, new_id(), False,
             4000.0, 400.0, {}, 0, 0)
            for day in range(1, 8)
            for number in range(10)
        ]  # fmt: skip
        ledger_store.insert_rows(conn, ledger_store.INSERT_CALLS, rows)
    status, found = planner.ask("GET", "/api/placement/serving")
    (row,) = found["deployments"]
    assert status == 200 and row["deployment"] == "llama-rack" and row["days"] == 7
    told = {c["workload"]: c["place"] for c in planner.ask("GET", "/api/placement")[1]["workloads"]}
    assert told["finance-analytics"]["site"] == "rack-1", "the plan goes on with what was seen"
    assert row["basis"] == "not measured" and row["error_after"][1] < row["error_before"][1]
    low, high = (row["corrected"]["per_token_ms"][key] for key in ("low", "high"))
    assert (
        low < 20.1 and high / low < row["predicted"]["per_token_ms"]["high"] / row["predicted"]["per_token_ms"]["low"]
    )
