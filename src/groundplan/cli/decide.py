"""`groundplan approve` and `refuse`: a decision from the command line, made by the person who confirms it in their
browser.

With the operator's token one can only request a decision, or refuse as the operator. A person decides on what they saw
and confirmed in the browser, signed in with a passkey or at the company's sign-in.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any

import typer

from groundplan.cli.client import ControlClient
from groundplan.cli.options import HomeOption, JsonOption
from groundplan.cli.output import emit, note, pending_text
from groundplan.core.errors import Unavailable

PAUSE_SECONDS = 1.0
Change = Annotated[str, typer.Argument(metavar="CHANGE", help="ID of the change, from `groundplan changes list`.")]
Comment = Annotated[str, typer.Option("--comment", "--reason", "-m", help="Reason, kept with the decision.")]
Wait = Annotated[int, typer.Option("--wait", min=1, max=600, help="Seconds to wait for the confirmation.")]


def approve(
    change: Change, comment: Comment = "", wait: Wait = 600, home: HomeOption = None, as_json: JsonOption = False
) -> None:
    """Approve a change by the duties that you hold, after confirming it in your browser."""
    value = _request_decision(change, "approve", comment, wait, home)
    number = value["blueprint"]
    lines = [f"approved; blueprint {number} is served" if number else "approved"]
    lines += [pending_text(pending) for pending in value["pending"]]
    emit(value, as_json, "\n".join(lines))


def refuse(
    change: Change,
    comment: Comment = "",
    wait: Wait = 600,
    operator: Annotated[bool, typer.Option("--as-operator", help="Refuse at once, as the operator.")] = False,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Refuse a change by a duty that you hold, after confirming it in your browser; or as the operator."""
    if operator:
        value = ControlClient.connect(home).post(f"/api/changes/{change}/refuse", {"comment": comment})
    else:
        value = _request_decision(change, "refuse", comment, wait, home)
    emit(value, as_json, "refused")


def _request_decision(change: str, decision: str, comment: str, wait: int, home: Path | None) -> dict[str, Any]:
    """Request a decision and wait for a person to confirm it; returns its result. Raises `Unavailable` after `wait`
    seconds."""
    client = ControlClient.connect(home)
    routing = client.get(f"/api/changes/{change}").get("routing")
    if routing is not None:
        note("\n".join(routing["told"]))
    requested = client.post("/api/terminals", {"change": change, "decision": decision, "comment": comment})
    note(f"Open {requested['url']}\nsign in as yourself, see that it shows {requested['code']}, and confirm.")
    until = time.monotonic() + wait
    while True:
        try:
            result: dict[str, Any] = client.post(
                f"/api/terminals/{requested['id']}/decide", {"secret": requested["secret"]}
            )
            return result
        except Unavailable as error:
            if error.code != "terminal_waits" or time.monotonic() >= until:
                raise
        time.sleep(PAUSE_SECONDS)
