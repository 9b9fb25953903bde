"""Plays the example company's people in its demo: they approve the changes of the first start, and review answers.

Only for workloads with a sheet (`judging`), and through the same API as everybody: signed in and acting as each person,
so that the audit log names the real actor and says that it is a demo. Changes of a visitor are left to the visitor.
"""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

from groundplan.core.home import Home
from groundplan.testing.control import exchange, port_of_url
from groundplan.testing.judging import Sheet, has_facts, load_sheets

BEGIN_SECONDS = 3.0
"""Delay before they begin, so that the first questions of the traffic are not slowed down."""
POLL_SECONDS = 0.5
RETRY_SECONDS = 2.0
TRIES = 5
COMMENT = "read, as the demo plays it"


class Person:
    """A session that acts as a person."""

    def __init__(self, control: int, token: str, email: str) -> None:
        link = exchange(control, "POST", "/api/login-links", token, {"person": None})["url"]
        connection = http.client.HTTPConnection("127.0.0.1", control, timeout=30)
        try:
            connection.request("GET", urlsplit(link).path, headers=self._host(control))
            reply = connection.getresponse()
            reply.read()
            cookie = (reply.getheader("set-cookie") or "").partition(";")[0]
        finally:
            connection.close()
        self._control, self._signed = control, {"cookie": cookie, **self._host(control)}
        self._signed["x-csrf-token"] = self.ask("GET", "/api/session")["csrf"]
        self.ask("POST", "/api/session/act-as", {"person": email})

    @staticmethod
    def _host(control: int) -> dict[str, str]:
        return {"host": f"localhost:{control}"}

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        """One call of the control API as this person; raises ValueError on a refusal."""
        return exchange(self._control, method, path, self._signed, body)


def run(home: Home) -> None:
    """Approve and review for ever, also after `up` restarts."""
    time.sleep(BEGIN_SECONDS)
    while True:
        try:
            _work_through(home)
        except (OSError, http.client.HTTPException, ValueError, KeyError):
            time.sleep(RETRY_SECONDS)


def _work_through(home: Home) -> None:
    control = port_of_url(json.loads((home.run / "up.json").read_text())["control"])
    token = home.operator_token.read_text().strip()
    known = load_sheets(home)
    people: dict[str, Person] = {}
    for _ in range(TRIES):
        try:
            approve(control, token, known, people)
            break
        except ValueError:  # refused, or somebody was quicker
            time.sleep(RETRY_SECONDS)
    seen: set[str] = set()
    while known:
        review(control, token, known, people, seen)
        time.sleep(POLL_SECONDS)


def approve(control: int, token: str, known: Mapping[str, Sheet], people: dict[str, Person]) -> None:
    """Approve the changes of the first start, each duty by its holder, after the changes that they depend on."""
    for change in pending(control, token):
        workload = str(change["summary"]["subject"]).removeprefix("workload/")
        if change["base"] == 0 and change["type"] == "workload" and workload in known:
            missing = {"workload": workload, "reason": f"{workload} goes into production ({COMMENT})"}
            asked = exchange(control, "POST", "/api/approvals/missing", token, missing)["asked"]
            used = {each["id"] for each in asked}
            first = [each for each in pending(control, token) if each["id"] in used]
            for each in (*first, change):
                approve_change(control, token, each, people)


def pending(control: int, token: str) -> list[dict[str, Any]]:
    return list(exchange(control, "GET", "/api/changes?state=pending", token)["changes"])


def approve_change(control: int, token: str, change: Mapping[str, Any], people: dict[str, Person]) -> None:
    """Give every approval that a change waits for."""
    emails = {each["name"]: each["email"] for each in exchange(control, "GET", "/api/people", token)["people"]}
    for need in change["waits_for"]:
        person = _session_of(control, token, emails[need["people"][0]], people)
        answer = {"subject": need["subject"], "duty": need["duty"], "comment": COMMENT}
        person.ask("POST", f"/api/changes/{change['id']}/approve", answer)


def review(control: int, token: str, known: Mapping[str, Sheet], people: dict[str, Person], seen: set[str]) -> None:
    """Review new waiting answers: release those that contain the facts of their question, refuse the others."""
    for held in exchange(control, "GET", "/api/reviews", token)["reviews"]:
        sheet = known.get(held["workload"])
        if sheet is None or held["kind"] != "answer" or held["id"] in seen:
            continue
        seen.add(held["id"])
        person = _session_of(control, token, sheet.reviewer, people)
        with suppress(ValueError):  # somebody was quicker
            text = person.ask("GET", f"/api/reviews/{held['id']}")
            ruled = ruling(sheet, str(text["asked"]), str(text["said"]))
            if ruled is not None:
                person.ask("POST", f"/api/reviews/{held['id']}/{ruled[0]}", {"reason": ruled[1]})


def ruling(sheet: Sheet, asked: str, answer: str) -> tuple[str, str] | None:
    """(`release` or `refuse`, reason); None for a question that is not on the sheet, which is left to the visitor."""
    question = next((each.ask for each in sheet.questions if each.ask in asked), "")
    held = has_facts(sheet, question, answer)
    if held is None:
        return None
    reason = "it holds" if held else f"it lacks {' and '.join(sheet.facts(question) or ())}"
    return "release" if held else "refuse", f"{reason} ({COMMENT})"


def _session_of(control: int, token: str, email: str, people: dict[str, Person]) -> Person:
    if email not in people:
        people[email] = Person(control, token, email)
    return people[email]
