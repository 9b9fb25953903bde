"""Company rules, exceptions and reviews over the control API and its pages, against a running control process."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlencode

import pytest
from tests.integration.test_access import World
from tests.integration.test_api_control import run_control

from groundplan.core.audit.subject import SubjectKeys
from groundplan.core.database import connect
from groundplan.core.ids import new_id
from groundplan.gateway.guard import held_store
from groundplan.gateway.guard.held_store import HeldCall
from groundplan.testing.database import Cluster

RULE = """
---
kind: policy
name: no-chat
owner: rule-owner@acme.example
mode: shadow
cedar: |
  @id("no-chat-at-all")
  forbid (principal, action == Action::"call", resource) when { context.endpoint == "chat.completions" };
"""


@pytest.fixture(scope="module")
def world(postgres_cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("rules")
    with (
        postgres_cluster.database() as database,
        run_control(
            database, folder, "--workspace", str(folder / "workspace"), module="groundplan.console.app"
        ) as control,
    ):
        files = control.files()
        files["acme.yaml"] += RULE
        done = control.ask("POST", "/api/apply", {"files": files, "folder": str(control.workspace), "reason": "a rule"})
        assert done.status == 200, done.body
        yield World(control, database)


def served(world: World) -> dict[str, Any]:
    found: dict[str, Any] = world.control.ask("GET", "/api/blueprints/current").body["content"]
    return found


def record_calls(world: World, count: int) -> None:
    """Calls as the shipper writes them."""
    content = served(world)
    workload, deployment = content["workloads"][0]["name"], content["deployments"][0]
    with connect(world.database.urls["owner"]) as conn:
        for number in range(count):
            conn.execute(
                """INSERT INTO call (id, at, workload, endpoint, status, http_status, model, deployment, site, cost_usd,
                     reserved_usd, blueprint, epoch, detail)
                   VALUES (%s, %s, %s, %s, 'ok', 200, %s, %s, %s, 0, 0, 1, %s, '{}')""",
                (
                    new_id(), datetime.now(UTC) - timedelta(minutes=number), workload,
                    "embeddings" if number % 3 == 0 else "chat.completions", deployment["model"], deployment["name"],
                    deployment["site"], new_id(),
                ),
            )  # fmt: skip


def test_calls_that_a_rule_would_refuse_are_reported(world: World) -> None:
    record_calls(world, 9)
    told = world.control.ask("GET", "/api/policies/shadow?days=1").body
    (trial,) = told["trials"]
    assert (trial["policy"], trial["looked_at"], trial["would_refuse"]) == ("no-chat", 9, 6)
    assert trial["rules"] == {"no-chat-at-all": 6} and len(trial["calls"]) == 6
    rule = 'forbid (principal, action == Action::"call", resource) when { context.endpoint == "embeddings" };'
    draft = {"cedar": rule, "days": 1}
    assert world.control.ask("POST", "/api/policies/try", draft).body["trials"][0]["would_refuse"] == 3
    for wrong in ("forbid (", "forbid (principal, action, resource) when { context.nothing };"):
        reply = world.control.ask("POST", "/api/policies/try", {"cedar": wrong})
        assert reply.status == 400 and reply.body["error"]["code"] in ("policy_syntax", "policy_type")
    assert world.control.ask("GET", "/api/policies/shadow?policy=none").status == 404


def test_an_exception_is_decided_by_somebody_other_than_the_requester(world: World) -> None:
    control = world.control
    asker, officer = world.person("asker", "engineering"), world.person("officer", "security")
    counsel = world.person("counsel", "compliance")
    body = {
        "rule": "no-chat-at-all", "workload": served(world)["workloads"][0]["name"], "reason": "a trial",
        "until": (datetime.now(UTC) + timedelta(days=2)).isoformat(),
    }  # fmt: skip
    assert control.ask("POST", "/api/policies/exceptions", {**body, "rule": "none"}, **asker).status == 404
    made = control.ask("POST", "/api/policies/exceptions", body, **asker)
    assert made.status == 201 and made.body["state"] == "asked"
    path = f"/api/policies/exceptions/{made.body['id']}"
    assert control.ask("POST", f"{path}/approve", {}, **asker).status == 403
    assert control.ask("POST", f"{path}/approve", {}).status == 403, "the operator never approves"
    linked = world.person("linked", "security", proof="recovery")
    assert control.ask("POST", f"{path}/approve", {}, **linked).body["error"]["code"] == "approval_unproven"
    one = control.ask("POST", f"{path}/approve", {"reason": "fine"}, **officer)
    assert (one.status, one.body["state"], one.body["waits_for"]) == (200, "asked", ["compliance"])
    found = control.ask("GET", "/api/changes?state=pending").body["changes"]
    (change,) = [each for each in found if each["id"] in path]
    assert change["type"] == "exception" and [need["duty"] for need in change["waits_for"]] == ["compliance"]
    done = control.ask("POST", f"{path}/approve", {"reason": "fine"}, **counsel)
    assert (done.status, done.body["state"], done.body["effective"]["complete"]) == (200, "approved", True)
    assert control.ask("POST", f"/api/changes/{made.body['id']}/renew", {"reason": "longer"}, **asker).status == 409
    assert control.ask("POST", f"{path}/refuse", {}, **officer).status == 409
    assert control.ask("POST", f"{path}/end", {}, **officer).body["state"] == "ended"
    own = control.ask("POST", "/api/policies/exceptions", body, **officer).body["id"]
    reply = control.ask("POST", f"/api/policies/exceptions/{own}/approve", {}, **officer)
    assert (reply.status, reply.body["error"]["code"]) == (403, "self_approval")
    assert control.ask("POST", f"/api/policies/exceptions/{own}/refuse", {"reason": "no"}, **counsel).status == 200
    assert control.ask("POST", "/api/policies/exceptions", {**body, "person": "no@acme.example"}, **asker).status == 404
    mine = control.ask("POST", "/api/policies/exceptions", {**body, "person": "asker@acme.example"}, **asker).body["id"]
    told = control.ask("GET", f"/api/changes/{mine}").body["summary"]["fields"]
    assert next(each["new"] for each in told if each["field"] == "person") not in ("everybody", "asker@acme.example")
    for path in (f"/governance/changes/{mine}", f"/governance/changes/{own}"):
        assert b"no-chat-at-all" in control.ask("GET", path, **officer).body
    for page in ("/governance/rules", "/governance/rules?days=7"):
        shown = control.ask("GET", page, **officer)
        assert shown.status == 200 and b"no-chat" in shown.body and b"a trial" in shown.body


def test_the_last_day_named_in_a_form_is_included(world: World) -> None:
    control, officer = world.control, world.person("dated", "security")
    day = datetime.now(UTC).date() + timedelta(days=2)
    said = {
        "csrf": officer["X_CSRF_Token"], "rule": "no-chat-at-all", "reason": "until its last day",
        "workload": served(world)["workloads"][0]["name"], "until": day.isoformat(),
    }  # fmt: skip
    headers = {"Cookie": officer["Cookie"], "Content-Type": "application/x-www-form-urlencoded"}
    with closing(http.client.HTTPConnection("localhost", control.port, timeout=60)) as connection:
        connection.request("POST", "/do/exception-ask", urlencode(said), headers)
        assert connection.getresponse().status == 303
    made = control.ask("GET", "/api/policies/exceptions").body["exceptions"]
    (until,) = (each["until"] for each in made if each["reason"] == said["reason"])
    assert datetime.fromisoformat(until) == datetime(day.year, day.month, day.day, tzinfo=UTC) + timedelta(days=1)
    for last, seen in (
        (day - timedelta(days=1), True),
        (day - timedelta(days=2), True),
        (day - timedelta(days=9), False),
    ):
        page = control.ask("GET", f"/governance?until={last}", **officer).body
        assert (b'data-label="What"' in page) is seen, last
    assert control.ask("GET", "/governance?until=soon", **officer).status == 200


def hold(world: World, kind: str = "answer", reviewers: tuple[str, ...] = ()) -> str:
    """Something waits, as a gateway puts it there."""
    id, key = new_id(), new_id()
    with connect(world.database.urls["gateway"]) as conn:
        keys = SubjectKeys.of(world.control.home)
        sealed = [keys.seal(conn, key, text) for text in ("a question <b>", "an answer <script>")]
        within = timedelta(minutes=5)
        waiting = HeldCall(id, kind, "w", key, None, new_id(), "gpt", sealed[0], sealed[1], within, reviewers)
        held_store.add_held(conn, waiting)
    return str(id)


def test_only_permitted_people_see_and_decide_reviews(world: World) -> None:
    control = world.control
    product, finance = world.person("pia", "product"), world.person("fred", "finance")
    named = world.person("named")
    ours, theirs, tool = hold(world), hold(world, reviewers=("named@acme.example",)), hold(world, "tool")
    assert control.ask("GET", f"/api/reviews/{ours}", **finance).status == 403
    assert control.ask("GET", f"/api/reviews/{tool}", **product).status == 403
    assert control.ask("GET", f"/api/reviews/{theirs}", **product).status == 403
    read = control.ask("GET", f"/api/reviews/{theirs}", **named).body
    assert (read["asked"], read["said"]) == ("a question <b>", "an answer <script>")
    page = control.ask("GET", f"/governance/reviews/{ours}", **product)
    assert page.status == 200 and b"an answer &lt;script&gt;" in page.body and b"<script>" not in page.body
    queue = control.ask("GET", "/api/reviews", **finance).body["reviews"]
    assert {each["id"] for each in queue} == {ours, theirs, tool} and "asked" not in queue[0]
    for who, mine in ((finance, set()), (product, {ours}), (named, {theirs})):
        items = [each for each in control.ask("GET", "/api/inbox", **who).body["items"] if each["kind"] == "review"]
        assert {each["subject"].partition("/")[2] for each in items if each["mine"]} == mine
        assert len(items) == (1 if who is named else 3), "who holds no duty has their own"
    assert f'href="/governance/reviews/{ours}"'.encode() in control.ask("GET", "/inbox", **product).body
    assert control.ask("POST", f"/api/reviews/{ours}/release", {"minutes": 3}, **product).body["state"] == "released"
    assert control.ask("POST", f"/api/reviews/{theirs}/refuse", {"reason": "no"}, **named).body["state"] == "refused"
    assert control.ask("POST", f"/api/reviews/{ours}/refuse", {}, **product).status == 409
    assert control.ask("GET", f"/api/reviews/{new_id()}", **product).status == 404
    told = control.ask("GET", "/api/reviews?all=true", **finance).body
    assert {(each["workload"], each["decided"]) for each in told["minutes"]} == {("w", 2)}
    said = {each["id"]: (each["minutes_said"], each["minutes"]) for each in told["reviews"] if each["id"] != tool}
    assert said[ours] == (True, 3.0) and said[theirs][0] is False, "minutes that nobody says are counted"
    with connect(world.database.urls["control"]) as conn:
        rows = conn.execute("SELECT body FROM audit_entry WHERE action LIKE 'review%'").fetchall()
    assert len(rows) == 4 and not any(b"question" in bytes(row[0]) for row in rows)
    assert json.loads(json.dumps(told))["reviews"]


def test_a_dangerous_tool_call_is_released_by_a_person_who_is_present(world: World) -> None:
    """Not by the operator's token, nor by a link that its holder makes in somebody's name; both may refuse."""
    control = world.control
    path, by_link = f"/api/reviews/{hold(world, 'tool')}", world.person("toollink", "security", proof="recovery")
    for session in ({}, by_link):
        assert control.ask("POST", f"{path}/release", {}, **session).code == "approval_unproven"
    there = world.person("tooler", "security")
    assert control.ask("POST", f"{path}/release", {}, **there).body["state"] == "released"
    other = f"/api/reviews/{hold(world, 'tool')}"
    assert control.ask("POST", f"{other}/refuse", {"reason": "no"}).body["state"] == "refused"
