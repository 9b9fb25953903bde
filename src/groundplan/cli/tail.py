"""`groundplan tail`: one line for each call as it finishes, until Ctrl-C. It connects again by itself."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime
from typing import Annotated, Any
from urllib.parse import urlencode

import typer

from groundplan.cli.client import ControlClient
from groundplan.cli.options import HomeOption
from groundplan.cli.output import note, usd
from groundplan.core.errors import Unavailable

QUIET_SECONDS = 30.0
"""The API says something at least every ten seconds; after so long without a word the connection is dead."""
AGAIN_SECONDS = (0.5, 1.0, 2.0)
KNOWN = 2000
"""Calls that are known to be told: some are told once more where the API was started again."""
LASTED_SECONDS = 4 * QUIET_SECONDS
"""No try to connect takes so long: over a connection that lasted longer the API was heard."""


def tail(
    workload: Annotated[str | None, typer.Option("--workload", help="Only calls of this workload.")] = None,
    status: Annotated[
        str | None,
        typer.Option("--status", help="Only calls with this status: ok, refused, failed, cancelled or crashed."),
    ] = None,
    deployment: Annotated[
        str | None, typer.Option("--deployment", help="Only calls that this deployment answered.")
    ] = None,
    home: HomeOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON line for each call.")] = False,
) -> None:
    """Show calls as they finish, until Ctrl-C or until `groundplan up` stops."""
    wanted = {"workload": workload, "status": status, "deployment": deployment}
    query = urlencode({name: value for name, value in wanted.items() if value is not None})
    client = ControlClient.connect(home, QUIET_SECONDS)
    path = f"/api/calls/live?{query}" if query else "/api/calls/live"
    try:
        _follow(client, path, as_json)
    except KeyboardInterrupt:
        return


def _follow(client: ControlClient, path: str, as_json: bool) -> None:
    """Print until the API is gone for longer than all of `AGAIN_SECONDS`."""
    last: str | None = None
    known: dict[str, None] = {}
    failures = 0
    while True:
        began, gone = time.monotonic(), None
        try:
            for event, call_id, data in client.events(path, last):
                failures = 0
                if event == "skipped":
                    note("too many calls to show them all")
                elif call_id not in known:
                    last = call_id or last
                    known[call_id] = None
                    if len(known) > KNOWN:
                        del known[next(iter(known))]
                    typer.echo(data if as_json else line(json.loads(data)))
        except Unavailable as error:
            gone = error
        if time.monotonic() - began > LASTED_SECONDS:
            failures = 0  # it was there, though no call came
        if gone is not None and failures >= len(AGAIN_SECONDS):
            raise gone
        if failures == 0:
            note("connecting again")
        time.sleep(AGAIN_SECONDS[min(failures, len(AGAIN_SECONDS) - 1)])
        failures += 1


def line(call: dict[str, Any]) -> str:
    """Time (UTC), status and cache, workload, who answered, tokens, cost, time taken, id for `groundplan why`."""
    at = datetime.fromisoformat(call["at"]).astimezone(UTC)
    ended = call["error_code"] if call["status"] != "ok" else call["cache"] if call["cache"] != "none" else None
    status = call["status"] if ended is None else f"{call['status']} {ended}"
    taken = "" if call["duration_ms"] is None else f"{call['duration_ms']:.0f} ms"
    cells = (
        f"{at:%H:%M:%S}Z",
        f"{status:<9}",
        f"{call['workload']:<24}",
        f"{call['deployment'] or call.get('tool') or '-':<20}",
        f"{call['prompt_tokens']}+{call['completion_tokens']} tokens",
        usd(call["cost_usd"]),
        taken,
        call["id"],
    )
    return "  ".join(cells)
