"""`groundplan cost`: what calls have cost, to the picodollar, and `cost reconcile`: the comparison with a provider's
bill. `cost_ahead` has forecasts and the files for finance."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from groundplan.cli import anomalies, cost_ahead, opportunities, outcomes
from groundplan.cli.archive import archive
from groundplan.cli.client import ControlClient
from groundplan.cli.command_group import command_group
from groundplan.cli.files import read_upload
from groundplan.cli.option_groups import grouped
from groundplan.cli.options import HomeOption, JsonOption
from groundplan.cli.output import emit, table, usd
from groundplan.core.words import format_period, per_period, quantity

ROWS_SHOWN = 40
INCOMPLETE = 1
"""Exit code where not every line of a bill could be compared."""
app = command_group("What calls have cost, exactly.", runs_alone=True)


@app.callback(invoke_without_command=True)
def cost(context: typer.Context, home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Show the total cost, the cost by workload, and how far budgets and limits are used. Open reservations are calls
    in flight, or calls of a crash that is not recovered yet."""
    if context.invoked_subcommand is not None:
        context.obj = (home, as_json)
        return
    client = ControlClient.connect(home)
    used = client.get("/api/limits")
    value = {**client.get("/api/cost"), "limits": used["limits"]}
    rows = [(row["workload"], *_cost_cells(row)) for row in value["by_workload"]]
    rows.append(("total", *_cost_cells(value)))
    text = table(("workload", "calls", "cost", "cached", "saved by cache", "saved by providers' caches"), rows)
    text += f"\nsince the first call{cost_ahead.CALLS_ONLY_NOTE}"
    if value["by_meaning"]:
        text += "\n\n" + table(_SEMANTIC_HEAD, [_semantic_cells(row) for row in value["by_meaning"]])
    if value["open_reservations"]:
        text += f"\n{quantity(value['open_reservations'], 'open reservation')} not settled yet"
    if value["crashed_attempts"]:
        text += f"\n{quantity(value['crashed_attempts'], 'attempt')} cut off by a crash, counted at the upper bound"
    if used["budgets"]:
        text += "\n\n" + budgets_text(used["budgets"])
    if value["limits"]:
        text += "\n\n" + limits_text(value["limits"])
    emit(value, as_json, text)


def _cost_cells(row: dict[str, Any]) -> tuple[Any, ...]:
    return (
        row["calls"], usd(row["total_usd"]), row["cached"], usd(row["saved_usd"]), usd(row["prefix_saved_usd"]),
    )  # fmt: skip


_SEMANTIC_HEAD = (
    "semantic cache",
    "looked up",
    "hits",
    "wrong, estimated",
    "saved",
    "look-ups",
    "wrong answers",
    "net",
)


def _semantic_cells(row: dict[str, Any]) -> tuple[Any, ...]:
    amounts = (usd(row[name]) for name in ("saved_usd", "lookups_usd", "wrong_usd", "net_usd"))
    return (row["workload"], row["looked"], row["given"], row["wrong_answers"], *amounts)


def budgets_text(rows: list[dict[str, Any]]) -> str:
    """Table of budgets in the given order, with the amount spent in the present period."""
    cells = []
    for row in rows[:ROWS_SHOWN]:
        suffix = " (crossed)" if row["share"] > 1 else " (near)" if row["near"] else ""
        kind = row["title"] if row["hard"] else f"{row['title']} (soft)"
        share = f"{row['share']:.0%}{suffix}"
        cells.append(
            (kind, row["covers"], format_period(row["period"]), usd(row["spent_usd"]), usd(row["limit_usd"]), share)
        )
    return table(("budget", "covers", "period", "spent", "of", "used"), cells) + _hidden_rows_note(rows)


def _hidden_rows_note(rows: list[dict[str, Any]]) -> str:
    hidden = len(rows) - ROWS_SHOWN
    return f"\n{quantity(hidden, 'more row')} with --json, none nearer to its end" if hidden > 0 else ""


def limits_text(rows: list[dict[str, Any]]) -> str:
    """Table of the limits that are nearest to exhaustion, which come first, and the number of the others."""
    cells = []
    for row in rows[:ROWS_SHOWN]:
        counts = row["counts"] if row["per"] == "now" else f"{row['counts']} {per_period(row['per'])}"
        suffix = " (near)" if row["near"] else ""
        amounts = (f"{_amount(row['taken'])}{suffix}", _amount(row["most"]))
        cells.append((row["limit"], row["who"], counts, *amounts, row["frees_at"] or "when a call ends"))
    return table(("limit", "who", "counts", "used", "maximum", "frees up"), cells) + _hidden_rows_note(rows)


def _amount(value: int | str) -> str:
    """A count, or an amount of money, which is text."""
    return f"{value:,}" if isinstance(value, int) else usd(value)


@dataclass(frozen=True, slots=True)
class BillOptions:
    """Options of how the bill is read, and what it is compared with."""

    provider: Annotated[
        str | None, typer.Option("--provider", help="Compare all calls of this provider or deployment.")
    ] = None
    first: Annotated[str | None, typer.Option("--from", help="First day (UTC), such as 2026-11-01.")] = None
    last: Annotated[str | None, typer.Option("--to", help="Last day (UTC).")] = None
    columns: Annotated[
        list[str] | None, typer.Option("--columns", help="Column mapping ROLE=NAME, such as amount=Cost. Repeatable.")
    ] = None
    rate: Annotated[list[str] | None, typer.Option("--rate", help="Exchange rate CURRENCY=USD, such as EUR=1.08.")] = (
        None
    )
    account: Annotated[
        list[str] | None,
        typer.Option("--account", help="Compare only lines of this account, project or subscription. Repeatable."),
    ] = None
    source: Annotated[
        list[str] | None,
        typer.Option("--source", help="Allocation that covers storage and traffic on this bill. Repeatable."),
    ] = None

    def query(self) -> list[tuple[str, str]]:
        fields = (("provider", self.provider), ("from", self.first), ("to", self.last))
        pairs = [(key, text) for key, text in fields if text]
        pairs += [("columns", text) for text in self.columns or []]
        pairs += [("rate", text) for text in self.rate or []]
        pairs += [("account", text) for text in self.account or []]
        return pairs + [("source", text) for text in self.source or []]


def reconcile(
    context: typer.Context,
    options: BillOptions,
    common: cost_ahead.CostOptions,
    invoice: Annotated[Path, typer.Argument(metavar="INVOICE.csv", help="A provider's bill or usage export.")],
) -> None:
    """Compare the ledger with a provider's bill, and explain the difference call by call. Exits with 1 if lines of the
    bill could not be compared because they have no exchange rate or price."""
    data = read_upload(invoice, "bill", hint="Name a CSV file.", smaller="Split it by day or model.")
    client, as_json = common.connect(context)
    value = client.post_file("/api/cost/reconcile", data, [("name", invoice.name[:200]), *options.query()])
    emit(value, as_json, format_reconciliation(value))
    if not value["complete"]:
        raise typer.Exit(INCOMPLETE)


app.command()(grouped(reconcile))


def format_reconciliation(value: dict[str, Any]) -> str:
    """Text of a comparison with a bill: columns, totals, explanations that add up to the difference, and single
    discrepancies."""
    days = f", {value['from']} to {value['to']}" if value["from"] else ""
    lines = [
        f"{value['file']}: {quantity(value['lines'], 'line')}, {value['format']}{days}",
        "columns: " + ", ".join(f"{role}={name}" for role, name in value["columns"].items()),
        f"{quantity(value['attempts'], 'attempt')} of the ledger, {value['matched_by_id']} named by the bill",
        "",
        table(
            ("", "USD"),
            [("bill", value["bill_usd"]), ("ledger", value["ledger_usd"]), ("difference", value["difference_usd"])],
        ),
    ]
    if value["explanations"]:
        explained = [(row["kind"], row["amount_usd"], row["places"], row["meaning"]) for row in value["explanations"]]
        lines += ["", table(("explanation", "USD", "places", ""), explained)]
    if value["rows"]:
        lines += ["", table(("kind", "USD", "day", "model", "calls", "lines", ""), _discrepancy_cells(value["rows"]))]
    if value["beside"]:
        allocations = [
            (r["purpose"], r["bill_usd"], r["allocated_usd"], r["difference_usd"], r["told"]) for r in value["beside"]
        ]
        lines += ["", table(("outside the calls", "bill", "allocated", "difference", ""), allocations)]
    hidden = len(value["rows"]) + value["rows_left_out"] - ROWS_SHOWN
    lines += [f"{quantity(hidden, 'more place')} with --json"] if hidden > 0 else []
    excluded = value["left_out"]
    if excluded["attempts"]:
        lines.append(
            f"{excluded['attempts']} attempts of models that the bill does not name ({usd(excluded['amount_usd'])})"
            " were left out; --provider NAME includes them"
        )
    lines += [*value["notes"]]
    if not value["complete"]:
        lines.append(
            f"incomplete: {value['lines_uncompared']} of {quantity(value['lines'], 'line')} could not be compared"
        )
    return "\n".join(lines)


def _discrepancy_cells(rows: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    cells = []
    for row in rows[:ROWS_SHOWN]:
        others = row["calls_in_all"] - 1
        calls = (row["calls"][0] + (f" and {others} more" if others > 0 else "")) if row["calls"] else "-"
        numbers = ",".join(str(number) for number in row["lines"][:5]) or "-"
        cells.append(
            (row["kind"], row["amount_usd"], row["day"] or "-", row["model"] or "-", calls, numbers, row["note"])
        )
    return cells


cost_ahead.register(app)
app.command()(grouped(archive))
app.command()(grouped(anomalies.anomalies))
app.add_typer(outcomes.app, name="outcomes")
app.command("opportunities")(opportunities.opportunities)
