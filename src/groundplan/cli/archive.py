"""`groundplan cost archive`: lists the days whose facts were moved to Parquet files, and queries these with DuckDB on
this machine."""

from __future__ import annotations

from datetime import date
from typing import Annotated, Any

import typer

from groundplan.cli.cost_ahead import CostOptions
from groundplan.cli.output import emit, emit_query_result, table, usd
from groundplan.core.errors import Invalid


def archive(
    context: typer.Context,
    common: CostOptions,
    sql: Annotated[
        str | None, typer.Option("--sql", help="A SELECT over calls, attempts and charges, in DuckDB's SQL.")
    ] = None,
) -> None:
    """List the days whose facts are archived as Parquet files; with --sql, query them."""
    client, as_json = common.connect(context)
    value = client.get("/api/cost/archive")
    if sql is None:
        rows = [(row["day"], row["calls"], usd(row["cost_usd"]), row["url"]) for row in value["days"]]
        emit(
            value,
            as_json,
            table(("day", "calls", "cost", "where"), rows)
            if rows
            else f"nothing is archived: {_nothing_archived_reason(value)}",
        )
        return
    if not value["days"]:
        raise Invalid(
            "nothing is archived yet",
            code="archive_empty",
            hint=f"{(reason := _nothing_archived_reason(value))[:1].upper()}{reason[1:]}.",
        )
    from groundplan.ledger.archive import ArchivedPart, query_facts  # noqa: PLC0415 -- DuckDB is an extra, and heavy

    parts = [ArchivedPart(date.fromisoformat(row["day"]), row["url"], row.get("part", 0)) for row in value["days"]]
    emit_query_result(*query_facts(parts, sql), as_json)


def _nothing_archived_reason(value: dict[str, Any]) -> str:
    """Why nothing is archived yet, and what to do."""
    if value["url"] is None:
        return "set GROUNDPLAN_ARCHIVE_URL where `groundplan up` runs"
    return f"days are moved to {value['url']} within minutes of being older than {value['hot_days']} days"
