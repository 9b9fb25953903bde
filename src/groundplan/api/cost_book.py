"""The book of costs of some days: what the ledger measured, term by term, and declared costs divided among workloads.

Assembled from ledger, blueprint and measured quantities; the rules are economics'. The measured lines sum exactly to
what attempts cost in those days.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Any, Final

from psycopg import Connection

from groundplan.api import cost_store
from groundplan.api.served import current_or_none
from groundplan.blueprint.model import Blueprint
from groundplan.core.errors import Invalid
from groundplan.core.money import format_usd, from_decimal
from groundplan.economics.allocate.divide import divide
from groundplan.economics.allocate.model import Basis, Line, Use
from groundplan.ledger import rollup_store

DIMENSIONS: Final = ("term", "workload", "workflow", "team", "provider", "site", "deployment", "model", "basis")
"""What lines can be summed by; `cost_spread` has what only calls know."""
LONGEST: Final = 3660
_TERMS: Final[dict[str, str]] = {"embeddings": "embedding", "rerank": "rerank", "moderation": "moderation"}
"""Type of a deployment -> term of everything that is asked of it; elsewhere it is the class of the tokens."""


@dataclass(frozen=True, slots=True)
class Days:
    """From `first` to `last`, both included."""

    first: date
    last: date

    @property
    def since(self) -> datetime:
        return datetime.combine(self.first, time(), UTC)

    @property
    def until(self) -> datetime:
        return datetime.combine(self.last, time(), UTC) + timedelta(days=1)

    @property
    def before(self) -> Days:
        """As many days before them; of a whole month the month before."""
        if self.first.day == 1 and (self.last + timedelta(days=1)).day == 1:
            last = self.first - timedelta(days=1)
            return Days(last.replace(day=1), last)
        count = (self.last - self.first).days + 1
        return Days(self.first - timedelta(days=count), self.first - timedelta(days=1))


def days_of(first: date | None, last: date | None, today: date) -> Days:
    """What was asked for; left out: this month up to today. Raises `Invalid` (`days_invalid`)."""
    last = today if last is None else last
    first = last.replace(day=1) if first is None else first
    if last < first or (last - first).days > LONGEST:
        raise Invalid(
            f"{first} to {last} are no days in order, or too many",
            code="days_invalid",
            hint=f"Name a first and a last day, at most {LONGEST} days apart.",
        )
    return Days(first, last)


def book(conn: Connection[Any], days: Days, today: date) -> list[Line]:
    """Every line. Declared costs of days that have not come are left out."""
    blueprint = current_or_none(conn)
    lines = measured(conn, days, blueprint)
    if blueprint is not None and blueprint.allocations and days.first <= today:
        uses = _uses(conn, days, blueprint)
        for rule in blueprint.allocations:
            lines += divide(rule, uses, days.first, min(days.last, today), blueprint.currencies)
    return lines


def measured(conn: Connection[Any], days: Days, blueprint: Blueprint | None) -> list[Line]:
    """What attempts cost, by part of the cost, workload and deployment."""
    by = ["workload", "deployment", "site", "model", "part", "estimated"]
    teams = _teams(conn, days, blueprint)
    places = blueprint.deployments if blueprint else []
    sources, kinds = {each.name: each.rates.source for each in places}, {each.name: each.kind for each in places}
    found = []
    for row in rollup_store.parts_by(conn, by, _wanted(days)):
        amount = from_decimal(row["cost_usd"])
        if row["part"] == "attempt" or not amount:
            continue
        bound = row["part"] == "bound"
        basis: Basis = "estimated" if bound or row["estimated"] else "measured"
        found.append(
            Line(
                term=_TERMS.get(kinds.get(row["deployment"], ""), str(row["part"])),
                workload=row["workload"],
                team=teams.get(row["workload"], ""),
                amount=amount,
                basis=basis,
                rule="the most it can have cost" if bound else f"{row['part']} x price of {row['deployment']}",
                source=sources.get(row["deployment"], "ledger"),
                deployment=row["deployment"],
                site=row["site"],
                model=row["model"],
                quantity=int(row["count"]),
                unit="Tokens" if int(row["count"]) else "",
            )
        )
    return found


def summed(lines: Sequence[Line], by: str, workflows: dict[str, str]) -> list[dict[str, Any]]:
    """[{key, cost_usd, share, quantity, basis: {basis: cost_usd}}], the dearest first. Raises `Invalid`."""
    if by not in DIMENSIONS:
        raise Invalid(
            f"costs are not summed by '{by[:40]}'", code="dimension_unknown", hint=f"Use {', '.join(DIMENSIONS)}."
        )
    return added((_key(line, by, workflows), line.basis, line.amount, line.quantity) for line in lines)


def added(parts: Iterable[tuple[str, str, int, int]]) -> list[dict[str, Any]]:
    """As `summed`, of (key, basis, picodollars, quantity)."""
    sums: dict[str, int] = {}
    counts: dict[str, int] = {}
    bases: dict[str, dict[str, int]] = {}
    for key, basis, amount, quantity in parts:
        sums[key] = sums.get(key, 0) + amount
        counts[key] = counts.get(key, 0) + quantity
        mine = bases.setdefault(key, {})
        mine[basis] = mine.get(basis, 0) + amount
    whole = sum(sums.values())
    return [
        {
            "key": key, "cost_usd": format_usd(amount), "share": round(amount / whole, 6) if whole else 0.0,
            "quantity": counts[key], "basis": {name: format_usd(part) for name, part in sorted(bases[key].items())},
        }
        for key, amount in sorted(sums.items(), key=lambda item: (-item[1], item[0]))
    ]  # fmt: skip


def line_json(line: Line) -> dict[str, Any]:
    """A line as the API has it."""
    return {
        "term": line.term, "workload": line.workload, "team": line.team, "cost_usd": format_usd(line.amount),
        "basis": line.basis, "rule": line.rule, "source": line.source, "deployment": line.deployment,
        "site": line.site, "model": line.model, "quantity": line.quantity,
    }  # fmt: skip


def _key(line: Line, by: str, workflows: dict[str, str]) -> str:
    if by == "workflow":
        return workflows.get(line.workload, "")
    if by == "provider":
        return line.model.partition("/")[0] if "/" in line.model else line.deployment
    return str(getattr(line, by))


def _teams(conn: Connection[Any], days: Days, blueprint: Blueprint | None) -> dict[str, str]:
    """Of the time itself where calls tell, else as declared now."""
    found = {w.name: w.team or "" for w in blueprint.workloads} if blueprint else {}
    for row in rollup_store.calls_by(conn, ["workload", "team"], _wanted(days)):
        if row["team"]:
            found[row["workload"]] = row["team"]
    return found


def _uses(conn: Connection[Any], days: Days, blueprint: Blueprint) -> list[Use]:
    """What each workload did, and what it is served: one that did nothing carries equal shares all the same."""
    teams = _teams(conn, days, blueprint)
    sums = {row["workload"]: row for row in rollup_store.calls_by(conn, ["workload"], _wanted(days))}
    made: dict[str, dict[str, int]] = {}
    for row in rollup_store.calls_by(conn, ["workload", "deployment"], _wanted(days)):
        made.setdefault(row["workload"], {})[row["deployment"]] = int(row["prompt_tokens"] + row["completion_tokens"])
    units = _units(conn, days, blueprint)
    names = sorted({*sums, *(workload.name for workload in blueprint.workloads)})
    return [
        Use(
            name,
            teams.get(name, ""),
            int(sums[name]["calls"] or 0) if name in sums else 0,
            from_decimal(sums[name]["cost_usd"]) if name in sums else 0,
            int(sums[name]["prompt_tokens"] + sums[name]["completion_tokens"]) if name in sums else 0,
            made.get(name, {}),
            {unit: values[name] for unit, values in units.items() if name in values},
        )
        for name in names
    ]


def _units(conn: Connection[Any], days: Days, blueprint: Blueprint) -> dict[str, dict[str, float]]:
    """Unit -> workload -> how many; a source that several use is divided among them."""
    if not any(rule.rate is not None for rule in blueprint.allocations):
        return {}
    documents: dict[str, float] = {}
    for source, gigabytes in cost_store.source_gigabytes(conn).items():
        users = [w.name for w in blueprint.workloads if w.grounding and source in w.grounding.sources]
        for name in users:
            documents[name] = documents.get(name, 0.0) + gigabytes / len(users)
    return {
        "review hour": cost_store.review_hours(conn, days.since, days.until),
        "gigabyte of documents": documents,
        "gigabyte of content": cost_store.content_gigabytes(conn),
    }


def _wanted(days: Days) -> dict[str, Any]:
    return {
        "since": days.since, "until": days.until, "workload": None, "status": None, "deployment": None, "demo": None,
    }  # fmt: skip
