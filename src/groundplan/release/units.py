"""The units that are approved one by one (workload, shared budget, rule, company terms): subjects, content and digests.

A digest covers everything that an approval is about: the workload, its deployments and their sites, its sources and its
own budgets. It does not cover prices, which follow the market, nor a default end date, which follows the calendar.
Nothing is decided here.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date
from typing import Any

import msgspec

from groundplan.blueprint import model as bp
from groundplan.blueprint.artifact import non_default_fields, with_large_integers_as_text
from groundplan.core import canonical
from groundplan.core.money import ceil_div
from groundplan.governance.model import Terms

UNBOUND_FIELDS = frozenset({"rates", "first_token_declared"})
"""Fields of a deployment that digests leave out: prices, and a field that was added while declarations stayed."""


def workload_subject(name: str) -> str:
    return f"workload/{name}"


def budget_subject(name: str) -> str:
    return f"budget/{name}"


def is_own(budget: bp.Budget, workload: str) -> bool:
    """Whether a budget covers this one workload only."""
    return budget.covers == f"workload/{workload}"


def own_budgets(blueprint: bp.Blueprint, workload: str) -> list[bp.Budget]:
    """The budgets that cover this one workload only."""
    covers = workload_subject(workload)  # once: there may be thousands of both
    return [item for item in blueprint.budgets if item.covers == covers]


def is_shared(budget: bp.Budget) -> bool:
    return not budget.covers.startswith("workload/")


def monthly_limit(budget: bp.Budget) -> int:
    """Picodollars that a budget allows in a month of 30 days; one without a period counts in full."""
    if budget.period in ("day", "week"):
        return ceil_div(budget.limit * 30, 1 if budget.period == "day" else 7)
    return ceil_div(budget.limit, {"year": 12, "quarter": 3}.get(budget.period, 1))


def is_looser(before: bp.Budget, after: bp.Budget) -> bool:
    """Whether a budget of the same amount would stop less: it only warns, its period begins anew, or it covers others.

    Spending belongs to the period in which it happened, and another calendar has other periods: in the middle of a
    month the whole amount would be available again. A budget without a period never renews."""
    calendars = [(each.period, each.starts, each.timezone) for each in (before, after)]
    anew = calendars[0] != calendars[1] and after.period != "total"
    return (before.hard and not after.hard) or anew or after.covers not in (before.covers, "company")


def lowest_monthly_limit(budgets: Iterable[bp.Budget]) -> int | None:
    """The lowest monthly limit of these budgets, in picodollars: what calls charged to all of them may cost. None
    without budgets."""
    return min(map(monthly_limit, budgets), default=None)


def workload_digest(blueprint: bp.Blueprint, workload: bp.Workload, unbound: frozenset[str] = UNBOUND_FIELDS) -> str:
    """SHA-256 of all content of a workload that an approval is bound to; deployments without the `unbound` fields."""
    used = set(workload.all_deployments)
    deployments = [item for item in blueprint.deployments if item.name in used]
    places = {item.site for item in deployments}
    sources = set(workload.grounding.sources) if workload.grounding else set()
    own = non_default_fields(workload)
    if not workload.expires_declared:
        own.pop("expires", None)
    plain = [
        {key: value for key, value in non_default_fields(item).items() if key not in unbound} for item in deployments
    ]
    return content_digest(
        {
            "workload": own,
            "deployments": plain,
            "sites": [non_default_fields(item) for item in blueprint.sites if item.name in places],
            "sources": [non_default_fields(item) for item in blueprint.sources if item.name in sources],
            "budgets": [non_default_fields(item) for item in own_budgets(blueprint, workload.name)],
        }
    )


def former_digests(blueprint: bp.Blueprint, workload: bp.Workload) -> tuple[str, ...]:
    """Other digests under which approvals of the same content may be stored: some versions included whether the time to
    the first token is declared."""
    used = set(workload.all_deployments)
    if not any(item.first_token_declared for item in blueprint.deployments if item.name in used):
        return ()
    return (workload_digest(blueprint, workload, frozenset({"rates"})),)


def budget_digest(budget: bp.Budget) -> str:
    return content_digest({"budget": non_default_fields(budget)})


def removed_budget_digest(name: str) -> str:
    return content_digest({"budget": None, "name": name})


def with_shared_budgets(workload: bp.Workload, budgets: Iterable[bp.Budget]) -> bp.Workload:
    """The workload charged to exactly those of these shared budgets that cover it."""
    covers = {item.name: item.covers in ("company", f"team/{workload.team}") for item in budgets}
    named = sorted({*workload.budgets} - covers.keys() | {name for name, mine in covers.items() if mine})
    return workload if named == workload.budgets else msgspec.structs.replace(workload, budgets=named)


def rule_subject(name: str) -> str:
    return f"rule/{name}"


def rule_digest(rule: bp.PolicyRules | None, name: str) -> str:
    """The digest of a company rule, or (None) of its removal."""
    return content_digest({"rule": non_default_fields(rule) if rule is not None else None, "name": name})


def company_digest(
    caps: bp.Caps,
    owners: dict[str, list[str]],
    fewer_parts: list[str] | None = None,
    looser_terms: bp.ApprovalTerms | None = None,
) -> str:
    """The digest of company-wide terms. `fewer_parts`: the kinds of parts that still need an approval of their own,
    where these are fewer than before; `looser_terms`: approval terms that are less strict than before."""
    more: dict[str, Any] = {} if fewer_parts is None else {"approved_parts": fewer_parts}
    more |= {} if looser_terms is None else {"approval_terms": non_default_fields(looser_terms)}
    return content_digest({"caps": non_default_fields(caps), "owners": owners, **more})


def content_digest(content: dict[str, Any]) -> str:
    """SHA-256 of canonical JSON; integers that JSON cannot hold exactly are written as text."""
    return canonical.digest(canonical.canonical(with_large_integers_as_text(content)))


def terms(blueprint: bp.Blueprint, workload: bp.Workload) -> Terms:
    """The terms of a workload by which governance decides."""
    return Terms(
        subject=workload_subject(workload.name),
        stage=workload.stage,
        sensitivity=workload.sensitivity,
        people=workload.people,
        calls_per_day=workload.calls_per_day,
        expires=date.fromisoformat(workload.expires) if workload.expires else None,
        sources=tuple(workload.grounding.sources) if workload.grounding else (),
        budget=sum(map(monthly_limit, own_budgets(blueprint, workload.name))),
        digest=workload_digest(blueprint, workload),
        former_digests=former_digests(blueprint, workload),
        keeps=workload.keep.content if workload.keep else "none",
    )


def served_units(blueprint: bp.Blueprint) -> Iterable[tuple[str, str]]:
    """(subject, digest) of every workload and shared budget in a blueprint."""
    for workload in blueprint.workloads:
        for digest in (workload_digest(blueprint, workload), *former_digests(blueprint, workload)):
            yield workload_subject(workload.name), digest
    for budget in blueprint.budgets:
        if is_shared(budget):
            yield budget_subject(budget.name), budget_digest(budget)
