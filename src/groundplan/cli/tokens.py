"""`groundplan tokens`: what programs hold, with scopes and an end; they never approve."""

from __future__ import annotations

from typing import Annotated

import typer

from groundplan.cli.client import ControlClient
from groundplan.cli.group import command_group
from groundplan.cli.options import HomeOption, JsonOption
from groundplan.cli.output import emit, table

app = command_group("Tokens of programs: scoped, expiring, never approving.")

NONE = "No program has a token. `groundplan tokens create NAME --scope read` makes one."


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="What it is for.")],
    scope: Annotated[list[str], typer.Option("--scope", help="read, plan, release, stop, scim ...; repeat it.")],
    days: Annotated[int, typer.Option("--days", min=1, max=366, help="Until it ends.")] = 90,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make a token; it is shown once."""
    value = ControlClient.connect(home).post("/api/tokens", {"name": name, "scopes": scope, "days": days})
    emit(
        value, as_json, f"{value['token']}\n\nIt may {', '.join(value['scopes'])} and ends {value['expires_at'][:10]}."
    )


@app.command("list")
def list_tokens(home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Who holds what, until when, and when it was used last."""
    value = ControlClient.connect(home).get("/api/tokens")
    rows = [
        (
            each["id"], each["name"], ", ".join(each["scopes"]), each["expires_at"][:10],
            "ended" if each["revoked_at"] else (each["used_at"] or "never used")[:16],
        )
        for each in value["tokens"]
    ]  # fmt: skip
    emit(value, as_json, table(("id", "name", "may", "until", "used"), rows, NONE))


@app.command()
def revoke(
    token: Annotated[str, typer.Argument(metavar="ID", help="Of the token, as `list` shows it.")],
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """End a token at once."""
    value = ControlClient.connect(home).delete(f"/api/tokens/{token}")
    emit(value, as_json, "it is ended")
