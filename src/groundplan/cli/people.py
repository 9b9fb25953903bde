"""`groundplan people` and `groundplan groups`: people, groups and teams of the live policy.

YAML declares people at the first start only; from then on these commands change them.
"""

from __future__ import annotations

from collections import Counter
from typing import Annotated, Any, Literal

import typer

from groundplan.cli.client import ControlClient
from groundplan.cli.command_group import command_group
from groundplan.cli.keys import emit_effective
from groundplan.cli.options import HomeOption, JsonOption
from groundplan.cli.output import emit, table

people = command_group("The live directory of people.")
groups = command_group("The live directory of groups and teams.")
PersonArgument = Annotated[str, typer.Argument(metavar="E-MAIL", help="E-mail address of the person.")]
GroupArgument = Annotated[str, typer.Argument(metavar="GROUP", help="Group or team.")]
MemberArgument = Annotated[str, typer.Argument(metavar="MEMBER", help="E-mail address, or another group.")]


@people.command("list")
def list_people(
    search: Annotated[
        str | None, typer.Option("--search", help="Only people with these words in e-mail address, name or groups.")
    ] = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """List everybody with groups and duties."""
    value = ControlClient.connect(home).get("/api/people", search=search)
    rows = [
        (p["email"], p["name"], ", ".join(p["groups"]), _duties(p["duties"]), "active" if p["active"] else "left")
        for p in value["people"]
    ]
    emit(value, as_json, table(("e-mail", "name", "groups", "duties", "state"), rows))


def _duties(duties: list[str]) -> str:
    """`business of workload/a` and others, counted: `business x2, security`."""
    counted = Counter(duty.partition(" of ")[0] for duty in duties)
    return ", ".join(f"{duty} x{count}" if count > 1 else duty for duty, count in sorted(counted.items()))


@people.command("add")
def add_person(
    email: PersonArgument,
    name: Annotated[str, typer.Option("--name", help="Name that others know the person by.")],
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Add a person, in no group but `everyone`."""
    value = ControlClient.connect(home).post("/api/people", {"email": email, "name": name})
    emit(value, as_json, f"{email} is added")


@people.command("holdings")
def holdings(
    email: PersonArgument,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show everything a person holds: duties, groups, keys, passkeys, sessions, pending approvals."""
    value = ControlClient.connect(home).get(f"/api/people/{email}/holdings")
    rows = [
        (name.replace("_", " "), ", ".join(map(_item_text, items)) or "-")
        for name, items in value.items()
        if isinstance(items, list)
    ]
    emit(value, as_json, table(("what", email), [*rows, ("open sessions", str(value["sessions"]))]))


def _item_text(item: str | dict[str, Any]) -> str:
    """Text of one item: a key with its workload, a passkey with a note if it is not confirmed, anything else by its
    name."""
    if isinstance(item, str):
        return item
    if "label" in item:
        return str(item["label"]) + ("" if item["confirmed"] else " (not confirmed)")
    return f"{item['id']} of {item['workload']}"


@people.command("handover")
def hand_over(
    email: Annotated[str, typer.Argument(metavar="E-MAIL", help="E-mail address of the person who has left.")],
    to: Annotated[str, typer.Option("--to", help="E-mail address of the colleague who takes over.")],
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Give every duty of somebody who has left to a colleague."""
    value = ControlClient.connect(home).post(f"/api/people/{email}/handover", {"to": to})
    emit(value, as_json, f"{to} now holds: {', '.join(value['duties']) or 'nothing: there was nothing to hand over'}")


@people.command("leave")
def person_leaves(
    email: PersonArgument,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Record that a person has left, ending all their permissions, sessions and keys. Exits with 69 until every gateway
    has acknowledged it."""
    value = ControlClient.connect(home).delete(f"/api/people/{email}")
    key_ids = ", ".join(key["id"] for key in value.get("keys_made", ()))  # an older control process sends none
    note = f" (knows the secret of keys that go on, rotate or revoke them: {key_ids})" if key_ids else ""
    emit_effective(f"{email} has left{note}", value, as_json)


@groups.command("list")
def list_groups(home: HomeOption = None, as_json: JsonOption = False) -> None:
    """List groups and teams with their direct members."""
    value = ControlClient.connect(home).get("/api/groups")
    rows = [(group["name"], group["type"], ", ".join(group["members"])) for group in value["groups"]]
    emit(
        value,
        as_json,
        table(("name", "type", "members"), rows, "There is no group. Add one with `groundplan groups add NAME`."),
    )


@groups.command("add")
def add_group(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the group; must be unique.")],
    type: Annotated[
        Literal["group", "team"],
        typer.Option("--type", help="group (for permissions) or team (for workloads and costs)."),
    ] = "group",
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Add an empty group or team."""
    value = ControlClient.connect(home).post("/api/groups", {"name": name, "type": type})
    emit(value, as_json, f"{type} {name} is added")


@groups.command("join")
def join(group: GroupArgument, member: MemberArgument, home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Add MEMBER (an e-mail address, or another group) to GROUP."""
    value = ControlClient.connect(home).post(f"/api/groups/{group}/members", {"person": member})
    emit(value, as_json, f"{member} is a member of {group}")


@groups.command("leave")
def leave(group: GroupArgument, member: MemberArgument, home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Remove MEMBER from GROUP. The next retrieval no longer shows what only GROUP may read. Exits with 69 until every
    gateway has acknowledged it."""
    value = ControlClient.connect(home).delete(f"/api/groups/{group}/members/{member}")
    emit_effective(f"{member} is removed from {group}", value, as_json)
