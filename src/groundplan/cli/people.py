"""`groundplan people` and `groundplan groups`: who is here and who belongs to what, live.

YAML names people at the first start only; from then on these commands change them.
"""

from __future__ import annotations

from collections import Counter
from typing import Annotated, Literal

import typer

from groundplan.cli.client import ControlClient
from groundplan.cli.group import command_group
from groundplan.cli.keys import tell_effective
from groundplan.cli.options import HomeOption, JsonOption
from groundplan.cli.output import emit, table

people = command_group("People as they are now.")
groups = command_group("Groups and teams as they are now.")
PersonArgument = Annotated[str, typer.Argument(metavar="E-MAIL", help="Of the person.")]
GroupArgument = Annotated[str, typer.Argument(metavar="GROUP", help="A group or team.")]
MemberArgument = Annotated[str, typer.Argument(metavar="MEMBER", help="An e-mail address, or another group.")]


@people.command("list")
def list_people(home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Everybody with groups and duties."""
    value = ControlClient.connect(home).get("/api/people")
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
    name: Annotated[str, typer.Option("--name", help="The name that others know the person by.")],
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Somebody new, in no group but `everyone`."""
    value = ControlClient.connect(home).post("/api/people", {"email": email, "name": name})
    emit(value, as_json, f"{email} is here")


@people.command("holdings")
def holdings(
    email: PersonArgument,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """What hangs on somebody: duties, groups, keys, passkeys, sessions, seats in approvals that wait."""
    value = ControlClient.connect(home).get(f"/api/people/{email}/holdings")
    rows = [
        (name, ", ".join(str(each) for each in items) or "-")
        for name, items in value.items()
        if isinstance(items, list)
    ]
    emit(value, as_json, table(("what", email), [*rows, ("open sessions", str(value["sessions"]))]))


@people.command("handover")
def hand_over(
    email: Annotated[str, typer.Argument(metavar="E-MAIL", help="Who has left.")],
    to: Annotated[str, typer.Option("--to", help="Who takes over.")],
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Give every duty of somebody who has left to a colleague."""
    value = ControlClient.connect(home).post(f"/api/people/{email}/handover", {"to": to})
    emit(value, as_json, f"{to} holds now: {', '.join(value['duties']) or 'nothing: there was nothing to hand over'}")


@people.command("leave")
def person_leaves(
    email: PersonArgument,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Somebody has left: all their permissions, sessions and keys end. Exit 69 where some gateway has not heard yet."""
    value = ControlClient.connect(home).delete(f"/api/people/{email}")
    tell_effective(f"{email} has left", value, as_json)


@groups.command("list")
def list_groups(home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Groups and teams with their direct members."""
    value = ControlClient.connect(home).get("/api/groups")
    rows = [(group["name"], group["type"], ", ".join(group["members"])) for group in value["groups"]]
    emit(
        value,
        as_json,
        table(("name", "type", "members"), rows, "There is none. `groundplan groups add NAME` makes one."),
    )


@groups.command("add")
def add_group(
    name: Annotated[str, typer.Argument(metavar="NAME", help="No other group or team has it.")],
    type: Annotated[
        Literal["group", "team"], typer.Option("--type", help="A group may read something; a team does something.")
    ] = "group",
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """A new, empty group or team."""
    value = ControlClient.connect(home).post("/api/groups", {"name": name, "type": type})
    emit(value, as_json, f"{type} {name} is here")


@groups.command("join")
def join(group: GroupArgument, member: MemberArgument, home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Put MEMBER (an e-mail address, or another group) into GROUP."""
    value = ControlClient.connect(home).post(f"/api/groups/{group}/members", {"person": member})
    emit(value, as_json, f"{member} is in {group}")


@groups.command("leave")
def leave(group: GroupArgument, member: MemberArgument, home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Take MEMBER out of GROUP: the next retrieval no longer sees what only GROUP may read. Exit 69 where some gateway
    has not heard yet."""
    value = ControlClient.connect(home).delete(f"/api/groups/{group}/members/{member}")
    tell_effective(f"{member} is out of {group}", value, as_json)
