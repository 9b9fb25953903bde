"""The book of costs of some days: what the ledger measured, term by term, and declared costs divided among workloads.

Assembled from ledger, blueprint and measured quantities; the rules are economics'. The measured lines sum exactly to
what attempts cost in those days.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, time, timedelta
from typing import Any, Final

from psycopg import Connection

from groundplan.api.cost import daily_usage as cost_use
from groundplan.api.cost import declared_costs as cost_rules
from groundplan.api.cost.declared_costs import Declared
from groundplan.core.errors import Invalid
from groundplan.core.money import format_usd, from_decimal
from groundplan.core.months import next_first
from groundplan.economics.allocate.daily import allocated
from groundplan.economics.allocate.model import Basis, Line
from groundplan.ledger import rollup_store

DIMENSIONS: Final = ("term", "workload", "workflow", "team", "provider", "site", "deployment", "model", "tier", "basis")
"""What lines can be summed by; `breakdowns` has what only calls know."""
LONGEST: Final = 3660
FIRST_YEAR: Final = 1000
LAST_YEAR: Final = 9000
"""Later days have no day after them in every calendar that is asked."""
_TERMS: Final[dict[str, str]] = {"embeddings": "embedding", "rerank": "rerank", "moderation": "moderation"}
"""Type of a deployment -> term of everything that is asked of it; elsewhere it is the class of the tokens."""
UNITS: Final[dict[str, str]] = {
    "images_made": "Images", "images": "Images", "seconds": "Seconds", "characters": "Characters",
    "requests": "Requests", "searches": "Searches",
}  # fmt: skip
"""Part of a cost that is not counted in tokens -> its unit."""
_BY: Final = ("workload", "blueprint", "deployment", "site", "model", "part", "purpose", "tier", "estimated")
_CARRIED: Final = ("workload", "blueprint")
_FEW: Final = 8
"""Workloads that are asked for one after the other."""
_UNKNOWN: Final = Declared(0)
OWN: Final = "own"
"""Provider of what no provider bills by the call."""
Workflows = Mapping[int, Mapping[str, str]]
"""Blueprint -> workload -> its workflow"""


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
        """As many days before them."""
        count = (self.last - self.first).days + 1
        return Days(self.first - timedelta(days=count), self.first - timedelta(days=1))

    @property
    def month_before(self) -> Days:
        """Of the first days of a month the same ones of the month before; of a whole month all of that."""
        end = self.first - timedelta(days=1)
        first, whole = end.replace(day=1), (self.last + timedelta(days=1)).day == 1
        return Days(first, end if whole else min(end, first + (self.last - self.first)))

    @property
    def months(self) -> list[Days]:
        """The same days, those of each month together."""
        found, first = [], self.first
        while first <= self.last:
            last = min(self.last, next_first(first) - timedelta(days=1))
            found.append(Days(first, last))
            first = last + timedelta(days=1)
        return found


def days_of(first: date | None, last: date | None, today: date) -> Days:
    """What was asked for; left out: this month up to today. Raises `Invalid` (`days_invalid`)."""
    last = today if last is None else last
    first = last.replace(day=1) if first is None else first
    if last < first or (last - first).days > LONGEST or first.year < FIRST_YEAR or last.year > LAST_YEAR:
        raise Invalid(
            f"{first} to {last} are not a valid period, or too long",
            code="days_invalid",
            hint=f"Name a first and a last day, at most {LONGEST} days apart, of {FIRST_YEAR} to {LAST_YEAR}.",
        )
    return Days(first, last)


def book(conn: Connection[Any], days: Days, today: date, team: str | None = None, *, apart: bool = True) -> list[Line]:
    """Every line; of what calls cost those of one team, where said, and, unless `apart`, of all deployments together.
    Declared costs of days that have not come are left out."""
    return measured(conn, days, team, apart=apart) + _declared(conn, days, today)


def carried(conn: Connection[Any], days: Days, today: date) -> list[Line]:
    """As `book`, for whoever asks what each team or workload carries and not for what: a line of all that calls of a
    workload cost, of which there are a hundredth as many."""
    wanted = cost_use.wanted(days.first, days.last)
    rows = rollup_store.parts_by(conn, _CARRIED, wanted)
    carriers = _Carriers(conn, wanted)
    carriers.know(rows)
    found = [
        Line(term="", workload=row["workload"], team=carriers.team(row), amount=amount, basis="measured", rule="",
             source="ledger")
        for row in rows
        if (amount := from_decimal(row["cost_usd"]))
    ]  # fmt: skip
    return found + _declared(conn, days, today)


def _declared(conn: Connection[Any], days: Days, today: date) -> list[Line]:
    return divided(conn, Days(days.first, min(days.last, today))) if days.first <= today else []


def divided(conn: Connection[Any], days: Days) -> list[Line]:
    """What is declared beside the calls, each day by the rules of the blueprint that was in force on it, and look-ups
    by meaning."""
    in_force = cost_rules.on(conn, days.first, days.last)
    return allocated(cost_use.days(conn, in_force, days.first, days.last))


def measured(conn: Connection[Any], days: Days, team: str | None = None, *, apart: bool = True) -> list[Line]:
    """What attempts cost, by part of the cost, workload and deployment, as the blueprint priced them that they ran
    under; whose team carries them, too; of all teams or of one. What the gateway itself asked, such as the judge of a
    guardrail, is a term of its own (`ledger.model.PURPOSES`), and in no other. Unless `apart`, a line is of all
    deployments, without rule and source: of 2,000 workloads that are thousands of lines instead of hundreds of
    thousands."""
    wanted = cost_use.wanted(days.first, days.last)
    carriers = _Carriers(conn, wanted)
    found: dict[Line, _Sum] = {}
    with conn.transaction():  # in which lots are read
        for asked in [wanted] if team is None else _of_team(conn, wanted, carriers, team):
            for rows in rollup_store.parts_in_lots(conn, _BY, asked):
                carriers.know(rows)
                for row in rows:
                    amount = from_decimal(row["cost_usd"])
                    if row["part"] == "attempt" or not amount or team not in (None, carrier := carriers.team(row)):
                        continue
                    made = _line if apart else _sum_line
                    mine = found.setdefault(made(row, carriers.under(row), carrier), _Sum())
                    mine.amount += amount
                    mine.count += int(row["count"])
                    mine.blueprints |= {row["blueprint"]} if row["blueprint"] else set()
    return [
        replace(
            line,
            amount=mine.amount,
            quantity=mine.count,
            unit=line.unit if mine.count else "",
            blueprints=tuple(sorted(mine.blueprints)),
        )
        for line, mine in found.items()
    ]


@dataclass(slots=True)
class _Sum:
    amount: int = 0
    count: int = 0
    blueprints: set[int] = field(default_factory=set)


def _line(row: dict[str, Any], under: Declared, team: str) -> Line:
    """Without its amount and count."""
    return Line(
        term=_term(row, under),
        workload=row["workload"],
        team=team,
        amount=0,
        basis=_basis(row),
        rule="the most it can have cost" if row["part"] == "bound" else _priced(row),
        source=under.prices.get(row["deployment"], "ledger"),
        deployment=row["deployment"],
        site=row["site"],
        model=row["model"],
        unit=UNITS.get(row["part"], "Tokens"),
        tier=row["tier"],
    )


def _sum_line(row: dict[str, Any], under: Declared, team: str) -> Line:
    """The same of all deployments."""
    return Line(
        term=_term(row, under), workload=row["workload"], team=team, amount=0, basis=_basis(row), rule="", source=""
    )


def _term(row: dict[str, Any], under: Declared) -> str:
    return row["purpose"] or term_of(under.kinds.get(row["deployment"], ""), str(row["part"]))


def _basis(row: dict[str, Any]) -> Basis:
    return "estimated" if row["part"] == "bound" or row["estimated"] else "measured"


def term_of(kind: str, part: str) -> str:
    """What a part of the cost of an attempt at a deployment of some type is called."""
    return _TERMS.get(kind, part)


class _Carriers:
    """Which team carries a row of the ledger, and the blueprint that it ran under: each is read once."""

    def __init__(self, conn: Connection[Any], wanted: dict[str, Any]) -> None:
        self._conn, self._wanted = conn, wanted
        self._declared: dict[int, Declared] = {}
        self._told: dict[tuple[str, int], str] | None = None

    def know(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Read the blueprints of these rows."""
        if numbers := {row["blueprint"] for row in rows} - self._declared.keys():
            found = cost_rules.by_number(self._conn, numbers)
            self._declared |= {number: found.get(number, _UNKNOWN) for number in numbers}

    def under(self, row: Mapping[str, Any]) -> Declared:
        return self._declared[row["blueprint"]]

    def team(self, row: Mapping[str, Any]) -> str:
        """As its blueprint says, else as its calls tell; empty: none."""
        if team := self.under(row).teams.get(row["workload"]):
            return team
        if self._told is None:
            self._told = _told(self._conn, self._wanted)
        return self._told.get((row["workload"], row["blueprint"]), "")


def _of_team(conn: Connection[Any], wanted: dict[str, Any], carriers: _Carriers, team: str) -> Iterable[dict[str, Any]]:
    """What to ask for the lines of one team: for each of its workloads, where they are few."""
    rows = rollup_store.parts_by(conn, _CARRIED, wanted)
    carriers.know(rows)
    names = sorted({row["workload"] for row in rows if carriers.team(row) == team})
    return [{**wanted, "workload": name} for name in names] if len(names) <= _FEW else [wanted]


def _told(conn: Connection[Any], wanted: dict[str, Any]) -> dict[tuple[str, int], str]:
    """(workload, blueprint) -> the team that calls tell, where a blueprint does not."""
    rows = rollup_store.calls_by(conn, ["workload", "blueprint", "team"], wanted)
    return {(row["workload"], row["blueprint"]): row["team"] for row in rows if row["team"]}


def _priced(row: dict[str, Any]) -> str:
    tier = f" ({row['tier']})" if row["tier"] else ""
    return f"{row['part']} x price of {row['deployment']}{tier}"


def workflows(conn: Connection[Any], lines: Sequence[Line]) -> Workflows:
    """As the blueprints of these lines declare, so that a workload that was moved or removed since keeps its own."""
    return cost_rules.workflows(conn, {_newest(line) for line in lines})


def cost_centers(conn: Connection[Any], lines: Sequence[Line]) -> dict[str, str]:
    """Team -> where finance books what it carries, as the newest blueprint of its lines declares."""
    newest: dict[str, int] = {}
    for line in lines:
        newest[line.team] = max(newest.get(line.team, 0), _newest(line))
    declared = cost_rules.by_number(conn, newest.values())
    return {team: declared.get(number, _UNKNOWN).cost_centers.get(team, "") for team, number in newest.items()}


def summed(lines: Sequence[Line], by: str, workflows: Workflows) -> list[dict[str, Any]]:
    """[{key, cost_usd, share, quantity, basis: {basis: cost_usd}}], the dearest first. Raises `Invalid`."""
    if by not in DIMENSIONS:
        raise Invalid(
            f"costs are not summed by '{by[:40]}'",
            code="dimension_unknown",
            hint=f"Use {', '.join(DIMENSIONS)}, feature, prompt, source, person, tag.",
        )
    return added((_key(line, by, workflows), line.basis, line.amount, line.quantity) for line in lines)


def added(parts: Iterable[tuple[str, str, int, int]]) -> list[dict[str, Any]]:
    """As `summed`, of (key, basis, picodollars, quantity)."""
    by_basis: dict[str, dict[str, int]] = {}
    sums: dict[str, int] = {}
    counts: dict[str, int] = {}
    for key, basis, amount, quantity in parts:
        if (mine := by_basis.get(basis)) is None:
            mine = by_basis[basis] = {}
        mine[key] = mine.get(key, 0) + amount
        sums[key] = sums.get(key, 0) + amount
        if quantity:
            counts[key] = counts.get(key, 0) + quantity
    whole = sum(sums.values())
    bases = sorted(by_basis.items())
    return [
        {
            "key": key, "cost_usd": format_usd(amount), "share": round(amount / whole, 6) if whole else 0.0,
            "quantity": counts.get(key, 0), "basis": {name: format_usd(of[key]) for name, of in bases if key in of},
        }
        for key, amount in sorted(sums.items(), key=lambda item: (-item[1], item[0]))
    ]  # fmt: skip


def line_json(line: Line) -> dict[str, Any]:
    """A line as the API has it."""
    return {
        "term": line.term, "workload": line.workload, "team": line.team, "cost_usd": format_usd(line.amount),
        "basis": line.basis, "rule": line.rule, "source": line.source, "deployment": line.deployment,
        "site": line.site, "model": line.model, "quantity": line.quantity, "tier": line.tier,
        "allocation": line.allocation, "blueprints": list(line.blueprints),
    }  # fmt: skip


def versions(lines: Iterable[Line]) -> list[int]:
    """Numbers of the blueprints by whose prices and rules they are."""
    return sorted({number for line in lines for number in line.blueprints})


def _newest(line: Line) -> int:
    """0: none is told."""
    return max(line.blueprints, default=0)


def _key(line: Line, by: str, workflows: Workflows) -> str:
    if by == "workflow":
        return workflows.get(_newest(line), {}).get(line.workload, "")
    if by == "provider":
        provider, known, _ = line.model.partition("/")
        return provider if known else OWN if line.allocation or not line.deployment else line.site or line.deployment
    return str(getattr(line, by))
