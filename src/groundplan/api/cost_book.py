"""The book of costs of some days: what the ledger measured, term by term, and declared costs divided among workloads.

Assembled from ledger, blueprint and measured quantities; the rules are economics'. The measured lines sum exactly to
what attempts cost in those days.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, time, timedelta
from typing import Any, Final

from psycopg import Connection

from groundplan.api import cost_store, kept_look
from groundplan.api.served import current_or_none
from groundplan.blueprint.model import Blueprint, Semantic
from groundplan.core.errors import Invalid
from groundplan.core.money import format_usd, from_decimal
from groundplan.economics.allocate.divide import divide, in_force
from groundplan.economics.allocate.kept import mean_gigabytes
from groundplan.economics.allocate.lookup import LookedUp, apart
from groundplan.economics.allocate.model import Basis, Line, Use
from groundplan.economics.prices.currency import rate_on, to_usd
from groundplan.ledger import kept_store, rollup_store, semantic_store
from groundplan.ledger.kept_store import Kind

DIMENSIONS: Final = ("term", "workload", "workflow", "team", "provider", "site", "deployment", "model", "tier", "basis")
"""What lines can be summed by; `cost_spread` has what only calls know."""
LONGEST: Final = 3660
LAST_YEAR: Final = 9000
"""Later days have no day after them in every calendar that is asked."""
REVIEW_HOUR: Final = "review hour"
UNITS: Final[dict[str, str]] = {
    "images_made": "Images", "images": "Images", "seconds": "Seconds", "characters": "Characters",
    "requests": "Requests", "searches": "Searches",
}  # fmt: skip
"""Part of a cost that is not counted in tokens -> its unit."""
_KEPT: Final[dict[str, Kind]] = {"gigabyte of documents": "documents", "gigabyte of content": "content"}
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
    def months(self) -> list[Days]:
        """The same days, those of each month together."""
        found, first = [], self.first
        while first <= self.last:
            last = min(self.last, (first.replace(day=1) + timedelta(days=32)).replace(day=1) - timedelta(days=1))
            found.append(Days(first, last))
            first = last + timedelta(days=1)
        return found

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
    if last < first or (last - first).days > LONGEST or last.year > LAST_YEAR:
        raise Invalid(
            f"{first} to {last} are no days in order, or too many",
            code="days_invalid",
            hint=f"Name a first and a last day, at most {LONGEST} days apart, before the year {LAST_YEAR}.",
        )
    return Days(first, last)


def book(conn: Connection[Any], days: Days, today: date) -> list[Line]:
    """Every line. Declared costs of days that have not come are left out."""
    blueprint = current_or_none(conn)
    lines = measured(conn, days, blueprint)
    if blueprint is not None and blueprint.allocations and days.first <= today:
        lines += _allocated(conn, Days(days.first, min(days.last, today)), blueprint)
    return apart(lines, _looked_up(conn, days, blueprint))


def _allocated(conn: Connection[Any], days: Days, blueprint: Blueprint) -> list[Line]:
    """Every rule's lines, by what was done on the days on which it holds, and on no others: so a rate that follows
    another one counts nothing twice."""
    uses: dict[Days, list[Use]] = {}
    sites = {place.name: place.site for place in blueprint.deployments}
    found: list[Line] = []
    for rule in blueprint.allocations:
        first, last = in_force(rule, days.first, days.last)
        if first > last:
            continue
        span = Days(first, last)
        if span not in uses:
            uses[span] = _uses(conn, span, blueprint)
        found += divide(rule, uses[span], span.first, span.last, blueprint.currencies)
    return [replace(line, site=line.site or sites.get(line.deployment, "")) for line in found]


def _looked_up(conn: Connection[Any], days: Days, blueprint: Blueprint | None) -> dict[str, LookedUp]:
    """workload -> what it looked up by meaning, at the price that it declares for the processor."""
    served = {workload.name: workload for workload in blueprint.workloads} if blueprint else {}
    found = {}
    for row in semantic_store.done(conn, days.first, days.last):
        doc = served.get(row["workload"])
        rule = (doc.cache.semantic if doc and doc.cache else None) or Semantic()
        team = (doc.team if doc else None) or ""
        found[row["workload"]] = LookedUp(row["workload"], row["spent_us"], rule.hour, team)
    return found


def wage(blueprint: Blueprint, day: date) -> int | None:
    """Picodollars of an hour of review on that day, where an allocation says it. Raises `Invalid` without a rate of its
    currency."""
    for rule in blueprint.allocations:
        first, last = in_force(rule, day, day)
        if rule.per == REVIEW_HOUR and rule.rate is not None and first <= last:
            return to_usd(rule.rate, rate_on(blueprint.currencies, rule.currency, day))
    return None


def measured(conn: Connection[Any], days: Days, blueprint: Blueprint | None) -> list[Line]:
    """What attempts cost, by part of the cost, workload and deployment. What the gateway itself asked, such as the
    judge of a guardrail, is a term of its own (`ledger.model.PURPOSES`), and in no other."""
    by = ["workload", "deployment", "site", "model", "part", "purpose", "tier", "estimated"]
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
                term=row["purpose"] or _TERMS.get(kinds.get(row["deployment"], ""), str(row["part"])),
                workload=row["workload"],
                team=teams.get(row["workload"], ""),
                amount=amount,
                basis=basis,
                rule="the most it can have cost" if bound else _priced(row),
                source=sources.get(row["deployment"], "ledger"),
                deployment=row["deployment"],
                site=row["site"],
                model=row["model"],
                quantity=int(row["count"]),
                unit=UNITS.get(row["part"], "Tokens") if int(row["count"]) else "",
                tier=row["tier"],
            )
        )
    return found


def _priced(row: dict[str, Any]) -> str:
    tier = f" ({row['tier']})" if row["tier"] else ""
    return f"{row['part']} x price of {row['deployment']}{tier}"


def summed(lines: Sequence[Line], by: str, workflows: dict[str, str]) -> list[dict[str, Any]]:
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
        "site": line.site, "model": line.model, "quantity": line.quantity, "tier": line.tier,
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
    there: dict[str, dict[str, int]] = {}
    written: dict[str, dict[str, int]] = {}
    for row in rollup_store.calls_by(conn, ["workload", "deployment", "site"], _wanted(days)):
        tokens = int(row["prompt_tokens"] + row["completion_tokens"])
        for mine, name in ((made, row["deployment"]), (there, row["site"])):
            each = mine.setdefault(row["workload"], {})
            each[name] = each.get(name, 0) + tokens
        answers = written.setdefault(row["workload"], {})
        for name in ("company", f"deployment/{row['deployment']}", f"site/{row['site']}"):
            answers[name] = answers.get(name, 0) + int(row["completion_tokens"])
    units, nearest = _units(conn, days, blueprint)
    names = sorted({*sums, *(workload.name for workload in blueprint.workloads)})
    return [
        Use(
            name,
            teams.get(name, ""),
            int(sums[name]["calls"] or 0) if name in sums else 0,
            from_decimal(sums[name]["cost_usd"]) if name in sums else 0,
            int(sums[name]["prompt_tokens"] + sums[name]["completion_tokens"]) if name in sums else 0,
            made.get(name, {}),
            there.get(name, {}),
            {unit: values[name] for unit, values in units.items() if name in values},
            nearest,
            written.get(name, {}),
        )
        for name in names
    ]


def _units(
    conn: Connection[Any], days: Days, blueprint: Blueprint
) -> tuple[dict[str, dict[str, float]], frozenset[str]]:
    """(unit that a rule is paid by -> workload -> how many; units of which some days have no sample of their own)."""
    asked = {rule.per for rule in blueprint.allocations if rule.rate is not None}
    found: dict[str, dict[str, float]] = {}
    nearest: set[str] = set()
    if REVIEW_HOUR in asked:
        found[REVIEW_HOUR] = cost_store.review_hours(conn, days.since, days.until)
    for unit, kind in _KEPT.items():
        if unit in asked:
            samples = kept_store.samples(conn, kind, days.first, days.last) or _now(conn, days, blueprint, kind)
            found[unit], whole = mean_gigabytes(samples, days.first, days.last)
            nearest |= set() if whole else {unit}
    return found, frozenset(nearest)


def _now(conn: Connection[Any], days: Days, blueprint: Blueprint, kind: Kind) -> dict[date, dict[str, int]]:
    """What is kept now, until the first sample is there."""
    kept = kept_look.documents(conn, blueprint) if kind == "documents" else kept_look.content(conn)
    found: dict[str, int] = {}
    for each in kept:
        found[each.workload] = found.get(each.workload, 0) + each.bytes
    return {days.last: found}


def _wanted(days: Days) -> dict[str, Any]:
    return {
        "since": days.since, "until": days.until, "workload": None, "status": None, "deployment": None, "demo": None,
    }  # fmt: skip
