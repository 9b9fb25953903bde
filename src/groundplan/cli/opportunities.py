"""`groundplan cost opportunities`: savings levers, the largest first."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from groundplan.cli.client import ControlClient
from groundplan.cli.options import HomeOption, JsonOption, WorkloadOption
from groundplan.cli.output import emit, table


def opportunities(
    context: typer.Context,
    days: Annotated[int, typer.Option("--days", min=1, max=92, help="Days to look back.")] = 30,
    workload: WorkloadOption = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Rank savings by what they would save a month at most, with what still has to be proven."""
    before: tuple[Path | None, bool] = context.obj or (None, False)
    query = {"days": str(days)} | ({"workload": workload} if workload else {})
    value = ControlClient.connect(home or before[0]).get("/api/opportunities", **query)
    rows = [
        (
            ", ".join(lever["workloads"]) or "the company",
            lever["lever"],
            f"${float(lever['saves_usd']):,.2f}",
            lever["effort"],
            lever["what"],
            _evidence(lever),
            lever["proof"],
        )
        for lever in value["opportunities"]
    ]
    headings = ("workload", "lever", "a month, at most", "effort", "what", "evidence", "to be proven")
    together = f"${float(value['together_usd']):,.2f}"
    text = f"{table(headings, rows)}\nAt most {together} a month together, each applied to what the others leave."
    nothing = f"No savings found in the calls of {value['days']} days."
    emit(value, as_json or before[1], text if rows else nothing)


def _evidence(lever: dict[str, Any]) -> str:
    """The evidence of a lever, with the budget that it frees: a lever may save nothing and still allow more calls."""
    frees = float(lever["frees_usd"])
    more = f"; ${frees:,.4f} of a budget is reserved for each call and never spent" if frees else ""
    return f"{lever['evidence']}{more}"
