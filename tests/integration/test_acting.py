"""Acting as somebody in the demo, on the real API: everything done so says "you as", and is evidence of nothing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pytest
from tests.acceptance.stack import wait_until
from tests.integration.test_api_control import Control, run_control

from groundplan.api.app import create_app
from groundplan.api.genesis import prepare_home
from groundplan.console.client import Api
from groundplan.core.home import Home
from groundplan.core.settings import load_settings
from groundplan.testing.database import Database

OWNERS = (
    "{business: ana, product: ana, architecture: ana, engineering: ana, operations: sam, security: sam, "
    "finance: sam, data: sam, compliance: sam}"
)
Browser = dict[str, str]


@pytest.fixture
def control(database: Database, tmp_path: Path) -> Any:
    with run_control(database, tmp_path) as found:
        yield found


def act_as(control: Control, browser: Browser, person: str | None) -> None:
    assert control.ask("POST", "/api/session/act-as", {"person": person}, **browser).status == 200


def entries(control: Control, **headers: str) -> list[dict[str, Any]]:
    """Oldest first, without the reading of the log itself."""
    path = "/api/audit?limit=500&without=audit.read"
    found: list[dict[str, Any]] = control.ask("GET", path, **headers).body["entries"]
    return found[::-1]


def sequenced(control: Control, entry: str) -> Any:
    answer = control.ask("GET", f"/api/audit/{entry}/proof")
    return answer.body if answer.status == 200 else None


def person_id(database: Database, name: str) -> str:
    with psycopg.connect(database.dsn) as conn:
        row = conn.execute("SELECT id FROM person WHERE email = %s", (f"{name}@acme.example",)).fetchone()
    assert row is not None
    return str(row[0])


def test_every_log_entry_while_acting_names_both_people(control: Control, database: Database) -> None:
    browser = control.sign_in()
    before = len(entries(control))
    act_as(control, browser, "sam")
    stop = {"scope": "workload/assistant", "reason": "test"}
    assert control.ask("POST", "/api/kill", stop, **browser).status == 201
    assert control.ask("POST", "/api/kill/lift", stop, **browser).status == 200
    made = control.ask("POST", "/api/keys", {"workload": "assistant", "user": "ana"})
    assert control.ask("DELETE", f"/api/keys/{made.body['id']}", **browser).status == 200
    act_as(control, browser, None)
    assert control.ask("POST", "/api/kill", stop, **browser).status == 201

    told = [one for one in entries(control)[before:] if one["actor"] != "system"]  # which collects evidence beside it
    sam = f"person:{person_id(database, 'sam')}"
    assert [(one["action"], one["actor"], one["who"]) for one in told] == [
        ("session.act_as", "operator", "operator"),
        ("kill", sam, "you as Sam Berg"),
        ("kill.lifted", sam, "you as Sam Berg"),
        ("key.created", "operator", "operator"),
        ("key.revoked", sam, "you as Sam Berg"),
        ("session.act_as", "operator", "operator"),
        ("kill", "operator", "operator"),
    ]
    assert [one["acting"] for one in told[:3]] == [None, *[{"by": "operator", "demo": True}] * 2]
    ana = control.sign_in("ana@acme.example")
    assert entries(control, **ana)[before + 1]["who"] == "operator as Sam Berg"
    why = control.ask("GET", f"/api/why/{told[1]['id']}").body
    assert why["because"][0].startswith("you as Sam Berg did kill to workload/assistant")
    assert why["audit"][0]["who"] == "you as Sam Berg" and why["facts"]["acting"]["by"] == "operator"
    proof = wait_until(lambda: sequenced(control, told[1]["id"]), 60, "the entry has its place")
    assert proof["who"] == "you as Sam Berg" and '"acting":{"by":"operator","demo":true}' in proof["proof"]["entry"]
    assert control.ask("GET", "/api/audit/verify").body["ok"]


def test_signing_out_while_acting_is_logged_as_acting(control: Control) -> None:
    browser = control.sign_in("ana@acme.example")
    act_as(control, browser, "sam")
    assert control.ask("POST", "/api/logout", {}, **browser).status == 200
    last = entries(control)[-1]
    assert (last["action"], last["who"]) == ("logout", "Ana Lind as Sam Berg")
    assert last["acting"]["by"].startswith("person:") and last["subject"] == last["actor"].replace(":", "/")


def test_approvals_given_while_acting_count_but_are_no_evidence(control: Control) -> None:
    files = {
        name: text.replace("stage: pilot", "stage: production").replace("{business: ana, security: sam}", OWNERS)
        for name, text in control.files().items()
    }
    control.ask("POST", "/api/apply", {"files": files, "reason": "go live"})
    change = control.ask("GET", "/api/status").body["pending"][0]["change"]
    browser = control.sign_in()
    for person in ("ana", "sam"):
        act_as(control, browser, person)
        assert control.ask("POST", f"/api/changes/{change}/approve", {}, **browser).status == 200
    served = control.ask("GET", "/api/blueprints/current")
    assert served.status == 200 and served.body["number"] == 2, served
    approvals = control.ask("GET", f"/api/changes/{change}").body["approvals"]
    assert approvals and all(one["demo"] for one in approvals)
    decided = [one for one in entries(control) if one["action"] in ("change.approved", "blueprint.applied")]
    assert {one["who"] for one in decided} == {"you as Ana Lind", "you as Sam Berg"}
    areas = control.ask("GET", "/api/readiness").body["workloads"][0]["areas"]
    points = {point["name"]: point for area in areas for point in area["points"]}
    assert points["approved by somebody other than the requester"]["points"] == 0


def test_a_request_made_while_acting_is_not_approved_as_the_same_person(control: Control) -> None:
    files = {
        name: text.replace("stage: pilot", "stage: production").replace("{business: ana, security: sam}", OWNERS)
        for name, text in control.files().items()
    }
    assert control.ask("POST", "/api/apply", {"files": files}).status == 200
    change = control.ask("GET", "/api/status").body["pending"][0]["change"]
    assert control.ask("POST", f"/api/changes/{change}/withdraw", {}).status == 200
    browser = control.sign_in()
    act_as(control, browser, "ana")
    denied = control.ask("POST", "/api/apply", {"files": files}, **browser)
    assert denied.code == "duty_missing"


def test_acting_is_refused_outside_the_demo(database: Database, tmp_path: Path) -> None:
    with run_control(database, tmp_path, "--workspace", str(tmp_path / "workspace")) as real:
        browser = real.sign_in()
        assert real.ask("POST", "/api/session/act-as", {"person": "sam"}, **browser).code == "act_as"
        sam = person_id(database, "sam")
        with psycopg.connect(database.dsn) as conn:
            assert conn.execute("UPDATE console_session SET acting_as = %s", (sam,)).rowcount == 1
        me = real.ask("GET", "/api/session", **browser).body
        assert me["operator"] and not me["acting"]
    with run_control(database, tmp_path) as demo:
        browser = demo.sign_in()
        assert demo.ask("POST", "/api/session/act-as", {"person": "sam"}, **browser).code == "act_as"
        assert demo.ask("POST", "/api/demo/cloud-down", {}, **browser).code == "demo_only"
        stale = demo.ask("GET", "/api/session", **browser).body
        assert stale["operator"] and not stale["acting"]


async def test_acting_is_refused_from_another_machine(database: Database, tmp_path: Path) -> None:
    home, workspace = Home(tmp_path / "home"), tmp_path / "workspace"
    with run_control(database, tmp_path) as control:
        browser = control.sign_in()
        act_as(control, browser, "sam")
    prepare_home(home)
    settings = load_settings({"GROUNDPLAN_DATABASE_URL": database.dsn, "GROUNDPLAN_HOME": str(home.root)})
    app = create_app(home, settings, workspace, demo=True)
    cookie = browser["Cookie"].replace(f"_{control.port}=", "_80=")
    headers = (
        (b"host", b"localhost"),
        (b"cookie", cookie.encode()),
        (b"x-csrf-token", browser["X_CSRF_Token"].encode()),
    )
    here = Api(app, headers, ("127.0.0.1", 50_000))
    there = replace(here, address=("192.0.2.7", 50_000))
    async with app.router.lifespan_context(app):
        assert (await here.get("/api/session")).body["name"] == "you as Sam Berg"
        assert (await there.get("/api/session")).body["name"] == "local operator"
        refused = await there.post("/api/session/act-as", {"person": "sam"})
        assert refused.body["error"]["code"] == "act_as"
        assert (await there.post("/api/demo/tamper")).body["error"]["code"] == "demo_only"
