"""Whether a call is granted: to the person it is made for, and to a key that acts for others. Pure.

Called only if the blueprint has grants; an expired grant matches nobody, so what it guards stays closed. What a person
may read is decided by PostgreSQL.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date

from groundplan.blueprint.model import Blueprint, Grant, Workload
from groundplan.core.errors import Denied
from groundplan.gateway.policy.snapshot import KeyEntry, Policy

EVERYONE = "everyone"


def groups_of(blueprint: Blueprint) -> frozenset[str]:
    """Names of the groups and teams whose members must be known."""
    named = {name for each in blueprint.workloads for grant in (*each.use, *each.act_for_others) for name in grant.to}
    return frozenset(name for name in named if "@" not in name and name != EVERYONE)


def check_grants(workload: Workload, policy: Policy, key: KeyEntry, person: str, today: date) -> None:
    """Raise `Denied` unless a call with `key` for `person` (an id; empty: for nobody) is granted on `today` (UTC)."""
    if (
        workload.act_for_others
        and person != key.person
        and not has_grant(workload.act_for_others, policy, key.person, today)
    ):
        raise Denied(
            f"this key may not act for others in {workload.name}: its user has no grant for that",
            code="act_for_others_not_granted",
            hint=f"Leave groundplan-on-behalf-of out, or {_grant_hint(workload)}.",
        )
    if workload.use and not has_grant(workload.use, policy, person, today):
        if not person:
            raise Denied(
                f"{workload.name} is only for those to whom it was granted, and this call is for nobody",
                code="use_not_granted",
                hint=f"Use a key with a user to whom it was granted, or {_grant_hint(workload)}.",
            )
        raise Denied(
            f"{workload.name} was not granted to the person of this call",
            code="use_not_granted",
            hint=f"{_grant_hint(workload).capitalize()}.",
        )


def has_grant(grants: Iterable[Grant], policy: Policy, person: str, today: date) -> bool:
    """Whether an active person has one of the grants on a day; an empty `person` has none."""
    if person not in policy.active:
        return False
    day = today.isoformat()
    return any(
        (grant.until is None or day <= grant.until) and any(_includes(name, policy, person) for name in grant.to)
        for grant in grants
    )


def _includes(name: str, policy: Policy, person: str) -> bool:
    if "@" in name:
        return policy.people.get(name) == person
    return name == EVERYONE or person in policy.members.get(name, ())


def _grant_hint(workload: Workload) -> str:
    owners = ", ".join(workload.owners.get("business", ()))
    return f"ask its business owner {owners} for a grant" if owners else "ask whoever owns it for a grant"
