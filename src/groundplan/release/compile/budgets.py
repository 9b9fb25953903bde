"""Compiles budgets, limits, allocation rules, currencies, calendar and workflows. Pure; nothing is counted here."""

from __future__ import annotations

from groundplan.blueprint import model as bp
from groundplan.catalog import model as doc
from groundplan.catalog.retention import DAY_MS
from groundplan.catalog.workspace import Workspace
from groundplan.core.money import format_usd
from groundplan.economics.allocate.model import CREDIT


def compile_budgets(workspace: Workspace, own: set[str]) -> list[bp.Budget]:
    """All budgets except those of workloads that are not served; `own`: subjects of served workloads."""
    return [
        _compile_budget(item)
        for item in workspace.budgets.values()
        if not item.covers.startswith("workload/") or item.covers in own
    ]


def _compile_budget(item: doc.BudgetDoc) -> bp.Budget:
    return bp.Budget(
        name=item.name,
        covers=item.covers,
        limit=item.limit.amount,
        period=item.limit.period,
        starts=item.starts or "",
        timezone=item.timezone,
        hard=item.hard,
    )


def compile_allocation(item: doc.AllocationDoc) -> bp.Allocation:
    """A declared allocation rule; its amount is in 10^-12 units of its currency a period, negative for a credit."""
    amount, period, how = _period_amount(item)
    sign = -1 if item.term == CREDIT else 1
    counted = item.quantity is not None
    return bp.Allocation(
        name=item.name,
        term=item.term,
        amount=None if amount is None else sign * amount,
        currency=item.currency,
        period=period,
        life_days=(item.life or 0) // DAY_MS,
        how=how,
        rate=None if counted or item.rate is None else sign * item.rate,
        per="" if counted else item.per or "",
        by=item.by,
        shares=dict(sorted(item.shares.items())),
        covers=item.covers,
        capacity=None if item.capacity is None else int(item.capacity.per_day),
        basis=item.basis,
        source=item.source,
        since=item.since.isoformat() if item.since else "",
        until=item.until.isoformat() if item.until else "",
    )


def double_charge_notes(served: bp.Blueprint | None, new: bp.Blueprint) -> tuple[str, ...]:
    """Notes on deployments that newly have both a token price and an allocation of their hardware by use: both are in
    the cost book, which is right only if they are different costs."""
    known = _double_charged(served) if served is not None else set()
    return tuple(
        f"deployment/{name}: its tokens have a price, and allocation/{rule} spreads what it costs by its use; the book"
        " has both, so where that is the same money say price: free"
        for name, rule in sorted(_double_charged(new) - known)
    )


def restart_notes(served: bp.Blueprint | None, new: bp.Blueprint) -> tuple[str, ...]:
    """Notes on budgets in which what was spent is not counted: those with another name than the budget that they
    replace, since spending is counted by name, and those whose periods are others than before."""
    before = {item.name: item for item in served.budgets} if served is not None else {}
    kept = {item.name for item in new.budgets}
    gone = {item.covers: name for name, item in sorted(before.items()) if name not in kept}
    notes: list[str] = []
    for item in sorted(new.budgets, key=lambda each: each.name):
        old, replaced = before.get(item.name), gone.get(item.covers)
        if old is not None and (old.period, old.starts, old.timezone) != (item.period, item.starts, item.timezone):
            notes.append(
                f"budget/{item.name}: its period changes, and what was spent in the old is not counted in the new"
            )
        elif old is None and replaced is not None:
            notes.append(
                f"budget/{item.name}: it replaces budget/{replaced}, and what was spent is counted by name, so it"
                f" starts with its whole amount; to keep what was spent, keep the name {replaced}"
            )
    return tuple(notes)


def _double_charged(blueprint: bp.Blueprint) -> set[tuple[str, str]]:
    """(deployment, allocation rule) of deployments with a token price whose hardware is allocated by use."""
    rates = {f"deployment/{place.name}": place.rates for place in blueprint.deployments}
    return {
        (rule.covers.partition("/")[2], rule.name)
        for rule in blueprint.allocations
        if rule.capacity is not None and (found := rates.get(rule.covers)) is not None and (found.input or found.output)
    }


def _period_amount(item: doc.AllocationDoc) -> tuple[int | None, str, str]:
    """(amount in 10^-12 units of its currency a period, period, how it was calculated)."""
    if item.purchase is not None:
        days = (item.life or 0) // DAY_MS
        how = f"{item.count} x {format_usd(item.purchase).rstrip('0').rstrip('.')} {item.currency} over {days} days"
        return item.purchase * item.count, "life", how
    if item.quantity is not None and item.rate is not None:
        count, period = item.quantity.count, item.quantity.period
        count, period = (24 * count, "day") if period == "hour" else (count, period)
        each = format_usd(item.rate).rstrip("0").rstrip(".")
        return item.rate * count, period, f"{item.quantity} x {each} {item.currency} for each {item.per}"
    return (None, "month", "") if item.cost is None else (item.cost.amount, item.cost.period, "")


def compile_currencies(workspace: Workspace) -> dict[str, list[bp.CurrencyRate]]:
    """Currency -> its rates in USD, oldest first."""
    return {
        code: sorted(
            (bp.CurrencyRate(since=r.since.isoformat(), rate=r.rate) for r in rule.rates), key=lambda r: r.since
        )
        for code, rule in sorted(workspace.company.currencies.items())
    }


def compile_calendar(workspace: Workspace, names: set[str]) -> bp.Calendar:
    """Holidays, and the launches of the served workloads `names`."""
    rule = workspace.company.calendar
    return bp.Calendar(
        countries=sorted(set(rule.countries)),
        holidays=sorted({day.isoformat() for day in rule.holidays}),
        launches=[
            bp.Launch(workload=name, day=each.day.isoformat(), factor=each.factor, name=each.name or "")
            for name in sorted(names)
            for each in sorted(workspace.workloads[name].launches, key=lambda each: each.day)
        ],
    )


def compile_workflows(workspace: Workspace, names: set[str]) -> list[bp.Workflow]:
    """The workflows of the served workloads `names`."""
    served: dict[str, list[str]] = {}
    for name in sorted(names):
        if (flow := workspace.workloads[name].workflow) is not None:
            served.setdefault(flow, []).append(name)
    return [_compile_workflow(workspace.workflows[name], mine) for name, mine in sorted(served.items())]


def outcome_cost_limits(workspace: Workspace, names: set[str]) -> dict[str, int]:
    """Workload -> the most that an accepted outcome may cost, where that is declared."""
    wanted = {name: workspace.workloads[name].objectives.cost_per_outcome for name in sorted(names)}
    return {name: amount for name, amount in wanted.items() if amount is not None}


def cost_centers(workspace: Workspace) -> dict[str, str]:
    """Team -> its cost center, where it has one."""
    return {name: team.cost_center for name, team in sorted(workspace.teams.items()) if team.cost_center}


def _compile_workflow(item: doc.WorkflowDoc, workloads: list[str]) -> bp.Workflow:
    before = item.baseline
    return bp.Workflow(
        name=item.name,
        workloads=workloads,
        outcome=item.outcome or "",
        cost_per_case=None if before is None else before.cost_per_case,
        minutes_per_case=None if before is None else before.minutes_per_case,
        measured=before.measured.isoformat() if before is not None and before.measured is not None else "",
    )


def compile_limits(workspace: Workspace) -> list[bp.Limit]:
    """One limit for each declared number, in the order of names."""
    found: list[bp.Limit] = []
    for name, item in sorted(workspace.limits.items()):
        rates = {"requests": item.requests, "tokens": item.tokens, "cost": item.cost}
        found += [
            bp.Limit(name=name, covers=item.covers, type=what, amount=rate.amount, period=rate.period)
            for what, each in rates.items()
            for rate in each
        ]
        if item.concurrent is not None:
            found.append(
                bp.Limit(name=name, covers=item.covers, type="concurrent", amount=item.concurrent, period="now")
            )
    return found
