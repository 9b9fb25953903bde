"""Cost of accepted outcomes, by workload and by workflow: reads reported outcomes and the book, and calls economics.
Decides nothing.

A workflow costs what all its workloads carry, including those without reported outcomes. A ticket that several of them
worked on is one outcome, with its value counted once. A workload belongs to the workflow that it had when it last cost
something in the period, as in the book; baselines are the present ones, if the workflow is still declared.
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
from groundplan.core.money import format_usd, from_decimal, optional_usd
from groundplan.economics.allocate.model import Line
from groundplan.economics.allocate.outcome import Outcomes, baseline_cost, baseline_rule, outcome_value
from groundplan.ledger import rollup_store, ticket_store


@dataclass(frozen=True, slots=True)
class _OutcomeData:
    """The input for the outcomes of a period. `cost`: workload -> picodollars that it carries; `calls`: workload ->
    answered calls of its callers."""

    reported: Mapping[str, Outcomes]
    cost: Mapping[str, int]
    calls: Mapping[str, int]
    workflow_of: Mapping[str, str]
    """workload -> its workflow"""
    workflows: Mapping[str, WorkflowDoc]
    may_cost: Mapping[str, int]
    """workload -> the most picodollars that an accepted outcome may cost, by its objectives"""
    declared: cost_rules.DeclaredCosts
    day: date
    """The last day; baselines use its hourly review costs."""

    def workflow(self, workload: str) -> WorkflowDoc | None:
        return self.workflows.get(self.workflow_of.get(workload, ""))


def outcomes_json(conn: Connection[Any], days: Days, today: date) -> dict[str, list[dict[str, Any]]]:
    """`{"outcomes": by workload, "workflows": by workflow}`, of those with a reported outcome."""
    data = _read_data(conn, days, today)
    flows: dict[str, list[str]] = {}
    for name in data.reported:
        if (flow := data.workflow(name)) is not None and flow.name not in flows:
            flows[flow.name] = sorted(workload for workload, own in data.workflow_of.items() if own == flow.name)
    return {
        "outcomes": [_workload_json(data, name) for name in data.reported],
        "workflows": [_workflow_json(conn, days, data, name, workloads) for name, workloads in sorted(flows.items())],
    }


def _read_data(conn: Connection[Any], days: Days, today: date) -> _OutcomeData:
    query = {**cost_use.all_calls_of(days.first, days.last), "status": "ok"}
    answered = rollup_store.calls_by(conn, ["workload"], query)
    own: dict[str, int] = {}
    for (workload, purpose), count in rollup_store.answers_by(conn, ["workload", "purpose"], query).items():
        own[workload] = own.get(workload, 0) + (count if purpose else 0)
    cost: dict[str, int] = {}
    lines = cost_book.cost_lines(conn, days, today)
    for line in lines:
        cost[line.workload] = cost.get(line.workload, 0) + line.amount
    until, blueprint = min(days.last, today), current_blueprint(conn)
    of, flows = _workflows(conn, lines, blueprint.number)
    return _OutcomeData(
        {
            row["workload"]: Outcomes(row["reported"], row["accepted"], from_decimal(row["value_usd"]))
            for row in cost_store.outcomes(conn, days.since, days.until)
        },
        cost,
        {row["workload"]: int(row["calls"] or 0) - own.get(row["workload"], 0) for row in answered},
        of,
        flows,
        blueprint.may_cost,
        cost_rules.costs_in_force(conn, until, until)[until],
        until,
    )


def _workflows(
    conn: Connection[Any], lines: Sequence[Line], current: int
) -> tuple[dict[str, str], dict[str, WorkflowDoc]]:
    """(workload -> its workflow, workflows by name)."""
    now = workspace_at(conn, current)
    of = {name: doc.workflow for name, doc in now.workloads.items() if doc.workflow}
    flows, of_lines = dict(now.workflows), cost_book.workflows_of_lines(conn, lines)
    for line in sorted(lines, key=lambda line: max(line.blueprints, default=0)):
        number = max(line.blueprints, default=0)
        if (own := of_lines.get(number, {}).get(line.workload)) and number:
            of[line.workload] = own
            if own not in flows and (then := workspace_at(conn, number).workflows.get(own)) is not None:
                flows[own] = then
    return of, flows


def _workload_json(data: _OutcomeData, name: str) -> dict[str, Any]:
    flow, outcomes = data.workflow(name), data.reported[name]
    cost, calls = data.cost.get(name, 0), max(data.calls.get(name, 0), outcomes.reported)
    may_cost = data.may_cost.get(name)
    is_within = None if may_cost is None or not outcomes.accepted else cost <= may_cost * outcomes.accepted
    return {
        "workload": name, "workflow": flow.name if flow else None, "may_cost_usd": optional_usd(may_cost),
        "kept": is_within,
        **_value_json(data, flow, name, cost, calls, outcomes),
    }  # fmt: skip


def _workflow_json(
    conn: Connection[Any], days: Days, data: _OutcomeData, name: str, workloads: Sequence[str]
) -> dict[str, Any]:  # fmt: skip
    reported = [data.reported[workload] for workload in workloads if workload in data.reported]
    duplicates = (
        ticket_store.duplicate_reports(conn, days.since, days.until, workloads)
        if len(reported) > 1
        else ticket_store.DuplicateReports()
    )
    outcomes = Outcomes(
        sum(item.reported for item in reported) - duplicates.reported,
        max(*(item.accepted for item in reported), sum(item.accepted for item in reported) - duplicates.accepted),
        sum(item.value for item in reported) - from_decimal(duplicates.value_usd),
    )
    lead = next(workload for workload in workloads if workload in data.reported)
    cost, calls = (sum(by.get(workload, 0) for workload in workloads) for by in (data.cost, data.calls))
    return {
        "workflow": name, "workloads": list(workloads),
        **_value_json(data, data.workflows[name], lead, cost, max(calls, outcomes.reported), outcomes),
    }  # fmt: skip


def _value_json(
    data: _OutcomeData, flow: WorkflowDoc | None, workload: str, cost: int, calls: int, outcomes: Outcomes
) -> dict[str, Any]:  # fmt: skip
    """Cost and value of outcomes; the hourly review cost of `workload` prices the minutes of a case."""
    case, rule = None, ""
    if flow is not None and (before := flow.baseline) is not None:
        wage = cost_rules.hourly_review_cost(data.declared, data.day, workload)
        baseline = before.cost_per_case, before.minutes_per_case, wage
        case = baseline_cost(*baseline)
        rule = baseline_rule(*baseline, before.measured.isoformat() if before.measured else "")
    value = outcome_value(cost, outcomes, case)
    has_case = flow is not None and case is not None
    return {
        "calls": calls, "reported": outcomes.reported, "accepted": outcomes.accepted, "cost_usd": format_usd(cost),
        "value_usd": format_usd(outcomes.value), "cost_per_accepted_usd": optional_usd(value.cost_per_accepted),
        "baseline_usd": optional_usd(value.baseline), "baseline_basis": "estimated" if has_case else None,
        "baseline_rule": f"{rule} (workflow {flow.name})" if flow is not None and has_case else None,
        "saved_usd": optional_usd(value.saved), "returned": value.returned,
    }  # fmt: skip
