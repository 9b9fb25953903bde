"""`groundplan kill`: stops something now, and says when it has stopped everywhere, also without PostgreSQL.

`--home` with `--offline` (or when no `up` answers) writes HOME/run/kill.json, which every gateway worker of this HOME
reads each heartbeat; the next `up` takes it over into the live policy.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from groundplan.cli.client import ControlClient
from groundplan.cli.keys import effective_text, others_text, require_key_id
from groundplan.cli.options import HomeOption, JsonOption, home_for
from groundplan.cli.output import emit, note
from groundplan.core.errors import Invalid, Unavailable
from groundplan.core.home import Home
from groundplan.identity import kill_file

ANSWER_SECONDS = 5.0
"""A kill takes two, gateways included. Where PostgreSQL or the network says nothing, the file is there after this; that
both are done does no harm."""
SCOPE = re.compile(r"company|(?:provider|model|workload|deployment|source|tool|key|site)/\S+")


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
    if not SCOPE.fullmatch(scope):
        raise Invalid(
            f"'{scope}' is not something that can be stopped", code="kill_scope",
            hint="Write company, or provider/, model/, workload/, deployment/, source/, tool/, key/ or site/NAME.",
        )  # fmt: skip
    if lift:
        value = ControlClient.connect(home).post("/api/kill/lift", {"scope": scope, "reason": reason})
        told = f"{scope} may run again" if value["lifted"] else f"requested: {scope} waits for {value['waits_for']}"
        emit(value, as_json, told)
        return
    value = _offline(home_for(home), scope, reason) if offline else _told(home, scope, reason, streams)
    file = value.get("file")
    by_file = f"{scope} is stopped by {file}: workers of this HOME obey it at their next heartbeat" if file else None
    emit(value, as_json, by_file or effective_text(f"{scope} is stopped{others_text(value)}", value["effective"]))
    if not value["effective"]["complete"]:
        raise typer.Exit(Unavailable.exit_code)


def _told(home: Any, scope: str, reason: str, streams: bool) -> dict[str, Any]:
    try:
        client = ControlClient.connect(home, ANSWER_SECONDS)
        value = client.post("/api/kill", {"scope": scope, "reason": reason, "streams": streams})
    except Unavailable as error:
        note(f"{error.message}; writing HOME/run/kill.json instead")
        return _offline(home_for(home), scope, reason)
    return dict(value)


def _offline(home: Home, scope: str, reason: str) -> dict[str, Any]:
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
            hint="Free space there, or run this as the user of the installation; else stop its `groundplan up`.",
        ) from error
    except ValueError as error:
        raise Unavailable(
            f"{scope} is not stopped: {path} is damaged, and may stop something already",
            code="kill_unwritten",
            hint="Put it right, or move it away where you know what it stops, and try again; else stop its "
            "`groundplan up`.",
        ) from error
    return {"scope": scope, "file": str(path), "effective": {"complete": False, "acknowledged": [], "waiting": []}}
