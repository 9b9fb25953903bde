"""Background check: company rules in shadow mode are tried against the calls that were made; refusals become findings.

They are decided from facts, never in the path of a call. The current hour and the one before are decided again in each
round, so that late facts are counted; for a new rule the last day is decided first.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from psycopg import Connection

from groundplan.api.context import Services
from groundplan.api.served_blueprint import current_blueprint
from groundplan.blueprint.artifact import non_default_fields
from groundplan.blueprint.model import Blueprint, PolicyRules
from groundplan.core import canonical
from groundplan.core.errors import NotFound
from groundplan.governance.policy import cedar, exception_store, shadow, shadow_store
from groundplan.governance.policy.vocabulary import named_groups, named_keys
from groundplan.ledger import finding_store
from groundplan.ledger.finding import Finding

LOOK_SECONDS = 15.0
MAX_TIME_SHARE = 0.05
"""The most of all time that this check may take: each round reads all calls of two hours, which may be millions."""
KIND = "governance.shadow_refuses"
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
KEPT_DAYS = 92
MAX_NAMED_WORKLOADS = 3


def try_shadow_rules(services: Services) -> None:
    """Decide the newest calls by every rule in shadow, and update the findings."""
    now = services.clock.now()
    with services.transaction() as conn:
        try:
            blueprint = current_blueprint(conn)
        except NotFound:
            return
        in_shadow = [item for item in blueprint.policies if not item.enforced]
        _decide_calls(conn, blueprint, in_shadow, now)
        findings = [finding for item in in_shadow if (finding := _finding(conn, item, now)) is not None]
        finding_store.replace_findings(conn, findings, kinds=(KIND,))
        shadow_store.delete_before(conn, now - timedelta(days=KEPT_DAYS))


def refusals_by_day(conn: Connection[Any], item: PolicyRules, now: datetime, days: int) -> list[dict[str, Any]]:
    """Calls that a rule, as it is written now, would have refused on each of the last days (UTC), the newest first."""
    return shadow_store.daily_counts(conn, item.name, _digest(item), _start_of_day(now) - timedelta(days=days - 1))


def _decide_calls(conn: Connection[Any], blueprint: Blueprint, items: Sequence[PolicyRules], now: datetime) -> None:
    """Decide the calls of each hour that is due; they are read once for all rules."""
    newest, first = now.astimezone(UTC).replace(minute=0, second=0, microsecond=0), _start_of_day(now) - DAY
    stored_hours = {item.name: shadow_store.stored_hours(conn, item.name, _digest(item), first) for item in items}
    callers = {item.name: _callers(conn, item) for item in items}
    hour = first
    while hour <= newest:
        due = [item for item in items if hour >= newest - HOUR or hour not in stored_hours[item.name]]
        calls = shadow_store.grouped_calls(conn, hour, hour + HOUR) if due else []
        for item in due:
            (trial,) = shadow.try_policies(blueprint, [item], calls, *callers[item.name])
            shadow_store.store_hour(conn, _digest(item), hour, trial)
        hour += HOUR


def _callers(conn: Connection[Any], item: PolicyRules) -> tuple[dict[str, tuple[str, ...]], dict[str, tuple[str, ...]]]:
    """(e-mail address -> groups that the policy names, key -> keys of its line that the policy names)."""
    rules = cedar.Ruleset.of([cedar.Source(item.name, item.text, owner=item.owner)]).rules
    groups = sorted({group for rule in rules for group in named_groups(rule.body)})
    keys = sorted({key for rule in rules for key in named_keys(rule.body)})
    return (
        exception_store.groups_by_person(conn, groups) if groups else {},
        exception_store.lines_by_key(conn, keys) if keys else {},
    )


def _finding(conn: Connection[Any], item: PolicyRules, now: datetime) -> Finding | None:
    days = {day["day"]: day for day in refusals_by_day(conn, item, now, 2)}
    today, yesterday = days.get(_start_of_day(now).date()), days.get((_start_of_day(now) - DAY).date())
    counts = [day["would_refuse"] if day is not None else 0 for day in (yesterday, today)]
    if not any(counts):
        return None
    newest = [day for day in (today, yesterday) if day is not None and day["would_refuse"]]
    of = ", ".join(f"{name} ({count})" for name, count in list(newest[0]["by_workload"].items())[:MAX_NAMED_WORKLOADS])
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
    """The digest of a rule as it is written: with another text its counts begin anew."""
    return canonical.digest(canonical.canonical(non_default_fields(item)))


def _start_of_day(now: datetime) -> datetime:
    return now.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
