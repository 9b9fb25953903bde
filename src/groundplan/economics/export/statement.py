"""The monthly statement of a team (showback or chargeback): its workloads term by term, exactly. Pure."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from types import MappingProxyType
from typing import Final

from groundplan.core.money import format_usd
from groundplan.economics.allocate.model import IDLE, NOBODY, Line
from groundplan.economics.export.focus import harmless

UNCARRIED: Final = "not carried by a team"
"""Team of costs that no workload carries, and of workloads without a team."""
HEAD: Final = (
    "team", "from", "to", "kind", "workload", "term", "basis", "quantity", "cost_usd", "rule", "source", "cost_center",
)  # fmt: skip
"""Columns of a statement's file."""


@dataclass(frozen=True, slots=True)
class Statement:
    """A statement. `charged`: whether it is to be paid (chargeback)."""

    team: str
    first: date
    last: date
    charged: bool
    lines: tuple[Line, ...]
    total: int
    previous: int | None
    """picodollars of the same days of the previous month"""
    over: bool = True
    """Whether its last day is over; until then amounts grow."""
    cost_center: str = ""
    """The team's cost center, if declared."""

    @property
    def kind(self) -> str:
        """`chargeback` or `showback`"""
        return "chargeback" if self.charged else "showback"

    @property
    def blueprints(self) -> tuple[int, ...]:
        """Numbers of the blueprints whose prices and rules apply to the lines, in order."""
        return tuple(sorted({number for line in self.lines for number in line.blueprints}))

    def by_workload(self) -> list[tuple[str, int]]:
        return _summed((line.workload or "idle and uncarried", line.amount) for line in self.lines)

    def by_term(self) -> list[tuple[str, int]]:
        return _summed((line.term, line.amount) for line in self.lines)

    def by_basis(self) -> list[tuple[str, int]]:
        return _summed((line.basis, line.amount) for line in self.lines)


def statements(
    lines: Sequence[Line], first: date, last: date, *, charged: bool = False, previous: Sequence[Line] | None = None,
    over: bool = True, centers: Mapping[str, str] = MappingProxyType({}),
) -> list[Statement]:  # fmt: skip
    """One for each team, and one for what no team carries: together exactly all lines. `over`: whether the last day
    is. `centers`: team -> its cost center."""
    before = dict(_summed((_team(line), line.amount) for line in previous)) if previous is not None else None
    by_team: dict[str, list[Line]] = {}
    for line in lines:
        by_team.setdefault(_team(line), []).append(line)
    return [
        Statement(
            team, first, last, charged and team != UNCARRIED, tuple(mine), sum(line.amount for line in mine),
            None if before is None else before.get(team, 0), over, centers.get(team, ""),
        )
        for team, mine in sorted(by_team.items(), key=lambda item: (item[0] == UNCARRIED, item[0]))
    ]  # fmt: skip


def statement_csv(statement: Statement) -> str:
    """One row for each line and a last one with the total."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(HEAD)
    start = (harmless(statement.team), statement.first.isoformat(), statement.last.isoformat(), statement.kind)
    for line in statement.lines:
        row = (
            line.workload,
            line.term,
            line.basis,
            line.quantity or "",
            format_usd(line.amount),
            line.rule,
            line.source,
            statement.cost_center,
        )
        writer.writerow([*start, *(harmless(str(value)) for value in row)])
    writer.writerow([*start, "total", "", "", "", format_usd(statement.total), "", "", harmless(statement.cost_center)])
    return out.getvalue()


def _team(line: Line) -> str:
    return line.team if line.team and line.workload != NOBODY and line.term != IDLE else UNCARRIED


def _summed(pairs: Iterable[tuple[str, int]]) -> list[tuple[str, int]]:
    """The dearest first."""
    found: dict[str, int] = {}
    for name, amount in pairs:
        found[name] = found.get(name, 0) + amount
    return sorted(found.items(), key=lambda item: (-item[1], item[0]))
