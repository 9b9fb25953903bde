"""`groundplan cost`: what calls have cost, to the picodollar."""

from __future__ import annotations

from groundplan.cli.client import ControlClient
from groundplan.cli.options import HomeOption, JsonOption
from groundplan.cli.output import emit, table


def cost(home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Total and by workload. Open reservations are calls in flight, or of a crash that is not recovered yet."""
    value = ControlClient.connect(home).get("/api/cost")
    rows = [(row["workload"], row["calls"], f"${row['total_usd']}") for row in value["by_workload"]]
    rows.append(("total", value["calls"], f"${value['total_usd']}"))
    text = table(("workload", "calls", "cost"), rows)
    if value["open_reservations"]:
        text += f"\n{value['open_reservations']} open reservations are not settled yet"
    emit(value, as_json, text)
