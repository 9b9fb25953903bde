"""Background check: requested exceptions from company rules become findings of the rule's owner, and expire undecided.

Reminders and announcements of ends are those of every change (`approval_terms`).
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from psycopg import Connection

from groundplan.api.served_blueprint import current_or_none
from groundplan.blueprint.model import Blueprint
from groundplan.core import audit
from groundplan.core.clock import last_day
from groundplan.governance.policy import cedar, exception_store, exceptions
from groundplan.governance.policy.exceptions_model import PolicyException
from groundplan.ledger import finding_store
from groundplan.ledger.finding import Finding

ASKED = "governance.exception_asked"


def update_exception_findings(conn: Connection[Any], now: datetime) -> None:
    """Update the findings; end requests that nobody decided in time."""
    blueprint = current_or_none(conn)
    owners = {} if blueprint is None else _rule_owners(blueprint)
    waiting = [each for each in exception_store.list_exceptions(conn) if each.state == "asked"]
    for each in waiting:
        if each.until <= now:
            exceptions.end_exception(conn, audit.SYSTEM, each.id, now)
    found = [_finding(each, owners.get(each.rule)) for each in waiting if each.until > now]
    finding_store.replace_findings(conn, found, kinds=(ASKED,))


def _rule_owners(blueprint: Blueprint) -> dict[str, str]:
    """Rule -> e-mail address."""
    sources = [cedar.Source(item.name, item.text, owner=item.owner) for item in blueprint.policies]
    return {rule.id: rule.owner for rule in cedar.Ruleset.of(sources).rules}


def _finding(each: PolicyException, owner: str | None) -> Finding:
    whose = f"{each.workload}{f', {each.person}' if each.person else ''}"
    return Finding(
        kind=ASKED, subject=f"workload/{each.workload}", mark=str(each.id), owner=owner, due=last_day(each.until),
        message=f"An exception from the rule {each.rule} for {whose} is requested: {each.reason}",
        hint=f"It waits for {' and '.join(each.waits_for) or 'more people'}: Governance, Rules.",
    )  # fmt: skip
