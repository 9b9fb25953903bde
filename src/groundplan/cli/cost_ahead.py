"""`groundplan cost book, forecast, what-if, statement, export`: costs by term, forecasts and scenarios, files for
finance."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any

import typer

from groundplan.cli.client import ControlClient
from groundplan.cli.option_groups import grouped
from groundplan.cli.options import HomeOption, JsonOption, WorkloadOption
from groundplan.cli.output import emit, table, usd
from groundplan.core.errors import GroundplanError, Invalid, NotFound
from groundplan.core.money import from_usd_text, short_usd
from groundplan.core.words import format_period, quantity

ROWS_SHOWN = 40
MAX_LISTED_BLUEPRINTS = 3
MAX_FULL_STATEMENTS = 12
"""With more teams than this, each team gets one line."""
SHORT_HISTORY_DAYS = 8
"""Days of history below which the end of a budget is extrapolated from their mean."""
CALLS_ONLY_NOTE = ", of calls: what is allocated beside them is in `groundplan cost book`"
DIMENSIONS = (
    "term", "workload", "workflow", "team", "provider", "site", "deployment", "model", "tier", "basis", "feature",
    "prompt", "source", "person", "tag",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class CostOptions:
    """Options of every command of `cost`. Those given before the command (`groundplan cost --json book`) apply as
    well."""

    home: HomeOption = None
    as_json: JsonOption = False

    def connect(self, context: typer.Context) -> tuple[ControlClient, bool]:
        """(client, whether to print JSON)."""
        group_options: tuple[Path | None, bool] = context.obj or (None, False)
        return ControlClient.connect(self.home or group_options[0]), self.as_json or group_options[1]


@dataclass(frozen=True, slots=True)
class DayOptions:
    """First and last day."""

    first: Annotated[
        str | None, typer.Option("--from", help="First day (UTC), such as 2026-11-01. Default: first of this month.")
    ] = None
    last: Annotated[str | None, typer.Option("--to", help="Last day (UTC). Default: today.")] = None

    def __post_init__(self) -> None:
        for text in (self.first, self.last):
            if text:
                _check_day(text)

    def query(self) -> dict[str, str]:
        return {name: text for name, text in (("first", self.first), ("last", self.last)) if text}


@dataclass(frozen=True, slots=True)
class EventOptions:
    """Known future events, in addition to those that the workspace declares."""

    country: Annotated[
        list[str] | None, typer.Option("--country", help="Country whose public holidays count, such as NO.")
    ] = None
    launch: Annotated[
        list[str] | None, typer.Option("--launch", help="Planned launch DAY=FACTOR, such as 2026-12-01=2.")
    ] = None
    growth: Annotated[str | None, typer.Option("--growth", help="Growth a month, such as 0.05, or `adoption`.")] = None

    def body(self) -> dict[str, Any]:
        launches = [_parse_launch(text) for text in self.launch or []]
        return {"countries": self.country or [], "launches": launches, **_parse_growth(self.growth)}


def register(app: typer.Typer) -> None:
    """Add these commands to `groundplan cost`."""
    app.command("book")(grouped(book))
    app.command("forecast")(grouped(forecast))
    app.command("what-if")(grouped(what_if))
    app.command("statement")(grouped(statement))
    app.command("export")(grouped(export))
    app.command("own")(grouped(own))


def book(
    context: typer.Context,
    span: DayOptions,
    common: CostOptions,
    by: Annotated[str, typer.Option("--by", help=f"One of {', '.join(DIMENSIONS)}.")] = "term",
    workload: WorkloadOption = None,
) -> None:
    """List every cost, including those outside calls: how much was measured, allocated or estimated, by which rule and
    from which source."""
    client, as_json = common.connect(context)
    query = {"by": by, "first": span.first, "last": span.last, "workload": workload}
    value = client.get("/api/cost/book", lines="true", limit=None if as_json else ROWS_SHOWN, **query)
    rows = [
        (row["key"] or "-", usd(row["cost_usd"]), f"{row['share']:.1%}", ", ".join(row["basis"]))
        for row in value["sums"]
    ]
    rows.append(("total", usd(value["total_usd"]), "", ""))
    text = f"{value['from']} to {value['to']}\n" + table((by, "cost", "share", "basis"), rows)
    emit(
        value,
        as_json,
        f"{text}\n\n{_lines_table(value['lines'], value.get('more_lines', 0))}" if value["lines"] else text,
    )


def _lines_table(lines: list[dict[str, Any]], omitted: int = 0) -> str:
    largest = sorted(lines, key=lambda line: -Decimal(line["cost_usd"]))[:ROWS_SHOWN]
    rows = [
        (line["term"], line["workload"] or "nobody", usd(line["cost_usd"]), line["basis"], line["rule"],
         line["source"], _blueprint_numbers(line["blueprints"]))
        for line in largest
    ]  # fmt: skip
    text = table(("term", "workload", "cost", "basis", "rule", "source", "blueprint"), rows)
    hidden = len(lines) - len(largest) + omitted
    return f"{text}\n{hidden} more lines with --json" if hidden else text


def _blueprint_numbers(blueprints: list[int]) -> str:
    """All of the numbers, or the first and the last of many."""
    if len(blueprints) > MAX_LISTED_BLUEPRINTS:
        return f"{blueprints[0]} to {blueprints[-1]}"
    return ", ".join(str(number) for number in blueprints)


def forecast(
    context: typer.Context,
    declared: EventOptions,
    common: CostOptions,
    what: Annotated[str, typer.Option("--what", help="What to forecast: cost, calls or tokens.")] = "cost",
    days: Annotated[int, typer.Option("--days", help="Days to forecast.")] = 30,
    workload: WorkloadOption = None,
) -> None:
    """Forecast the next days with 80 % intervals, and the day on which each budget runs out."""
    client, as_json = common.connect(context)
    body = {"what": what, "workload": workload, "days": days, **declared.body()}
    try:
        value = client.post("/api/cost/forecast", body)
    except GroundplanError as error:
        is_impossible = not as_json and error.code == "forecast_impossible"
        if is_impossible and (runways := client.get("/api/cost/runway", workload=workload))["budgets"]:
            emit(runways["budgets"], as_json, _runways_table(runways))  # they may end before there are enough days
        raise
    runways = client.get("/api/cost/runway", workload=workload)
    value |= {"budgets": runways["budgets"], "more_budgets": runways["more"]}
    emit(value, as_json, _forecast_text(value))


def _forecast_text(value: dict[str, Any]) -> str:
    money = value["what"] == "cost"
    format_value = _short_usd if money else str
    rows = [
        (r["day"], *(format_value(r[name]) for name in ("middle", "low", "high"))) for r in value["days"][:ROWS_SHOWN]
    ]
    text = table(("day", "expected", "low", "high"), rows)
    total, low, high = (format_value(value[name]) for name in ("total", "total_low", "total_high"))
    suffix = CALLS_ONLY_NOTE if money else f" {value['what']}"
    text += f"\n{len(value['days'])} days: {total} ({low} to {high}){suffix}"
    text += f"\n{value['method']}"
    if value["mase"] is not None:
        text += f"; in backtests its error was {value['mase']:.0%} of the error of repeating the last season"
    text += "".join(f"\n{note}" for note in value["notes"])
    text += "".join(f"\n{line}" for line in _event_lines(value["calendar"]))
    if (curve := value.get("adoption")) is not None:
        end = f", on its way to {curve['ceiling']:.0f}" if curve["ceiling"] is not None else ""
        text += f"\n{curve['people']} people last week{end}: {curve['growth_per_month']:+.1%} a month"
    runways = {"budgets": value["budgets"], "more": value["more_budgets"]}
    return f"{text}\n\n{_runways_table(runways)}" if value["budgets"] else text


def _runways_table(runways: dict[str, Any]) -> str:
    rows = [
        (
            r["title"],
            format_period(r["period"]),
            _short_usd(r["expected_usd"]),
            _short_usd(r["limit_usd"]),
            _end_of_budget(r),
        )
        for r in runways["budgets"]
    ]
    text = table(("budget", "period", "expected", "limit", "ends"), rows)
    more = quantity(runways["more"], "more budget is", "more budgets are")
    return f"{text}\n{more} further from the limit" if runways["more"] else text


def _short_usd(amount: str) -> str:
    return short_usd(from_usd_text(amount))


def _event_lines(events: dict[str, Any]) -> list[str]:
    """Lines on the known holidays and launches."""
    days = [f"public holidays of {', '.join(events['countries'])}"] if events["countries"] else []
    days += [f"holidays {', '.join(events['holidays'])}"] if events["holidays"] else []
    return days + [
        f"launch{' of ' + launch['workload'] if launch['workload'] else ''} on {launch['day']}: "
        f"{launch['factor']:g} times as much{', ' + launch['name'] if launch['name'] else ''}"
        for launch in events["launches"]
    ]


def what_if(
    context: typer.Context,
    span: DayOptions,
    common: CostOptions,
    changes: Annotated[
        list[str] | None, typer.Argument(help="Changes, such as users=10 price=-30% context=2 output=0.5 cache=20%.")
    ] = None,
    model: Annotated[
        str | None,
        typer.Option("--model", help="Use the prices of this model or deployment, such as openai/gpt-4.1-mini."),
    ] = None,
    workload: WorkloadOption = None,
) -> None:
    """Recompute the same days under other assumptions. It does not estimate how answer quality would change."""
    client, as_json = common.connect(context)
    body = {"changes": changes or [], "model": model, "first": span.first, "last": span.last, "workload": workload}
    value = client.post("/api/cost/what-if", body)
    rows = [("actual", usd(value["before_usd"]))]
    rows += [
        (row["change"], f"{'' if row['cost_usd'].startswith('-') else '+'}{usd(row['cost_usd'])}")
        for row in value["steps"]
    ]
    rows.append(("then", usd(value["after_usd"])))
    text = table(("", "cost"), rows)
    priced = f"\n{model} at the price of {value['price_source']}" if value["price_source"] else ""
    notes = "".join(f"\n{note}" for note in value["notes"])
    emit(value, as_json, f"{text}{priced}{notes}\n{value['from']} to {value['to']}{CALLS_ONLY_NOTE}")


def own(context: typer.Context, span: DayOptions, common: CostOptions) -> None:
    """Compare own hardware at its measured utilisation with paying by the token, and show the break-even point."""
    client, as_json = common.connect(context)
    value = client.get("/api/cost/own", first=span.first, last=span.last)
    rows = [
        (r["deployment"], usd(r["cost_usd"]), f"{r['used']:.1%}", usd(r["each_usd"]), usd(r["other_each_usd"]),
         r["told"])
        for r in value["own"]
    ]  # fmt: skip
    empty_text = "No own hardware is declared: add kind: allocation, covers: deployment/NAME, capacity: 10M/day."
    head = ("deployment", "cost", "used", "1M tokens", "elsewhere", "")
    emit(value, as_json, table(head, rows) if rows else empty_text)


def statement(
    context: typer.Context,
    common: CostOptions,
    team: Annotated[str | None, typer.Argument(help="Team. Default: all teams.")] = None,
    month: Annotated[str | None, typer.Option("--month", help="Month, such as 2026-11. Default: this month.")] = None,
    charge: Annotated[bool, typer.Option("--charge", help="Make a chargeback instead of a showback.")] = False,
    save: Annotated[
        Path | None, typer.Option("--save", help="Write the team's statement to this CSV or PDF file.")
    ] = None,
) -> None:
    """Show the costs of each team in a month, as a showback or a chargeback. They add up exactly to what was spent."""
    client, as_json = common.connect(context)
    if month:
        _check_month(month)
    query = {**({"month": month} if month else {}), "charge": str(charge).lower()}
    if save is not None:
        kind = _file_kind(save)
        if team is None:
            raise Invalid(
                "a file is for one team", code="team_missing", hint="Name it: cost statement TEAM --save FILE."
            )
        size = client.save(f"/api/cost/statements.{kind}", save, team=team, **query)
        emit({"file": str(save), "bytes": size}, as_json, f"{save}: {size} bytes")
        return
    value = client.get("/api/cost/statements", team=team, lines=str(as_json).lower(), **query)
    if team is not None and not value["statements"]:
        raise NotFound(
            f"nothing was spent by {team[:80]} in {month or 'this month'}", code="statement_unknown",
            hint="`groundplan cost statement` lists the teams of a month.",
        )  # fmt: skip
    is_long = len(value["statements"]) > MAX_FULL_STATEMENTS
    text = (
        _teams_table(value["statements"])
        if is_long
        else "\n\n".join(_statement_text(item) for item in value["statements"])
    )
    text = text or "nothing was spent"
    if len(value["statements"]) > 1:
        text += f"\n\nall teams: {usd(value['total_usd'])}, exactly what was spent"
    emit(value, as_json, text)


def _file_kind(path: Path) -> str:
    kind = path.suffix.lower().removeprefix(".")
    if kind not in ("csv", "pdf"):
        raise Invalid(
            f"a statement cannot be written as '{path.suffix[:20]}'",
            code="statement_file",
            hint="Name a file that ends in .csv or .pdf.",
        )
    return kind


def export(
    context: typer.Context,
    span: DayOptions,
    common: CostOptions,
    file: Annotated[Path, typer.Argument(help="CSV file to write, in FOCUS 1.0.")],
) -> None:
    """Export every cost as FOCUS, for finance tools."""
    client, as_json = common.connect(context)
    size = client.save("/api/cost/focus.csv", file, **span.query())
    emit({"file": str(file), "bytes": size}, as_json, f"{file}: {size} bytes, FOCUS 1.0")


def _parse_growth(text: str | None) -> dict[str, Any]:
    """Parse a growth for the API. Raises `Invalid` (`growth_invalid`)."""
    if text is None or text == "adoption":
        return {"growth": text}
    try:
        return {"growth_per_month": float(text)}
    except ValueError as error:
        hint = "Write --growth 0.05 for 5 % a month, or --growth adoption."
        raise Invalid(f"'{text[:20]}' is not a growth", code="growth_invalid", hint=hint) from error


def _check_day(text: str) -> None:
    """Raise `Invalid` (`day_syntax`) unless the text is a day."""
    try:
        date.fromisoformat(text)
    except ValueError as error:
        hint = "Write a day of the calendar like 2026-11-01."
        raise Invalid(f"'{text[:40]}' is not a day", code="day_syntax", hint=hint) from error


def _check_month(text: str) -> None:
    """Raise `Invalid` (`month_syntax`) unless the text is a month."""
    try:
        date.fromisoformat(f"{text}-01")
    except ValueError as error:
        hint = "Write it like 2026-11."
        raise Invalid(f"'{text[:40]}' is not a month", code="month_syntax", hint=hint) from error


def _parse_launch(text: str) -> dict[str, Any]:
    day, _, factor = text.partition("=")
    _check_day(day)
    try:
        return {"day": day, "factor": float(factor)}
    except ValueError as error:
        raise Invalid(
            f"'{text[:40]}' is not a launch", code="launch_syntax", hint="Write DAY=FACTOR, like 2026-12-01=2."
        ) from error


def _end_of_budget(row: dict[str, Any]) -> str:
    end = f"{row['ends']} ({row['earliest']} to {row['latest'] or 'later'})" if row["ends"] else "it lasts"
    return (
        f"{end}, by {quantity(days, 'day')} of history" if (days := row["history_days"]) < SHORT_HISTORY_DAYS else end
    )


def _teams_table(values: list[dict[str, Any]]) -> str:
    """A line for each of many teams, the most expensive first."""
    rows = [
        (v["team"], v["cost_center"] or "-", usd(v["total_usd"]), usd(v["previous_usd"]))
        for v in sorted(values, key=lambda v: -Decimal(v["total_usd"]))
    ]
    kind = "charged" if values[0]["charged"] else "shown"
    period_before = "the month before" if values[0]["over"] else "the same days of the month before"
    span = f"{values[0]['from']} to {values[0]['to']}, {kind}{'' if values[0]['over'] else ' so far'}"
    hint = "`groundplan cost statement TEAM` shows one by workload and term"
    return f"{span}\n{table(('team', 'cost center', 'cost', period_before), rows)}\n{hint}"


def _statement_text(value: dict[str, Any]) -> str:
    kind = ("charged" if value["charged"] else "shown") + ("" if value["over"] else " so far")
    rows = [(row["key"], usd(row["cost_usd"])) for row in value["by_workload"]]
    rows += [("total", usd(value["total_usd"])), ("", ""), ("the same by term", "")]
    rows += [(f"  {row['key']}", usd(row["cost_usd"])) for row in value["by_term"]]
    center = f", cost center {value['cost_center']}" if value["cost_center"] else ""
    period_before = "the month before" if value["over"] else "the same days of the month before"
    before = f", {period_before} {usd(value['previous_usd'])}" if value["previous_usd"] else ""
    return f"{value['team']}{center}, {value['from']} to {value['to']}, {kind}{before}\n" + table(("", "cost"), rows)
