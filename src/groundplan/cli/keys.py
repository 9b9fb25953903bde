"""`groundplan keys`: API keys for workloads. A key is shown once, when it is created."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

import typer

from groundplan.cli.client import ControlClient
from groundplan.cli.command_group import command_group
from groundplan.cli.option_groups import grouped
from groundplan.cli.options import HomeOption, JsonOption
from groundplan.cli.output import emit, table, usd
from groundplan.cli.release import warnings_text
from groundplan.core.errors import Invalid, Unavailable
from groundplan.identity.keys import PREFIX, PREFIX_CHARACTERS

app = command_group("Create, list and revoke API keys.")
NO_KEYS_TEXT = "There is no key. `groundplan keys create --workload NAME` makes one."
KeyArgument = Annotated[str, typer.Argument(metavar="ID", help="ID of the key, from `list`; never the key itself.")]


@dataclass(frozen=True, slots=True)
class KeyLimits:
    """Limits of a key: expiry, budget, networks and models."""

    days: Annotated[int | None, typer.Option("--days", min=1, help="Days until the key expires.")] = None
    budget: Annotated[str | None, typer.Option("--budget", help="Budget of the key, such as '20 USD/month'.")] = None
    tag: Annotated[list[str] | None, typer.Option("--tag", help="Tag to find the key by. Repeatable.")] = None
    network: Annotated[
        list[str] | None,
        typer.Option("--network", help="Network the key may be used from, such as 10.0.0.0/8. Repeatable."),
    ] = None
    model: Annotated[
        list[str] | None, typer.Option("--model", help="Model or deployment the key may use. Repeatable.")
    ] = None

    def body(self) -> dict[str, Any]:
        return {
            "days": self.days, "budget": self.budget, "tags": self.tag or [], "networks": self.network or [],
            "models": self.model or [],
        }  # fmt: skip


@app.command()
@grouped
def create(
    workload: Annotated[str, typer.Option("--workload", help="Workload that the key may call.")],
    limits: KeyLimits,
    user: Annotated[
        str | None, typer.Option("--user", help="E-mail address of the person whose permissions the key carries.")
    ] = None,
    on_behalf_of: Annotated[
        bool,
        typer.Option("--on-behalf-of", help="Allow the key to act for others with the header groundplan-on-behalf-of."),
    ] = False,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Create a key. It is printed once and cannot be shown again."""
    body = {"workload": workload, "user": user, "acts_for_others": on_behalf_of, **limits.body()}
    value = ControlClient.connect(home).post("/api/keys", body)
    text = f"{value['key']}\n\nKeep it now: it is not shown again. Its id is {value['id']}."
    emit(value, as_json, "\n".join([text, *warnings_text(value)]))


@app.command()
def rotate(
    key_id: KeyArgument,
    overlap: Annotated[
        str, typer.Option("--overlap", help="How long the old key stays valid, such as 24h or 0s.")
    ] = "24h",
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Replace a key with a new one that has the same rights, budget and limits."""
    require_key_id(key_id)
    value = ControlClient.connect(home).post(f"/api/keys/{key_id}/rotate", {"overlap": overlap})
    instructions = (
        f"Keep it now: it is not shown again. Its id is {value['id']}; the old key ends {value['old_ends_at']}."
    )
    emit(value, as_json, "\n".join([f"{value['key']}\n\n{instructions}", *warnings_text(value)]))


@app.command("list")
def list_keys(
    tag: Annotated[str | None, typer.Option("--tag", help="Only keys with this tag.")] = None,
    workload: Annotated[str | None, typer.Option("--workload", help="Only keys of this workload.")] = None,
    user: Annotated[
        str | None, typer.Option("--user", help="E-mail address: only keys that carry this person's permissions.")
    ] = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """List all keys, without their secrets."""
    keys = [
        key
        for key in ControlClient.connect(home).list_all("/api/keys", "keys", tag=tag, workload=workload, user=user)
        # filtered here as well, since an older control process ignores these parameters
        if (tag is None or tag in key["tags"]) and workload in (None, key["workload"]) and user in (None, key["user"])
    ]
    rows = [
        (k["id"], k["workload"], k["user"] or "-", k["prefix"], k["state"], k["expires_at"] or "-", _terms(k))
        for k in keys
    ]
    emit(
        {"keys": keys},
        as_json,
        table(("id", "workload", "user", "begins", "state", "expires", "terms"), rows, NO_KEYS_TEXT),
    )


def _terms(key: dict[str, Any]) -> str:
    """Limits of a key in a few words."""
    parts = [f"{usd(key['budget_usd'])}/{key['budget_period']}"] if key["budget_period"] else []
    parts += [f"from {', '.join(key['networks'])}"] if key["networks"] else []
    parts += [f"only {', '.join(key['models'])}"] if key["models"] else []
    parts += [f"#{tag}" for tag in key["tags"]]
    return "; ".join(parts) or "-"


@app.command()
def revoke(key_id: KeyArgument, home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Revoke a key, and show which gateways have acknowledged it. Exits with 69 until all have."""
    require_key_id(key_id)
    value = ControlClient.connect(home).delete(f"/api/keys/{key_id}")
    emit_effective(f"key {key_id} is revoked{others_text(value)}", value, as_json)


def require_key_id(argument: str) -> None:
    """Raise `Invalid` (`key_itself`) if the argument is a key instead of its id, so that it is not sent anywhere."""
    if (key := argument.removeprefix("key/")).startswith(PREFIX):
        raise Invalid(
            "that is a key itself, and in the history of this shell by now", code="key_itself",
            hint=f"Give its id: in `groundplan keys list` it begins with {key[:PREFIX_CHARACTERS]}.",
        )  # fmt: skip


def others_text(value: dict[str, Any]) -> str:
    """Note that the keys to or from which this key was rotated are not revoked with it."""
    others = value.get("others") or ()
    return f" (not revoked with it: {', '.join(others)}, of the same line of rotations)" if others else ""


def emit_effective(change: str, value: dict[str, Any], as_json: bool) -> None:
    """Print a change and which gateways follow it. Exits with 69 while a gateway may still follow the previous state,
    so that scripts do not take the change for effective."""
    emit(value, as_json, effective_text(change, value["effective"]))
    if not value["effective"]["complete"]:
        raise typer.Exit(Unavailable.exit_code)


def effective_text(change: str, effective: dict[str, object]) -> str:
    """Sentence on whether a change is effective at every gateway, with the gateways that have not acknowledged it."""
    if effective.get("complete"):
        return f"{change}, effective at every gateway"
    waiting = effective.get("waiting") or []
    if not waiting:
        return f"{change}; which gateways know it cannot be told now: ask `groundplan status`"
    lines = [f"{change}; not yet acknowledged by:"]
    if isinstance(waiting, list):
        lines += [f"  gateway {gateway['epoch']}, may serve until {gateway['until']}" for gateway in waiting]
    return "\n".join(lines)
