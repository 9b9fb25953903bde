"""How much a plan depends on the hours of work and on the cost of an hour, of which only ranges are known.

    python benchmarks/placement_burden.py --companies 40 --json

The example company and random ones are planned with the low, the stated and the high value in `reference/burden.json`
of the hours and of the wage: nine plans each. `flips` are workloads whose primary place differs from that with the
stated values, `workloads` those that are placed in both. Hours that a site declares itself count as the stated ones.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import replace
from datetime import date
from itertools import product
from pathlib import Path
from typing import Any

if str(Path(__file__).parents[1]) not in sys.path:
    sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.placement_instances.random_facts import random_facts

from groundplan.catalog.check import validate
from groundplan.core.errors import Conflict
from groundplan.placement.planner import CompanyPlan, plan_company
from groundplan.placement.problem import WorkLimit
from groundplan.placement.reference.store import load_reference
from groundplan.placement.terms import site_defaults
from groundplan.placement.terms.facts import Company, SiteFacts
from groundplan.release.compile.places import compile_deployments
from groundplan.release.compile.placing import company_facts
from groundplan.release.compile.pricing import declared_or_listed

EXAMPLE = Path(__file__).parents[1] / "examples" / "company"
ENDS = ("low", "hours", "high")
LIMIT = WorkLimit(work=40, gap=1e-6)


def with_burden(company: Company, hours: str, wage: str) -> Company:
    """The same company with the hours of its sites, and the cost of an hour, at these ends of their ranges."""
    usd = load_reference("burden")["wage"]
    people_usd = usd["usd" if wage == "hours" else wage] / usd["usd"] * company.policy.people_usd
    sites = {name: _site_with_burden(site, hours) for name, site in company.sites.items()}
    return replace(company, sites=sites, policy=replace(company.policy, people_usd=people_usd))


def _site_with_burden(site: SiteFacts, end: str) -> SiteFacts:
    of_site = site_defaults.burden("site", site.type, end) / site_defaults.burden("site", site.type)
    of_model = site_defaults.burden("model", site.type, end) / site_defaults.burden("model", site.type)
    return replace(site, burden_hours=site.burden_hours * of_site, model_hours=site.model_hours * of_model)


def example_company() -> Company:
    """The company of `examples/company`."""
    workspace, day = validate(EXAMPLE), date(2026, 11, 25)
    return company_facts(workspace, compile_deployments(workspace, day, declared_or_listed)[0], None, day)


def plan_or_none(company: Company) -> CompanyPlan | None:
    try:
        return plan_company(company, LIMIT)
    except Conflict:
        return None


def burden_rows(company: Company) -> list[dict[str, Any]]:
    """One row for each end of hours and wage: USD a month in total and for people, and the workloads whose place
    differs from that with the stated values; no rows if there is no plan with these."""
    stated = plan_or_none(company)
    if stated is None:
        return []
    plans = {(hours, wage): plan_or_none(with_burden(company, hours, wage)) for hours, wage in product(ENDS, ENDS)}
    return [_row(hours, wage, plan, stated) for (hours, wage), plan in plans.items() if plan is not None]


def _row(hours: str, wage: str, plan: CompanyPlan, stated: CompanyPlan) -> dict[str, Any]:
    placed_in_both = sorted(plan.placements.keys() & stated.placements.keys())
    places = {
        name: (plan.placements[name].primary.site, plan.placements[name].primary.model) for name in placed_in_both
    }
    stated_places = {
        name: (stated.placements[name].primary.site, stated.placements[name].primary.model) for name in placed_in_both
    }
    people_usd = plan.hours * plan.company.policy.people_usd
    return {
        "hours": hours, "wage": wage, "usd_month": round(plan.usd, 2), "people_usd": round(people_usd, 2),
        "workloads": len(placed_in_both),
        "flips": [name for name in placed_in_both if places[name] != stated_places[name]],
    }  # fmt: skip


def random_totals(companies: int, first: int) -> list[dict[str, Any]]:
    """Totals of workloads and flips over random companies, by end."""
    totals: dict[tuple[str, str], dict[str, Any]] = {}
    for seed in range(first, first + companies):
        for row in burden_rows(random_facts(seed, 20, 8)):
            total = totals.setdefault(
                (row["hours"], row["wage"]),
                {"hours": row["hours"], "wage": row["wage"], "companies": 0, "workloads": 0, "flips": 0},
            )
            total["companies"] += 1
            total["workloads"] += row["workloads"]
            total["flips"] += len(row["flips"])
    return list(totals.values())


def main() -> int:
    """Read the arguments, print the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--companies", type=int, default=40, help="random ones")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    result = {"example": burden_rows(example_company()), "random": random_totals(arguments.companies, arguments.seed)}
    print(json.dumps(result, indent=2 if arguments.json else None))
    return 0


if __name__ == "__main__":
    sys.exit(main())
