"""Compiles declared grants, and describes who gains and who loses access by a change.

Membership of groups and the current day are evaluated live, not here.
"""

from __future__ import annotations

from collections.abc import Sequence

from groundplan.blueprint import model as bp
from groundplan.catalog.workspace import Workspace

_NO_END = "9999-99-99"
GRANT_FIELDS = {"use": "whoever has a key", "act_for_others": "every key made with --on-behalf-of", "read": ""}
"""field of a blueprint -> who has access where there is no grant at all"""


def compile_grants(workspace: Workspace, allowed: str, *objects: str) -> list[bp.Grant]:
    """The grants that allow `allowed` on one of these objects, by name; ended ones too, which still restrict it."""
    return [
        bp.Grant(
            name=name,
            to=sorted({subject_name(workspace, each) for each in item.to}),
            until=item.until.isoformat() if item.until else None,
        )
        for name, item in workspace.grants.items()
        if item.on in objects and allowed in item.allows
    ]


def subject_name(workspace: Workspace, who: str) -> str:
    """A group or team by name; a person by e-mail address, which is how permissions name people."""
    person = workspace.people.get(who)
    return person.email if person is not None and who not in workspace.groups else who


def source_grants(blueprint: bp.Blueprint) -> list[tuple[str, str, str | None]]:
    """(source, reader, last day) of every grant to read."""
    return [(item.name, who, grant.until) for item in blueprint.sources for grant in item.read for who in grant.to]


def format_grants(grants: Sequence[bp.Grant]) -> str:
    """The holders of grants on one line: `ben@acme.example until 2026-12-31, hr`."""
    return ", ".join(_holders(grants))


def grant_changes(field: str, old: Sequence[bp.Grant], new: Sequence[bp.Grant]) -> tuple[str, str]:
    """(who gains access, who loses it), each one line of text or empty. The first grant excludes everybody else."""
    before, after, anybody = _holders(old), _holders(new), GRANT_FIELDS[field]
    if anybody and not before and after:
        return "", f"{anybody}, but for {', '.join(after)}"
    if anybody and before and not after:
        return anybody, ""
    return ", ".join(each for each in after if each not in before), ", ".join(
        each for each in before if each not in after
    )


def _holders(grants: Sequence[bp.Grant]) -> list[str]:
    """Each name once, with the latest end of its grants if all of them end."""
    days: dict[str, str] = {}
    for grant in grants:
        for who in grant.to:
            days[who] = max(days.get(who, ""), grant.until or _NO_END)
    return [who if day == _NO_END else f"{who} until {day}" for who, day in sorted(days.items())]
