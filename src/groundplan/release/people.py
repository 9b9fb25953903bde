"""Declared people and owners in the live database: everybody at genesis, later only nominations of owners.

Membership is never changed from files after genesis; `plan` refuses that.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, date
from typing import Any

from psycopg import Connection

from groundplan.blueprint.model import Blueprint
from groundplan.catalog.model import GroupDoc, TeamDoc
from groundplan.catalog.workspace import Workspace, name_from_email
from groundplan.core.errors import NotFound
from groundplan.identity import service as identity
from groundplan.identity import store as identity_store
from groundplan.identity.model import COMPANY, SUCCESSION, GenesisGroup, GenesisPeople, GenesisPerson, GroupType
from groundplan.release import units

Duties = Mapping[str, Sequence[str]]
"""duty -> e-mail addresses"""


def create_declared_people(conn: Connection[Any], workspace: Workspace, actor: str) -> None:
    """Write everybody and every group and team of a workspace, once."""
    groups = [_group(workspace, item, "group") for item in workspace.groups.values()]
    teams = [_group(workspace, item, "team") for item in workspace.teams.values()]
    people = tuple(GenesisPerson(email, name) for email, name in workspace.names_by_email().items())
    identity.create_genesis_people(conn, GenesisPeople(people, (*groups, *teams)), actor)


def succession_deadlines(conn: Connection[Any]) -> dict[str, date]:
    """E-mail address of everybody who has left -> the last day to name a successor."""
    return {email: at.astimezone(UTC).date() + SUCCESSION for email, at in identity_store.departures(conn).items()}


def nominate(
    conn: Connection[Any], actor: str, workspace: Workspace, blueprint: Blueprint, held: frozenset[str]
) -> None:
    """Give duties to the declared owners of everything that is served.

    For subjects with a pending change (`held`), the present holders stay, since they have to approve it; only duties
    that nobody holds go to the people whom the change names.
    """
    _nominate(conn, actor, COMPANY, blueprint.owners)
    served = {item.name for item in blueprint.workloads}
    for name, item in workspace.workloads.items():
        subject = units.workload_subject(name)
        if subject in held:
            _nominate_missing(conn, actor, subject, workspace.owner_emails(item.owners))
        elif name in served:
            _nominate(conn, actor, subject, workspace.owner_emails(item.owners))
    for source in blueprint.sources:
        steward = source.governed.steward
        _nominate(conn, actor, f"source/{source.name}", {"data": [source.owner, *([steward] if steward else [])]})


def _group(workspace: Workspace, item: GroupDoc | TeamDoc, type_: GroupType) -> GenesisGroup:
    people = tuple(dict.fromkeys(workspace.email_of(member) for member in item.members))
    return GenesisGroup(item.name, type_, people, item.includes)


def _nominate_missing(conn: Connection[Any], actor: str, subject: str, duties: Duties) -> None:
    present: dict[str, list[str]] = {}
    for held in identity_store.duties(conn, subject):
        present.setdefault(held.duty, []).append(held.person.email)
    _nominate(conn, actor, subject, {**duties, **present})


def _nominate(conn: Connection[Any], actor: str, subject: str, declared: Duties) -> None:
    """Nominate exactly the declared owners; the successor of an owner who has left gets the duty in their place."""
    duties = {
        duty: list(dict.fromkeys(identity_store.successor(conn, email) or email for email in emails))
        for duty, emails in declared.items()
    }
    for email in dict.fromkeys(email for emails in duties.values() for email in emails):
        try:
            identity.find_person(conn, email)
        except NotFound:
            identity.add_person(conn, actor, email, name_from_email(email))
    identity.nominate(conn, actor, subject, duties)
