"""The control API as its own process on a real database: who may, what it tells, what it refuses."""

from __future__ import annotations

import http.client
import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psycopg
import pytest
from tests.integration.nursery import fork_program
from typer.testing import CliRunner

from groundplan.api import genesis
from groundplan.api.genesis import prepare_home
from groundplan.cli.main import app
from groundplan.core.home import Home
from groundplan.testing.database import Cluster, Database
from groundplan.testing.passkey import SoftPasskey

ANSWER_TIMEOUT_S = 120.0
"""How long an answer may take: the first report loads what draws it, which is seconds of computing."""
WORKSPACE = """\
kind: company
name: acme
format: 1
approvals: {parts: []}
---
kind: person
name: ana
email: ana@acme.example
full_name: Ana Lind
---
kind: person
name: sam
email: sam@acme.example
full_name: Sam Berg
---
kind: group
name: hr
members: [ana]
---
kind: site
name: here
type: private
jurisdiction: EU
---
kind: deployment
name: local
site: here
model: acme/model
url: http://127.0.0.1:9/v1
price: {input: 0 USD/Mtok, output: 10 USD/Mtok}
---
kind: workload
name: assistant
purpose: Answer questions
stage: pilot
sensitivity: internal
residency: [EU]
deployments: [local]
owners: {business: ana, security: sam}
---
kind: budget
name: assistant
covers: workload/assistant
limit: 100 USD/month
"""


@dataclass(frozen=True)
class Answer:
    status: int
    body: Any
    headers: dict[str, str]

    @property
    def code(self) -> str:
        if "error" not in self.body:  # a directory is told in the words of SCIM
            return str(self.body["detail"]).partition("[")[2].partition("]")[0]
        return str(self.body["error"]["code"])


@dataclass(frozen=True)
class Control:
    """A running control process; requests carry the operator's token unless told otherwise."""

    home: Home
    workspace: Path
    port: int
    devices: dict[str, SoftPasskey] = field(default_factory=dict)
    """Each person's passkey, by e-mail address."""

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=ANSWER_TIMEOUT_S)
        sent = {"Authorization": f"Bearer {self.home.operator_token.read_text().strip()}"}
        sent["Host"] = f"localhost:{self.port}"  # passkeys are bound to the name
        sent.update({name.replace("_", "-"): value for name, value in headers.items()})
        sent = {name: value for name, value in sent.items() if value}
        data = None
        if body is not None:
            data = body if isinstance(body, bytes) else json.dumps(body).encode()
            sent["Content-Type"] = "application/json"
        try:
            connection.request(method, path, data, sent)
            reply = connection.getresponse()
            raw = reply.read()
            reply_headers = {name.lower(): value for name, value in reply.getheaders()}
        finally:
            connection.close()
        return Answer(reply.status, json.loads(raw) if raw.startswith((b"{", b"[")) else raw, reply_headers)

    def files(self) -> dict[str, str]:
        return {path.name: path.read_text() for path in self.workspace.glob("*.yaml")}

    def sign_in(self, person: str | None = None) -> dict[str, str]:
        """Headers of a browser: of the operator by a link, of a person by a passkey, which is registered and confirmed
        by a colleague at the first time."""
        if person is None:
            return self.follow_link()
        if person not in self.devices:
            self.register(person)
        options = self.ask("POST", "/api/sign-in/passkey/options", {}, Authorization="").body
        answer = self.devices[person].get(options["options"])
        body = {"ceremony": options["ceremony"], "response": answer}
        return self._session(self.ask("POST", "/api/sign-in/passkey", body, Authorization=""))

    def register(self, person: str) -> Answer:
        """Give somebody a passkey after a link of the operator, and have it confirmed where that is needed."""
        device = SoftPasskey(f"http://localhost:{self.port}")
        session = self.follow_link(person)
        options = self.ask("POST", "/api/passkeys/registration", {}, **session).body
        body = {"ceremony": options["ceremony"], "response": device.create(options["options"])}
        created = self.ask("POST", "/api/passkeys", body, **session)
        assert created.status == 201, created.body
        if not created.body["confirmed"]:
            colleague = self.sign_in(next(iter(self.devices)))
            assert self.ask("POST", f"/api/passkeys/{created.body['id']}/confirm", {}, **colleague).status == 200
        self.devices[person] = device
        return created

    def _session(self, reply: Answer) -> dict[str, str]:
        assert reply.status == 200, reply.body
        session = {"Authorization": "", "Cookie": reply.headers["set-cookie"].partition(";")[0]}
        return {**session, "X_CSRF_Token": self.ask("GET", "/api/session", **session).body["csrf"]}

    def follow_link(self, person: str | None = None) -> dict[str, str]:
        """Headers of a browser that followed a one-time link."""
        url = self.ask("POST", "/api/login-links", {"person": person}).body["url"]
        reply = self.ask("GET", urlsplit(url).path, Authorization="")
        assert reply.status == 303
        cookie = reply.headers["set-cookie"]
        assert "HttpOnly" in cookie and "samesite=strict" in cookie.lower()
        session = {"Authorization": "", "Cookie": cookie.partition(";")[0]}
        csrf = self.ask("GET", "/api/session", **session).body["csrf"]
        return {**session, "X_CSRF_Token": csrf}


@pytest.fixture(scope="module")
def control(postgres_cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Control]:
    """One for all tests that leave blueprint 1 as it is."""
    with (
        postgres_cluster.database() as database,
        run_control(database, tmp_path_factory.mktemp("control")) as control_process,
    ):
        yield control_process


@pytest.fixture
def fresh_control(database: Database, tmp_path: Path) -> Iterator[Control]:
    """One of its own, for a test that changes what is served."""
    with run_control(database, tmp_path) as control_process:
        yield control_process


@contextmanager
def run_control(
    database: Database, tmp_path: Path, *options: str, module: str = "groundplan.api.app"
) -> Iterator[Control]:
    """A control process with the small workspace, as a demo unless `options` are given."""
    home, workspace = Home(tmp_path / "home"), tmp_path / "workspace"
    workspace.mkdir(exist_ok=True)
    (workspace / "acme.yaml").write_text(WORKSPACE)
    prepare_home(home)
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    log = (tmp_path / "control.log").open("wb")
    arguments = ["--home", str(home.root), "--workspace", str(workspace), *(options or ("--demo",))]
    environment = {**os.environ, "GROUNDPLAN_DATABASE_URL": database.dsn}
    process = fork_program(module, arguments, log.fileno(), environment, listener.fileno())
    listener.close()
    control_process = Control(home, workspace, port)
    try:
        deadline = time.monotonic() + 60
        while True:
            assert process.poll() is None, (tmp_path / "control.log").read_text()
            assert time.monotonic() < deadline, (tmp_path / "control.log").read_text()
            try:
                if control_process.ask("GET", "/livez").status == 200:
                    break
            except OSError:
                time.sleep(0.05)
        yield control_process
    finally:
        process.terminate()
        process.wait(60)
        log.close()


def test_genesis_and_status(control: Control) -> None:
    status = control.ask("GET", "/api/status").body
    assert status["blueprint"] == 1 and status["company"] == "acme"
    assert status["gateways"] == [] and status["pending"] == [] and status["difference"] == []
    assert status["postgres"] == "external"
    blueprint = control.ask("GET", "/api/blueprints/current").body
    assert blueprint["genesis"] and blueprint["content"]["budgets"][0]["limit_usd"] == "100.000000000000"
    assert [row["number"] for row in control.ask("GET", "/api/blueprints").body["blueprints"]] == [1]


def test_an_unknown_query_parameter_is_refused_with_the_known_ones(control: Control) -> None:
    """A mistyped filter would show everything."""
    told = control.ask("GET", "/api/calls?worklod=assistant&limit=5")
    assert (told.status, told.code) == (400, "query_unknown") and "worklod" in told.body["error"]["message"]
    hint = "It has: before, deployment, key, limit, person, status, workload."
    assert told.body["error"]["hint"] == hint
    assert control.ask("GET", "/api/calls?workload=assistant&limit=5").status == 200
    assert control.ask("GET", "/api/status?at=now").status == 200, "where nothing is picked out nothing is mistaken"
    assert control.ask("GET", "/api/scim/v2/Users?schema=x").code != "query_unknown", "directories ask what they like"


def test_a_missing_provider_key_is_reported_with_its_location(fresh_control: Control, tmp_path: Path) -> None:
    """At the apply, and by status until it is: its callers were the first to hear of it."""
    key = tmp_path / "key"
    files = {"acme.yaml": WORKSPACE.replace("name: local\n", f"name: local\nkey: file:{key}\n", 1)}
    applied = fresh_control.ask("POST", "/api/apply", {"files": files, "reason": "with a key"}).body
    (told,) = (note for note in applied["notes"] if "calls of local will fail" in note)
    assert applied["blueprint"] == 2 and str(key) in told
    assert told in fresh_control.ask("GET", "/api/status").body["problems"]
    key.write_text("sk-1")
    assert fresh_control.ask("GET", "/api/status").body["problems"] == []


def test_an_unreadable_workspace_does_not_stop_the_control_api(database: Database, tmp_path: Path) -> None:
    with run_control(database, tmp_path):
        pass
    (tmp_path / "workspace" / "costs.yaml").write_text("kind: allocation\nname: platform\nper: gigabyte\n")
    with run_control(database, tmp_path) as again:
        assert again.ask("GET", "/api/status").body["blueprint"] == 1


def test_unauthenticated_requests_are_refused(control: Control) -> None:
    assert control.ask("GET", "/api/status", Authorization="").code == "not_signed_in"
    assert control.ask("GET", "/api/status", Authorization="Bearer gpo_wrong").code == "token_invalid"
    assert (
        control.ask("GET", "/api/status", Authorization="", Cookie=f"groundplan_session_{control.port}=x").status == 401
    )


def test_a_foreign_host_header_is_refused(control: Control) -> None:
    refused = control.ask("GET", "/api/status", Host="evil.example")
    assert (refused.status, refused.code) == (421, "host_not_allowed")
    assert control.ask("GET", "/api/status", Host=f"localhost:{control.port}").status == 200


def test_answers_carry_safe_headers(control: Control) -> None:
    headers = control.ask("GET", "/api/status").headers
    assert "default-src 'self'" in headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff" and headers["x-frame-options"] == "DENY"


def test_a_link_works_once_and_writes_need_the_csrf_token(control: Control) -> None:
    url = control.ask("POST", "/api/login-links", {"person": None}).body["url"]
    assert control.ask("GET", urlsplit(url).path, Authorization="").status == 303
    assert control.ask("GET", urlsplit(url).path, Authorization="").status == 401
    browser = control.sign_in("ana@acme.example")
    me = control.ask("GET", "/api/session", **browser).body
    assert me["email"] == "ana@acme.example" and not me["operator"]
    forged = {**browser, "X_CSRF_Token": ""}
    assert control.ask("POST", "/api/logout", {}, **forged).code == "csrf"
    elsewhere = control.ask("POST", "/api/logout", {}, Origin="http://evil.example", **browser)
    assert elsewhere.code == "csrf_origin"
    assert control.ask("POST", "/api/logout", {}, **browser).status == 200
    assert control.ask("GET", "/api/session", **browser).status == 401


def test_keys_are_shown_once_and_revoked(control: Control) -> None:
    made = control.ask("POST", "/api/keys", {"workload": "assistant", "user": "ana@acme.example"})
    assert made.status == 201 and made.body["key"].startswith("gp_") and made.body["effective"]["complete"]
    listed = control.ask("GET", "/api/keys").body["keys"]
    assert listed[0]["id"] == made.body["id"] and made.body["key"] not in json.dumps(listed)
    told = {of: control.ask("GET", f"/api/keys?{of}").body["keys"] for of in ("user=Ana@acme.example", "tag=none")}
    assert told["user=Ana@acme.example"][0]["id"] == made.body["id"] and told["tag=none"] == []
    gone = control.ask("DELETE", f"/api/keys/{made.body['id']}").body
    assert gone["effective"]["complete"], "no gateway runs that could still serve"
    states = {key["id"]: key["state"] for key in control.ask("GET", "/api/keys").body["keys"]}
    assert states[made.body["id"]] == "revoked"
    assert control.ask("POST", "/api/keys", {"workload": "nobody"}).code == "workload_unknown"
    assert control.ask("POST", "/api/keys", {"workload": "assistant", "user": "x@acme.example"}).status == 404
    assert control.ask("POST", "/api/keys", {"workload": "assistant", "user": "xxx"}).code == "unknown_person"
    assert control.ask("POST", "/api/keys", {"workload": "assistant", "user": "ana"}).status == 201


def test_a_key_has_its_own_terms_and_is_rotated_once(control: Control) -> None:
    terms = {
        "workload": "assistant", "days": 30, "budget": "20 USD/month", "tags": ["team:search"],
        "networks": ["10.0.0.0/8"], "models": ["acme/model"],
    }  # fmt: skip
    old = control.ask("POST", "/api/keys", terms).body
    new = control.ask("POST", f"/api/keys/{old['id']}/rotate", {"overlap": "1h"})
    assert new.status == 201 and new.body["key"] != old["key"] and new.body["replaces"] == old["id"]
    assert old["effective"]["complete"] and new.body["effective"]["number"] > old["effective"]["number"]
    keys = {key["id"]: key for key in control.ask("GET", "/api/keys").body["keys"]}
    for key in (keys[old["id"]], keys[new.body["id"]]):
        assert (key["state"], key["budget_usd"], key["budget_period"]) == ("active", "20.000000000000", "month")
        assert (key["tags"], key["networks"], key["models"]) == (["team:search"], ["10.0.0.0/8"], ["acme/model"])
    assert keys[old["id"]]["replaced_by"] == new.body["id"]
    assert keys[old["id"]]["expires_at"] < keys[new.body["id"]]["expires_at"]
    again = control.ask("POST", f"/api/keys/{old['id']}/rotate", {})
    assert (again.status, again.code) == (409, "key_rotated")
    oddly = {"scope": f"key/{new.body['id']}", "reason": "it asks oddly"}
    killed = control.ask("POST", "/api/kill", {**oddly, "scope": oddly["scope"].upper().replace("KEY", "key")}).body
    assert (killed["scope"], killed["also_stopped"]) == (oddly["scope"], [old["id"]]), "which had an hour left"
    stopped = control.ask("POST", f"/api/keys/{new.body['id']}/rotate", {})
    assert (stopped.status, stopped.code) == (409, "key_stopped"), "and so its successor would be"
    by_the_other = {"scope": f"key/{old['id']}", "reason": "it may go on"}
    refused = control.ask("POST", "/api/kill/lift", by_the_other)
    assert refused.code == "not_killed" and oddly["scope"] in refused.body["error"]["message"]
    why = control.ask("GET", f"/api/why/key/{old['id']}").body
    assert [kill["scope"] for kill in why["facts"]["kills"]] == [oddly["scope"]]
    assert any(f"{oddly['scope']}, a key of its line of rotations, is stopped" in line for line in why["because"])
    assert control.ask("POST", "/api/kill/lift", oddly).status == 200
    assert control.ask("GET", f"/api/why/{old['id']}").body["facts"]["kills"] == []
    for wrong, code in (
        ({"budget": "20 USD"}, "key_terms"),
        ({"networks": ["nowhere"]}, "key_terms"),
        ({"models": ["x"]}, "model_unknown"),
    ):
        assert control.ask("POST", "/api/keys", {"workload": "assistant", **wrong}).code == code
    refused = control.ask("POST", "/api/keys", {"workload": "assistant", "tags": ["two words"]})
    told = "tags.0: the tag 'two words' is not valid: write up to 63 letters"
    assert refused.status == 422 and refused.body["error"]["message"].startswith(told)
    assert control.ask("POST", f"/api/keys/{new.body['id']}/rotate", {"overlap": "200d"}).code == "overlap"
    named = control.ask("POST", "/api/keys", {"workload": "assistant", "models": ["model"]})
    listed = {key["id"]: key["models"] for key in control.ask("GET", "/api/keys").body["keys"]}
    assert listed[named.body["id"]] == ["local"], "the upstream's name means the deployments that bear it"


def test_every_key_is_listed_page_by_page(database: Database, tmp_path: Path) -> None:
    """Each question of the playground makes one, and the one that is looked for is old."""
    with run_control(database, tmp_path) as found:
        first = found.ask("POST", "/api/keys", {"workload": "assistant", "tags": ["search"]}).body["id"]
        with psycopg.connect(database.superuser, autocommit=True) as conn:
            conn.execute(
                """INSERT INTO api_key (id, hash, prefix, workload, created_at, created_by, family)
                   SELECT md5(n::text)::uuid, sha256(n::text::bytea), 'gp_x', workload,
                     created_at + n * interval '1 second', created_by, md5(n::text)::uuid
                   FROM api_key, generate_series(1, 520) n WHERE id = %s""",
                (first,),
            )
        page = found.ask("GET", "/api/keys").body
        assert len(page["keys"]) == 500 and page["next"] == page["keys"][-1]["id"]
        rest = found.ask("GET", f"/api/keys?before={page['next']}").body
        assert rest["keys"][-1]["id"] == first and rest["next"] is None
        assert len({key["id"] for key in (*page["keys"], *rest["keys"])}) == 521
        assert [key["id"] for key in found.ask("GET", "/api/keys?tag=search").body["keys"]] == [first]
        here = {
            "GROUNDPLAN_URL": f"http://127.0.0.1:{found.port}",
            "GROUNDPLAN_TOKEN": found.home.operator_token.read_text().strip(),
        }
        for options, number in (((), 521), (("--tag", "search"), 1)):
            told = json.loads(CliRunner().invoke(app, ["keys", "list", "--json", *options], env=here).stdout)
            assert len(told["keys"]) == number and told["keys"][-1]["id"] == first


def test_limits_are_listed_with_who_is_near_them(control: Control) -> None:
    found = control.ask("GET", "/api/limits")
    assert (found.status, found.body["limits"]) == (200, [])
    told = control.ask("GET", "/api/status").body
    assert (told["near_limits"], told["problems"]) == ([], [])


def test_bad_requests_have_code_and_hint(control: Control) -> None:
    cases = [
        control.ask("POST", "/api/keys", {"workload": "assistant", "colour": "red"}),
        control.ask("POST", "/api/keys", b"{not json"),
        control.ask("POST", "/api/keys", b"\xff\xfe"),
        control.ask("GET", "/api/blueprints/999"),
        control.ask("GET", "/api/blueprints/;drop"),
        control.ask("GET", "/api/calls/not-an-id"),
        control.ask("DELETE", "/api/status"),
        control.ask("GET", "/api/nowhere"),
    ]
    for answer in cases:
        assert 400 <= answer.status < 500, answer
        assert answer.body["error"]["code"] and answer.body["error"]["hint"], answer


def test_a_huge_body_is_not_read(control: Control) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", control.port, timeout=60)
    connection.putrequest("POST", "/api/plan")
    connection.putheader("Content-Length", str(50 << 20))
    connection.endheaders()
    reply = connection.getresponse()
    assert reply.status == 413
    connection.close()


def test_apply_then_roll_back(fresh_control: Control) -> None:
    first = fresh_control.ask("POST", "/api/rollback", {})
    assert (first.status, first.code) == (404, "blueprint_unknown") and "first one" in first.body["error"]["message"]
    files = {name: text.replace("100 USD/month", "90 USD/month") for name, text in fresh_control.files().items()}
    planned = fresh_control.ask("POST", "/api/plan", {"files": files}).body
    assert planned["refusals"] == [] and any("budget" in d["subject"] for d in planned["differences"])
    applied = fresh_control.ask("POST", "/api/apply", {"files": files, "reason": "less"})
    assert applied.body["blueprint"] == 2, applied
    assert fresh_control.ask("GET", "/api/status").body["difference"], "the folder still says 100"
    diff = fresh_control.ask("GET", "/api/blueprints/2/diff").body["files"][0]["diff"]
    assert "-limit: 100 USD/month" in diff and "+limit: 90 USD/month" in diff
    undone = fresh_control.ask("POST", "/api/rollback", {"reason": "more"})
    assert (undone.body["blueprint"], undone.body["rollback_of"]) == (3, 1), undone
    assert fresh_control.ask("GET", "/api/status").body["difference"] == []
    again = fresh_control.ask("POST", "/api/rollback", {"reason": "I want it undone, too"})
    assert (again.status, again.code) == (409, "rolled_back_already"), "it would be there again"
    assert "`groundplan rollback 2`" in again.body["error"]["hint"]
    assert fresh_control.ask("POST", "/api/rollback", {"to": 2}).body["blueprint"] == 4, "whoever means it says so"


def test_an_apply_succeeds_with_a_note_if_its_folder_cannot_be_recorded(fresh_control: Control) -> None:
    """As on a disk that is full. Where it is noted already nothing is written."""
    files = {name: text.replace("100 USD/month", "90 USD/month") for name, text in fresh_control.files().items()}
    noted, folder = fresh_control.home.workspace, str(fresh_control.workspace)
    before = noted.stat().st_mtime_ns
    applied = fresh_control.ask("POST", "/api/apply", {"files": files, "folder": folder}).body
    assert (applied["blueprint"], applied["notes"]) == (2, []) and noted.stat().st_mtime_ns == before
    noted.unlink()
    noted.mkdir()
    applied = fresh_control.ask("POST", "/api/apply", {"files": fresh_control.files(), "folder": folder}).body
    assert applied["blueprint"] == 3, applied
    *_, said = applied["notes"]
    assert said.startswith("it is applied, but") and str(noted) in said
    noted.rmdir()
    again = fresh_control.ask("POST", "/api/apply", {"files": fresh_control.files(), "folder": folder}).body
    assert (again["blueprint"], again["notes"]) == (None, []), "nothing is declared anew"
    assert noted.read_text() == f"{folder}\n"


def test_a_soft_budget_is_marked_on_the_page_of_its_workload(database: Database, tmp_path: Path) -> None:
    with run_control(database, tmp_path, module="groundplan.console.app") as fresh:
        _marks_a_soft_budget(fresh)
        _tells_what_is_spent_in_its_present_period(fresh, database)


def _tells_what_is_spent_in_its_present_period(fresh: Control, database: Database) -> None:
    """Not in that which it had when it was one of a day."""
    (budget,) = fresh.ask("GET", "/api/workloads/assistant").body["budgets"]
    with psycopg.connect(database.urls["owner"], autocommit=True) as conn:
        for period, spent in (("%Y-%m", 40), ("%Y-%m-%d", 3)):
            key = (budget["name"], datetime.now(UTC).strftime(period))
            conn.execute("INSERT INTO budget_period (budget, period, limit_usd) VALUES (%s, %s, 100)", key)
            conn.execute("INSERT INTO charge_total VALUES (%s, %s, %s)", (*key, spent))
    (budget,) = fresh.ask("GET", "/api/workloads/assistant").body["budgets"]
    assert (budget["period"], budget["spent_usd"]) == ("month", "40.000000000000")


def _marks_a_soft_budget(fresh: Control) -> None:
    browser = fresh.sign_in()

    def shown() -> str:
        answer = fresh.ask("GET", "/workloads/assistant", **browser)
        assert answer.status == 200, answer.body
        text = answer.body.decode() if isinstance(answer.body, bytes) else str(answer.body)
        return text.partition('id="budget"')[2].partition("</section>")[0]

    assert fresh.ask("GET", "/api/workloads/assistant").body["budgets"][0]["hard"]
    assert ">soft<" not in shown()
    files = {
        name: text.replace("limit: 100 USD/month", "limit: 100 USD/month\nhard: false")
        for name, text in fresh.files().items()
    }
    applied = fresh.ask("POST", "/api/apply", {"files": files, "reason": "it only warns"})
    assert applied.status == 200, applied
    assert not fresh.ask("GET", "/api/workloads/assistant").body["budgets"][0]["hard"]
    assert '<span class="badge">soft</span>' in shown() and "It warns, and refuses nothing." in shown()


def test_a_wrong_workspace_is_refused_with_places(fresh_control: Control) -> None:
    files = {name: text.replace("business: ana", "business: nobody") for name, text in fresh_control.files().items()}
    refused = fresh_control.ask("POST", "/api/apply", {"files": files, "reason": "wrong"})
    assert refused.status == 400
    assert any(problem.get("where", "").startswith("acme.yaml:") for problem in refused.body["error"]["problems"])
    assert fresh_control.ask("GET", "/api/status").body["blueprint"] == 1


def going_live(fresh: Control) -> dict[str, str]:
    """Files with the workload in production."""
    everybody = (
        "{business: ana, product: ana, architecture: ana, engineering: ana, operations: ana, security: sam, "
        "finance: sam, data: sam, compliance: sam}"
    )
    return {
        name: text.replace("stage: pilot", "stage: production").replace("{business: ana, security: sam}", everybody)
        for name, text in fresh.files().items()
    }


def test_production_waits_for_approval_and_the_operator_cannot_give_it(fresh_control: Control) -> None:
    files = going_live(fresh_control)
    applied = fresh_control.ask("POST", "/api/apply", {"files": files, "reason": "go live"}).body
    pending = fresh_control.ask("GET", "/api/status").body["pending"]
    assert applied["pending"] and pending[0]["waits_for"]
    change = pending[0]["change"]
    assert fresh_control.ask("POST", f"/api/changes/{change}/approve", {}).code == "operator_never_approves"
    assert any(item["kind"] == "approval" for item in fresh_control.ask("GET", "/api/inbox").body["items"])
    for person in ("ana@acme.example", "sam@acme.example"):
        browser = fresh_control.sign_in(person)
        done = fresh_control.ask("POST", f"/api/changes/{change}/approve", {"comment": "fine"}, **browser)
        assert done.status == 200, done
    assert fresh_control.ask("GET", "/api/status").body["pending"] == []
    content = fresh_control.ask("GET", "/api/blueprints/current").body["content"]
    assert content["workloads"][0]["stage"] == "production"


def test_a_change_refused_by_the_operator_can_no_longer_be_approved(fresh_control: Control) -> None:
    """By that less runs, as the policy of access says."""
    fresh_control.ask("POST", "/api/apply", {"files": going_live(fresh_control), "reason": "go live"})
    change = fresh_control.ask("GET", "/api/status").body["pending"][0]["change"]
    refused = fresh_control.ask("POST", f"/api/changes/{change}/refuse", {"comment": "not before the audit"})
    assert (refused.status, refused.body["state"]) == (200, "refused")
    assert fresh_control.ask("GET", "/api/status").body["pending"] == []
    assert fresh_control.ask("POST", f"/api/changes/{change}/refuse", {}).code == "change_settled"
    browser = fresh_control.sign_in("ana@acme.example")
    assert fresh_control.ask("POST", f"/api/changes/{change}/approve", {}, **browser).code == "change_settled"
    (entry,) = fresh_control.ask("GET", "/api/audit?action=change.refused").body["entries"]
    assert entry["actor"] == "operator"


def test_an_if_match_header_is_refused_not_ignored(fresh_control: Control) -> None:
    files = {name: text.replace("100 USD/month", "90 USD/month") for name, text in fresh_control.files().items()}
    asked = {"files": files, "reason": "less"}
    refused = fresh_control.ask("POST", "/api/apply", asked, If_Match='"1"')
    assert (refused.status, refused.code) == (400, "if_match_unsupported") and "base" in refused.body["error"]["hint"]
    assert fresh_control.ask("GET", "/api/status").body["blueprint"] == 1
    assert fresh_control.ask("POST", "/api/apply", {**asked, "base": 1}).body["blueprint"] == 2


def test_a_redirect_for_a_trailing_slash_has_only_the_path(control: Control) -> None:
    """Behind TLS or a proxy scheme and host are other ones than this process takes for its own."""
    told = control.ask("GET", "/api/status/?x=1")
    assert (told.status, told.headers["location"]) == (307, "/api/status?x=1")


@pytest.mark.parametrize(
    ("path", "code", "known"),
    [
        ("/api/calls?workload=NAME", "workload_unknown", "assistant"),
        ("/api/calls?deployment=NAME", "deployment_unknown", "local"),
        ("/api/calls?status=NAME", "request_invalid", "ok"),
        ("/api/cost?workload=NAME", "workload_unknown", "assistant"),
        ("/api/batches?workload=NAME", "workload_unknown", "assistant"),
        ("/api/responses?workload=NAME", "workload_unknown", "assistant"),
        ("/api/keys?workload=NAME", "workload_unknown", "assistant"),
        ("/api/keys?user=NAME@acme.example", "unknown_person", "ana"),
        ("/api/experiments?workload=NAME", "workload_unknown", "assistant"),
        ("/api/replays?workload=NAME", "workload_unknown", "assistant"),
        ("/api/opportunities?workload=NAME", "workload_unknown", "assistant"),
        ("/api/cost/people?workload=NAME", "workload_unknown", "assistant"),
        ("/api/cost/features?workload=NAME", "workload_unknown", "assistant"),
        ("/api/cost/sources?workload=NAME", "workload_unknown", "assistant"),
        ("/api/knowledge?source=NAME", "source_unknown", "none"),
        ("/api/knowledge/documents?source=NAME", "source_unknown", "none"),
        ("/api/knowledge/held?source=NAME", "source_unknown", "none"),
    ],
)
def test_filtering_by_an_unknown_name_is_refused_and_an_empty_list_is_empty(
    control: Control, path: str, code: str, known: str
) -> None:
    """Whoever mistypes a name was told that there is nothing."""
    refused = control.ask("GET", path.replace("NAME", "nobody-of-this-name"))
    assert (refused.status in (400, 404, 422), refused.code) == (True, code), refused
    if code.endswith("_unknown"):
        assert known in refused.body["error"]["hint"], refused
    if known != "none":
        assert control.ask("GET", path.replace("NAME", known)).status == 200


def test_people_and_groups_change_live(control: Control) -> None:
    assert control.ask("POST", "/api/groups/hr/members", {"person": "sam@acme.example"}).status == 201
    people = {p["email"]: p for p in control.ask("GET", "/api/people").body["people"]}
    assert people["sam@acme.example"]["groups"] == ["hr"]
    assert [p["email"] for p in control.ask("GET", "/api/people?search=HR+sam").body["people"]] == ["sam@acme.example"]
    first, *others = sorted(people)
    page = control.ask("GET", "/api/people?limit=1").body
    assert ([p["email"] for p in page["people"]], page["next"]) == ([first], first)
    rest = control.ask("GET", f"/api/people?limit=1000&after={first}").body
    assert ([p["email"] for p in rest["people"]], rest["next"]) == (others, None)
    assert control.ask("POST", "/api/people", {"email": "new@acme.example", "name": "New"}).status == 201
    assert control.ask("POST", "/api/people", {"email": "new@acme.example", "name": "New"}).status == 409
    assert control.ask("POST", "/api/groups", {"name": "legal"}).status == 201
    assert control.ask("POST", "/api/groups/legal/members", {"person": "new@acme.example"}).status == 201
    assert control.ask("DELETE", "/api/people/new@acme.example").status == 200
    assert control.ask("DELETE", "/api/groups/hr/members/sam@acme.example").body["effective"]["complete"]
    assert control.ask("POST", "/api/groups/none/members", {"person": "sam@acme.example"}).status == 404


def test_kill_and_lift(control: Control) -> None:
    stopped = control.ask("POST", "/api/kill", {"scope": "workload/assistant", "reason": "test"})
    assert stopped.status == 201
    assert control.ask("GET", "/api/status").body["kills"][0]["scope"] == "workload/assistant"
    lifted = control.ask("POST", "/api/kill/lift", {"scope": "workload/assistant", "reason": "over"})
    assert lifted.status == 200
    assert control.ask("GET", "/api/kill").body["kills"] == []


def test_lifting_a_kill_settles_cost_billed_beyond_the_bound(database: Database, tmp_path: Path) -> None:
    stop = {"scope": "workload/assistant", "reason": "the price is corrected"}
    with run_control(database, tmp_path) as control:
        assert control.ask("POST", "/api/kill", stop).status == 201
        with psycopg.connect(database.superuser, autocommit=True) as conn:
            for subject in ("workload/assistant", "workload/other"):
                conn.execute(
                    """INSERT INTO finding (id, kind, severity, subject, message, hint)
                       VALUES (gen_random_uuid(), 'over_bound', 'critical', %s, 'it is stopped', 'lift it')""",
                    (subject,),
                )
            assert control.ask("POST", "/api/kill/lift", stop).body["lifted"]
            found = conn.execute("SELECT subject, closed_by, closed_reason FROM finding ORDER BY subject").fetchall()
        assert found == [("workload/assistant", "operator", stop["reason"]), ("workload/other", None, None)]


@pytest.mark.parametrize(
    ("scope", "hint"),
    [
        ("workload/asistant", "workload/assistant"),
        ("deployment/nothing-like-it", "deployment/local"),
        ("site/there", "site/here"),
        ("source/handbook", "none of that kind"),
        ("key/01a212d0-24b0-7000-b367-e08d2d71471e", "keys list"),
        ("key/gp_abc", "keys list"),
    ],
)
def test_killing_something_unknown_is_refused(control: Control, scope: str, hint: str) -> None:
    refused = control.ask("POST", "/api/kill", {"scope": scope, "reason": "a slip of the hand"})
    assert (refused.status, refused.code) == (404, "scope_unknown")
    assert hint in refused.body["error"]["hint"]
    assert control.ask("GET", "/api/kill").body["kills"] == []


def test_a_key_is_killed_by_its_id(control: Control) -> None:
    key = control.ask("POST", "/api/keys", {"workload": "assistant"}).body["id"]
    stop = {"scope": f"key/{key}", "reason": "lost"}
    assert control.ask("POST", "/api/kill", stop).status == 201
    assert control.ask("POST", "/api/kill/lift", stop).status == 200


def test_every_change_is_in_a_valid_audit_log(control: Control) -> None:
    control.ask("POST", "/api/keys", {"workload": "assistant"})
    deadline = time.monotonic() + 60
    while True:
        entries = control.ask("GET", "/api/audit").body["entries"]
        if all(entry["index"] is not None for entry in entries):
            break
        assert time.monotonic() < deadline, entries
        time.sleep(0.1)
    assert {"key.created"} <= {entry["action"] for entry in entries}
    proof = control.ask("GET", f"/api/audit/{entries[0]['id']}/proof").body
    assert proof["proof"]["checkpoint"] and proof["index"] == entries[0]["index"]
    verdict = control.ask("GET", "/api/audit/verify").body
    assert verdict["ok"] and verdict["entries"] >= len(entries)


def test_acting_as_somebody_is_only_for_a_session_of_the_demo(control: Control) -> None:
    assert control.ask("POST", "/api/session/act-as", {"person": "ana@acme.example"}).code == "act_as"
    browser = control.sign_in()
    assert control.ask("POST", "/api/session/act-as", {"person": "ana@acme.example"}, **browser).status == 200
    me = control.ask("GET", "/api/session", **browser).body
    assert me["acting"] and me["name"] == "you as Ana Lind" and not me["operator"]
    assert control.ask("POST", "/api/session/act-as", {"person": None}, **browser).status == 200
    assert control.ask("GET", "/api/session", **browser).body["operator"]


def test_only_the_operator_creates_login_links(control: Control) -> None:
    browser = control.sign_in("ana@acme.example")
    assert control.ask("GET", "/api/calls", **browser).status == 200
    assert control.ask("POST", "/api/login-links", {"person": None}, **browser).code == "operator_only"


def test_the_api_describes_itself(control: Control) -> None:
    paths = control.ask("GET", "/api/openapi.json").body["paths"]
    assert {"/api/status", "/api/plan", "/api/apply", "/api/keys", "/api/cost", "/api/readiness"} <= set(paths)


def test_a_tampered_copy_is_found_by_the_demo_act(control: Control) -> None:
    deadline = time.monotonic() + 60
    while "ok" not in (told := control.ask("POST", "/api/demo/tamper", {}).body):
        assert told["error"]["code"] == "audit_empty" and time.monotonic() < deadline, told
        time.sleep(0.1)
    assert told["ok"] is False and told["problems"], told
    assert control.ask("GET", "/api/audit/verify").body["ok"]


def test_why_explains_what_is_recorded(control: Control) -> None:
    made = control.ask("POST", "/api/keys", {"workload": "assistant"}).body
    told = control.ask("GET", f"/api/why/{made['id']}").body
    assert told["kind"] == "key" and told["audit"][0]["action"] == "key.created"
    assert control.ask("GET", "/api/why/blueprint/1").body["because"][0].startswith("Blueprint 1")
    assert "not stopped" in control.ask("GET", "/api/why/workload/assistant").body["because"][0]
    entry = told["audit"][0]["id"]
    assert control.ask("GET", f"/api/why/{entry}").body["kind"] == "audit entry"
    unknown = [control.ask("GET", f"/api/why/{each}") for each in ("nothing-like-this", "workload/asistant")]
    assert [each.code for each in unknown] == ["why_unknown"] * 2 and "workload/assistant" in str(unknown[1].body)


def test_overview_readiness_and_cost_without_any_call(control: Control) -> None:
    seen = control.ask("GET", "/api/overview").body
    assert [site["name"] for site in seen["sites"]] == ["here"] and not seen["sites"][0]["down"]
    assert seen["workloads"][0]["site"] == "here" and seen["workloads"][0]["cost_today_usd"] == "0.000000000000"
    ready = control.ask("GET", "/api/readiness").body["workloads"][0]
    assert [area["area"] for area in ready["areas"]] == ["placement", "data", "cost", "operations", "governance"]
    assert ready["next_step"]
    for area in ready["areas"]:
        assert all(point["points"] == 0 or point["evidence"] for point in area["points"])
    cost = control.ask("GET", "/api/cost").body
    assert (cost["total_usd"], cost["calls"], cost["open_reservations"]) == ("0.000000000000", 0, 0)
    detail = control.ask("GET", "/api/workloads/assistant").body
    assert detail["budgets"][0]["limit_usd"] == "100.000000000000" and detail["owners"]["business"]
    assert control.ask("GET", "/api/workloads/none").code == "workload_unknown"
    unknown = control.ask("GET", "/api/readiness?workload=nope")
    assert (unknown.status, unknown.code) == (404, "workload_unknown") and "assistant" in unknown.body["error"]["hint"]
    wrong = control.ask("DELETE", "/api/keys/abc")
    assert wrong.status == 422 and wrong.body["error"]["message"].startswith("key_id: ")


def test_an_interrupted_first_start_is_repeated(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Blueprint 1 was there, and nobody ever wrote down from which folder."""
    home, workspace = Home(tmp_path / "home"), tmp_path / "workspace"
    workspace.mkdir()
    (workspace / "acme.yaml").write_text(WORKSPACE)
    prepare_home(home)
    settings = database.settings(home.root)
    with monkeypatch.context() as patched:
        patched.setattr(genesis, "write_atomically", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left")))
        with pytest.raises(OSError, match="No space left"):
            genesis.genesis_if_empty(home, settings, workspace, False)
    assert genesis.genesis_if_empty(home, settings, workspace, False)
    assert home.workspace.read_text() == f"{workspace}\n"
    assert not genesis.genesis_if_empty(home, settings, workspace, False)


def test_kills_written_offline_are_imported(database: Database, tmp_path: Path) -> None:
    (tmp_path / "home" / "run").mkdir(parents=True, mode=0o700)
    kills = [{"scope": "workload/assistant", "reason": "leak", "at": "2026-01-01T00:00:00+00:00"}]
    (tmp_path / "home" / "run" / "kill.json").write_text(json.dumps(kills))
    with run_control(database, tmp_path) as control:
        assert control.ask("GET", "/api/kill").body["kills"][0]["scope"] == "workload/assistant"
        assert not (control.home.run / "kill.json").exists()


def test_a_created_key_names_the_gateways_that_do_not_know_it_yet(database: Database, tmp_path: Path) -> None:
    with run_control(database, tmp_path) as control:
        with psycopg.connect(database.superuser, autocommit=True) as conn:
            (silent,) = conn.execute(
                "INSERT INTO gateway (epoch, host, home, pid) VALUES (gen_random_uuid(), 'h', '', 1) RETURNING epoch"
            ).fetchall()
        told = control.ask("POST", "/api/keys", {"workload": "assistant"}).body["effective"]
        assert not told["complete"] and [each["epoch"] for each in told["waiting"]] == [str(silent[0])]


def test_an_outcome_of_an_unknown_call_is_refused(control: Control) -> None:
    unknown = {"call_id": "01a212d0-24b0-7000-b367-e08d2d71471e", "accepted": True, "value_usd": "0.25"}
    assert control.ask("POST", "/api/outcomes", unknown).code == "call_unknown"
    says_nothing = {"accepted": None, "value_usd": None}
    for wrong in ({"value_usd": "-1"}, {"label": "a\0b"}, {"id": "7"}, says_nothing):
        assert control.ask("POST", "/api/outcomes", {**unknown, **wrong}).code == "request_invalid"


def test_a_login_link_session_cannot_approve_and_a_passkey_session_can(fresh_control: Control) -> None:
    files = {"acme.yaml": WORKSPACE.replace("stage: pilot", "stage: production").replace(
        "owners: {business: ana, security: sam}",
        "owners: {business: ana, product: ana, architecture: ana, engineering: ana, operations: ana, security: sam, "
        "finance: ana, data: ana, compliance: ana}",
    )}  # fmt: skip
    applied = fresh_control.ask("POST", "/api/apply", {"files": files})
    assert applied.status == 200 and applied.body["pending"], applied.body
    (change,) = fresh_control.ask("GET", "/api/changes?state=pending").body["changes"]
    approve = f"/api/changes/{change['id']}/approve"
    by_link = fresh_control.follow_link("sam@acme.example")
    assert fresh_control.ask("GET", "/api/session", **by_link).body["proof"] == "recovery"
    refused = fresh_control.ask("POST", approve, {}, **by_link)
    assert (refused.status, refused.code) == (403, "approval_unproven") and "operator's token" in refused.body["error"][
        "message"
    ]
    fresh_control.register("ana@acme.example")
    thief = SoftPasskey(f"http://localhost:{fresh_control.port}")
    asked = fresh_control.ask("POST", "/api/passkeys/registration", {}, **by_link).body
    body = {"ceremony": asked["ceremony"], "response": thief.create(asked["options"])}
    made = fresh_control.ask("POST", "/api/passkeys", body, **by_link)
    assert made.status == 201 and not made.body["confirmed"]
    assert fresh_control.ask("GET", "/api/session", **by_link).status == 401, "the session went on under another cookie"
    thieves = fresh_control._session(Answer(200, made.body, made.headers))
    refused = fresh_control.ask("POST", approve, {}, **thieves)
    assert (refused.status, refused.code) == (403, "approval_unproven")
    ana = fresh_control.sign_in("ana@acme.example")
    (seen,) = [
        item for item in fresh_control.ask("GET", "/api/inbox", **ana).body["items"] if "passkey" in item["kind"]
    ]
    assert "Sam Berg" in seen["message"]
    assert fresh_control.ask("DELETE", f"/api/passkeys/{made.body['id']}", **thieves).status == 200
    assert fresh_control.ask("POST", approve, {}, **thieves).status == 401, "removing it ended the session"
    sam = fresh_control.sign_in("sam@acme.example")
    assert fresh_control.ask("POST", approve, {}, **sam).status == 200
    assert fresh_control.ask("POST", approve, {}, **ana).body["blueprint"] == 2
    (done,) = (listed := fresh_control.ask("GET", "/api/changes").body)["changes"]
    assert listed["next"] is None
    older = fresh_control.ask("GET", f"/api/changes?limit=1&before={done['id']}").body
    assert older == {"changes": [], "next": None}
    assert {row["proof"] for row in done["approvals"]} == {"passkey"}


def test_sessions_are_listed_and_ended_at_once(control: Control) -> None:
    ana, again = control.sign_in("ana@acme.example"), control.sign_in("ana@acme.example")
    sam = control.sign_in("sam@acme.example")
    listed = control.ask("GET", "/api/sessions", **ana).body["sessions"]
    assert [row["current"] for row in listed].count(True) == 1 and listed[0]["proof"] == "passkey"
    other = next(row["id"] for row in listed if not row["current"])
    assert control.ask("DELETE", f"/api/sessions/{other}", **sam).status == 404, "it is somebody else's"
    assert control.ask("DELETE", f"/api/sessions/{other}", **ana).status == 200
    assert control.ask("DELETE", f"/api/sessions/{other}", **ana).status == 404
    assert [control.ask("GET", "/api/session", **who).status for who in (ana, again)].count(200) >= 1
    assert control.ask("POST", "/api/people/sam@acme.example/sign-out", {}, **ana).code == "not_yours"
    assert control.ask("POST", "/api/people/ana@acme.example/sign-out", {}, **sam).status == 200
    assert control.ask("GET", "/api/session", **ana).status == 401
    assert control.ask("GET", "/api/sessions").body == {"sessions": []}
