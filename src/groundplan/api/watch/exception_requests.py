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
    waiting = [exception for exception in exception_store.list_exceptions(conn) if exception.state == "asked"]
    for exception in waiting:
        if exception.until <= now:
            exceptions.end_exception(conn, audit.SYSTEM, exception.id, now)
    findings = [_finding(exception, owners.get(exception.rule)) for exception in waiting if exception.until > now]
    finding_store.replace_findings(conn, findings, kinds=(ASKED,))


def _rule_owners(blueprint: Blueprint) -> dict[str, str]:
    """Rule -> e-mail address."""
    sources = [cedar.Source(item.name, item.text, owner=item.owner) for item in blueprint.policies]
    return {rule.id: rule.owner for rule in cedar.Ruleset.of(sources).rules}


def _finding(exception: PolicyException, owner: str | None) -> Finding:
    scope = f"{exception.workload}{f', {exception.person}' if exception.person else ''}"
    return Finding(
        kind=ASKED, subject=f"workload/{exception.workload}", mark=str(exception.id), owner=owner,
        due=last_day(exception.until),
        message=f"An exception from the rule {exception.rule} for {scope} is requested: {exception.reason}",
        hint=f"It waits for {' and '.join(exception.waits_for) or 'more people'}: Governance, Rules.",
    )  # fmt: skip
