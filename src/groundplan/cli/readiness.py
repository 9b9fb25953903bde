"""`groundplan readiness`: the readiness of each workload in five areas, from evidence only."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from groundplan.cli.client import ControlClient
from groundplan.cli.options import HomeOption, JsonOption
from groundplan.cli.output import emit, table


def readiness(
    workload: Annotated[
        str | None, typer.Argument(help="Show one workload with every point and its next step.")
    ] = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show how ready each workload is, and what to do next."""
    value = ControlClient.connect(home).get("/api/readiness", workload=workload)
    emit(value, as_json, _workload_text(value["workloads"]) if workload else _overview_text(value["workloads"]))


def _overview_text(workloads: list[dict[str, Any]]) -> str:
    rows = [
        (w["workload"], *(area["score"] for area in w["areas"]), w["next_step"] or "-")
        for w in workloads
    ]  # fmt: skip
    head = ("workload", *(area["area"] for area in workloads[0]["areas"]), "next step") if workloads else ("workload",)
    return table(head, rows) if workloads else "no workload is declared yet"


def _workload_text(workloads: list[dict[str, Any]]) -> str:
    lines: list[str] = []
    for entry in workloads:
        for area in entry["areas"]:
            lines.append(f"{area['area']}: {area['score']}")
            for point in area["points"]:
                mark = "+" if point["evidence"] else " "
                detail = point["evidence"] or f"not measured yet; {point['next_step']}"
                lines.append(f"  {mark} {point['name']}: {detail}")
    return "\n".join(lines)
