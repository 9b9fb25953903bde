"""Experiments in the control API and the console: begun, approved by somebody else, seen, stopped, reviewed."""

from __future__ import annotations

import dataclasses
import html
import http.client
import re
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from urllib.parse import urlencode
from uuid import UUID

import psycopg
import pytest
from tests.integration.test_api_control import ANSWER_TIMEOUT_S, Control, run_control
from tests.integration.test_replays import judged_run

from groundplan.core.database import connect
from groundplan.core.ids import new_id
from groundplan.economics.experiment import service
from groundplan.economics.experiment.record import ExperimentRecord
from groundplan.economics.replay import service as replays
from groundplan.economics.replay.pairwise import unreadable_problem
from groundplan.gateway.journal import ledger_store
from groundplan.testing.database import Cluster

MORE = """\
kind: deployment
name: small
site: here
model: acme/small
url: http://127.0.0.1:9/v1
price: {input: 0 USD/Mtok, output: 1 USD/Mtok}
"""


@dataclasses.dataclass(frozen=True)
class Console:
    control: Control
    url: str
    owner: str
    browser: dict[str, str]
    empty: str = ""
    """The page of experiments before anything was tried."""

    def page(self, path: str) -> str:
        answer = self.control.ask("GET", path, **self.browser)
        assert answer.status == 200, answer.body
        return answer.body.decode() if isinstance(answer.body, bytes) else str(answer.body)

    def form(self, path: str, **values: str) -> str:
        """Where a form leads."""
        data = urlencode({"csrf": self.browser["X_CSRF_Token"], **values})
        headers = {
            "Host": f"localhost:{self.control.port}", "Cookie": self.browser["Cookie"],
            "Content-Type": "application/x-www-form-urlencoded",
        }  # fmt: skip
        connection = http.client.HTTPConnection("127.0.0.1", self.control.port, timeout=ANSWER_TIMEOUT_S)
        try:
            connection.request("POST", path, data, headers)
            reply = connection.getresponse()
            assert reply.status == 303, reply.read()
            return str(reply.headers["location"])
        finally:
            connection.close()


@pytest.fixture(scope="module")
def console(postgres_cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Console]:
    with postgres_cluster.database() as database:
        folder = tmp_path_factory.mktemp("experiments")
        with run_control(database, folder, module="groundplan.console.app") as found:
            text = (found.workspace / "acme.yaml").read_text()
            text = text.replace("deployments: [local]", "deployments: [local, small]\nkeep: {content: redacted}")
            (found.workspace / "acme.yaml").write_text(f"{text}---\n{MORE}")
            applied = found.ask("POST", "/api/apply", {"files": found.files()})
            assert applied.status in (200, 201), applied.body
            made = Console(found, database.urls["control"], database.urls["owner"], found.sign_in())
            yield dataclasses.replace(made, empty=made.page("/cost/experiments"))


def fill(console: Console, id: str) -> UUID:
    """What a gateway and a look would have written."""
    call = new_id()
    with psycopg.connect(console.url) as conn:
        for number in range(60):
            conn.execute(
                """INSERT INTO experiment_pair (experiment, call_id, beside_call, segment, basis, score, shown_ms,
                     beside_ms, shown_usd, beside_usd, answered)
                   VALUES (%s, %s, gen_random_uuid(), %s, 'likeness', %s, 100, 80, 0.01, 0.001, true)""",
                (id, call if not number else new_id(), "refunds" if number % 4 else "", number % 9 and 1),
            )
    return call


def test_it_is_begun_seen_reviewed_and_stopped(console: Console) -> None:
    assert "No experiment is running" in console.empty and "No replay yet" in console.empty
    led = console.form(
        "/do/experiment-start", workload="assistant", candidate="small", budget="2", share="0.5", reason="cheaper"
    )
    id = led.partition("?")[0].rpartition("/")[2]
    assert "notice=It+runs" in led
    assert "No pair of answers has been compared yet" in console.page(f"/cost/experiments/{id}")
    twice = console.form("/do/experiment-start", workload="assistant", candidate="small", budget="2", reason="again")
    assert "the+shadow+shadow-small+of+small+runs+until" in twice
    pages = html.unescape(console.page("/cost/experiments"))
    assert "of small runs until" in pages and 'action="/do/experiment-start"' not in pages, "no click that is refused"
    call = fill(console, id)
    deadline = time.monotonic() + 60
    while not any(each["count"] for each in console.control.ask("GET", f"/api/experiments/{id}").body["looks"]):
        assert time.monotonic() < deadline, "nobody looked"
        time.sleep(0.2)
    text = console.page(f"/cost/experiments/{id}")
    assert "<svg" in text and "Quality of refunds" in text and "unknown, nobody has reviewed" in text
    assert "Noted" in console.form("/do/pair-review", id=id, call=str(call), kept="yes")
    assert "Stopped" in console.form("/do/experiment-stop", id=id, reason="seen enough")
    over = console.page("/cost/experiments")
    assert "seen enough" in over and "stopped" in over
    shown = console.control.ask("GET", f"/api/experiments/{id}").body
    assert (shown["state"], shown["outcome"]) == ("ended", "stopped")
    assert sum(each["reviewed"] is True for each in shown["pairs"]) == 1
    assert console.control.ask("POST", f"/api/experiments/{id}/stop", {}).code == "experiment_decided"


def test_a_judge_that_says_nothing_readable_is_told_in_the_same_words_everywhere(console: Console) -> None:
    problem = unreadable_problem("local", ["Well, … is"] * 5)
    assert problem is not None
    ours = {"workload": "assistant", "current": "local", "candidate": "small", "judge": "local"}
    with psycopg.connect(console.owner) as conn:
        made = judged_run(conn, 0, **ours)
        replays.end_unreadable(conn, made, problem)
        call = new_id()
        conn.execute(
            """INSERT INTO replay_call (run, call_id, segment, state, why, said)
               VALUES (%s, %s, '', 'skipped', 'left_open', 'Well, … is')""",
            (made.id, call),
        )
    told = console.control.ask("GET", f"/api/replays/{made.id}").body
    assert told["error"] == {"code": problem.code, "hint": problem.hint, "message": problem.message}
    assert [each["said"] for each in told["calls_asked"] if each["call_id"] == str(call)] == ["Well, … is"]
    plain = html.unescape(console.page(f"/cost/replays/{made.id}"))
    assert problem.message in plain and problem.hint in plain and problem.code in plain
    assert problem.message in html.unescape(console.page("/cost/experiments"))
    inbox = console.control.ask("GET", "/api/findings").body
    assert any(problem.message in each["message"] for each in inbox["findings"])


def test_one_click_leads_from_an_opportunity_to_a_shadow(console: Console) -> None:
    cost = Decimal("0.01")
    rows: list[tuple[Any, ...]] = [
        (
            new_id(), 0, datetime.now(UTC) - timedelta(hours=2), "local", "here", "acme/model", "settled", "ok", 200,
            cost, cost, {}, False, [], 1.0, new_id(), 0.0, None, None, "assistant", 1, False,
            {"input": [2, 0], "output": [1000, 10**10]}, "", "",
        )
        for _ in range(500)
    ]  # fmt: skip
    with connect(console.owner, autocommit=True) as conn:
        ledger_store.insert_rows(conn, ledger_store.INSERT_ATTEMPTS, rows)
    text = console.page("/cost/opportunities?days=7")
    form = re.search(r'<form method="post" action="/do/experiment-start">(.*?)</form>', text)
    assert form is not None, "no cheaper deployment was found"
    values = dict(re.findall(r'name="([a-z]+)" value="([^"]*)"', form[1]))
    assert (values["candidate"], values["type"], values["share"]) == ("small", "shadow", "0.1")
    led = console.form("/do/experiment-start", **{k: v for k, v in values.items() if k != "csrf"})
    assert "notice=It+runs" in led
    id = led.partition("?")[0].rpartition("/")[2]
    assert "would save" in console.control.ask("GET", f"/api/experiments/{id}").body["reason"]
    text = console.page("/cost/opportunities?days=7")
    assert f"the shadow {values['name']} of small runs until" in text and "experiment-start" not in text
    console.form("/do/experiment-stop", id=id)


def test_no_click_starts_what_something_that_runs_forbids(console: Console) -> None:
    """A proposal of another candidate, and one that waits for its approval, say what runs and until when instead."""
    ours = {"workload": "assistant", "current": "local", "candidate": "small", "judge": "local"}
    until = datetime.now(UTC) + timedelta(days=3)
    told = f"he shadow elsewhere of third runs until {until.date()}"
    ids = {}
    with psycopg.connect(console.owner) as conn:
        made = judged_run(conn, 40, **ours)
        replays.finish(conn, made, {"": 1000.0}, datetime.now(UTC))
        for state, name in (("running", "elsewhere"), ("asked", "waiting")):
            each = ExperimentRecord(
                id=new_id(), name=name, workload="assistant", type="shadow", candidate="third", judge="", share=1000,
                split="person", tolerance=0.1, guard_tolerance=0.05, budget_usd=Decimal(1), until=until,
                reason="try it", asked_by="operator", state=state,
            )  # fmt: skip
            service.ask(conn, "operator", each, waits=state == "asked", now=datetime.now(UTC))
            ids[name] = each.id
    row = console.control.ask("GET", f"/api/replays/{made.id}").body
    assert row["stands"] is True and row["waits"].endswith(told)
    for path in (f"/cost/replays/{made.id}", "/cost/experiments"):
        text = html.unescape(console.page(path))
        assert told in text and "Try it in shadow" not in text, path
    text = html.unescape(console.page(f"/cost/experiments/{ids['waiting']}"))
    assert told in text and ">Approve<" not in text and ">Refuse<" in text
    refused = console.control.ask(
        "POST", "/api/experiments",
        {"workload": "assistant", "name": "n", "candidate": "small", "budget_usd": 1, "reason": "r"},
    )  # fmt: skip
    assert (refused.status, refused.code) == (409, "experiment_running")
    error = refused.body["error"]
    assert told in error["message"] and f"experiments stop {ids['elsewhere']}" in error["hint"]
    console.form("/do/experiment-stop", id=str(ids["elsewhere"]))
    assert ">Approve<" in console.page(f"/cost/experiments/{ids['waiting']}")
    assert "Try it in shadow" in console.page(f"/cost/replays/{made.id}")
    console.form("/do/experiment-refuse", id=str(ids["waiting"]))
    with psycopg.connect(console.owner) as conn:
        conn.execute("UPDATE replay_run SET asked_at = now() - interval '40 days' WHERE id = %s", (made.id,))


def test_what_is_asked_for_is_approved_by_somebody_else(console: Console) -> None:
    control = console.control
    ana = control.sign_in("ana@acme.example")
    with psycopg.connect(console.url) as conn:
        ((person,),) = conn.execute("SELECT id FROM person WHERE email = 'ana@acme.example'").fetchall()
    ids = {}
    for name in ("own", "others"):
        asked_by = f"person:{person if name == 'own' else new_id()}"
        made = ExperimentRecord(
            id=new_id(), name=name, workload="assistant", type="shadow", candidate="small", judge="", share=1000,
            split="person", tolerance=0.1, guard_tolerance=0.05, budget_usd=Decimal(1),
            until=datetime.now(UTC) + timedelta(days=3), reason="try it", asked_by=asked_by, state="asked",
        )  # fmt: skip
        with psycopg.connect(console.url) as conn:
            service.ask(conn, asked_by, made, waits=True, now=datetime.now(UTC))
        ids[name] = made.id
    assert "Waiting for approval" in console.page("/cost/experiments")
    assert control.ask("POST", f"/api/experiments/{ids['own']}/approve", {}, **ana).code == "own_experiment"
    assert control.ask("POST", f"/api/experiments/{ids['others']}/approve", {}).status == 403, "the operator approves"
    sam = control.sign_in("sam@acme.example")
    assert control.ask("POST", f"/api/experiments/{ids['others']}/approve", {}, **sam).code == "duty_missing"
    text = (control.workspace / "acme.yaml").read_text()
    for changed in (text.replace("deployments: [local, small]", "deployments: [local]"), text):
        (control.workspace / "acme.yaml").write_text(changed)
        assert control.ask("POST", "/api/apply", {"files": control.files()}).status in (200, 201)
        if changed != text:
            refused = control.ask("POST", f"/api/experiments/{ids['others']}/approve", {"reason": "go"}, **ana)
            assert (refused.status, refused.code) == (400, "experiment_outside"), refused.body
    done = control.ask("POST", f"/api/experiments/{ids['others']}/approve", {"reason": "go"}, **ana)
    assert (done.status, done.body["state"]) == (200, "running")
    assert control.ask("POST", f"/api/experiments/{ids['own']}/refuse", {}, **ana).body["state"] == "refused"
    assert control.ask("POST", f"/api/experiments/{ids['others']}/stop", {}, **sam).status == 200


def test_a_replay_is_asked_for_and_waits_for_a_gateway(console: Console) -> None:
    led = console.form("/do/replay-start", workload="assistant", candidate="small", judge="local", budget="1")
    id = led.partition("?")[0].rpartition("/")[2]
    text = console.page(f"/cost/replays/{id}")
    assert "local compares both answers in both orders" in text
    assert "small instead of local" in console.page("/cost/experiments")
    assert console.control.ask("GET", f"/api/replays/{id}").body["spent_usd"] == "0.000000"
    wrong = console.form("/do/replay-start", workload="assistant", candidate="local", judge="small", budget="1")
    assert "compared+with+itself" in wrong


@pytest.mark.parametrize(
    ("wrong", "code"),
    [
        ({"candidate": "nowhere"}, "experiment_outside"), ({"candidate": "local"}, "experiment_primary"),
        ({"workload": "nobody"}, "workload_unknown"), ({"type": "ab", "judge": "local"}, "experiment_judge"),
        ({"budget_usd": -1}, "request_invalid"), ({"share": 2}, "request_invalid"), ({"more": 1}, "request_invalid"),
        ({"until": "2020-01-01"}, "experiment_until"), ({"until": "9999-12-31"}, "experiment_until"),
    ],
)  # fmt: skip
def test_bad_input_is_refused_with_what_to_do(console: Console, wrong: dict[str, Any], code: str) -> None:
    body = {"workload": "assistant", "name": "n", "candidate": "small", "budget_usd": 1, "reason": "r", **wrong}
    answer = console.control.ask("POST", "/api/experiments", body)
    assert answer.status in (400, 404, 422) and answer.code == code, answer.body
    assert answer.body["error"]["hint"]


@pytest.mark.parametrize(("until", "hint"), [("2020-01-01", "a later"), ("2999-01-01", "an earlier")])
def test_whoever_names_a_wrong_last_day_is_told_which_way_it_is_wrong(console: Console, until: str, hint: str) -> None:
    body = {"workload": "assistant", "name": "n", "candidate": "small", "budget_usd": 1, "reason": "r", "until": until}
    answer = console.control.ask("POST", "/api/experiments", body)
    assert answer.code == "experiment_until" and hint in answer.body["error"]["hint"]


def test_a_proposal_that_does_not_stand_any_more_has_no_click(console: Console) -> None:
    ours = {"workload": "assistant", "current": "local", "candidate": "small", "judge": "local"}
    with psycopg.connect(console.owner) as conn:
        made = judged_run(conn, 40, **ours)
        replays.finish(conn, made, {"": 1000.0}, datetime.now(UTC))
    page = f"/cost/replays/{made.id}"
    assert console.control.ask("GET", f"/api/replays/{made.id}").body["stands"] is True
    assert "Try it in shadow" in console.page(page)
    with psycopg.connect(console.owner) as conn:
        conn.execute("UPDATE replay_run SET asked_at = now() - interval '40 days' WHERE id = %s", (made.id,))
        replays.finish(conn, judged_run(conn, 0, **ours), {"": 1000.0}, datetime.now(UTC))
    assert console.control.ask("GET", f"/api/replays/{made.id}").body["stands"] is False
    assert "Try it in shadow" not in console.page(page) and "No longer proposed" in console.page(page)
    assert "Try it in shadow" not in console.page("/cost/experiments")
