"""The console at the company's own address: TLS only, no token of the operator, no link but to register a passkey."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.integration.test_api_control import Control, run_control

from groundplan.core.errors import Invalid
from groundplan.core.settings import load_settings
from groundplan.testing.database import Cluster
from groundplan.testing.passkey import SoftPasskey

HOST = "ai.acme.example"


@pytest.fixture(scope="module")
def control(postgres_cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Control]:
    folder: Path = tmp_path_factory.mktemp("elsewhere")
    patch = pytest.MonkeyPatch()
    patch.setenv("GROUNDPLAN_CONSOLE_URL", f"https://{HOST}")
    workspace = ("--workspace", str(folder / "workspace"))
    with (
        postgres_cluster.database() as database,
        run_control(database, folder, *workspace, module="groundplan.console.app") as found,
    ):
        yield found
    patch.undo()


def assert_host_only(cookie: str) -> None:
    """Browsers accept such a cookie from this name alone, and not from pages of neighbouring ones."""
    name, attributes = cookie.partition("=")[0], cookie.lower().split("; ")[1:]
    assert name == "__Host-groundplan_session"
    assert {"secure", "path=/"} <= set(attributes) and not any(each.startswith("domain") for each in attributes)


def test_from_elsewhere_only_a_proven_person_gets_in(control: Control) -> None:
    away = {"Host": HOST}
    assert control.ask("GET", "/api/status", **away).code == "proof_missing", "not by the operator's token"
    assert control.ask("GET", "/api/status", Host="other.example").status == 421
    for port in ("", "x", "99999", "-1", "443@x", "443:1", "443/x", " 443"):
        assert control.ask("GET", "/api/status", Host=f"{HOST}:{port}").code == "host_not_allowed", port
    assert control.ask("GET", "/api/status", Host=f"{HOST}:443").code == "proof_missing"
    for name in ("X_Forwarded_For", "X_Forwarded_Proto", "Forwarded", "Via", "X_Real_IP"):
        replaced = control.ask("GET", "/api/status", **{name: "203.0.113.7"})
        assert replaced.code == "proof_missing", "its proxy did not keep the Host header"
    assert control.ask("GET", "/api/status").status == 200
    url = control.ask("POST", "/api/login-links", {"person": "ana@acme.example"}).body["url"]
    reply = control.ask("GET", "/" + url.split("/", 3)[3], Authorization="", **away)
    assert_host_only(reply.headers["set-cookie"])
    linked = {"Authorization": "", "Cookie": reply.headers["set-cookie"].partition(";")[0], **away}
    linked["X_CSRF_Token"] = control.ask("GET", "/api/session", **linked).body["csrf"]
    for path in ("/api/status", "/api/people", "/api/audit", "/api/inbox"):
        assert control.ask("GET", path, **linked).code == "proof_missing", path
    assert b"Register a passkey" in control.ask("GET", "/you", **linked).body
    device = SoftPasskey(f"https://{HOST}")
    asked = control.ask("POST", "/api/passkeys/registration", {}, **linked).body
    assert asked["options"]["rp"]["id"] == HOST
    made = {"ceremony": asked["ceremony"], "response": device.create(asked["options"])}
    assert control.ask("POST", "/api/passkeys", made, **linked).status == 201
    asked = control.ask("POST", "/api/sign-in/passkey/options", {}, Authorization="", **away).body
    given = {"ceremony": asked["ceremony"], "response": device.get(asked["options"])}
    reply = control.ask("POST", "/api/sign-in/passkey", given, Authorization="", **away)
    proven = {"Authorization": "", "Cookie": reply.headers["set-cookie"].partition(";")[0], **away}
    assert control.ask("GET", "/api/people", **proven).status == 200
    proven["X_CSRF_Token"] = control.ask("GET", "/api/session", **proven).body["csrf"]
    assert_host_only(control.ask("POST", "/api/logout", {}, **proven).headers["set-cookie"])
    token = control.ask("POST", "/api/tokens", {"name": "x", "scopes": ["read"], "days": 1}).body["token"]
    assert control.ask("GET", "/api/changes", Authorization=f"Bearer {token}", **away).status == 200
    local = control.ask("POST", "/api/sign-in/passkey/options", {}, Authorization="").body
    elsewhere = {"ceremony": local["ceremony"], "response": device.get(local["options"])}
    assert control.ask("POST", "/api/sign-in/passkey", elsewhere, Authorization="").code == "passkey", (
        "bound to its name"
    )


@pytest.mark.parametrize("url", ["http://ai.acme.example", "ai.acme.example", "https://ai.acme.example/x", "https://"])
def test_other_machines_need_tls_and_a_name(url: str) -> None:
    with pytest.raises(Invalid) as caught:
        load_settings({"GROUNDPLAN_CONSOLE_URL": url})
    assert "passkeys a domain" in caught.value.hint


def test_a_client_that_takes_the_console_for_the_gateway_is_told(control: Control) -> None:
    body = {"model": "auto", "messages": []}
    for answer in (control.ask("POST", "/v1/chat/completions", body), control.ask("GET", "/v1/models")):
        assert (answer.status, answer.code) == (404, "path_unknown")
        assert "groundplan status" in answer.body["error"]["hint"]
    assert control.ask("GET", "/nowhere").body.startswith(b"<!doctype html>"), "people get a page"
