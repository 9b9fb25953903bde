"""Views of a placement plan for the routes, as plain values. Pure.

For a large company they run in a process of their own (`placement.plan_process`), so nothing here knows requests, and
everything that a route shows of a plan is a function of this module.
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
from groundplan.placement.explain.pareto_front import pareto_points
from groundplan.placement.explain.plan_summary import compare, exclusion_matrix, summary_json
from groundplan.placement.explain.why import Explanation, explain_placement, to_json
from groundplan.placement.explain.words import explanation_sentences
from groundplan.placement.planner import CompanyPlan


@dataclass(frozen=True, slots=True)
class WorkloadPage:
    """A page of workloads by name: at most `limit` that follow `after` and have `search` in their names."""

    limit: int
    after: str = ""
    search: str = ""


def plan_json(plan: CompanyPlan, page: WorkloadPage | None) -> dict[str, Any]:
    """The plan as JSON; with a page, details of its workloads only, with `next` (the `after` of the next page) and
    `total` (all workloads that match the search)."""
    among: frozenset[str] | None = None
    more: dict[str, Any] = {}
    if page is not None:
        matching = sorted(name for name in plan.placements if page.search.strip().lower() in name)
        following = [name for name in matching if name > page.after]
        among = frozenset(following[: page.limit])
        more = {"total": len(matching), "next": following[page.limit - 1] if len(following) > page.limit else None}
    body = summary_json(plan, compare(plan), among) | more
    names = [row["workload"] for row in body["workloads"]]
    matrix = exclusion_matrix(plan, names)
    body["excluded"] = {name: {site: list(rules) for site, rules in row.items()} for name, row in matrix.items()}
    body["curves"] = {name: list(plan.company.workloads[name].curve) for name in names}
    return body


def plan_body(plan: CompanyPlan, page: WorkloadPage | None) -> bytes:
    """`plan_json` as an encoded body: for thousands of workloads it is megabytes, encoded in the planning process."""
    return json.dumps(plan_json(plan, page), ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()


def explanation_json(plan: CompanyPlan, workload: str) -> dict[str, Any]:
    """Why one workload is placed where it is, as figures and as text. Raises `NotFound`, `Conflict`."""
    explanation = _explanation(plan, workload)
    return {
        **to_json(explanation, list(explanation_sentences(explanation))),
        "curve": list(plan.company.workloads[workload].curve),
    }


def why_json(plan: CompanyPlan, workload: str) -> dict[str, Any]:
    """As `explanation_json`, in the shape of `groundplan why`."""
    explanation = _explanation(plan, workload)
    lines = list(explanation_sentences(explanation))
    facts = {key: value for key, value in to_json(explanation, lines).items() if key != "words"}
    return {"kind": "placement", "because": lines, "facts": facts}


def _explanation(plan: CompanyPlan, workload: str) -> Explanation:
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
    return explain_placement(plan, workload)


def what_if_json(plan: CompanyPlan, changes: whatif.Changes) -> dict[str, Any]:
    """Two plans side by side."""
    return whatif.to_json(whatif.compare(plan, changes))


def replan_json(plan: CompanyPlan, demand: Mapping[str, float]) -> dict[str, Any]:
    """The differences of a plan with other numbers of calls."""
    compared = whatif.compare(plan, whatif.Changes(demand=demand))
    return {
        "flips": list(compared.flips),
        "difference_usd_month": round(compared.after.usd - compared.before.usd, 2),
        "words": list(whatif.describe(compared)),
        "demand": dict(demand),
    }


def stress_json(plan: CompanyPlan, spreads: stress.Spreads) -> dict[str, Any]:
    """The plan under sampled futures."""
    return stress.report(plan, spreads)


def months_ahead_json(plan: CompanyPlan, months: int, step: int) -> dict[str, Any]:
    """The coming months."""
    return multi_period.to_json(multi_period.plan_ahead(plan, months, step))


def alternatives_json(plan: CompanyPlan, own_weights: Mapping[str, float]) -> list[dict[str, Any]]:
    """The plan under other weights."""
    return pareto_points(plan, own_weights=own_weights)


def board_report_html(plan: CompanyPlan, today: date) -> str:
    """The report for the board."""
    return report.report_html(plan, today)


def board_report_pdf(plan: CompanyPlan, today: date) -> bytes:
    """The same as a PDF."""
    return report_pdf(report.sections(plan, today))
