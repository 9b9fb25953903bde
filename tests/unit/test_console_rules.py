"""The page of rules: who may decide on an exception is told on the page of its change, and the button stands there."""

from __future__ import annotations

from groundplan.console.render import templates

EXCEPTION = {
    "id": "7", "rule": "no-training", "workload": "helper", "person": None, "until": "2026-12-24T00:00:00+00:00",
    "reason": "a pilot", "state": "asked", "waits_for": ["security", "compliance"],
}  # fmt: skip
PAGE = {
    "policies": [], "trials": {}, "found": [], "shadow": [], "days": "1", "choices": ["1"], "draft": "", "trial": None,
    "wrong": None, "csrf": "c", "session": {"duties": [], "operator": True},
}  # fmt: skip


def exceptions(**changed: object) -> str:
    template = templates.get_template("rules.html")
    context = template.new_context({**PAGE, "exceptions": [EXCEPTION | changed]})
    return "".join(template.blocks["main"](context)).partition('id="exceptions"')[2].partition("</table>")[0]


def test_an_exception_that_was_requested_is_decided_where_it_says_who_may() -> None:
    shown = exceptions()
    assert '<a href="/governance/changes/7">Decide</a>' in shown and "waits for security and compliance" in shown
    assert "<button" not in shown


def test_an_exception_in_force_can_be_ended_there() -> None:
    shown = exceptions(state="approved", waits_for=[])
    assert "/do/exception-end" in shown and "Decide" not in shown
