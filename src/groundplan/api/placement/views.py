"""Answers of the routes of placement about a plan, as plain values. Pure.

Of a large company this is done in a process of its own (`placement.plan_process`), so nothing here knows of requests,
and whatever a route tells of a plan is a function of this module.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any

from groundplan.api.placement import report
from groundplan.api.placement.pdf import report_pdf
from groundplan.core.errors import Conflict, NotFound
from groundplan.placement import multi_period, stress, whatif
from groundplan.placement.explain.pareto_front import front
from groundplan.placement.explain.plan_summary import compare, excluded_matrix, whole_json
from groundplan.placement.explain.why import Why, to_json
from groundplan.placement.explain.why import why as explained
from groundplan.placement.explain.words import sentences
from groundplan.placement.planner import CompanyPlan


@dataclass(frozen=True, slots=True)
class Page:
    """So many workloads by name, those behind `after` whose names have `search` in them."""

    limit: int
    after: str = ""
    search: str = ""


def whole(plan: CompanyPlan, page: Page | None) -> dict[str, Any]:
    """The plan; with a page, of its workloads alone each is told: `next` is what `after` is for those that follow,
    `total` how many have the word in their names."""
    among: frozenset[str] | None = None
    more: dict[str, Any] = {}
    if page is not None:
        found = sorted(name for name in plan.placements if page.search.strip().lower() in name)
        rest = [name for name in found if name > page.after]
        among = frozenset(rest[: page.limit])
        more = {"total": len(found), "next": rest[page.limit - 1] if len(rest) > page.limit else None}
    body = whole_json(plan, compare(plan), among) | more
    names = [row["workload"] for row in body["workloads"]]
    matrix = excluded_matrix(plan, names)
    body["excluded"] = {name: {site: list(rules) for site, rules in row.items()} for name, row in matrix.items()}
    body["curves"] = {name: list(plan.company.workloads[name].curve) for name in names}
    return body


def whole_text(plan: CompanyPlan, page: Page | None) -> bytes:
    """The same as JSON: of thousands of workloads that is megabytes, which nobody else should wait for."""
    return json.dumps(whole(plan, page), ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()


def why(plan: CompanyPlan, workload: str) -> dict[str, Any]:
    """Why one workload is where it is, as figures and in words. Raises `NotFound`, `Conflict`."""
    found = _why(plan, workload)
    return {**to_json(found, list(sentences(found))), "curve": list(plan.company.workloads[workload].curve)}


def because(plan: CompanyPlan, workload: str) -> dict[str, Any]:
    """The same in the shape of `why`."""
    found = _why(plan, workload)
    lines = list(sentences(found))
    facts = {key: value for key, value in to_json(found, lines).items() if key != "words"}
    return {"kind": "placement", "because": lines, "facts": facts}


def _why(plan: CompanyPlan, workload: str) -> Why:
    if workload in plan.unplaceable:
        raise Conflict(
            f"{workload} may not run anywhere: {plan.unplaceable[workload]}"[:2000],
            code="placement_nowhere",
            hint="Relax one of these rules, or declare a site, a deployment or hardware that they allow.",
        )
    if workload not in plan.placements:
        raise NotFound(
            f"no workload '{workload[:80]}' is in the plan",
            code="workload_unknown",
            hint=f"There are: {', '.join(sorted(plan.placements))}.",
        )
    return explained(plan, workload)


def what_if(plan: CompanyPlan, changes: whatif.Changes) -> dict[str, Any]:
    """Two plans side by side."""
    return whatif.to_json(whatif.compare(plan, changes))


def replanned(plan: CompanyPlan, demand: Mapping[str, float]) -> dict[str, Any]:
    """What changes at other calls, and no more of the two plans."""
    compared = whatif.compare(plan, whatif.Changes(demand=demand))
    return {
        "flips": list(compared.flips),
        "difference_usd_month": round(compared.after.usd - compared.before.usd, 2),
        "words": list(whatif.words(compared)),
        "demand": dict(demand),
    }


def stressed(plan: CompanyPlan, spreads: stress.Spreads) -> dict[str, Any]:
    """The plan under sampled futures."""
    return stress.report(plan, spreads)


def coming(plan: CompanyPlan, months: int, step: int) -> dict[str, Any]:
    """The coming months."""
    return multi_period.to_json(multi_period.ahead(plan, months, step))


def ways(plan: CompanyPlan, asked: Mapping[str, float]) -> list[dict[str, Any]]:
    """The plan under other weights."""
    return front(plan, asked=asked)


def board_page(plan: CompanyPlan, today: date) -> str:
    """The report for the board."""
    return report.report_html(plan, today)


def paper(plan: CompanyPlan, today: date) -> bytes:
    """The same as a PDF."""
    return report_pdf(report.sections(plan, today))
