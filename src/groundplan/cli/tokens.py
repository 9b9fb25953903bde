"""`groundplan tokens`: service tokens of programs, with scopes and expiry; they never approve."""

from __future__ import annotations

from typing import Annotated

import typer

from groundplan.cli.client import ControlClient
from groundplan.cli.command_group import command_group
from groundplan.cli.options import HomeOption, JsonOption
from groundplan.cli.output import emit, table

app = command_group("API tokens for programs: scoped and expiring; a token never approves.")

NONE = "No program has a token. `groundplan tokens create NAME --scope read` makes one."


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="Purpose of the token.")],
    scope: Annotated[
        list[str], typer.Option("--scope", help="Scope: read, plan, release, stop, scim, ... Repeatable.")
    ],
    days: Annotated[int, typer.Option("--days", min=1, max=366, help="Days until the token expires.")] = 90,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Create a token; it is shown once."""
    value = ControlClient.connect(home).post("/api/tokens", {"name": name, "scopes": scope, "days": days})
    emit(
        value,
        as_json,
        f"{value['token']}\n\nIt may {', '.join(value['scopes'])} and expires on {value['expires_at'][:10]}.",
    )


@app.command("list")
def list_tokens(home: HomeOption = None, as_json: JsonOption = False) -> None:
    """List tokens with owner, expiry and last use."""
    value = ControlClient.connect(home).get("/api/tokens")
    rows = [
        (
            token["id"], token["name"], ", ".join(token["scopes"]), token["expires_at"][:10],
            (token["used_at"] or "never used")[:16] if token["state"] == "active" else token["state"],
        )
        for token in value["tokens"]
    ]  # fmt: skip
    emit(value, as_json, table(("id", "name", "may", "until", "used"), rows, NONE))


@app.command()
def revoke(
    token: Annotated[str, typer.Argument(metavar="ID", help="ID of the token, from `list`.")],
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Revoke a token at once."""
    value = ControlClient.connect(home).delete(f"/api/tokens/{token}")
    emit(value, as_json, "it is revoked")
