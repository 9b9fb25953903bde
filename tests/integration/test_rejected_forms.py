"""Every form of the console, sent after its session is over, from another session, or with what does not fit: nothing
is done, and nothing that was typed is lost. A new form is among them by itself."""

from __future__ import annotations

import html
import http.client
import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlencode

import pytest
from fastapi import UploadFile
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute
from tests.integration.test_api_control import ANSWER_TIMEOUT_S, Control, run_control

from groundplan.console import rejected_forms
from groundplan.console.app import ROUTERS
from groundplan.testing.database import Cluster

TYPED = 'what "I" <typed> & \u00e9 '
HIDDEN = re.compile(r'name="csrf" value="([^"]*)"')
ALONE = {"/do/sign-out", "/do/knowledge/click", "/do/knowledge/fix", "/do/reconcile", "/governance/rules"}
"""Whoever is signed out already is where they wanted to be, a click and what a finding proposes type nothing, a page
sends no file again, and a rule that is tried stays in its field."""


def form_fields(part: Dependant) -> list[tuple[str, Any]]:
    """(name, type) of every field of a form."""
    own = [(each.alias, each.field_info.annotation) for each in part.body_params]
    return own + [field for other in part.dependencies for field in form_fields(other)]


def forms() -> list[tuple[str, tuple[str, ...]]]:
    """(path, fields that hold text) of every form."""
    found = []
    for router in ROUTERS:
        for route in router.routes:
            if isinstance(route, APIRoute) and "POST" in (route.methods or ()) and route.path not in ALONE:
                texts = [name for name, type_ in form_fields(route.dependant) if type_ is not UploadFile]
                found.append((re.sub(r"\{\w+\}", "rollback", route.path), tuple(texts)))
    return found


@pytest.fixture(scope="module")
def control(postgres_cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Control]:
    folder = tmp_path_factory.mktemp("unsent")
    with (
        postgres_cluster.database() as database,
        run_control(
            database, folder, "--workspace", str(folder / "workspace"), module="groundplan.console.app"
        ) as found,
    ):
        yield found


def send(control: Control, path: str, values: dict[str, str], session: dict[str, str], **more: str) -> tuple[int, str]:
    """(status, page) of a form as a browser sends it."""
    headers = {"Host": f"localhost:{control.port}", "Cookie": session["Cookie"], **more}
    headers["Content-Type"] = "application/x-www-form-urlencoded"
    connection = http.client.HTTPConnection("127.0.0.1", control.port, timeout=ANSWER_TIMEOUT_S)
    try:
        connection.request("POST", path, urlencode(values), headers)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


def test_there_are_forms() -> None:
    assert len(forms()) > 40


@pytest.mark.parametrize(("path", "fields"), [each for each in forms() if each[0].startswith("/do/")])
def test_what_was_typed_is_there_and_can_be_sent_again(control: Control, path: str, fields: tuple[str, ...]) -> None:
    session = control.follow_link()
    values = {name: "7" if name in {"to", "until"} else f"{TYPED}{name}" for name in fields if name != "csrf"}
    over = {**session, "Cookie": session["Cookie"] + "x"}
    for given, status, why in (
        (over, 401, rejected_forms.SIGNED_OUT), (session, 403, rejected_forms.STALE),
    ):  # fmt: skip
        told, shown = send(control, path, {"csrf": "of another session", **values}, given)
        if told == 422:  # a number, or one of a few words, has no place for what was typed
            why = "this was not sent"
        else:
            assert told == status, path
        assert why in html.unescape(shown), path
        for name, value in values.items():
            assert f'name="{name}"' in shown and html.escape(value, quote=False) in shown.replace("&#34;", '"'), name
        assert f'action="{path}"' in shown
        (token,) = HIDDEN.findall(shown)[-1:]
        assert token == ("" if given is over else session["X_CSRF_Token"])


@pytest.mark.parametrize("sent_by", [{"Sec-Fetch-Site": "same-site"}, {"Origin": "http://other.example"}])
def test_what_another_site_wrote_into_a_form_is_shown_to_nobody(control: Control, sent_by: dict[str, str]) -> None:
    session = control.follow_link()
    for given in (session, {**session, "Cookie": ""}):
        for reason in ("forged", "forged " * 500):
            said = {"csrf": "guess", "scope": "company", "reason": reason}
            status, shown = send(control, "/do/kill", said, given, **sent_by)
            assert status == 403 and "csrf_origin" in shown and "forged" not in shown and "<form" not in shown


def test_too_long_a_text_is_told_beside_it_and_a_program_is_told_as_before(control: Control) -> None:
    session = control.follow_link()
    said = {"csrf": session["X_CSRF_Token"], "scope": "company", "reason": "long " * 500}
    status, shown = send(control, "/do/kill", said, session)
    assert status == 422 and "reason: " in shown and "long " * 500 in shown
    assert control.ask("GET", "/api/kill").body["kills"] == []
    assert control.ask("POST", "/api/kill", {"scope": 7}).code == "request_invalid"
