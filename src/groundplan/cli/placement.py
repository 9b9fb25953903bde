"""`groundplan placement`: where each workload runs and why, and what would change it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from groundplan.cli.client import ControlClient
from groundplan.cli.command_group import command_group
from groundplan.cli.options import HomeOption, JsonOption
from groundplan.cli.output import emit, pending_text, table
from groundplan.core.errors import Conflict

app = command_group("Where each workload runs, why, and what would change it.")
Workload = Annotated[str, typer.Argument(metavar="WORKLOAD", help="Workload.")]


@app.command()
def show(home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Show the plan of the whole company: sites, prices, proven gap, comparisons."""
    value = ControlClient.connect(home).get("/api/placement")
    rows = [
        (row["workload"], row["place"]["site"], _configuration_text(row["place"]), row["place"]["burst"] or "-",
         row["place"]["fallback"] or "-", f"${row['usd_month']:,.2f}")
        for row in value["workloads"]
    ]  # fmt: skip
    head = ("workload", "site", "on", "bursts to", "falls back to", "a month")
    emit(value, as_json, "\n".join([table(head, rows), "", *value["words"], *value["notes"]]))


def _configuration_text(deployment: dict[str, Any]) -> str:
    """The configuration of a deployment, marked if it is still to be built."""
    return f"to build: {deployment['config']}" if deployment["kind"] == "build" else str(deployment["config"])


@app.command("what-if")
def what_if(
    sets: Annotated[
        list[str] | None,
        typer.Option(
            "--set", help="Assumption, such as sites.NAME.power_price=0.4 or workloads.NAME.peak=5. Repeatable."
        ),
    ] = None,
    drop_site: Annotated[
        list[str] | None, typer.Option("--drop-site", help="Plan without this site. Repeatable.")
    ] = None,
    demand: Annotated[
        list[str] | None, typer.Option("--demand", help="Demand, such as WORKLOAD=x3 or all=+20%. Repeatable.")
    ] = None,
    price: Annotated[
        list[str] | None,
        typer.Option("--price", help="Price change, such as DEPLOYMENT=-30%; also MODEL or SITE. Repeatable."),
    ] = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Compare the plan with one under other assumptions, and show the decisions that flip. Changes nothing."""
    changes = {"set": sets or [], "drop_site": drop_site or [], "demand": demand or [], "price": price or []}
    value = ControlClient.connect(home).post("/api/placement/what-if", changes)
    flipped = {flip["workload"] for flip in value["flips"]}
    rows = [
        (row["workload"], _usd(row["before_usd_month"]), _usd(row["after_usd_month"]),
         "flips" if row["workload"] in flipped else "")
        for row in value["workloads"]
    ]  # fmt: skip
    emit(value, as_json, "\n".join([table(("workload", "now", "then", ""), rows), "", *value["words"]]))


def _usd(value: float | None) -> str:
    return "nowhere" if value is None else f"${value:,.2f}"


@app.command()
def stress(
    futures: Annotated[int, typer.Option("--futures", help="Number of sampled futures.")] = 1000,
    seed: Annotated[int, typer.Option("--seed", help="Seed; the same seed samples the same futures.")] = 0,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Evaluate the plan under sampled futures: cost, regret, availability, and a robust variant with its price."""
    value = ControlClient.connect(home).post("/api/placement/stress", {"futures": futures, "seed": seed})
    emit(value, as_json, "\n".join(value["words"]))


@app.command()
def ahead(
    months: Annotated[int, typer.Option("--months", help="Months to plan, at most 36.")] = 12,
    step: Annotated[int, typer.Option("--step", help="Length of a period in months; must divide --months.")] = 3,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Plan the coming months at declared growth: who moves when, what fills up, what to commit to."""
    value = ControlClient.connect(home).get(f"/api/placement/ahead?months={months}&step={step}")
    rows = [
        (f"{row['from'] + 1} to {row['to']}", f"${row['usd_month']:,.2f}", len(row["moves"]),
         ", ".join(f"{n} {name}" for name, n in row["to_rent"].items()) or "-", ", ".join(row["full"]) or "-")
        for row in value["periods"]
    ]  # fmt: skip
    head = ("months", "a month", "moves", "to rent", "nearly full")
    emit(value, as_json, "\n".join([table(head, rows), "", *value["words"]]))


@app.command()
def pilot(workload: Workload, home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Project a pilot to ten and a hundred times its calls, and show what breaks first."""
    value = ControlClient.connect(home).get(f"/api/placement/pilot/{workload}")
    emit(value, as_json, "\n".join(value["words"]))


@app.command()
def drift(home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Compare the plan with the facts, figure by figure, and re-plan where something has drifted."""
    value = ControlClient.connect(home).get("/api/placement/drift")
    rows = [
        (row["workload"], row["name"], f"{row['factor']:.2f}", len(row["points"]), "drifts" if row["drifts"] else "")
        for row in value["charts"]
    ]
    head = ("workload", "figure", "times the plan", "days", "")
    lines = [table(head, rows) if rows else "there is no plan to compare with yet"]
    if value["replan"]:
        lines += ["", "Re-planned at the observed calls:", *value["replan"]["words"]]
    emit(value, as_json, "\n".join(lines))


@app.command()
def replan(
    reason: Annotated[str, typer.Option("--reason", "-m", help="Reason, kept in the history and the audit log.")] = (
        "re-planned at the observed calls"
    ),
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Release the plan at the observed numbers of calls, where it has drifted. Parts that need an approval become
    pending."""
    value = ControlClient.connect(home).post("/api/placement/replan", {"reason": reason})
    lines = [f"{name}: {calls:,} calls a day" for name, calls in value["calls_day"].items()]
    lines += [*value["words"], "", *_released(value["released"]), "", "In the workspace:", value["difference"]]
    emit(value, as_json, "\n".join(lines))


def _released(value: dict[str, Any]) -> list[str]:
    """The new blueprint, and the pending changes."""
    outcome = (
        f"blueprint {value['blueprint']} is served" if value.get("blueprint") else "what is served has not changed yet"
    )
    return [outcome, *(pending_text(pending) for pending in value["pending"])]


@app.command()
def serving(home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Compare the serving model with what was observed on own hardware: its error before and after own traffic."""
    value = ControlClient.connect(home).get("/api/placement/serving")
    rows = [
        (row["deployment"], row["hardware"], row["days"], f"{row['first_token_factor']:.2f}",
         f"{row['per_token_factor']:.2f}", _errors(row["error_before"]), _errors(row["error_after"]), row["basis"])
        for row in value["deployments"]
    ]  # fmt: skip
    head = ("deployment", "hardware", "days", "first token x", "per token x", "error before", "after", "basis")
    emit(value, as_json, table(head, rows) if rows else "no deployment on own hardware has had a day of calls yet")


def _errors(pair: list[float]) -> str:
    """The relative errors of the first token and of each further token."""
    return " / ".join(f"{100 * value:.0f} %" for value in pair)


@app.command()
def report(
    to: Annotated[Path, typer.Argument(metavar="FILE.html|FILE.pdf", help="New HTML or PDF file.")],
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write the plan with its charts and reasons as one self-contained HTML page, or as a PDF."""
    if to.exists():
        raise Conflict(f"{to} exists already", code="file_exists", hint="Name a new file.")
    path = "/api/placement/report.pdf" if to.suffix.lower() == ".pdf" else "/api/placement/report"
    page = ControlClient.connect(home).send("GET", path, raw=True)
    to.write_bytes(page)
    emit(
        {"file": str(to), "bytes": len(page)},
        as_json,
        f"{to} is written. It is self-contained and can be sent as it is.",
    )
