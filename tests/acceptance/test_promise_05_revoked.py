"""Promise 5: what is revoked stays revoked.

A revoked permission or a deleted document no longer counts for the next retrieval, nor for cached answers. A revoked
key, a withdrawn approval (of a workload, and of a model, a prompt and a source that it uses) and a kill are reported
effective once every gateway has acknowledged them. For a gateway that is cut off from the database, the report says
until when it may serve, and it serves no longer than that.
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
ENOUGH_CALLS = 16
"""Number of calls after which each worker has certainly served one."""
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
class Installation:
    stack: Stack
    files: dict[str, str]

    def api(self, method: str, path: str, body: Any = None, **headers: str) -> Answer:
        token = (self.stack.home / "operator.token").read_text().strip()
        headers_sent = headers or {"authorization": f"Bearer {token}"}
        headers_sent = {name.replace("_", "-"): value for name, value in headers_sent.items()}
        answer = request(self.stack.control_port, method, path, body, headers_sent)
        assert answer.status < 400, answer.body
        return answer

    def as_person(self, email: str) -> dict[str, str]:
        """Headers of a browser session of that person, as keyword arguments of `api`."""
        return {name.replace("-", "_"): value for name, value in self.stack.sign_in(email).items()}

    def key(self, workload: str, user: str | None = None) -> tuple[str, str]:
        """(id, key)"""
        email = None if user is None else f"{user}@acme.example"
        created = self.api("POST", "/api/keys", {"workload": workload, "user": email}).body
        wait_until(lambda: self.sql(GATEWAYS_BEHIND) == [(0,)], 30, "every gateway knows it")
        return created["id"], created["key"]

    def ask_often(self, key: str, times: int = ENOUGH_CALLS) -> list[Answer]:
        return [self.stack.chat(key, QUESTION) for _ in range(times)]

    def run_statements(self, *statements: str) -> None:
        for statement in statements:
            self.sql(statement)

    def sql(self, statement: str) -> list[tuple[Any, ...]]:
        """Run a query as superuser."""
        url = EmbeddedPostgres(Home(self.stack.home)).superuser_url(DATABASE)
        with psycopg.connect(url, autocommit=True) as connection:
            cursor = connection.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []


def assert_effective(installation: Installation, effect: dict[str, Any]) -> None:
    """The change is effective; or, on a busy machine, lists gateways that have yet to acknowledge it, and they do."""
    assert len(effect["acknowledged"]) + len(effect["waiting"]) == WORKERS and effect["complete"] == (
        not effect["waiting"]
    )
    if not effect["complete"]:
        wait_until(lambda: installation.sql(GATEWAYS_BEHIND) == [(0,)], 30, "every gateway has acknowledged it")


GATEWAYS_BEHIND = """SELECT count(*) FROM gateway WHERE state = 'live' AND host <> 'batch' AND (
    policy_ack < (SELECT number FROM policy_epoch) OR blueprint < (SELECT max(number) FROM blueprint))"""


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
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
        created = Installation(stack, files)
        created.api("POST", "/api/knowledge/ingest", {})
        yield created
    finally:
        stack.stop()
        upstream.stop()


def rests_on_document(answer: Answer) -> bool:
    """Whether an answer is based on the document, according to its text and its sources."""
    assert answer.status == 200, answer.body
    sources = [source["path"] for source in answer.body["groundplan"]["sources"]]
    found = SECRET in json.dumps(answer.body) or any("leave.md" in path for path in sources)
    assert found == any("leave.md" in path for path in sources)
    return found


def warm_cache(installation: Installation, key: str) -> None:
    """Ask so often that each worker has the answer in its cache; at least one answer must come from it."""
    answers = installation.ask_often(key)
    assert all(rests_on_document(answer) for answer in answers)
    assert any(answer.body["groundplan"]["cache"] == "exact" for answer in answers)


def test_a_revoked_permission_applies_to_the_next_retrieval_and_to_cached_answers(installation: Installation) -> None:
    keys = {name: [installation.key(w, name)[1] for w in ("asked", "remembered")] for name in ("ana", "ben")}
    for person in keys.values():
        assert rests_on_document(installation.stack.chat(person[0], QUESTION))
        warm_cache(installation, person[1])
    done = installation.api("DELETE", "/api/groups/staff/members/ben@acme.example").body
    first = [installation.stack.chat(key, QUESTION) for key in keys["ben"]]
    assert not any(rests_on_document(answer) for answer in first), "the very next retrieval"
    assert_effective(installation, done["effective"])
    for key in keys["ben"]:
        assert not any(rests_on_document(answer) for answer in installation.ask_often(key))
    for key in keys["ana"]:
        assert all(rests_on_document(answer) for answer in installation.ask_often(key)), (
            "people who may still read it get it"
        )


def test_a_deleted_document_is_gone_from_the_next_retrieval_and_from_cached_answers(installation: Installation) -> None:
    keys = [installation.key(workload, "ana")[1] for workload in ("asked", "remembered")]
    warm_cache(installation, keys[1])
    (installation.stack.workspace / "handbook" / "leave.md").unlink()
    installation.api("POST", "/api/knowledge/ingest", {})
    for key in keys:
        assert not any(rests_on_document(answer) for answer in installation.ask_often(key))


def test_every_gateway_refuses_a_revoked_key_once_the_revocation_is_effective(installation: Installation) -> None:
    (id, key), (_, other) = installation.key("brief"), installation.key("brief")
    assert {answer.status for answer in installation.ask_often(key)} == {200}
    assert_effective(installation, installation.stack.cli("keys", "revoke", id, code=None)["effective"])
    assert {(answer.status, answer.code) for answer in installation.ask_often(key)} == {(401, "key_revoked")}
    assert {answer.status for answer in installation.ask_often(other)} == {200}


def test_every_gateway_refuses_a_killed_workload_once_the_kill_is_effective(installation: Installation) -> None:
    _, key = installation.key("brief")
    _, other = installation.key("patient")
    assert_effective(
        installation, installation.stack.cli("kill", "workload/brief", "-m", "a drill", code=None)["effective"]
    )
    assert {(answer.status, answer.code) for answer in installation.ask_often(key)} == {(403, "killed")}
    assert {answer.status for answer in installation.ask_often(other)} == {200}
    assert_effective(
        installation,
        installation.api("POST", "/api/kill/lift", {"scope": "workload/brief", "reason": "over"}).body["effective"],
    )
    assert {answer.status for answer in installation.ask_often(key)} == {200}


def test_a_withdrawn_approval_stops_what_it_allowed_and_a_rollback_does_not_revive_it(
    installation: Installation,
) -> None:
    files = installation.files | {"live.yaml": PRODUCTION.removeprefix("---\n")}
    installation.api("POST", "/api/apply", {"files": files})
    (change,) = [one["change"] for one in installation.api("GET", "/api/status").body["pending"]]
    approve_parts(installation, files, *PARTS)
    done: Any = None
    for email in ("ana@acme.example", "sam@acme.example"):
        done = installation.api("POST", f"/api/changes/{change}/approve", {}, **installation.as_person(email)).body
    blueprint_with_change = done["blueprint"]
    wait_until(lambda: lowest_blueprint(installation) >= blueprint_with_change, 30, "every gateway serves it")
    _, key = installation.key("live")
    assert {answer.status for answer in installation.ask_often(key)} == {200}
    for kind, subject in PARTS.items():
        (held,) = [each for each in installation.api("GET", "/api/approvals").body["approvals"] if each["kind"] == kind]
        withdrawal = installation.api(
            "POST", f"/api/changes/{held['id']}/withdraw", {}, **installation.as_person("sam@acme.example")
        ).body
        assert_effective(installation, withdrawal["effective"])
        answers = installation.ask_often(key)
        assert {(each.status, each.code) for each in answers} == {(403, "approval_withdrawn")}, kind
        assert all(subject in each.body["error"]["message"] for each in answers)
        approve_parts(installation, files, kind)
        wait_until(lambda: installation.stack.chat(key, QUESTION).status == 200, 30, f"{kind} is approved again")
    withdrawn = installation.api(
        "POST", f"/api/changes/{change}/withdraw", {}, **installation.as_person("sam@acme.example")
    ).body
    assert withdrawn["blueprint"] == blueprint_with_change + 1
    assert_effective(installation, withdrawn["effective"])
    assert {(answer.status, answer.code) for answer in installation.ask_often(key)} == {(403, "workload_unknown")}
    refused = installation.stack.cli("rollback", str(blueprint_with_change), code=None)
    assert refused["error"]["code"] == "rollback_revives"


def approve_parts(installation: Installation, files: dict[str, str], *kinds: str) -> None:
    """Request the missing approvals of what production uses, which are of these kinds, and give them."""
    requested = installation.api("POST", "/api/approvals/missing", {"reason": "evaluated", "files": files}).body[
        "asked"
    ]
    assert {each["kind"] for each in requested} == {*kinds}
    for each in requested:
        installation.api("POST", f"/api/changes/{each['id']}/approve", {}, **installation.as_person("sam@acme.example"))


def lowest_blueprint(installation: Installation) -> int:
    """The lowest blueprint number that any gateway serves."""
    return min(int(gateway["blueprint"]) for gateway in installation.api("GET", "/api/status").body["gateways"])


def test_a_gateway_without_database_stops_serving_at_the_time_reported_for_it(installation: Installation) -> None:
    """The last test: PostgreSQL refuses the gateways' role, while the control process goes on."""
    _, key = installation.key("brief")
    _, other = installation.key("patient")
    for each in (key, other):
        assert {answer.status for answer in installation.ask_often(each)} == {200}
    role, installation.stack.retries_unreachable = role_name(DATABASE, "gateway"), False
    installation.run_statements(
        f"ALTER ROLE {role} NOLOGIN",
        f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{role}'",
    )
    try:
        effect = installation.stack.cli("kill", "workload/brief", "-m", "a drill", code=69)["effective"]
        assert not effect["complete"] and len(effect["waiting"]) == WORKERS
        until = max(datetime.fromisoformat(gateway["until"]) for gateway in effect["waiting"])
        after: list[Answer] = []
        while (begun := datetime.now(UTC)) < until + timedelta(seconds=1.5) or len(after) < ENOUGH_CALLS:
            answer = installation.stack.chat(key, QUESTION)
            after += [answer] if begun > until else []
            time.sleep(0.02)
        assert {(each.status, each.code) for each in after} == {(503, "policy_lease_expired")}
        again = installation.stack.cli("kill", "workload/brief", "-m", "a drill")["effective"]
        assert again["complete"], "effective when no gateway may serve it any more"
        longer = installation.stack.cli("kill", "workload/patient", "-m", "a drill", code=69)["effective"]
        latest = max(datetime.fromisoformat(gateway["until"]) for gateway in longer["waiting"])
        assert latest > datetime.now(UTC) + timedelta(minutes=5), "a longer grace is reported"
        assert any(answer.status == 200 for answer in installation.ask_often(other)), (
            "a workload in its grace is served by gateways that hold a slice"
        )
    finally:
        installation.stack.retries_unreachable = True
        installation.run_statements(f"ALTER ROLE {role} LOGIN")
    wait_until(lambda: installation.stack.has_acknowledged(longer["number"]), 60, "every worker is back")
    for stopped in (key, other):
        wait_until(partial(_all_refused, installation, stopped), 60, "the kill reached the gateways")
        assert {(answer.status, answer.code) for answer in installation.ask_often(stopped)} == {(403, "killed")}


def _all_refused(installation: Installation, key: str) -> bool:
    return all(answer.status == 403 for answer in installation.ask_often(key))
