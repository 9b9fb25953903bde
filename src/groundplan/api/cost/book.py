"""The cost book of a period: costs that the ledger measured, by term, and declared costs divided among workloads.

Assembled from ledger, blueprint and measured quantities; the rules are in economics. The measured lines sum exactly to
what attempts cost in the period.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, time, timedelta
from typing import Any, Final

from psycopg import Connection

from groundplan.api.cost import daily_usage as cost_use
from groundplan.api.cost import declared_costs as cost_rules
from groundplan.api.cost.declared_costs import DeclaredCosts
from groundplan.core.errors import Invalid
from groundplan.core.money import format_usd, from_decimal
from groundplan.core.months import first_of_next_month
from groundplan.economics.allocate.daily import allocate_days
from groundplan.economics.allocate.model import Basis, Line
from groundplan.ledger import rollup_store

DIMENSIONS: Final = ("term", "workload", "workflow", "team", "provider", "site", "deployment", "model", "tier", "basis")
"""Dimensions of the lines; `breakdowns` has those that only calls have."""
MAX_DAYS: Final = 3660
FIRST_YEAR: Final = 1000
LAST_YEAR: Final = 9000
"""Later days have no following day in some of the calendars used."""
_TERMS: Final[dict[str, str]] = {"embeddings": "embedding", "rerank": "rerank", "moderation": "moderation"}
"""Type of a deployment -> the term of all its costs; for other types the term is the class of the tokens."""
UNITS: Final[dict[str, str]] = {
    "images_made": "Images", "images": "Images", "seconds": "Seconds", "characters": "Characters",
    "requests": "Requests", "searches": "Searches",
}  # fmt: skip
"""Part of a cost that is not counted in tokens -> its unit."""
_GROUP_BY: Final = ("workload", "blueprint", "deployment", "site", "model", "part", "purpose", "tier", "estimated")
_GROUP_BY_CARRIER: Final = ("workload", "blueprint")
_MAX_SEPARATE_QUERIES: Final = 8
"""Up to so many workloads are queried one by one."""
_NOTHING_DECLARED: Final = DeclaredCosts(0)
OWN_PROVIDER: Final = "own"
"""The provider of costs that no provider bills by the call."""
Workflows = Mapping[int, Mapping[str, str]]
"""Blueprint -> workload -> its workflow"""


@dataclass(frozen=True, slots=True)
class Days:
    """A period from `first` to `last`, both included, in UTC."""

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
        """The period of the same length just before."""
        count = (self.last - self.first).days + 1
        return Days(self.first - timedelta(days=count), self.first - timedelta(days=1))

    @property
    def month_before(self) -> Days:
        """The same days of the previous month, for a period that starts with a month; the whole previous month for a
        whole month."""
        end = self.first - timedelta(days=1)
        first, is_month_end = end.replace(day=1), (self.last + timedelta(days=1)).day == 1
        return Days(first, end if is_month_end else min(end, first + (self.last - self.first)))

    @property
    def months(self) -> list[Days]:
        """The period split into calendar months."""
        periods, first = [], self.first
        while first <= self.last:
            last = min(self.last, first_of_next_month(first) - timedelta(days=1))
            periods.append(Days(first, last))
            first = last + timedelta(days=1)
        return periods


def parse_days(first: date | None, last: date | None, today: date) -> Days:
    """The requested period; by default this month up to today. Raises `Invalid` (`days_invalid`)."""
    last = today if last is None else last
    first = last.replace(day=1) if first is None else first
    if last < first or (last - first).days > MAX_DAYS or first.year < FIRST_YEAR or last.year > LAST_YEAR:
        raise Invalid(
            f"{first} to {last} are not a valid period, or too long",
            code="days_invalid",
            hint=f"Name a first and a last day, at most {MAX_DAYS} days apart, of {FIRST_YEAR} to {LAST_YEAR}.",
        )
    return Days(first, last)


def cost_lines(
    conn: Connection[Any], days: Days, today: date, team: str | None = None, *, separate: bool = True
) -> list[Line]:
    """Every line of the book: measured lines (of one `team`, and with deployments summed unless `separate`, as in
    `measured_lines`) and declared costs, without those of future days."""
    return measured_lines(conn, days, team, separate=separate) + _declared_lines(conn, days, today)


def carrier_lines(conn: Connection[Any], days: Days, today: date) -> list[Line]:
    """The book with one measured line for each workload, where only teams and workloads matter: a hundredth of the
    lines of `cost_lines`."""
    query = cost_use.all_calls_of(days.first, days.last)
    rows = rollup_store.parts_by(conn, _GROUP_BY_CARRIER, query)
    carriers = _Carriers(conn, query)
    carriers.load_blueprints(rows)
    lines = [
        Line(term="", workload=row["workload"], team=carriers.team(row), amount=amount, basis="measured", rule="",
             source="ledger")
        for row in rows
        if (amount := from_decimal(row["cost_usd"]))
    ]  # fmt: skip
    return lines + _declared_lines(conn, days, today)


def _declared_lines(conn: Connection[Any], days: Days, today: date) -> list[Line]:
    return allocated_lines(conn, Days(days.first, min(days.last, today))) if days.first <= today else []


def allocated_lines(conn: Connection[Any], days: Days) -> list[Line]:
    """Declared costs and semantic look-ups, divided among workloads by the blueprint in force on each day."""
    in_force = cost_rules.costs_in_force(conn, days.first, days.last)
    return allocate_days(cost_use.daily_usage(conn, in_force, days.first, days.last))


def measured_lines(conn: Connection[Any], days: Days, team: str | None = None, *, separate: bool = True) -> list[Line]:
    """Costs of attempts by part, workload and deployment, of all teams or of one. Each attempt has the price and the
    team that the blueprint declares under which it ran. Calls of the gateway itself, such as to the judge of a
    guardrail, have terms of their own (`Reservation.purpose`).

    Unless `separate`, a line covers all deployments, without rule and source: for 2,000 workloads that is thousands of
    lines instead of hundreds of thousands.
    """
    query = cost_use.all_calls_of(days.first, days.last)
    carriers = _Carriers(conn, query)
    sums: dict[Line, _Sum] = {}
    with conn.transaction():  # in which lots are read
        for line_query in [query] if team is None else _team_queries(conn, query, carriers, team):
            for rows in rollup_store.stream_parts(conn, _GROUP_BY, line_query):
                carriers.load_blueprints(rows)
                for row in rows:
                    amount = from_decimal(row["cost_usd"])
                    if row["part"] == "attempt" or not amount or team not in (None, carrier := carriers.team(row)):
                        continue
                    new_line = _line if separate else _sum_line
                    total = sums.setdefault(new_line(row, carriers.declared_for(row), carrier), _Sum())
                    total.amount += amount
                    total.count += int(row["count"])
                    total.blueprints |= {row["blueprint"]} if row["blueprint"] else set()
    return [
        replace(
            line,
            amount=total.amount,
            quantity=total.count,
            unit=line.unit if total.count else "",
            blueprints=tuple(sorted(total.blueprints)),
        )
        for line, total in sums.items()
    ]


@dataclass(slots=True)
class _Sum:
    amount: int = 0
    count: int = 0
    blueprints: set[int] = field(default_factory=set)


def _line(row: dict[str, Any], declared: DeclaredCosts, team: str) -> Line:
    """The line of a row, without amount and count."""
    return Line(
        term=_term(row, declared),
        workload=row["workload"],
        team=team,
        amount=0,
        basis=_basis(row),
        rule="the most it can have cost" if row["part"] == "bound" else _price_rule(row),
        source=declared.prices.get(row["deployment"], "ledger"),
        deployment=row["deployment"],
        site=row["site"],
        model=row["model"],
        unit=UNITS.get(row["part"], "Tokens"),
        tier=row["tier"],
    )


def _sum_line(row: dict[str, Any], declared: DeclaredCosts, team: str) -> Line:
    """As `_line`, for all deployments together."""
    return Line(
        term=_term(row, declared), workload=row["workload"], team=team, amount=0, basis=_basis(row), rule="", source=""
    )


def _term(row: dict[str, Any], declared: DeclaredCosts) -> str:
    return row["purpose"] or term_of(declared.kinds.get(row["deployment"], ""), str(row["part"]))


def _basis(row: dict[str, Any]) -> Basis:
    return "estimated" if row["part"] == "bound" or row["estimated"] else "measured"


def term_of(kind: str, part: str) -> str:
    """The term of a part of the cost of an attempt at a deployment of type `kind`."""
    return _TERMS.get(kind, part)


class _Carriers:
    """Teams that carry rows of the ledger, and the blueprints that these ran under; each blueprint is read once."""

    def __init__(self, conn: Connection[Any], query: dict[str, Any]) -> None:
        self._conn, self._query = conn, query
        self._declared: dict[int, DeclaredCosts] = {}
        self._teams_of_calls: dict[tuple[str, int], str] | None = None

    def load_blueprints(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Load the blueprints of these rows."""
        if numbers := {row["blueprint"] for row in rows} - self._declared.keys():
            found = cost_rules.costs_by_blueprint(self._conn, numbers)
            self._declared |= {number: found.get(number, _NOTHING_DECLARED) for number in numbers}

    def declared_for(self, row: Mapping[str, Any]) -> DeclaredCosts:
        return self._declared[row["blueprint"]]

    def team(self, row: Mapping[str, Any]) -> str:
        """The team of the workload by its blueprint, else by its calls; empty for none."""
        if team := self.declared_for(row).teams.get(row["workload"]):
            return team
        if self._teams_of_calls is None:
            self._teams_of_calls = _teams_of_calls(self._conn, self._query)
        return self._teams_of_calls.get((row["workload"], row["blueprint"]), "")


def _team_queries(
    conn: Connection[Any], query: dict[str, Any], carriers: _Carriers, team: str
) -> Iterable[dict[str, Any]]:
    """The queries for the lines of one team: one for each of its workloads, where they are few."""
    rows = rollup_store.parts_by(conn, _GROUP_BY_CARRIER, query)
    carriers.load_blueprints(rows)
    names = sorted({row["workload"] for row in rows if carriers.team(row) == team})
    return [{**query, "workload": name} for name in names] if len(names) <= _MAX_SEPARATE_QUERIES else [query]


def _teams_of_calls(conn: Connection[Any], query: dict[str, Any]) -> dict[tuple[str, int], str]:
    """(workload, blueprint) -> the team in the facts of its calls, for blueprints that name none."""
    rows = rollup_store.calls_by(conn, ["workload", "blueprint", "team"], query)
    return {(row["workload"], row["blueprint"]): row["team"] for row in rows if row["team"]}


def _price_rule(row: dict[str, Any]) -> str:
    tier = f" ({row['tier']})" if row["tier"] else ""
    return f"{row['part']} x price of {row['deployment']}{tier}"


def workflows_of_lines(conn: Connection[Any], lines: Sequence[Line]) -> Workflows:
    """The workflows of workloads by the blueprints of these lines, so that workloads that were moved or removed since
    keep theirs."""
    return cost_rules.workflows_by_blueprint(conn, {_newest_blueprint(line) for line in lines})


def cost_centers(conn: Connection[Any], lines: Sequence[Line]) -> dict[str, str]:
    """Team -> its cost center, as the newest blueprint of its lines declares."""
    newest: dict[str, int] = {}
    for line in lines:
        newest[line.team] = max(newest.get(line.team, 0), _newest_blueprint(line))
    declared = cost_rules.costs_by_blueprint(conn, newest.values())
    return {team: declared.get(number, _NOTHING_DECLARED).cost_centers.get(team, "") for team, number in newest.items()}


def sum_by(lines: Sequence[Line], by: str, workflows: Workflows) -> list[dict[str, Any]]:
    """`[{key, cost_usd, share, quantity, basis: {basis: cost_usd}}]`, the most expensive first. Raises `Invalid`."""
    if by not in DIMENSIONS:
        raise Invalid(
            f"costs are not summed by '{by[:40]}'",
            code="dimension_unknown",
            hint=f"Use {', '.join(DIMENSIONS)}, feature, prompt, source, person, tag.",
        )
    return sum_parts((_key(line, by, workflows), line.basis, line.amount, line.quantity) for line in lines)


def sum_parts(parts: Iterable[tuple[str, str, int, int]]) -> list[dict[str, Any]]:
    """As `sum_by`, of (key, basis, picodollars, quantity)."""
    by_basis: dict[str, dict[str, int]] = {}
    sums: dict[str, int] = {}
    counts: dict[str, int] = {}
    for key, basis, amount, quantity in parts:
        if (amounts := by_basis.get(basis)) is None:
            amounts = by_basis[basis] = {}
        amounts[key] = amounts.get(key, 0) + amount
        sums[key] = sums.get(key, 0) + amount
        if quantity:
            counts[key] = counts.get(key, 0) + quantity
    total = sum(sums.values())
    bases = sorted(by_basis.items())
    return [
        {
            "key": key, "cost_usd": format_usd(amount), "share": round(amount / total, 6) if total else 0.0,
            "quantity": counts.get(key, 0), "basis": {name: format_usd(of[key]) for name, of in bases if key in of},
        }
        for key, amount in sorted(sums.items(), key=lambda item: (-item[1], item[0]))
    ]  # fmt: skip


def line_json(line: Line) -> dict[str, Any]:
    """A line in the API's shape."""
    return {
        "term": line.term, "workload": line.workload, "team": line.team, "cost_usd": format_usd(line.amount),
        "basis": line.basis, "rule": line.rule, "source": line.source, "deployment": line.deployment,
        "site": line.site, "model": line.model, "quantity": line.quantity, "tier": line.tier,
        "allocation": line.allocation, "blueprints": list(line.blueprints),
    }  # fmt: skip


def blueprint_numbers(lines: Iterable[Line]) -> list[int]:
    """Sorted numbers of the blueprints by whose prices and rules the lines were made."""
    return sorted({number for line in lines for number in line.blueprints})


def _newest_blueprint(line: Line) -> int:
    """The number of the line's newest blueprint; 0 if it has none."""
    return max(line.blueprints, default=0)


def _key(line: Line, by: str, workflows: Workflows) -> str:
    if by == "workflow":
        return workflows.get(_newest_blueprint(line), {}).get(line.workload, "")
    if by == "provider":
        provider, known, _ = line.model.partition("/")
        return (
            provider
            if known
            else OWN_PROVIDER
            if line.allocation or not line.deployment
            else line.site or line.deployment
        )
    return str(getattr(line, by))
