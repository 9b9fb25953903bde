"""What accepted outcomes cost, by workload and by workflow: reads what was reported and what everything cost, and asks
economics. Decides nothing.

A workflow costs what all its workloads carry, also those of which nobody reports an outcome. A ticket that several of
them worked on is one outcome of it, and worth what it is worth once. A workload is of the workflow that it was of when
it last cost something in these days, as in the book; baselines are those of now, where the workflow is still declared.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

from psycopg import Connection

from groundplan.api.cost import book as cost_book
from groundplan.api.cost import daily_usage as cost_use
from groundplan.api.cost import declared_costs as cost_rules
from groundplan.api.cost import store as cost_store
from groundplan.api.cost.book import Days
from groundplan.api.served_blueprint import current_blueprint, workspace_at
from groundplan.catalog.workload import WorkflowDoc
from groundplan.core.money import format_usd, from_decimal, maybe_usd
from groundplan.economics.allocate.model import Line
from groundplan.economics.allocate.outcome import Outcomes, baseline_cost, baseline_rule, worth
from groundplan.ledger import rollup_store, ticket_store


@dataclass(frozen=True, slots=True)
class _Seen:
    """`cost`: workload -> picodollars that it carries; `calls`: workload -> those of callers that were
    answered."""

    reported: Mapping[str, Outcomes]
    cost: Mapping[str, int]
    calls: Mapping[str, int]
    of: Mapping[str, str]
    """workload -> its workflow"""
    flows: Mapping[str, WorkflowDoc]
    may_cost: Mapping[str, int]
    """workload -> picodollars of an accepted outcome, by its objectives"""
    declared: cost_rules.Declared
    day: date
    """The last one, by whose wages a baseline is told."""

    def flow(self, workload: str) -> WorkflowDoc | None:
        return self.flows.get(self.of.get(workload, ""))


def rows(conn: Connection[Any], days: Days, today: date) -> dict[str, list[dict[str, Any]]]:
    """{outcomes: by workload, workflows: by workflow}, of those of which any outcome was reported."""
    seen = _seen(conn, days, today)
    flows: dict[str, list[str]] = {}
    for name in seen.reported:
        if (flow := seen.flow(name)) is not None and flow.name not in flows:
            flows[flow.name] = sorted(workload for workload, own in seen.of.items() if own == flow.name)
    return {
        "outcomes": [_of_workload(seen, name) for name in seen.reported],
        "workflows": [_of_workflow(conn, days, seen, name, mine) for name, mine in sorted(flows.items())],
    }


def _seen(conn: Connection[Any], days: Days, today: date) -> _Seen:
    wanted = {**cost_use.wanted(days.first, days.last), "status": "ok"}
    answered = rollup_store.calls_by(conn, ["workload"], wanted)
    own: dict[str, int] = {}
    for (workload, purpose), count in rollup_store.answers_by(conn, ["workload", "purpose"], wanted).items():
        own[workload] = own.get(workload, 0) + (count if purpose else 0)
    cost: dict[str, int] = {}
    lines = cost_book.book(conn, days, today)
    for line in lines:
        cost[line.workload] = cost.get(line.workload, 0) + line.amount
    until, blueprint = min(days.last, today), current_blueprint(conn)
    of, flows = _flows(conn, lines, blueprint.number)
    return _Seen(
        {
            row["workload"]: Outcomes(row["reported"], row["accepted"], from_decimal(row["value_usd"]))
            for row in cost_store.outcomes(conn, days.since, days.until)
        },
        cost,
        {row["workload"]: int(row["calls"] or 0) - own.get(row["workload"], 0) for row in answered},
        of,
        flows,
        blueprint.may_cost,
        cost_rules.on(conn, until, until)[until],
        until,
    )


def _flows(conn: Connection[Any], lines: Sequence[Line], current: int) -> tuple[dict[str, str], dict[str, WorkflowDoc]]:
    """(workload -> its workflow, workflows by name)."""
    now = workspace_at(conn, current)
    of = {name: doc.workflow for name, doc in now.workloads.items() if doc.workflow}
    flows, known = dict(now.workflows), cost_book.workflows(conn, lines)
    for line in sorted(lines, key=lambda line: max(line.blueprints, default=0)):
        number = max(line.blueprints, default=0)
        if (own := known.get(number, {}).get(line.workload)) and number:
            of[line.workload] = own
            if own not in flows and (then := workspace_at(conn, number).workflows.get(own)) is not None:
                flows[own] = then
    return of, flows


def _of_workload(seen: _Seen, name: str) -> dict[str, Any]:
    flow, told = seen.flow(name), seen.reported[name]
    cost, calls = seen.cost.get(name, 0), max(seen.calls.get(name, 0), told.reported)
    wanted = seen.may_cost.get(name)
    kept = None if wanted is None or not told.accepted else cost <= wanted * told.accepted
    return {
        "workload": name, "workflow": flow.name if flow else None, "may_cost_usd": maybe_usd(wanted), "kept": kept,
        **_worth(seen, flow, name, cost, calls, told),
    }  # fmt: skip


def _of_workflow(
    conn: Connection[Any], days: Days, seen: _Seen, name: str, workloads: Sequence[str]
) -> dict[str, Any]:  # fmt: skip
    every = [seen.reported[each] for each in workloads if each in seen.reported]
    again = ticket_store.again(conn, days.since, days.until, workloads) if len(every) > 1 else ticket_store.Again()
    told = Outcomes(
        sum(each.reported for each in every) - again.reported,
        max(*(each.accepted for each in every), sum(each.accepted for each in every) - again.accepted),
        sum(each.value for each in every) - from_decimal(again.value_usd),
    )
    lead = next(each for each in workloads if each in seen.reported)
    cost, calls = (sum(by.get(each, 0) for each in workloads) for by in (seen.cost, seen.calls))
    return {
        "workflow": name, "workloads": list(workloads),
        **_worth(seen, seen.flows[name], lead, cost, max(calls, told.reported), told),
    }  # fmt: skip


def _worth(
    seen: _Seen, flow: WorkflowDoc | None, workload: str, cost: int, calls: int, told: Outcomes
) -> dict[str, Any]:  # fmt: skip
    """`workload`: by whose wage the minutes of a case are told."""
    case, rule = None, ""
    if flow is not None and (before := flow.baseline) is not None:
        wage = cost_rules.wage(seen.declared, seen.day, workload)
        said = before.cost_per_case, before.minutes_per_case, wage
        case = baseline_cost(*said)
        rule = baseline_rule(*said, before.measured.isoformat() if before.measured else "")
    made = worth(cost, told, case)
    known = flow is not None and case is not None
    return {
        "calls": calls, "reported": told.reported, "accepted": told.accepted, "cost_usd": format_usd(cost),
        "value_usd": format_usd(told.value), "cost_per_accepted_usd": maybe_usd(made.cost_per_accepted),
        "baseline_usd": maybe_usd(made.baseline), "baseline_basis": "estimated" if known else None,
        "baseline_rule": f"{rule} (workflow {flow.name})" if flow is not None and known else None,
        "saved_usd": maybe_usd(made.saved), "returned": made.returned,
    }  # fmt: skip
