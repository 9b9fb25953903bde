"""`groundplan tail`: one line for each call as it finishes, until Ctrl-C. Reconnects by itself."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime
from typing import Annotated, Any
from urllib.parse import urlencode

import typer

from groundplan.cli.client import ControlClient
from groundplan.cli.options import HomeOption
from groundplan.cli.output import note, sanitize_line, usd
from groundplan.core.errors import Unavailable

QUIET_SECONDS = 30.0
"""The API sends something at least every ten seconds; after this long without a byte the connection is dead."""
RECONNECT_DELAYS = (0.5, 1.0, 2.0)
MAX_REMEMBERED_CALLS = 2000
"""Number of printed calls that are remembered, since the API sends some of them again after it was restarted."""
STABLE_CONNECTION_SECONDS = 4 * QUIET_SECONDS
"""No failed attempt to connect takes this long, so after a longer one the failures count from zero again."""


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
    filters = {"workload": workload, "status": status, "deployment": deployment}
    query = urlencode({name: value for name, value in filters.items() if value is not None})
    client = ControlClient.connect(home, QUIET_SECONDS)
    path = f"/api/calls/live?{query}" if query else "/api/calls/live"
    try:
        _follow(client, path, as_json)
    except KeyboardInterrupt:
        return


def _follow(client: ControlClient, path: str, as_json: bool) -> None:
    """Print calls until the API is unavailable after all `RECONNECT_DELAYS`; raises `Unavailable` then."""
    last_id: str | None = None
    printed: dict[str, None] = {}
    failures = 0
    while True:
        connected_at, failure = time.monotonic(), None
        try:
            for event, call_id, data in client.events(path, last_id):
                failures = 0
                if event == "skipped":
                    note("too many calls to show them all")
                elif call_id not in printed:
                    last_id = call_id or last_id
                    printed[call_id] = None
                    if len(printed) > MAX_REMEMBERED_CALLS:
                        del printed[next(iter(printed))]
                    typer.echo(data if as_json else format_call(json.loads(data)))
        except Unavailable as error:
            failure = error
        if time.monotonic() - connected_at > STABLE_CONNECTION_SECONDS:
            failures = 0  # the API was there, though no call finished
        if failure is not None and failures >= len(RECONNECT_DELAYS):
            raise failure
        if failures == 0:
            note("connecting again")
        time.sleep(RECONNECT_DELAYS[min(failures, len(RECONNECT_DELAYS) - 1)])
        failures += 1


def format_call(call: dict[str, Any]) -> str:
    """Format one call: time (UTC), status with error or cache, workload, deployment or tool, tokens, cost, duration,
    and id for `groundplan why`. A tool's name may be any text that a caller sent: it is escaped."""
    at = datetime.fromisoformat(call["at"]).astimezone(UTC)
    detail = call["error_code"] if call["status"] != "ok" else call["cache"] if call["cache"] != "none" else None
    status = call["status"] if detail is None else f"{call['status']} {detail}"
    duration = "" if call["duration_ms"] is None else f"{call['duration_ms']:.0f} ms"
    cells = (
        f"{at:%H:%M:%S}Z",
        f"{status:<9}",
        f"{call['workload']:<24}",
        f"{call['deployment'] or call.get('tool') or '-':<20}",
        f"{call['prompt_tokens']}+{call['completion_tokens']} tokens",
        usd(call["cost_usd"]),
        duration,
        call["id"],
    )
    return sanitize_line("  ".join(cells))
