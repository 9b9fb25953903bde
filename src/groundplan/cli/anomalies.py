"""`groundplan cost anomalies`: unusual spending of workloads, and callers in a loop."""

from __future__ import annotations

from typing import Annotated

import typer

from groundplan.cli.cost_ahead import CostOptions
from groundplan.cli.output import emit, table

ROWS_SHOWN = 40


def anomalies(
    context: typer.Context,
    common: CostOptions,
    closed: Annotated[bool, typer.Option("--closed", help="Include anomalies that have ended.")] = False,
) -> None:
    """Show what is unusual in the spending of each workload now, with its cause, and callers in a loop that a budget
    stopped."""
    client, as_json = common.connect(context)
    value = client.get("/api/cost/anomalies", closed=str(closed).lower())
    rows = [
        (row["severity"], row["at"][:16].replace("T", " "), "over" if row["closed_at"] else "now", row["message"],
         row["hint"])
        for row in value["anomalies"][:ROWS_SHOWN]
    ]  # fmt: skip
    text = table(("severity", "since, UTC", "", "what", "what to do"), rows)
    emit(value, as_json, text if rows else "Nothing is unusual.")
