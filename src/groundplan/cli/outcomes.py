"""`groundplan cost outcomes`: costs of accepted outcomes and resolved tickets; `import` reads the results from a ticket
system's export."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from groundplan.cli.client import ControlClient
from groundplan.cli.command_group import command_group
from groundplan.cli.cost_ahead import CostOptions, DayOptions
from groundplan.cli.files import read_upload
from groundplan.cli.option_groups import grouped
from groundplan.cli.options import HomeOption, JsonOption
from groundplan.cli.output import emit, table, usd

REFUSED = 1
"""Exit code if a line of the file was refused."""
app = command_group("What accepted outcomes and resolved tickets cost.", runs_alone=True)


def outcomes(context: typer.Context, span: DayOptions, common: CostOptions) -> None:
    """Show by workload what each accepted outcome costs in full, and what the calls of a resolved ticket cost."""
    before: tuple[Path | None, bool] = context.obj or (None, False)
    if context.invoked_subcommand is not None:
        context.obj = (common.home or before[0], common.as_json or before[1])
        return
    client, as_json = common.connect(context)
    value = {**client.get("/api/cost/outcomes", **span.query()), **client.get("/api/cost/tickets", **span.query())}
    emit(value, as_json, format_outcomes(value))


def format_outcomes(value: dict[str, Any]) -> str:
    """Outcomes, workflows and tickets as tables."""
    if not value["outcomes"]:
        return "No outcome was reported: POST /api/outcomes, or `groundplan cost outcomes import FILE`."
    rows = [
        (row["workload"], row["reported"], row["accepted"], usd(row["cost_usd"]), usd(row["cost_per_accepted_usd"]),
         usd(row["baseline_usd"]), f"{usd(row['may_cost_usd'])}{'' if row['kept'] is not False else ', above it'}",
         *_worth(row))
        for row in value["outcomes"]
    ]  # fmt: skip
    heads = ("workload", "reported", "accepted", "full cost", "per accepted", "before, per case")
    text = f"{value['from']} to {value['to']}\n" + table((*heads, "may cost", *_WORTH), rows)
    if several := [row for row in value["workflows"] if len(row["workloads"]) > 1]:
        flows = [
            (row["workflow"], ", ".join(row["workloads"]), row["reported"], row["accepted"], usd(row["cost_usd"]),
             usd(row["cost_per_accepted_usd"]), usd(row["baseline_usd"]), *_worth(row))
            for row in several
        ]  # fmt: skip
        text += "\n\n" + table(("workflow", "its workloads", *heads[1:], *_WORTH), flows)
    if value["tickets"]:
        tickets = [
            (row["workload"], row["resolved"], row["unresolved"], row["calls"], usd(row["cost_usd"]),
             usd(row["cost_per_resolved_usd"]))
            for row in value["tickets"]
        ]  # fmt: skip
        heads = ("workload", "tickets resolved", "not", "their calls", "cost", "per resolved")
        text += "\n\n" + table(heads, tickets)
    return text


_WORTH = ("value", "saved", "returned per dollar")


def _worth(row: dict[str, Any]) -> tuple[str, str, str]:
    """Cells with the reported value, the saving compared with the baseline, and the return per dollar."""
    returned = "-" if row["returned"] is None else f"{row['returned']:.2f}"
    return usd(row["value_usd"]), usd(row["saved_usd"]), returned


def imported(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Export of a ticket system, as CSV or JSON.")],
    columns: Annotated[
        list[str] | None, typer.Option("--columns", help="Column mapping ROLE=NAME, such as ticket=ID. Repeatable.")
    ] = None,
    state: Annotated[
        list[str] | None,
        typer.Option("--state", help="Meaning of a status: STATUS=resolved, unresolved or open. Repeatable."),
    ] = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Import the results of tickets as outcomes of the calls that worked on them; repeated lines count once. Exits with
    1 if a line was refused: correct it and import the file again."""
    before: tuple[Path | None, bool] = context.obj or (None, False)
    query = [("name", file.name[:200]), *(("columns", option) for option in columns or [])]
    query += [("state", option) for option in state or []]
    client = ControlClient.connect(home or before[0])
    sent = read_upload(file, "tickets", hint="Name a CSV or JSON file.", smaller="Export fewer days at once.")
    value = client.post_file("/api/outcomes/import", sent, query)
    emit(value, as_json or before[1], import_summary(value))
    if value["refused_in_all"]:
        raise typer.Exit(REFUSED)


def import_summary(value: dict[str, Any]) -> str:
    """The summary of an import, with each refused line."""
    lines = [f"{row['where']}: {row['message']} [{row['code']}]\n    {row['hint']}" for row in value["refused"]]
    omitted = value["refused_in_all"] - len(value["refused"])
    lines += [f"{omitted} more lines were refused; --json lists {len(value['refused'])}"] if omitted else []
    columns = ", ".join(f"{role}={name}" for role, name in value["columns"].items())
    lines += [
        f"columns: {columns}",
        f"{value['lines']} lines: {value['new']} new, {value['same']} known before, {value['waiting']} still open,"
        f" {value['others']} of tickets that no call worked on, {value['refused_in_all']} refused",
    ]
    return "\n".join(lines)


app.callback(invoke_without_command=True)(grouped(outcomes))
app.command("import")(imported)
