"""Beside the requests: company rules that are not enforced are tried against the calls that are made, and told.

By the facts that arrive, never in the path of a call. The hour that runs and the one before are decided anew each time,
so that a fact which comes late is counted; of a new rule the last day is decided first.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from psycopg import Connection

from groundplan.api.context import Services
from groundplan.api.served_blueprint import current_blueprint
from groundplan.blueprint.artifact import said
from groundplan.blueprint.model import Blueprint, PolicyRules
from groundplan.core import canonical
from groundplan.core.errors import NotFound
from groundplan.governance.policy import cedar, exception_store, shadow, shadow_store
from groundplan.governance.policy.vocabulary import groups_named
from groundplan.ledger import finding_store
from groundplan.ledger.finding import Finding

LOOK_SECONDS = 15.0
PART = 0.05
"""Of the time that is spent on it at most: each round reads all calls of two hours, which may be millions."""
KIND = "governance.shadow_refuses"
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
KEPT_DAYS = 92
TOLD_WORKLOADS = 3


def look(services: Services) -> None:
    """Decide the newest calls by every rule in shadow, and bring the findings up to date."""
    now = services.clock.now()
    with services.transaction() as conn:
        try:
            blueprint = current_blueprint(conn)
        except NotFound:
            return
        tried = [item for item in blueprint.policies if not item.enforced]
        _decide(conn, blueprint, tried, now)
        found = [finding for item in tried if (finding := _finding(conn, item, now)) is not None]
        finding_store.tell_all(conn, found, kinds=(KIND,))
        shadow_store.forget(conn, now - timedelta(days=KEPT_DAYS))


def by_day(conn: Connection[Any], item: PolicyRules, now: datetime, days: int) -> list[dict[str, Any]]:
    """What a rule, as it is written now, would have refused on each of the last days (UTC), the newest first."""
    return shadow_store.days(conn, item.name, _digest(item), _day(now) - timedelta(days=days - 1))


def _decide(conn: Connection[Any], blueprint: Blueprint, items: Sequence[PolicyRules], now: datetime) -> None:
    """Calls of an hour are read once for all rules."""
    newest, first = now.astimezone(UTC).replace(minute=0, second=0, microsecond=0), _day(now) - DAY
    known = {item.name: shadow_store.hours(conn, item.name, _digest(item), first) for item in items}
    groups = {item.name: _groups(conn, item) for item in items}
    hour = first
    while hour <= newest:
        due = [item for item in items if hour >= newest - HOUR or hour not in known[item.name]]
        calls = shadow_store.alike(conn, hour, hour + HOUR) if due else []
        for item in due:
            (trial,) = shadow.tried(blueprint, [item], calls, groups[item.name])
            shadow_store.keep(conn, _digest(item), hour, trial)
        hour += HOUR


def _groups(conn: Connection[Any], item: PolicyRules) -> dict[str, tuple[str, ...]]:
    rules = cedar.Ruleset.of([cedar.Source(item.name, item.text, owner=item.owner)]).rules
    named = sorted({group for rule in rules for group in groups_named(rule.body)})
    return exception_store.groups_by_person(conn, named) if named else {}


def _finding(conn: Connection[Any], item: PolicyRules, now: datetime) -> Finding | None:
    days = {each["day"]: each for each in by_day(conn, item, now, 2)}
    today, yesterday = days.get(_day(now).date()), days.get((_day(now) - DAY).date())
    counts = [each["would_refuse"] if each is not None else 0 for each in (yesterday, today)]
    if not any(counts):
        return None
    newest = [each for each in (today, yesterday) if each is not None and each["would_refuse"]]
    of = ", ".join(f"{name} ({count})" for name, count in list(newest[0]["by_workload"].items())[:TOLD_WORKLOADS])
    return Finding(
        kind=KIND,
        severity="low",
        subject=f"policy/{item.name}",
        mark=_digest(item)[:16],
        owner=item.owner or None,
        message=f"The rule {item.name}, in shadow, would have refused {counts[0]} calls yesterday and {counts[1]} so "
        f"far today, of {of}.",
        hint="See them under Governance, Rules. If they should be refused, set mode: enforce; else change the rule.",
        detail={"yesterday": counts[0], "today": counts[1], "calls": newest[0]["calls"]},
    )


def _digest(item: PolicyRules) -> str:
    """Of the rule as it is written: another text begins anew."""
    return canonical.digest(canonical.canonical(said(item)))


def _day(now: datetime) -> datetime:
    return now.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
