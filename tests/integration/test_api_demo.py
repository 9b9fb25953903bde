"""The demo's five acts on the example company, as real processes: each does what it says and tells what happened."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from tests.acceptance.stack import Stack

from groundplan.core.home import Home

ROOT = Path(__file__).parents[2]
START_SECONDS = 240.0
BEGUN = ("/api/status", "/api/workloads/support-assistant")


@dataclass(frozen=True)
class Demo:
    """A running demo of the example company."""

    home: Home
    control: str
    gateway: str
    begun: dict[str, Any] = field(default_factory=dict)
    """What these paths answered before anybody did anything: what waits then is approved later, for good."""

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        token = f"Bearer {self.home.operator_token.read_text().strip()}"
        return json.loads(self.send(self.control, method, path, body, {"Authorization": token})[0])

    def send(self, url: str, method: str, path: str, body: Any, headers: dict[str, str]) -> tuple[bytes, Any]:
        """The answer and its headers."""
        parts = urlsplit(url)
        connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=120)
        headers = {"Content-Type": "application/json", "Host": f"localhost:{parts.port}", **headers}
        try:
            connection.request(method, path, None if body is None else json.dumps(body), headers)
            reply = connection.getresponse()
            return reply.read(), reply.headers
        finally:
            connection.close()

    def browser(self) -> Callable[..., Any]:
        """Asks as somebody who signed in with a link."""
        link = urlsplit(self.ask("POST", "/api/login-links", {"person": None})["url"]).path
        _, given = self.send(self.control, "GET", link, None, {})
        signed = {"Cookie": given["set-cookie"].partition(";")[0]}

        def ask(method: str, path: str, body: Any = None) -> Any:
            csrf = json.loads(self.send(self.control, "GET", "/api/session", None, signed)[0])["csrf"]
            data, _ = self.send(self.control, method, path, body, {**signed, "X-CSRF-Token": csrf})
            return json.loads(data) if data.startswith((b"{", b"[")) else data.decode()

        return ask

    def act(self, name: str, **told: Any) -> Any:
        answer = self.ask("POST", f"/api/demo/{name}", told)
        assert "error" not in answer, answer
        assert answer["title"] and answer["told"]
        return answer


def effective(demo: Demo, change: dict[str, Any]) -> None:
    """A change of live policy has reached every gateway: when it was told, or soon where the machine is busy."""
    end = time.monotonic() + 60
    while not change["complete"]:
        gateways = demo.ask("GET", "/api/status")["gateways"]
        if gateways and all(each["policy_ack"] >= change["number"] for each in gateways):
            return
        assert time.monotonic() < end, (change, gateways)
        time.sleep(0.1)


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    # one worker, so that what it has answered is in the memory of the next call
    stack = Stack(tmp_path_factory.mktemp("demo"), ROOT / "examples/company", options=("--demo",))
    try:
        told = dict(each.split("=", 1) for each in stack.start(START_SECONDS).split()[1:])
        found = Demo(Home(stack.home), told["control"], told["gateway"].removesuffix("/v1"))
        yield replace(found, begun={path: found.ask("GET", path) for path in BEGUN})
    finally:
        stack.stop()


def cited(answer: dict[str, Any]) -> set[str]:
    return {source["source"] for source in answer["sources"]}


@pytest.mark.timeout(400)
def test_the_same_question_as_two_people_and_after_a_revocation(demo: Demo) -> None:
    ben, hana = demo.act("ask-as")["answers"]
    assert (ben["status"], hana["status"]) == (200, 200)
    assert "hr-policies" in cited(hana) and "hr-policies" not in cited(ben)
    effective(demo, demo.act("revoke-hr")["effective"])
    _, hana = demo.act("ask-as")["answers"]
    assert "hr-policies" not in cited(hana)
    effective(demo, demo.act("restore-hr")["effective"])
    (hana,) = demo.act("ask-as", person="hana@acme.example")["answers"]
    assert "hr-policies" in cited(hana)


def seen_down(demo: Demo, site: str) -> dict[str, Any]:
    """The overview as soon as it knows that a site is down."""
    end = time.monotonic() + 60
    while True:
        seen: dict[str, Any] = demo.ask("GET", "/api/overview")
        if next(found for found in seen["sites"] if found["name"] == site)["down"]:
            return seen
        assert time.monotonic() < end, seen["sites"]
        time.sleep(0.2)


@pytest.mark.timeout(400)
def test_an_outage_swings_to_the_fallback_without_a_failed_call(demo: Demo) -> None:
    demo.act("cloud-down")
    try:
        answers = [demo.act("ask-as", person="ben@acme.example")["answers"][0] for _ in range(5)]
        assert {answer["status"] for answer in answers} == {200}
        assert {answer["site"] for answer in answers} == {"rack-1"}
        seen_down(demo, "azure-sweden")
        end = time.monotonic() + 60
        while True:  # what failed may be told before what was answered instead
            seen: dict[str, Any] = demo.ask("GET", "/api/overview")
            assistant = next(w for w in seen["workloads"] if w["name"] == "staff-assistant")
            if (assistant["site"], assistant["serving_site"]) == ("azure-sweden", "rack-1"):
                break
            assert time.monotonic() < end, assistant
            time.sleep(0.2)
    finally:
        demo.act("cloud-up")
    assert demo.ask("GET", "/api/calls?status=failed&workload=staff-assistant")["calls"] == []


@pytest.mark.timeout(400)
def test_two_hundred_calls_on_a_budget_for_one_hundred(demo: Demo) -> None:
    served = 0
    for _ in range(8):
        told = demo.act("budget-race")
        untold = told["outcomes"].get("budget_unreachable", 0)  # a busy PostgreSQL did not answer in time
        assert told["served"] + told["refused"] + untold == 200, told
        served += told["served"]
        assert served == 100 or (served < 100 and untold), told
        if not untold:
            break
    assert served == 100
    again = demo.act("budget-race")
    untold = again["outcomes"].get("budget_unreachable", 0)
    assert (again["served"], again["refused"] + untold) == (0, 200)


HOLD = {
    "business": ("lena", "fay"), "product": ("maria",), "architecture": ("eva",), "engineering": ("raj",),
    "operations": ("olu",), "security": ("sam",), "finance": ("fay", "ana"), "data": ("dana",),
    "compliance": ("clara",),
}  # fmt: skip
"""Duty -> who holds it for the workloads in production, one or the other."""


def approve_everything(demo: Demo) -> None:
    """As the people who hold the duties: first what is used, then the workloads."""
    browser = demo.browser()
    demo.ask("POST", "/api/approvals/missing", {"reason": "taken into production"})
    for used in (True, False):
        for duty, people in HOLD.items():
            for person in people:
                browser("POST", "/api/session/act-as", {"person": f"{person}@acme.example"})
                for change in demo.ask("GET", "/api/changes?state=pending")["changes"]:
                    wanted = [each for each in change["waits_for"] if each["duty"] == duty]
                    if (change.get("type") != "workload") == used:
                        for each in wanted:  # who does not hold it there is refused, and the other one asked
                            answer = {"subject": each["subject"], "duty": duty, "comment": "read"}
                            browser("POST", f"/api/changes/{change['id']}/approve", answer)
    browser("POST", "/api/session/act-as", {"person": None})
    served = {each["name"] for each in demo.ask("GET", "/api/workloads")["workloads"] if each["served"]}
    assert {"support-assistant", "finance-analytics"} <= served, demo.ask("GET", "/api/changes?state=pending")


def report(demo: Demo, outcome: dict[str, Any]) -> None:
    """As soon as its call is in the ledger."""
    end = time.monotonic() + 60
    while "error" in (answer := demo.ask("POST", "/api/outcomes", outcome)):
        assert time.monotonic() < end, answer
        time.sleep(0.3)


def chat(demo: Demo, key: str, question: str, cache: str = "") -> dict[str, Any]:
    """What the gateway says of the call, once it is served, from this cache where one is named: a key and a blueprint
    arrive within a second, and what was kept for an older one is asked anew."""
    body = {"model": "auto", "max_tokens": 60, "messages": [{"role": "user", "content": question}]}
    end = time.monotonic() + 60
    while True:
        data, _ = demo.send(demo.gateway, "POST", "/v1/chat/completions", body, {"Authorization": f"Bearer {key}"})
        found = json.loads(data)
        if "error" not in found and cache in ("", found["groundplan"]["cache"]):
            facts: dict[str, Any] = found["groundplan"]
            return facts
        assert time.monotonic() < end, found
        time.sleep(0.3)


def searched(demo: Demo, key: str, question: str) -> None:
    """Once its sources, which came with the newest blueprint, are read: before that an answer rests on nothing."""
    end = time.monotonic() + 60
    while True:
        sent = {"Authorization": f"Bearer {key}"}
        data, _ = demo.send(demo.gateway, "POST", "/api/knowledge/search", {"query": question}, sent)
        if (found := json.loads(data)).get("passages"):
            return
        assert time.monotonic() < end, found
        time.sleep(0.3)


def reviewed(demo: Demo, key: str, question: str) -> dict[str, Any]:
    """What the gateway says of a call whose answer waits until Fay has released it."""
    browser = demo.browser()
    browser("POST", "/api/session/act-as", {"person": "fay@acme.example"})
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(chat, demo, key, question)
        while not answer.done():
            for held in demo.ask("GET", "/api/reviews")["reviews"]:
                browser("POST", f"/api/reviews/{held['id']}/release", {"reason": "it holds", "minutes": 2})
            time.sleep(0.5)
    return answer.result()


@pytest.mark.timeout(400)
def test_pending_changes_are_visible_from_the_start(demo: Demo) -> None:
    pending = demo.begun["/api/status"]["pending"]
    assert {item["subject"] for item in pending} >= {"workload/support-assistant"}
    assert all(item["waits_for"] for item in pending)


def test_an_unserved_workload_shows_its_declaration(demo: Demo) -> None:
    support = demo.begun["/api/workloads/support-assistant"]
    own = next(budget for budget in support["budgets"] if budget["name"] == "support-assistant")
    assert (own["limit_usd"], own["served"]) == ("600.000000000000", False)
    assert all(budget["served"] for budget in support["budgets"] if budget["name"] == "company")
    told = {point["name"]: point["next_step"] for area in support["areas"] for point in area["points"]}
    assert {told["a hard budget of its own"], told["another deployment can take over"]} == {
        "Get it served: see what its change waits for."
    }
    inspector = demo.ask("GET", "/api/workloads/line-inspector")
    assert inspector["owners"]["business"] == ["tom@acme.example"]
    assert inspector["owners"]["security"] == ["sam@acme.example"], "who holds the duty for the company"


def test_support_saves_above_its_floors_and_finance_keeps_its_large_model(demo: Demo) -> None:
    approve_everything(demo)
    end = time.monotonic() + 60
    while any("gpt-eu" in each["health"] for each in demo.ask("GET", "/api/status")["gateways"]):
        assert time.monotonic() < end, "the traffic finds out that the cloud of an earlier test is back"
        time.sleep(0.3)
    keys = {
        workload: demo.ask("POST", "/api/keys", {"workload": workload, "user": person})["key"]
        for workload, person in (("support-assistant", "lena@acme.example"), ("finance-analytics", "ana@acme.example"))
    }
    easy = [
        "How long is the warranty of P-series pumps?",
        "Within how many days can unused pumps be returned?",
        "How long do made-to-order pumps of the P-series take?",
    ]
    for question in easy:
        searched(demo, keys["support-assistant"], question)
    asked = [chat(demo, keys["support-assistant"], question) for question in easy]
    asked += [chat(demo, keys["support-assistant"], question, cache="exact") for question in easy * 2]
    hard = chat(demo, keys["support-assistant"], "I want a refund and my lawyer will write to you")
    assert hard["deployment"] == "gpt-eu-large", "at stake, so the large model answers"
    others = [each["call_id"] for each in asked if each["deployment"] != "gpt-eu"]
    assert not others, json.dumps([demo.ask("GET", f"/api/calls/{call}") for call in others])
    for each in asked:
        for label in ("accuracy", "tone"):
            report(demo, {"call_id": each["call_id"], "accepted": True, "label": label})

    support = demo.ask("GET", "/api/routing/trade-off?workload=support-assistant")
    assert support["saved"]["strongest"] == "gpt-eu-large"
    assert float(support["saved"]["by_routing_usd"]) > 0 and float(support["saved"]["by_cache_usd"]) > 0
    assert {each["dimension"]: each["kept"] for each in support["quality"]} == {"accuracy": "yes", "tone": "yes"}
    for place in support["places"]:
        below = [name for name, floor in support["floors"].items() if place["scores"].get(name, 1) < floor]
        assert not (below and place["answers"]), "nobody below a floor answered"
    assert "choosing models saved" in support["told"][0] and "answers from the cache" in support["told"][0]
    end = time.monotonic() + 60
    while not (tried := demo.ask("GET", "/api/experiments")["experiments"]) and time.monotonic() < end:
        time.sleep(0.5)
    assert [each["name"] for each in tried] == ["rack-for-support"]

    figures = reviewed(demo, keys["finance-analytics"], "Which cost centre is over plan in October?")
    assert figures["deployment"] == "llama-rack"
    report(demo, {"call_id": figures["call_id"], "accepted": True})
    finance = demo.ask("GET", "/api/routing/trade-off?workload=finance-analytics")
    small = next(each for each in finance["places"] if each["deployment"] == "smollm-rack")
    assert small["answers"] == 0 and float(small["saves_usd"]) > 0
    why = "takes none of these calls: its arithmetic is 31%, below the floor of 98%"
    assert any(why in line for line in finance["told"])
    page = demo.browser()("GET", "/cost/trade-off?workload=finance-analytics")
    assert why in page and "smollm2-135m-instruct" in page


def test_tampering_names_the_entry(demo: Demo) -> None:
    told = demo.act("tamper")
    assert told["ok"] is False and isinstance(told["problems"][0]["at"], int)
    assert "ntry" in told["told"][1]
    assert demo.ask("GET", "/api/audit/verify")["ok"]


def test_one_command_back(demo: Demo) -> None:
    before = demo.ask("GET", "/api/status")["blueprint"]
    told = demo.act("rollback")
    assert told["blueprint"] > before
    diff = demo.ask("GET", f"/api/blueprints/{told['blueprint']}/diff?against={before}")
    assert diff["files"] == [] or before > 1


def test_traffic_is_marked_as_demo(demo: Demo) -> None:
    deadline = time.monotonic() + 30
    while not (calls := demo.ask("GET", "/api/calls")["calls"]):
        assert time.monotonic() < deadline
        time.sleep(0.3)
    assert all(call["demo"] for call in calls)


def test_unknown_demo_acts_are_refused(demo: Demo) -> None:
    assert demo.ask("POST", "/api/demo/format-disk", {})["error"]["code"] == "act_unknown"


@pytest.mark.timeout(400)
def test_asking_on_behalf_of_a_person_is_in_receipt_and_log(demo: Demo) -> None:
    (answer,) = demo.act("ask-as", person="ben@acme.example")["answers"]
    deadline = time.monotonic() + 30
    while "error" in (call := demo.ask("GET", f"/api/calls/{answer['call_id']}")):
        assert time.monotonic() < deadline
        time.sleep(0.2)
    assert call["who"] == "you as Ben Okafor" and call["person"] == "ben@acme.example"
    assert call["acting"]["by"] == "operator" and call["acting"]["as"] == f"person:{call['person_id']}"
    why = demo.ask("GET", f"/api/why/{answer['call_id']}")
    assert "It was made by you as Ben Okafor in the demo." in why["because"]
    (entry,) = [one for one in why["audit"] if one["action"] == "call"]
    assert entry["who"] == "you as Ben Okafor" and entry["acting"] == call["acting"]

    def others() -> set[str]:
        """Who made the calls of the demo's traffic, which begins by itself."""
        entries = demo.ask("GET", "/api/audit?limit=500")["entries"]
        return {one["who"] for one in entries if one["action"] == "call" and not one["acting"]}

    while not (made := others()):
        assert time.monotonic() < deadline + 30
        time.sleep(0.3)
    assert made == {"gateway"}
