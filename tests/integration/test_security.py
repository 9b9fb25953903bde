"""What an attacker tries at the control port: forged and foreign requests, fixed sessions, other people's things,
markup in every stored field, addresses and paths of their own, and the clock of sign-in. docs/threat-model.md names
each."""

from __future__ import annotations

import re
import statistics
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from fastapi.routing import APIRoute
from tests.integration.test_api_control import WORKSPACE, Control, run_control

from groundplan.api.access.authorization import actions_by_route
from groundplan.console import (
    actions,
    calls,
    controls,
    cost_pages,
    erasures,
    experiments,
    knowledge,
    knowledge_index,
    opportunities,
    pages,
    placement,
    policies,
    reconcile,
    rights,
    sign_in,
    trade_off,
)
from groundplan.core.errors import Invalid
from groundplan.identity import oidc
from groundplan.identity.oidc import Provider
from groundplan.identity.sessions import is_operator_token, read_operator_token
from groundplan.testing.database import Cluster

HOSTILE = "<img src=x onerror=alert(1)>\"'{{7*7}}${7*7}"
ROUTERS = (
    pages, placement, calls, knowledge, knowledge_index, erasures, actions, cost_pages, opportunities, experiments,
    trade_off, reconcile, controls, sign_in, rights, policies,
)  # fmt: skip
NOT_ALONE = {"/begin", "/demo/two-people", "/do/knowledge/click", "/cost/statements/print", "/login"}
"""Pages of the demo, of a click, of a period; where a sign-in leads."""
PAGES = (
    *sorted(
        {
            route.path
            for module in ROUTERS
            for route in module.router.routes
            if isinstance(route, APIRoute) and "GET" in (route.methods or ()) and "{" not in route.path
        }
        - NOT_ALONE
    ),
    "/workloads/assistant", "/blueprints/1", "/cost/workload/assistant", "/placement/assistant",
    "/governance/controls/house", "/governance/prompts/rude", "/governance/documents?name=annex-iv&workload=assistant",
)  # fmt: skip
"""Every page of the console that needs no id, and those of what is declared here."""
HOSTILE_FILES = """\
---
{kind: prompt, name: rude, owner: ana, text: TEXT}
---
{kind: source, name: handbook, title: TEXT, path: ./handbook, sensitivity: internal, owner: ana, readers: [everyone]}
---
{kind: integration, name: crm, title: TEXT, direction: caller, system: TEXT, contact: TEXT, owner: ana}
---
{kind: integration, name: crm-2, title: TEXT, direction: caller, system: TEXT}
---
{kind: model, name: acme/model, title: TEXT, provider: TEXT, licence: TEXT}
---
{kind: tool, name: tools, title: TEXT, url: "https://tools.example/mcp", owner: sam, workloads: [assistant]}
---
kind: framework
name: house
title: TEXT
owner: sam
excluded: [{control: H2, reason: TEXT}]
controls: [{id: H1, title: TEXT, needs: [document]}, {id: H2, title: TEXT, needs: [document]}]
amended: [{on: 2026-01-01, what: TEXT, source: TEXT}]
---
kind: policy
name: house-rule
title: TEXT
owner: sam
hint: TEXT
cedar: |
  forbid (principal, action == Action::"call", resource) when { resource.sensitivity == "restricted" };
"""
HOSTILE_WORKLOAD = """\
title: TEXT
value: TEXT
prompt: rude
sources: [handbook]
integrations: [crm, crm-2]
support: {contact: TEXT, hours: TEXT, runbook: TEXT}
risk:
  impact: high
  likelihood: possible
  harms: [TEXT]
  controls: [TEXT]
  residual: low
  notice: TEXT
  known_limits: [TEXT]
  eu_ai_act: {role: provider, area: employment}
"""


@pytest.fixture(scope="module")
def control(postgres_cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Control]:
    """With its console."""
    folder = tmp_path_factory.mktemp("security")
    workspace = ("--workspace", str(folder / "workspace"))
    with (
        postgres_cluster.database() as database,
        run_control(database, folder, *workspace, module="groundplan.console.app") as found,
    ):
        found.sign_in("ana@acme.example")
        yield found


def test_a_write_needs_the_pages_own_token_and_origin(control: Control) -> None:
    ana = control.sign_in("ana@acme.example")
    stopped = control.ask("GET", "/api/kill").body["kills"]
    body = {"scope": "deployment/local", "reason": "forged"}
    without = {name: value for name, value in ana.items() if name != "X_CSRF_Token"}
    assert control.ask("POST", "/api/kill", body, **without).code == "csrf"
    assert control.ask("POST", "/api/kill", body, **{**ana, "X_CSRF_Token": "guess"}).code == "csrf"
    foreign = control.ask("POST", "/api/kill", body, **ana, Origin="http://evil.example")
    assert foreign.code == "csrf_origin"
    for path in ("/do/kill", "/do/approve", "/do/passkey-confirm", "/do/session-end", "/do/withdraw"):
        form = b"csrf=guess&scope=deployment/local&reason=x&change=1&passkey=00&session=1"
        sent = {**without, "Content_Type": "application/x-www-form-urlencoded"}
        answer = control.ask("POST", path, form, **sent)
        assert answer.status in {303, 403, 415, 422}
        assert "problem=" in answer.headers.get("location", "problem="), path
    assert control.ask("GET", "/api/kill").body["kills"] == stopped


def test_what_is_asked_with_get_changes_nothing() -> None:
    changing = {
        "release",
        "rollback",
        "approve",
        "refuse",
        "stop",
        "lift",
        "people",
        "appoint",
        "erase",
        "keys",
        "revoke",
    }
    assert [
        route for route, action in actions_by_route().items() if route.startswith("GET ") and action in changing
    ] == []


def test_a_session_that_somebody_else_chose_is_never_taken_over(control: Control) -> None:
    attackers = control.follow_link("sam@acme.example")
    url = control.ask("POST", "/api/login-links", {"person": "ana@acme.example"}).body["url"]
    path = "/" + url.split("/", 3)[3]
    reply = control.ask("GET", path, Authorization="", Cookie=attackers["Cookie"])
    fresh = reply.headers["set-cookie"].partition(";")[0]
    assert fresh != attackers["Cookie"]
    assert control.ask("GET", "/api/session", Authorization="", Cookie=fresh).body["email"] == "ana@acme.example"
    assert control.ask("GET", "/api/session", **attackers).body["email"] == "sam@acme.example"
    chosen = attackers["Cookie"].partition("=")[0] + "=chosen-by-an-attacker"
    assert control.ask("GET", "/api/session", Authorization="", Cookie=chosen).status == 401
    assert control.ask("GET", path, Authorization="", Cookie=chosen).status == 401, "the link was used"


def test_other_peoples_things_are_not_found_by_their_id(control: Control) -> None:
    ana, sam = control.sign_in("ana@acme.example"), control.sign_in("sam@acme.example")
    passkey = control.ask("GET", "/api/passkeys", **sam).body["passkeys"][0]["id"]
    session = control.ask("GET", "/api/sessions", **sam).body["sessions"][0]["id"]
    assert control.ask("DELETE", f"/api/passkeys/{passkey}", **ana).code == "not_yours"
    assert control.ask("DELETE", f"/api/sessions/{session}", **ana).code == "session_unknown"
    control.ask("POST", "/api/people", {"email": "eve@acme.example", "name": "Eve"})
    eve = control.sign_in("eve@acme.example")
    key = control.ask("POST", "/api/keys", {"workload": "assistant"}).body["id"]
    for method, path in (
        ("DELETE", f"/api/keys/{key}"), ("POST", f"/api/keys/{key}/rotate"), ("GET", "/api/keys"),
        ("GET", "/api/people/ana@acme.example/holdings"), ("GET", "/api/audit"), ("GET", "/api/tokens"),
    ):  # fmt: skip
        assert control.ask(method, path, {} if method == "POST" else None, **eve).code == "duty_missing", path


def test_who_holds_no_duty_is_not_told_who_is_here_nor_what_goes_on(control: Control) -> None:
    """Neither by what is found and what is not, nor by what is meant for those who answer for something."""
    control.ask("POST", "/api/people", {"email": "zoe@acme.example", "name": "Zoe"})
    zoe = control.sign_in("zoe@acme.example")
    for method, path, same in (
        ("GET", "/api/calls?person={}", {"calls": [], "next": None}), ("POST", "/api/people/{}/sign-out", "not_yours"),
    ):  # fmt: skip
        for person in ("ana@acme.example", "ana", "anna@acme.example", "nobody@acme.example"):
            answer = control.ask(method, path.format(person), {} if method == "POST" else None, **zoe)
            assert (answer.body if answer.status == 200 else answer.code) == same, (path, person)
            assert "acme.example" not in str(answer.body)
    reason = "the key of ana@acme.example was seen"
    control.ask("POST", "/api/kill", {"scope": "deployment/local", "reason": reason})
    wish = {"kind": "rollout", "subject": "workload/assistant", "reason": "for the test",
            "what": {"stage": "production", "audience": "public"}}  # fmt: skip
    assert control.ask("POST", "/api/approvals", wish).status == 201
    told, whole = (control.ask("GET", "/api/status", **who).body for who in (zoe, {}))
    assert (told["pending"], told["near_limits"], told["difference"]) == ([], [], []) and whole["pending"]
    assert [(each["scope"], each["reason"]) for each in told["kills"]] == [("deployment/local", "")]
    assert [each["reason"] for each in whole["kills"]] == [reason]
    control.ask("POST", "/api/kill/lift", {"scope": "deployment/local", "reason": "over"})
    assert control.ask("POST", "/api/people/zoe/sign-out", {}, **zoe).status == 200, "their own"


def test_markup_in_every_stored_field_stays_text_on_every_page(control: Control) -> None:
    control.ask("POST", "/api/people", {"email": "mal@acme.example", "name": HOSTILE})
    control.ask("POST", "/api/groups", {"name": HOSTILE, "type": "group"})
    control.ask("POST", "/api/tokens", {"name": HOSTILE[:80], "scopes": ["read"], "days": 1})
    text = WORKSPACE.replace("format: 1", "title: TEXT")
    text = text.replace("purpose: Answer questions\n", f"purpose: TEXT\n{HOSTILE_WORKLOAD}")
    text = text.replace("type: private\n", "type: private\ntitle: TEXT\n") + HOSTILE_FILES
    files = {"acme.yaml": text.replace("TEXT", "'" + HOSTILE.replace("'", "''") + "'")}
    applied = control.ask("POST", "/api/apply", {"files": files, "reason": HOSTILE})
    assert applied.status == 200, applied.body
    for what_ in ("house/H1", "annex-iv/8", "review.periodic"):
        given = {"what": what_, "workload": "assistant", "says": HOSTILE, "link": "https://files.acme.example/x"}
        assert control.ask("POST", "/api/evidence", given).status == 200
    action = {"says": HOSTILE, "control": HOSTILE, "owner": "sam@acme.example", "due": "2999-01-01"}
    assert control.ask("POST", "/api/actions", action).status == 201
    until = (datetime.now(UTC) + timedelta(days=30)).isoformat()
    exempt = {"rule": "house-rule", "workload": "assistant", "until": until, "reason": HOSTILE}
    assert control.ask("POST", "/api/policies/exceptions", exempt).status in {201, 404, 422}
    ana, sam = control.sign_in("ana@acme.example"), control.sign_in("sam@acme.example")
    control.ask("POST", "/api/emergency", {"reason": HOSTILE}, **ana)
    wanted = {"person": "mal@acme.example", "role": "auditor", "days": 1, "reason": HOSTILE}
    assert control.ask("POST", "/api/appointments", wanted, **sam).status == 201
    what = {"kind": "model", "subject": "model/x", "what": {HOSTILE[:80]: HOSTILE}, "reason": HOSTILE}
    change = control.ask("POST", "/api/approvals", what).body["id"]
    assert control.ask("POST", f"/api/changes/{change}/refuse", {"comment": HOSTILE}, **sam).status == 200
    assert control.ask("POST", "/api/kill", {"scope": "workload/assistant", "reason": HOSTILE}).status == 201
    link = control.ask("POST", "/api/login-links", {"person": "mal@acme.example"}).body["url"]
    control.ask("GET", "/" + link.split("/", 3)[3], Authorization="", User_Agent=HOSTILE)
    shown = 0
    more = (f"/governance/changes/{change}", f"/governance?notice={HOSTILE[:20]}".replace(" ", "+"))
    for session, paths in ((ana, (*PAGES, *more)), (sam, ("/inbox", "/you"))):
        for path in paths:
            answer = control.ask("GET", path, **{**session, "User_Agent": "x"})
            page = answer.body.decode() if isinstance(answer.body, bytes) else str(answer.body)
            assert answer.status == 200, (path, answer.status)
            assert "<img src=x" not in page, path
            assert path != "/governance/controls" or "Corrective actions" in page
            assert "script-src" not in page
            if "onerror=alert(1)" in page:
                shown += 1
                assert "{{7*7}}" in page and "${7*7}" in page, f"{path}: nothing of it is evaluated"
            for attribute in re.findall(r'="([^"]*onerror=alert[^"]*)"', page):
                assert "<" not in attribute
    assert shown > 15, "the fields are shown, as text"
    assert "script-src" not in control.ask("GET", "/", **ana).headers["content-security-policy"]
    assert "default-src 'self'" in control.ask("GET", "/", **ana).headers["content-security-policy"]


@pytest.mark.parametrize(
    "path",
    [
        "/static/../app.py", "/static/..%2f..%2fapp.py", "/static/%2e%2e/%2e%2e/pyproject.toml", "/static//etc/passwd",
        "/static/..\\..\\app.py", "/static/%00", "/api/blueprints/..%2f..%2foperator.token", "/login/..%2f..%2fx",
        "/governance/changes/..%2f..%2f..%2fapi%2fsession", "/audit/..%2f..%2foperator.token",
    ],
)  # fmt: skip
def test_no_path_leaves_its_folder(control: Control, path: str) -> None:
    answer = control.ask("GET", path, **control.sign_in("ana@acme.example"))
    body = answer.body if isinstance(answer.body, bytes) else str(answer.body).encode()
    assert (
        answer.status in {400, 401, 404, 422}
        and b"root:" not in body
        and b"gpo_" not in body
        and b"import " not in body
    )


def test_files_of_a_workspace_stay_text(control: Control) -> None:
    """Names of files are never opened, and a folder is named only by the local operator."""
    ana = control.sign_in("ana@acme.example")
    for name in ("../../../etc/cron.d/x.yaml", "/etc/passwd", "a/../../b.yaml"):
        answer = control.ask("POST", "/api/plan", {"files": {name: WORKSPACE}}, **ana)
        assert answer.status in {200, 400, 422}
    hostile = {"files": {"a.yaml": "kind: !!python/object/apply:os.system ['touch /tmp/hit']"}}
    assert control.ask("POST", "/api/plan", hostile, **ana).status in {200, 400, 422}
    body = {"files": control.files(), "folder": "/etc", "reason": "mine"}
    assert control.ask("POST", "/api/apply", body, **ana).status == 403


def test_no_address_that_others_choose_is_fetched() -> None:
    """The only addresses that are fetched are settings; the company's sign-in may not lead elsewhere without https."""
    for url in ("http://169.254.169.254/latest", "file:///etc/passwd", "gopher://x", "http://10.0.0.1/token"):
        with pytest.raises(Invalid):
            oidc._check_url(url, "https://login.acme.example")
        with pytest.raises(Invalid):
            Provider(url, "x", "y").check()
    fetching = [route for route in actions_by_route() if re.search(r"url|fetch|webhook|proxy", route)]
    assert fetching == []


def test_other_names_for_this_machine_and_frames_are_refused(control: Control) -> None:
    assert control.ask("GET", "/api/status", Host="evil.example").status == 421
    headers = control.ask("GET", "/api/status").headers
    assert headers["x-frame-options"] == "DENY" and "frame-ancestors 'none'" in headers["content-security-policy"]
    assert headers["cache-control"] == "no-store" and headers["referrer-policy"] == "no-referrer"


def test_a_failed_sign_in_says_and_takes_the_same_whatever_was_wrong(control: Control) -> None:
    used = control.ask("POST", "/api/login-links", {"person": "ana@acme.example"}).body["url"].split("/", 3)[3]
    control.ask("GET", f"/{used}", Authorization="")
    answers = [control.ask("GET", path, Authorization="") for path in (f"/{used}", "/login/unknown", "/login/x" * 3)]
    assert len({answer.status for answer in answers[:2]}) == 1 and answers[0].body == answers[1].body
    options = [control.ask("POST", "/api/sign-in/passkey/options", {}, Authorization="").body for _ in range(2)]
    assert options[0]["options"].keys() == options[1]["options"].keys() and "allowCredentials" not in str(options)
    wrong = {"ceremony": options[0]["ceremony"], "response": {"rawId": "AAAA", "id": "AAAA", "type": "public-key"}}
    assert control.ask("POST", "/api/sign-in/passkey", wrong, Authorization="").code == "passkey"
    token = read_operator_token(control.home)
    near, far = token[:-1] + ("A" if token[-1] != "A" else "B"), "x" * len(token)
    near_ns, far_ns = _medians(control, near, far)
    assert 0.5 < near_ns / far_ns < 2.0


def _medians(control: Control, *tokens: str) -> list[float]:
    """CPU nanoseconds of one comparison with each, in turn, so that whatever else the machine does meets all of them;
    reading the file is most of it, and the same for all."""
    times: dict[str, list[int]] = {token: [] for token in tokens}
    for _ in range(400):
        for token, found in times.items():
            begun = time.process_time_ns()
            assert not is_operator_token(control.home, token)
            found.append(time.process_time_ns() - begun)
    return [float(statistics.median(found)) for found in times.values()]


def test_a_deactivated_persons_open_session_ends_with_them(control: Control) -> None:
    control.ask("POST", "/api/people", {"email": "out@acme.example", "name": "Out"})
    out = control.sign_in("out@acme.example")
    assert control.ask("DELETE", "/api/people/out@acme.example").status == 200
    found: Any = control.ask("GET", "/api/session", **out)
    assert found.status == 401


@pytest.mark.parametrize("value", [2**80, "\ud800", "\x00", 1e308, [[[{"a": None}]]]])
def test_values_that_cannot_be_kept_are_refused_and_never_an_error_of_ours(control: Control, value: Any) -> None:
    wanted = {"kind": "model", "subject": "model/odd", "what": {"n": value}, "reason": "odd value"}
    assert control.ask("POST", "/api/approvals", wanted).status in {201, 400, 409, 422}
    assert control.ask("POST", "/api/kill", {"scope": "company", "reason": value}).status in {400, 422}
