"""Promise 5: what is revoked stays revoked.

A revoked permission or a deleted document is gone from the next retrieval, from cached answers too. A revoked key, a
withdrawn approval (of a workload, and of a model, a prompt and a source that it uses) and a kill are reported effective
once every gateway has acknowledged them; of a gateway that is cut off it is told until when it may serve, and it serves
no longer.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import psycopg
import pytest

from groundplan.core.database import DATABASE, role_name
from groundplan.core.home import Home
from groundplan.runtime.postgres import EmbeddedPostgres
from tests.acceptance.stack import Answer, Stack, Upstream, request, wait_until

WORKERS = 2
ASKED = 16
"""Often enough that each worker is asked."""
QUESTION = "How long is paid leave?"
SECRET = "28 days"
WORKSPACE = """kind: company
name: acme
format: 1
separation: enforced
caps: {people: unlimited, calls_per_day: unlimited}
---
kind: person
name: ana
email: ana@acme.example
---
kind: person
name: ben
email: ben@acme.example
---
kind: person
name: sam
email: sam@acme.example
---
kind: group
name: staff
members: [ana, ben]
---
kind: site
name: here
type: private
jurisdiction: EU
---
kind: deployment
name: one
site: here
model: scripted
upstream_model: scripted
url: URL
price: {input: 0 USD/Mtok, output: 10 USD/Mtok}
context: 32k
---
kind: prompt
name: polite
version: 1
text: Be polite.
owner: ana
---
kind: source
name: handbook
path: ./handbook
sensitivity: internal
owner: ana
readers: [staff]
---
kind: budget
name: company
covers: company
limit: 1000 USD/month
"""
WORKLOAD = """---
kind: workload
name: {name}
purpose: Answer questions of the staff
audience: employees
stage: {stage}
sensitivity: internal
deployments: [one]
owners: {{{owners}}}
{more}
---
kind: budget
name: {name}
covers: workload/{name}
limit: 100 USD/month
"""
WORKLOADS = {
    "asked": "sources: [handbook]",
    "remembered": "sources: [handbook]\ncache: {answers: exact, ttl: 1h, scope: group}",
    "brief": "grace: 6s",
    "patient": "grace: 10m",
}
OTHERS = ("product", "architecture", "engineering", "operations", "security", "finance", "data", "compliance")
OWNERS = "business: ana, " + ", ".join(f"{duty}: sam" for duty in OTHERS)
USES = "prompt: polite\nsources: [handbook]"
PRODUCTION = WORKLOAD.format(name="live", stage="production", owners=OWNERS, more=USES)
PARTS = {"model": "model/scripted", "prompt": "prompt/polite", "data": "source/handbook"}


@dataclass
class World:
    stack: Stack
    files: dict[str, str]

    def api(self, method: str, path: str, body: Any = None, **headers: str) -> Answer:
        token = (self.stack.home / "operator.token").read_text().strip()
        sent = headers or {"authorization": f"Bearer {token}"}
        sent = {name.replace("_", "-"): value for name, value in sent.items()}
        answer = request(self.stack.control_port, method, path, body, sent)
        assert answer.status < 400, answer.body
        return answer

    def as_person(self, email: str) -> dict[str, str]:
        """Headers of a browser that is signed in."""
        return {name.replace("-", "_"): value for name, value in self.stack.sign_in(email).items()}

    def key(self, workload: str, user: str | None = None) -> tuple[str, str]:
        """(id, key)"""
        email = None if user is None else f"{user}@acme.example"
        made = self.api("POST", "/api/keys", {"workload": workload, "user": email}).body
        wait_until(lambda: self.sql(BEHIND) == [(0,)], 30, "every gateway knows it")
        return made["id"], made["key"]

    def asked(self, key: str, times: int = ASKED) -> list[Answer]:
        return [self.stack.chat(key, QUESTION) for _ in range(times)]

    def admin(self, *statements: str) -> None:
        for statement in statements:
            self.sql(statement)

    def sql(self, statement: str) -> list[tuple[Any, ...]]:
        """As who sees everything."""
        url = EmbeddedPostgres(Home(self.stack.home)).superuser_url(DATABASE)
        with psycopg.connect(url, autocommit=True) as connection:
            cursor = connection.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []


def confirmed(world: World, told: dict[str, Any]) -> None:
    """A stop is effective, or, on a busy machine, it is told which gateways have not said so yet, and they do."""
    assert len(told["acknowledged"]) + len(told["waiting"]) == WORKERS and told["complete"] == (not told["waiting"])
    if not told["complete"]:
        wait_until(lambda: world.sql(BEHIND) == [(0,)], 30, "every gateway has acknowledged it")


BEHIND = """SELECT count(*) FROM gateway WHERE state = 'live' AND host <> 'batch' AND (
    policy_ack < (SELECT number FROM policy_epoch) OR blueprint < (SELECT max(number) FROM blueprint))"""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("revoked")
    upstream = Upstream(folder / "upstream")
    workspace = folder / "workspace"
    (workspace / "handbook").mkdir(parents=True)
    (workspace / "handbook" / "leave.md").write_text(f"# Leave\n\nEmployees have {SECRET} of paid leave a year.\n")
    (workspace / "handbook" / "bread.md").write_text("# Bread\n\nThe canteen bakes its own bread.\n")
    owners = "business: ana, security: sam"
    texts = [WORKLOAD.format(name=n, stage="pilot", owners=owners, more=more) for n, more in WORKLOADS.items()]
    files = {"company.yaml": WORKSPACE.replace("URL", upstream.url) + "".join(texts)}
    for name, text in files.items():
        (workspace / name).write_text(text)
    stack = Stack(folder, workspace, WORKERS)
    try:
        upstream.start()
        stack.start()
        made = World(stack, files)
        made.api("POST", "/api/knowledge/ingest", {})
        yield made
    finally:
        stack.stop()
        upstream.stop()


def knows(answer: Answer) -> bool:
    """Whether an answer rests on the document, in its text or its sources."""
    assert answer.status == 200, answer.body
    sources = [source["path"] for source in answer.body["groundplan"]["sources"]]
    found = SECRET in json.dumps(answer.body) or any("leave.md" in path for path in sources)
    assert found == any("leave.md" in path for path in sources)
    return found


def warm(world: World, key: str) -> None:
    """Until an answer was given again, and then so often that each worker has it."""
    answers = world.asked(key)
    assert all(knows(answer) for answer in answers)
    assert any(answer.body["groundplan"]["cache"] == "exact" for answer in answers)


def test_a_revoked_permission_is_gone_from_the_next_retrieval_and_from_cached_answers(world: World) -> None:
    keys = {name: [world.key(w, name)[1] for w in ("asked", "remembered")] for name in ("ana", "ben")}
    for person in keys.values():
        assert knows(world.stack.chat(person[0], QUESTION))
        warm(world, person[1])
    done = world.api("DELETE", "/api/groups/staff/members/ben@acme.example").body
    first = [world.stack.chat(key, QUESTION) for key in keys["ben"]]
    assert not any(knows(answer) for answer in first), "the very next one"
    confirmed(world, done["effective"])
    for key in keys["ben"]:
        assert not any(knows(answer) for answer in world.asked(key))
    for key in keys["ana"]:
        assert all(knows(answer) for answer in world.asked(key)), "who still may read it does"


def test_a_deleted_document_is_gone_from_the_next_retrieval_and_from_cached_answers(world: World) -> None:
    keys = [world.key(workload, "ana")[1] for workload in ("asked", "remembered")]
    warm(world, keys[1])
    (world.stack.workspace / "handbook" / "leave.md").unlink()
    world.api("POST", "/api/knowledge/ingest", {})
    for key in keys:
        assert not any(knows(answer) for answer in world.asked(key))


def test_a_revoked_key_is_refused_by_every_gateway_once_that_is_told(world: World) -> None:
    (id, key), (_, other) = world.key("brief"), world.key("brief")
    assert {answer.status for answer in world.asked(key)} == {200}
    confirmed(world, world.stack.cli("keys", "revoke", id, code=None)["effective"])
    assert {(answer.status, answer.code) for answer in world.asked(key)} == {(401, "key_revoked")}
    assert {answer.status for answer in world.asked(other)} == {200}


def test_a_kill_holds_at_every_gateway_once_that_is_told(world: World) -> None:
    _, key = world.key("brief")
    _, other = world.key("patient")
    confirmed(world, world.stack.cli("kill", "workload/brief", "-m", "a drill", code=None)["effective"])
    assert {(answer.status, answer.code) for answer in world.asked(key)} == {(403, "killed")}
    assert {answer.status for answer in world.asked(other)} == {200}
    confirmed(
        world, world.api("POST", "/api/kill/lift", {"scope": "workload/brief", "reason": "over"}).body["effective"]
    )
    assert {answer.status for answer in world.asked(key)} == {200}


def test_a_withdrawn_approval_ends_what_it_allowed_and_going_back_does_not_revive_it(world: World) -> None:
    files = world.files | {"live.yaml": PRODUCTION.removeprefix("---\n")}
    world.api("POST", "/api/apply", {"files": files})
    (change,) = [one["change"] for one in world.api("GET", "/api/status").body["pending"]]
    approve_parts(world, files, *PARTS)
    done: Any = None
    for email in ("ana@acme.example", "sam@acme.example"):
        done = world.api("POST", f"/api/changes/{change}/approve", {}, **world.as_person(email)).body
    with_it = done["blueprint"]
    wait_until(lambda: served(world) >= with_it, 30, "every gateway serves it")
    _, key = world.key("live")
    assert {answer.status for answer in world.asked(key)} == {200}
    for kind, subject in PARTS.items():
        (held,) = [each for each in world.api("GET", "/api/approvals").body["approvals"] if each["kind"] == kind]
        told = world.api("POST", f"/api/changes/{held['id']}/withdraw", {}, **world.as_person("sam@acme.example")).body
        confirmed(world, told["effective"])
        answers = world.asked(key)
        assert {(each.status, each.code) for each in answers} == {(403, "approval_withdrawn")}, kind
        assert all(subject in each.body["error"]["message"] for each in answers)
        approve_parts(world, files, kind)
        wait_until(lambda: world.stack.chat(key, QUESTION).status == 200, 30, f"{kind} is approved again")
    gone = world.api("POST", f"/api/changes/{change}/withdraw", {}, **world.as_person("sam@acme.example")).body
    assert gone["blueprint"] == with_it + 1
    confirmed(world, gone["effective"])
    assert {(answer.status, answer.code) for answer in world.asked(key)} == {(403, "workload_unknown")}
    refused = world.stack.cli("rollback", str(with_it), code=None)
    assert refused["error"]["code"] == "rollback_revives"


def approve_parts(world: World, files: dict[str, str], *kinds: str) -> None:
    """Ask for what production uses and is not approved, and approve it."""
    asked = world.api("POST", "/api/approvals/missing", {"reason": "evaluated", "files": files}).body["asked"]
    assert {each["kind"] for each in asked} == {*kinds}
    for each in asked:
        world.api("POST", f"/api/changes/{each['id']}/approve", {}, **world.as_person("sam@acme.example"))


def served(world: World) -> int:
    """The lowest number of a blueprint that some gateway serves."""
    return min(int(gateway["blueprint"]) for gateway in world.api("GET", "/api/status").body["gateways"])


def test_of_a_gateway_that_is_cut_off_it_is_told_until_when_it_may_serve_and_it_serves_no_longer(world: World) -> None:
    """The last one: whatever a gateway asks PostgreSQL is refused, while the control process goes on."""
    _, key = world.key("brief")
    _, other = world.key("patient")
    for each in (key, other):
        assert {answer.status for answer in world.asked(each)} == {200}
    role, world.stack.patient = role_name(DATABASE, "gateway"), False
    world.admin(
        f"ALTER ROLE {role} NOLOGIN",
        f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{role}'",
    )
    try:
        told = world.stack.cli("kill", "workload/brief", "-m", "a drill", code=69)["effective"]
        assert not told["complete"] and len(told["waiting"]) == WORKERS
        until = max(datetime.fromisoformat(gateway["until"]) for gateway in told["waiting"])
        after: list[Answer] = []
        while (begun := datetime.now(UTC)) < until + timedelta(seconds=1.5) or len(after) < ASKED:
            answer = world.stack.chat(key, QUESTION)
            after += [answer] if begun > until else []
            time.sleep(0.02)
        assert {(each.status, each.code) for each in after} == {(503, "policy_lease_expired")}
        again = world.stack.cli("kill", "workload/brief", "-m", "a drill")["effective"]
        assert again["complete"], "told as effective when nobody may serve it any more"
        longer = world.stack.cli("kill", "workload/patient", "-m", "a drill", code=69)["effective"]
        most = max(datetime.fromisoformat(gateway["until"]) for gateway in longer["waiting"])
        assert most > datetime.now(UTC) + timedelta(minutes=5), "a longer grace is told as it is"
        assert any(answer.status == 200 for answer in world.asked(other)), "and used by who has some of the budgets"
    finally:
        world.stack.patient = True
        world.admin(f"ALTER ROLE {role} LOGIN")
    wait_until(lambda: world.stack.heed(longer["number"]), 60, "every worker is back")
    for stopped in (key, other):
        wait_until(partial(_refused, world, stopped), 60, "the kill reached the gateways")
        assert {(answer.status, answer.code) for answer in world.asked(stopped)} == {(403, "killed")}


def _refused(world: World, key: str) -> bool:
    return all(answer.status == 403 for answer in world.asked(key))
