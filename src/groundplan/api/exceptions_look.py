"""Beside the requests: exceptions from company rules that wait for somebody, and those that end soon.

They are findings of the rule's owner and mail to whoever may decide. They end by themselves at the gateways; nothing is
ended here.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any

from psycopg import Connection

from groundplan.api import mail_store
from groundplan.api.served import current_or_none
from groundplan.blueprint.model import Blueprint
from groundplan.governance import store as governance
from groundplan.governance.policy import cedar, exception_store
from groundplan.governance.policy.exceptions_model import Exempted
from groundplan.governance.validity import AHEAD, Term, announced
from groundplan.ledger import finding_store
from groundplan.ledger.finding import Finding

ASKED, ENDS = "governance.exception_asked", "governance.exception_ends"
DUTIES = ("security", "compliance")
PAGE = "/governance/rules#exceptions"


def tell(conn: Connection[Any], now: datetime) -> None:
    """Bring findings and mail up to date."""
    blueprint = current_or_none(conn)
    owners = {} if blueprint is None else _owners(blueprint)
    found: list[Finding] = []
    for each in exception_store.every(conn):
        made = list(_findings(each, owners.get(each.rule), now))
        found += made
        for finding in made:
            _mail(conn, each, finding, now)
    finding_store.tell_all(conn, found, kinds=(ASKED, ENDS))


def _owners(blueprint: Blueprint) -> dict[str, str]:
    """Rule -> e-mail address."""
    sources = [cedar.Source(item.name, item.text, owner=item.owner) for item in blueprint.policies]
    return {rule.id: rule.owner for rule in cedar.Ruleset.of(sources).rules}


def _findings(each: Exempted, owner: str | None, now: datetime) -> Iterator[Finding]:
    whose = f"{each.workload}{f', {each.person}' if each.person else ''}"
    if each.state == "asked" and each.until > now:
        yield Finding(
            kind=ASKED, subject=f"workload/{each.workload}", mark=str(each.id), owner=owner, due=each.until.date(),
            message=f"An exception from the rule {each.rule} for {whose} is asked for: {each.reason}",
            hint="Approve or refuse it: Governance, Rules. Nobody approves their own.",
        )  # fmt: skip
    days = announced(Term(each.until.date(), each.until.date()), now.date())
    if each.holds(now) and days is not None:
        yield Finding(
            kind=ENDS, subject=f"workload/{each.workload}", mark=str(each.id), owner=owner, due=each.until.date(),
            severity="medium" if days > AHEAD[0] else "high", detail={"announced": days},
            message=f"The exception from the rule {each.rule} for {whose} ends on {each.until:%Y-%m-%d %H:%M} UTC.",
            hint="The rule holds again then. Ask for another one, where it is still needed: Governance, Rules.",
        )  # fmt: skip


def _mail(conn: Connection[Any], each: Exempted, finding: Finding, now: datetime) -> None:
    """Once when it is asked for, and 30, 7 and 1 days before it ends."""
    told = finding.detail.get("announced", "asked")
    subject = f"workload/{each.workload}"
    people = dict.fromkeys(holder for duty in DUTIES for holder in governance.holders(conn, subject, duty))
    for holder in people:
        mark = f"exception:{each.id}:{told}:{holder.person_id}"
        mail_store.queue(conn, mark, holder.person_id, finding.message, PAGE, now)
