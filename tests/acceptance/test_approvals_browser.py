"""Approvals by people of several duties, each in a Chromium of their own with a passkey: approve, refuse, withdraw,
approve one's own request; and that a login link of the operator approves nothing."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event, Thread
from typing import TYPE_CHECKING

import psycopg
import pytest

from groundplan.core.database import DATABASE
from groundplan.core.home import Home
from groundplan.runtime.postgres import EmbeddedPostgres
from groundplan.testing.browser import chromium, find_chromium
from tests.acceptance.stack import Stack, Upstream, wait_until

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = [pytest.mark.browser, pytest.mark.timeout(300)]
if find_chromium() is None and os.environ.get("GROUNDPLAN_REQUIRE_BROWSER") != "1":
    pytestmark.append(pytest.mark.skip(reason="NOT RUN: no Chromium is installed"))

DUTIES = ("product", "architecture", "engineering", "operations", "finance", "data", "compliance")
COMPANY = """\
kind: company
name: acme
format: 1
approvals: {parts: []}
owners: {business: ana, security: sam, operations: ana}
---
{kind: person, name: ana, email: ana@acme.example, full_name: Ana Lind}
---
{kind: person, name: sam, email: sam@acme.example, full_name: Sam Berg}
---
{kind: person, name: fay, email: fay@acme.example, full_name: Fay Moe}
---
{kind: site, name: here, type: private, jurisdiction: EU}
---
kind: deployment
name: local
site: here
model: acme/model
upstream_model: scripted
url: URL
price: {input: 0 USD/Mtok, output: 10 USD/Mtok}
---
kind: budget
name: assistant
covers: workload/assistant
limit: 100 USD/month
---
kind: workload
name: assistant
purpose: PURPOSE
stage: STAGE
sensitivity: internal
deployments: [local]
owners: {business: ana, security: sam, OTHERS}
"""


def workspace_text(upstream: Upstream, stage: str, purpose: str = "Answer questions") -> str:
    others = ", ".join(f"{duty}: fay" for duty in DUTIES)
    text = COMPANY.replace("URL", upstream.url).replace("STAGE", stage).replace("OTHERS", others)
    return text.replace("PURPOSE", purpose)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as chromium_browser:
        yield chromium_browser


@pytest.fixture(scope="module")
def stack_and_upstream(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Stack, Upstream]]:
    folder = tmp_path_factory.mktemp("approvals")
    upstream = Upstream(folder / "upstream")
    upstream.start()
    workspace = folder / "workspace"
    workspace.mkdir()
    (workspace / "acme.yaml").write_text(workspace_text(upstream, "pilot"))
    stack = Stack(folder, workspace)
    try:
        stack.start()
        yield stack, upstream
    finally:
        stack.stop()
        upstream.stop()


@pytest.fixture(scope="module")
def people(stack_and_upstream: tuple[Stack, Upstream], browser: Browser) -> dict[str, Page]:
    """Name -> a browser page with a virtual authenticator, in which the person followed the operator's login link."""
    stack, pages = stack_and_upstream[0], {}
    for name in ("ana", "sam", "fay"):
        page = browser.new_context(base_url=f"http://localhost:{stack.control_port}").new_page()
        page.set_default_timeout(30_000)
        session = page.context.new_cdp_session(page)
        session.send("WebAuthn.enable")
        options = {
            "protocol": "ctap2", "transport": "internal", "hasResidentKey": True, "hasUserVerification": True,
            "isUserVerified": True, "automaticPresenceSimulation": True,
        }  # fmt: skip
        session.send("WebAuthn.addVirtualAuthenticator", {"options": options})
        page.goto(stack.cli("login", "--as", f"{name}@acme.example")["url"])
        pages[name] = page
    return pages


def press(page: Page, name: str) -> None:
    with page.expect_navigation():
        page.get_by_role("button", name=name).first.click()


def request_production(stack_and_upstream: tuple[Stack, Upstream], purpose: str) -> str:
    """Request production for the workload with this purpose; returns the id of the pending change."""
    stack, upstream = stack_and_upstream
    (stack.workspace / "acme.yaml").write_text(workspace_text(upstream, "production", purpose))
    stack.cli("apply", "--workspace", str(stack.workspace))
    (change,) = stack.control("GET", "/api/changes?state=pending").body["changes"]
    return str(change["id"])


def test_1_a_login_link_of_the_operator_approves_nothing(
    stack_and_upstream: tuple[Stack, Upstream], people: dict[str, Page]
) -> None:
    change = request_production(stack_and_upstream, "first")
    page = people["sam"]
    page.goto(f"/governance/changes/{change}")
    press(page, "Approve")
    assert "operator's token" in page.get_by_role("alert").inner_text()


def test_2_the_first_passkey_is_trusted_and_its_owner_confirms_the_others(people: dict[str, Page]) -> None:
    for name in ("ana", "sam", "fay"):
        page = people[name]
        page.goto("/you")
        assert "Register a passkey" in page.inner_text("main")
        press(page, "Register a passkey")
        assert "Your passkey is registered." in page.inner_text("[role=status]")
    assert "signed in with your passkey" in people["ana"].inner_text("main")
    assert "nobody has confirmed yet" in people["sam"].inner_text("main")
    people["ana"].goto("/inbox")
    assert "A passkey for Sam Berg was registered" in people["ana"].inner_text("main")
    for _ in range(2):
        people["ana"].goto("/you")
        press(people["ana"], "Confirm")
    for name in ("sam", "fay"):
        page = people[name]
        page.goto("/you")
        press(page, "Sign out here")
        page.goto("/governance")
        press(page, "Sign in with a passkey")
        page.goto("/you")
        assert "signed in with your passkey" in page.inner_text("main")


def test_3_a_change_approved_by_each_duty_is_applied_and_proven_by_the_log(
    stack_and_upstream: tuple[Stack, Upstream], people: dict[str, Page]
) -> None:
    stack = stack_and_upstream[0]
    key = stack.key()
    assert stack.chat(key).status == 200, "the pilot is served while production waits for approval"
    (change,) = stack.control("GET", "/api/changes?state=pending").body["changes"]
    for need in change["waits_for"]:
        (who,) = [name for name in people for said in need["people"] if said.lower().startswith(name)]
        page = people[who]
        page.goto(f"/governance/changes/{change['id']}")
        if page.get_by_role("button", name="Approve").count():
            press(page, "Approve")
            assert "Approved." in page.inner_text("[role=status]")
    applied = stack.control("GET", f"/api/changes/{change['id']}").body
    assert applied["state"] == "applied" and {row["proof"] for row in applied["approvals"]} == {"passkey"}
    people["sam"].goto("/governance")
    wait_until(lambda: stack.cli("audit", "verify", code=None)["ok"], 60, "the log verifies")
    entry = next(
        row
        for row in stack.control("GET", "/api/audit?limit=100").body["entries"]
        if row["action"] == "change.approved"
    )
    wait_until(
        lambda: stack.control("GET", f"/api/audit/{entry['id']}/proof").status == 200, 30, "the entry is in the log"
    )
    people["sam"].goto(f"/audit/{entry['id']}")
    assert "Proof of inclusion" in people["sam"].inner_text("main")


def test_4_nobody_approves_their_own_request(
    stack_and_upstream: tuple[Stack, Upstream], people: dict[str, Page]
) -> None:
    stack, upstream = stack_and_upstream
    ana = {"cookie": cookie(people["ana"]), "x-csrf-token": csrf(people["ana"])}
    fay = {"cookie": cookie(people["fay"]), "x-csrf-token": csrf(people["fay"])}
    body = {"files": {"acme.yaml": workspace_text(upstream, "production", "second")}}
    assert stack.control("POST", "/api/apply", body, fay).code == "duty_missing"
    assert stack.control("POST", "/api/apply", body, ana).status == 200
    (change,) = stack.control("GET", "/api/changes?state=pending").body["changes"]
    assert change["requested_by_name"] == "Ana Lind"
    page = people["ana"]
    page.goto(f"/governance/changes/{change['id']}")
    press(page, "Approve")
    assert "somebody else with the duty business must approve it" in page.get_by_role("alert").inner_text()


def test_5_a_refusal_ends_the_change(stack_and_upstream: tuple[Stack, Upstream], people: dict[str, Page]) -> None:
    stack = stack_and_upstream[0]
    (change,) = stack.control("GET", "/api/changes?state=pending").body["changes"]
    page = people["sam"]
    page.goto(f"/governance/changes/{change['id']}")
    page.get_by_label("As security").fill("Not before the review.")
    press(page, "Refuse")
    refused = stack.control("GET", f"/api/changes/{change['id']}").body
    assert refused["state"] == "refused" and refused["approvals"][0]["comment"] == "Not before the review."
    assert stack.chat(stack.key()).status == 200, "what was served before is still served"


def test_6_a_withdrawn_approval_ends_the_workload_without_grace(
    stack_and_upstream: tuple[Stack, Upstream], people: dict[str, Page]
) -> None:
    stack = stack_and_upstream[0]
    key = stack.key()
    assert stack.chat(key).status == 200
    (change,) = stack.control("GET", "/api/changes?state=applied").body["changes"]
    page = people["sam"]
    page.goto(f"/governance/changes/{change['id']}")
    with traffic(stack, key) as calls:
        wait_until(lambda: len(calls) > 20, 30, "calls are under way")
        press(page, "Withdraw your approval")
        withdrawn_at = time.monotonic()
        wait_until(lambda: sum(sent > withdrawn_at for sent, _ in calls) > 20, 30, "calls go on")
    assert {status for _, status in calls[:20]} == {200}
    assert {status for sent, status in calls if sent > withdrawn_at} <= {403, 404}, (
        "no call is served after the page confirmed the withdrawal"
    )


@contextmanager
def traffic(stack: Stack, key: str) -> Iterator[list[tuple[float, int]]]:
    """Three callers without a pause; yields (time sent, status) of each answered call."""
    calls: list[tuple[float, int]] = []
    stopped = Event()

    def send_calls() -> None:
        while not stopped.is_set():
            sent = time.monotonic()
            calls.append((sent, stack.chat(key).status))

    threads = [Thread(target=send_calls) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        yield calls
    finally:
        stopped.set()
        for thread in threads:
            thread.join()


def test_7_an_expired_approval_stops_what_it_allowed(
    stack_and_upstream: tuple[Stack, Upstream], people: dict[str, Page]
) -> None:
    """Setting the last day of the approval back in the database stands for the years that pass."""
    stack = stack_and_upstream[0]
    change = request_production(stack_and_upstream, "third")
    for name in ("ana", "sam", "fay"):
        people[name].goto(f"/governance/changes/{change}")
        press(people[name], "Approve")
    key = stack.key()
    wait_until(lambda: stack.chat(key).status == 200, 30, "it is served again")
    people["sam"].goto(f"/governance/changes/{change}")
    assert "Valid until" in people["sam"].inner_text("main")
    url = EmbeddedPostgres(Home(stack.home)).superuser_url(DATABASE)
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(
            "UPDATE change SET expires_on = current_date - 1, grace_until = current_date - 1 WHERE id = %s", (change,)
        )
    wait_until(lambda: stack.chat(key).status in {403, 404}, 60, "the gateways refuse it")
    assert stack.control("GET", f"/api/changes/{change}").body["state"] == "expired"
    people["sam"].goto(f"/governance/changes/{change}")
    assert "expired" in people["sam"].inner_text("main")


def cookie(page: Page) -> str:
    return "; ".join(f"{one['name']}={one['value']}" for one in page.context.cookies())


def csrf(page: Page) -> str:
    answer = page.request.get("/api/session")
    return str(answer.json()["csrf"])
