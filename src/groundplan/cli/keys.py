"""`groundplan keys`: API keys for workloads. A key is shown once, when it is made."""

from __future__ import annotations

from typing import Annotated

import typer

from groundplan.cli.client import ControlClient
from groundplan.cli.options import HomeOption, JsonOption
from groundplan.cli.output import emit, table

app = typer.Typer(help="Create, list and revoke API keys.", no_args_is_help=True, rich_markup_mode=None)


@app.command()
def create(
    workload: Annotated[str, typer.Option("--workload", help="What the key may call.")],
    user: Annotated[
        str | None, typer.Option("--user", help="E-mail of the person whose permissions it carries.")
    ] = None,
    on_behalf_of: Annotated[
        bool, typer.Option("--on-behalf-of", help="May name other people in groundplan-on-behalf-of.")
    ] = False,
    days: Annotated[int | None, typer.Option("--days", min=1, help="Valid for that many days.")] = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make a key. It is printed now and never again."""
    value = ControlClient.connect(home).post(
        "/api/keys", {"workload": workload, "user": user, "acts_for_others": on_behalf_of, "days": days}
    )
    emit(value, as_json, f"{value['key']}\n\nKeep it now: it is not shown again. Its id is {value['id']}.")


@app.command("list")
def list_keys(home: HomeOption = None, as_json: JsonOption = False) -> None:
    """All keys, without their secret."""
    value = ControlClient.connect(home).get("/api/keys")
    rows = [(k["id"], k["workload"], k["user"] or "-", k["prefix"], k["state"]) for k in value["keys"]]
    emit(value, as_json, table(("id", "workload", "user", "begins", "state"), rows))


@app.command()
def revoke(key_id: str, home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Stop a key, and say which gateways have taken note."""
    value = ControlClient.connect(home).delete(f"/api/keys/{key_id}")
    emit(value, as_json, effective_text(f"key {key_id} is revoked", value["effective"]))


def effective_text(what: str, effective: dict[str, object]) -> str:
    """One sentence on whether something stopped is stopped everywhere yet."""
    if effective.get("complete"):
        return f"{what}, effective at every gateway"
    waiting = effective.get("waiting") or []
    lines = [f"{what}; not yet acknowledged by:"]
    if isinstance(waiting, list):
        lines += [f"  gateway {gateway['epoch']}, may serve until {gateway['until']}" for gateway in waiting]
    return "\n".join(lines)
