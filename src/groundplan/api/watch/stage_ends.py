"""Beside the requests: findings about experiments and pilots whose last day comes nearer, or is over. From the day
after it on gateways refuse their calls, though nobody changed anything. They close when it goes on, or is retired."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date

from groundplan.api.context import Services
from groundplan.api.served_blueprint import current_or_none
from groundplan.blueprint.model import Blueprint
from groundplan.governance.validity import ANNOUNCEMENT_DAYS
from groundplan.ledger import finding_store
from groundplan.ledger.finding import Finding

KIND = "governance.stage_ends"
LOOK_SECONDS = 600.0
ENDING = ("experiment", "pilot")
"""Production does not end by a date."""
HINT = "Retire it, move it to production, or set limits.expires to a later day (which needs approval)."


def look(services: Services) -> finding_store.Told:
    """Bring the findings up to date."""
    today = services.clock.now().date()
    with services.transaction() as conn:
        blueprint = current_or_none(conn)
        found = [] if blueprint is None else list(near(blueprint, today))
        return finding_store.tell_all(conn, found, kinds=(KIND,))


def near(blueprint: Blueprint, today: date) -> Iterator[Finding]:
    """Of a month ahead, as approvals are announced, and of what is over."""
    for each in blueprint.workloads:
        if each.stage not in ENDING or not each.expires:
            continue
        last = date.fromisoformat(each.expires)
        left = (last - today).days
        if left <= ANNOUNCEMENT_DAYS[-1]:
            told = f"ended on {last}: its calls are refused" if left < 0 else f"ends on {last}, and is refused after it"
            yield Finding(
                kind=KIND,
                severity="high" if left <= ANNOUNCEMENT_DAYS[1] else "medium",
                subject=f"workload/{each.name}",
                owner=next(iter(each.owners.get("business", ())), None),
                message=f"The {each.stage} of {each.name} {told}.",
                hint=HINT,
                due=last,
            )
