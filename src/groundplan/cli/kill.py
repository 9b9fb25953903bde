"""`groundplan kill`: stops something now and reports whether every gateway has stopped it; works without PostgreSQL.

With `--offline`, or when no `up` answers, it writes HOME/run/kill.json, which every gateway worker of this HOME reads
at each heartbeat; the next `up` copies it into the live policy.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from groundplan.cli.client import ControlClient
from groundplan.cli.keys import effective_text, require_key_id
from groundplan.cli.options import HomeOption, JsonOption, home_for
from groundplan.cli.output import emit, note
from groundplan.core.errors import Invalid, Unavailable
from groundplan.core.home import Home
from groundplan.identity import kill_file
from groundplan.identity.model import canonical_scope

API_TIMEOUT_SECONDS = 5.0
"""A kill takes two seconds, gateways included. If the API does not answer within this time (PostgreSQL or the network
hangs), the file is written; it does no harm if the API executes the kill as well."""
SCOPE_PATTERN = re.compile(r"company|(?:provider|model|workload|deployment|source|tool|key|site)/\S+")


def kill(
    scope: Annotated[
        str,
        typer.Argument(
            help="company, or provider/, model/, workload/, deployment/, source/, tool/, site/NAME or key/ID."
        ),
    ],
    reason: Annotated[
        str, typer.Option("--reason", "-m", help="Reason, shown by `status` and `why`, and kept in the audit log.")
    ],
    offline: Annotated[
        bool, typer.Option("--offline", help="Only write HOME/run/kill.json; do not call the API.")
    ] = False,
    lift: Annotated[bool, typer.Option("--lift", help="Lift an earlier kill of SCOPE.")] = False,
    streams: Annotated[bool, typer.Option("--streams", help="Also end answers that are being streamed.")] = False,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Stop SCOPE. Exits with 69 until every gateway has acknowledged it. `status` lists what is stopped."""
    require_key_id(scope)
    if not SCOPE_PATTERN.fullmatch(scope):
        raise Invalid(
            f"'{scope}' is not something that can be stopped", code="kill_scope",
            hint="Write company, or provider/, model/, workload/, deployment/, source/, tool/, key/ or site/NAME.",
        )  # fmt: skip
    scope = canonical_scope(scope)
    if lift:
        value = ControlClient.connect(home).post("/api/kill/lift", {"scope": scope, "reason": reason})
        text = f"{scope} may run again" if value["lifted"] else f"requested: {scope} waits for {value['waits_for']}"
        emit(value, as_json, text)
        return
    value = _kill_offline(home_for(home), scope, reason) if offline else _kill_online(home, scope, reason, streams)
    file = value.get("file")
    file_text = f"{scope} is stopped by {file}: workers of this HOME obey it at their next heartbeat" if file else None
    emit(value, as_json, file_text or effective_text(f"{scope} is stopped{_line_text(value)}", value["effective"]))
    if not value["effective"]["complete"]:
        raise typer.Exit(Unavailable.exit_code)


def _line_text(value: dict[str, Any]) -> str:
    """Note which other keys are stopped with a key that was rotated."""
    also_stopped = value.get("also_stopped") or ()
    return f" (and so is the rest of its line of rotations: {', '.join(also_stopped)})" if also_stopped else ""


def _kill_online(home: Path | None, scope: str, reason: str, streams: bool) -> dict[str, Any]:
    """Kill through the API, or by the file if the API is unavailable."""
    try:
        client = ControlClient.connect(home, API_TIMEOUT_SECONDS)
        value = client.post("/api/kill", {"scope": scope, "reason": reason, "streams": streams})
    except Unavailable as error:
        note(f"{error.message}; writing HOME/run/kill.json instead")
        return _kill_offline(home_for(home), scope, reason)
    return dict(value)


def _kill_offline(home: Home, scope: str, reason: str) -> dict[str, Any]:
    """Add the kill to HOME/run/kill.json. Raises `Unavailable` (`kill_unwritten`) if that is impossible."""
    if not home.run.is_dir():
        raise Invalid(
            f"{home.root} is not the HOME of an installation", code="home_missing", hint="Name it with --home."
        )
    path = kill_file.kill_file_path(home)
    try:
        kill_file.add_kill(home, {"scope": scope, "reason": reason, "at": datetime.now(UTC).isoformat()})
    except OSError as error:
        raise Unavailable(
            f"{scope} is not stopped: {path} cannot be written ({error.strerror})",
            code="kill_unwritten",
            hint="Free space there, or run this as the user of the installation; otherwise stop its `groundplan up`.",
        ) from error
    except ValueError as error:
        raise Unavailable(
            f"{scope} is not stopped: {path} is damaged, and may stop something already",
            code="kill_unwritten",
            hint="Repair it, or move it away if you know what it stops, and try again; otherwise stop its "
            "`groundplan up`.",
        ) from error
    return {"scope": scope, "file": str(path), "effective": {"complete": False, "acknowledged": [], "waiting": []}}
