"""Reconciliation of a provider's bill with the ledger. The file is the body of the request and is not stored."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Annotated, Any
from uuid import UUID

from fastapi import Query, Request
from psycopg import Connection
from pydantic import BaseModel, Field
from starlette.concurrency import run_in_threadpool

from groundplan.api import served_blueprint
from groundplan.api.access.protected_routes import protected_router
from groundplan.api.caller import Reader
from groundplan.api.context import Services, ServicesDep
from groundplan.api.cost import book as cost_book
from groundplan.api.cost import receipt as cost_receipt
from groundplan.api.cost.book import LAST_YEAR, Days
from groundplan.api.http.uploads import parse_options, read_text
from groundplan.blueprint.model import Deployment
from groundplan.core.errors import Invalid
from groundplan.core.money import format_plain
from groundplan.core.words import quantity
from groundplan.economics.bills.allocated_lines import TERMS, AllocationGap, compare_allocations
from groundplan.economics.bills.model import CALL_ID_VERSION, EXPLANATION_KINDS, Attempt, Discrepancy, Reconciliation
from groundplan.economics.bills.model_names import models_by_upstream, resolve_model
from groundplan.economics.bills.parse import Bill, BillLine, read_bill
from groundplan.economics.bills.reconcile import is_billed_by, reconcile
from groundplan.economics.prices.currency import parse_exchange_rates
from groundplan.ledger import archive_store, queries

router = protected_router("ledger")
MAX_ROWS = 1000
"""The most discrepancies that are listed; the explanations cover all."""
MAX_CALLS = 20
MAX_ACCOUNTS = 5
"""The most accounts of a bill that are named."""
_FILE = {"requestBody": {"required": True, "content": {"text/csv": {"schema": {"type": "string"}}}}}


class BillQuery(BaseModel):
    """How to read the bill. `columns` are ROLE=NAME, `rate` CURRENCY=USD; `from` and `to` are days in UTC, both
    included."""

    name: Annotated[str, Field(max_length=200)] = "bill.csv"
    provider: Annotated[str | None, Field(max_length=200)] = None
    first: date | None = Field(default=None, alias="from")
    last: date | None = Field(default=None, alias="to")
    columns: list[str] = Field(default_factory=list, max_length=40)
    rate: list[str] = Field(default_factory=list, max_length=40)
    account: list[Annotated[str, Field(max_length=200)]] = Field(default_factory=list, max_length=40)
    """The accounts, projects or subscriptions whose lines are compared; empty: all."""
    source: list[str] = Field(default_factory=list, max_length=40)
    """The declared allocations that correspond to storage and traffic on this bill; empty: all."""


@router.post("/cost/reconcile", openapi_extra=_FILE)
async def reconcile_bill(
    request: Request, services: ServicesDep, _: Reader, query: Annotated[BillQuery, Query()]
) -> dict[str, Any]:
    """Compare a CSV bill or usage export (the body, at most 16 MiB) with the ledger. Changes and stores nothing."""
    text = await read_text(request, "bill", "Split it by day or model.")
    columns, rates = (
        parse_options(query.columns, "amount=COLUMN"),
        parse_exchange_rates(parse_options(query.rate, "EUR=1.08")),
    )
    bill = await run_in_threadpool(read_options, text, query.name, columns, query.first, query.last, query.account)
    return await run_in_threadpool(_compare, services, bill, query, rates)


def read_options(
    text: str,
    name: str,
    columns: dict[str, str],
    first: date | None,
    last: date | None,
    accounts: Collection[str] = (),
) -> Bill:
    """Parse the bill, keeping only lines of the given days and accounts. Raises `Invalid` (`option_form`, `bill_days`,
    `bill_account`)."""
    if (first and last and first > last) or (last and last.year > LAST_YEAR):
        problem = "from is after to" if first and last and first > last else f"{last} is too late"
        raise Invalid(problem, code="option_form", hint="Write --from 2026-11-01 --to 2026-11-30.")
    bill = _of_accounts(read_bill(text, name, columns), accounts)
    lines = tuple(
        line for line in bill.lines
        if line.day is None or ((first is None or line.day >= first) and (last is None or line.day <= last))
    )  # fmt: skip
    omitted = len(bill.lines) - len(lines)
    note = f"{quantity(omitted, 'line')} of other days {'was' if omitted == 1 else 'were'} passed over"
    notes = (*bill.notes, note) if omitted else bill.notes
    days = replace(bill, lines=lines).date_range
    since, until = first or (days[0] if days else None), last or (days[1] if days else None)
    if until is not None and until.year > LAST_YEAR:
        raise Invalid(f"a line is dated {until}", code="bill_days", hint="Name the days: --from DAY --to DAY, in UTC.")
    if since is None or until is None:
        if not any(line.call for line in lines):
            raise Invalid(
                "the bill has neither days nor calls",
                code="bill_days",
                hint="Name the column of its days: --columns day=NAME; or all of them: --from DAY --to DAY, in UTC.",
            )
        since, until = date(1970, 1, 2), date(1970, 1, 1)
    return replace(bill, lines=lines, notes=notes, period=(since, until))


def _of_accounts(bill: Bill, chosen: Collection[str]) -> Bill:
    """The bill with the lines of these accounts only, and a note on the others; with a note where a bill has several
    accounts and none is chosen. Raises `Invalid` (`bill_account`) for an account without lines."""
    counts = Counter(line.account for line in bill.lines if line.account)
    named = ", ".join(name[:60] for name, _ in counts.most_common(MAX_ACCOUNTS))
    if unknown := [name for name in chosen if name not in counts]:
        hint = f"It has lines of {named}." if named else "Name their column: --columns account=NAME."
        raise Invalid(f"the bill has no line of the account {unknown[0][:80]}", code="bill_account", hint=hint)
    if not chosen:
        several = f"lines of {len(counts)} accounts ({named}) are compared: --account NAME leaves the others out"
        return bill if len(counts) < 2 or bill.is_own else replace(bill, notes=(*bill.notes, several))
    lines = tuple(line for line in bill.lines if line.account in chosen)
    note = f"{quantity(len(bill.lines) - len(lines), 'line')} of other accounts passed over"
    return replace(bill, lines=lines, notes=(*bill.notes, note))


def _compare(services: Services, bill: Bill, query: BillQuery, exchange: dict[str, Decimal]) -> dict[str, Any]:
    """Compare the bill with the attempts of its period and of the calls that it names, as JSON."""
    assert bill.period is not None
    since, until = (datetime.combine(day, time(), UTC) for day in bill.period)
    calls = list({line.call for line in bill.lines if line.call is not None})
    with services.transaction() as conn:
        _check_not_archived(conn, bill.period)
        rows = queries.attempts_for_bill(conn, since, until + timedelta(days=1), calls)
        _check_calls_not_archived(conn, set(calls) - {row["call_id"] for row in rows})
        blueprint = served_blueprint.current_or_none(conn)
        places = {number: cost_receipt.deployments_at(conn, number) for number in {row["blueprint"] for row in rows}}
    used_deployments = {(row["blueprint"], row["deployment"]) for row in rows}
    upstreams = [place for number, name in used_deployments if (place := places[number].get(name)) is not None]
    bill = _with_our_models(bill, upstreams, query.provider)
    rates = {item.name: item.rates for item in blueprint.deployments} if blueprint else {}
    dated = blueprint.currencies if blueprint else {}
    attempts = [_attempt(row, places[row["blueprint"]].get(row["deployment"])) for row in rows]
    result = reconcile(
        bill, attempts, rates, provider=query.provider, exchange_rates=exchange, dated_exchange_rates=dated
    )
    gaps: list[AllocationGap] = []
    notes: list[str] = []
    if any(row.kind in TERMS for row in result.discrepancies):
        if since > until:
            notes.append(
                "the bill has no days: say --from DAY --to DAY to see what is allocated of storage and traffic"
            )
        else:
            days, today = Days(since.date(), until.date()), services.clock.now().date()
            with services.transaction() as conn:
                gaps = compare_allocations(result, cost_book.cost_lines(conn, days, today), query.source)
    value = reconciliation_json(bill, result)
    return {**value, "notes": [*value["notes"], *notes], "beside": [_gap_json(gap) for gap in gaps]}


def _with_our_models(bill: Bill, deployments: Iterable[Deployment], provider: str | None) -> Bill:
    """The bill with our model names where a line names a model by its name at an upstream (of `provider`, if given),
    and a note on each name that belongs to several models."""
    names = models_by_upstream(
        (deployment.upstream_model, deployment.model)
        for deployment in deployments
        if provider is None or is_billed_by(deployment.model, deployment.name, provider)
    )
    lines, ambiguous = [], dict[str, tuple[str, ...]]()
    for line in bill.lines:
        name, models = _name_at_upstream(line, names)
        if len(models) > 1 and resolve_model(line.model, models) not in models:
            ambiguous[name] = models
        lines.append(replace(line, model=models[0]) if len(models) == 1 else line)
    notes = (
        f"upstreams of {' and '.join(models)} call their model {name}: say whose bill it is, --provider DEPLOYMENT"
        for name, models in ambiguous.items()
    )
    return replace(bill, lines=tuple(lines), notes=(*bill.notes, *notes))


def _name_at_upstream(line: BillLine, names: Mapping[str, tuple[str, ...]]) -> tuple[str, tuple[str, ...]]:
    """(the line's name of a model at an upstream, our models that have it): the name of its model, or of its resource,
    such as `arn:aws:bedrock:...:inference-profile/eu.amazon.nova-lite-v1:0`."""
    resource = line.deployment or ""
    for name in (line.model or "", resource, resource.rpartition("/")[2]):
        if models := names.get(name.lower(), ()):
            return name, models
    return "", ()


def _check_not_archived(conn: Connection[Any], period: tuple[date, date]) -> None:
    """Raise `Invalid` (`bill_archived`) if attempts of these days are archived: every line would be reported as
    unexplained."""
    archived_days = [row["day"] for row in archive_store.list_parts(conn) if period[0] <= row["day"] <= period[1]]
    if archived_days:
        next_day = max(archived_days) + timedelta(days=1)
        raise Invalid(
            f"attempts of {min(archived_days)} to {max(archived_days)} are archived, and cannot be compared one by one",
            code="bill_archived",
            hint=f"Compare later days, --from {next_day}, or keep facts for longer: GROUNDPLAN_ARCHIVE_DAYS.",
        )


def _check_calls_not_archived(conn: Connection[Any], unknown: Collection[UUID]) -> None:
    """As `_check_not_archived`, for calls that the bill names, whatever its days. Only the first calls are checked."""
    call_ids = sorted(call for call in unknown if call.version == CALL_ID_VERSION)[:MAX_ROWS]
    for call in call_ids if archive_store.list_parts(conn) else ():
        if (day := archive_store.archived_day_of(conn, call)) is not None:
            raise Invalid(
                f"attempts of calls that the bill names are archived, such as those of {call} with all of {day}",
                code="bill_archived",
                hint="Leave lines of calls that are archived out, or keep facts for longer: GROUNDPLAN_ARCHIVE_DAYS.",
            )


def _gap_json(gap: AllocationGap) -> dict[str, Any]:
    return {
        "purpose": gap.purpose, "bill_usd": exact_amount(gap.bill), "allocated_usd": exact_amount(gap.allocated),
        "difference_usd": exact_amount(gap.difference), "rules": list(gap.rules), "told": gap.advice,
    }  # fmt: skip


def _attempt(row: dict[str, Any], deployment: Deployment | None) -> Attempt:
    """An attempt with the price in force under its blueprint at its time: today's price may differ from that of a past
    bill."""
    usage, at = row["usage"], row["at"].astimezone(UTC)
    rates = None if deployment is None else cost_receipt.rates_at(deployment, at.isoformat())
    return Attempt(
        row["call_id"], row["number"], at, row["workload"], row["deployment"], row["model"],
        row["state"], row["outcome"], row["cost_usd"], int(usage.get("input", 0)), int(usage.get("output", 0)),
        row["estimated"], row["demo"], rates,
    )  # fmt: skip


def reconciliation_json(bill: Bill, result: Reconciliation) -> dict[str, Any]:
    """A reconciliation as JSON; amounts are exact decimal strings."""
    since, until = bill.period or (None, None)
    dated = since is not None and until is not None and since <= until
    return {
        "file": bill.file,
        "format": bill.format,
        "columns": dict(bill.columns),
        "lines": len(bill.lines),
        "lines_uncompared": result.uncompared_lines,
        "complete": not result.uncompared_lines,
        "from": since.isoformat() if since and dated else None,
        "to": until.isoformat() if until and dated else None,
        "attempts": result.attempts,
        "matched_by_id": result.matched_by_id,
        "bill_usd": exact_amount(result.bill),
        "ledger_usd": exact_amount(result.ledger),
        "difference_usd": exact_amount(result.difference),
        "explanations": [
            {"kind": kind, "meaning": EXPLANATION_KINDS[kind], "amount_usd": exact_amount(amount), "places": count}
            for kind, amount, count in result.explanations()
        ],
        "rows": [_row(row) for row in result.discrepancies[:MAX_ROWS]],
        "rows_left_out": max(0, len(result.discrepancies) - MAX_ROWS),
        "left_out": {"attempts": result.excluded_attempts, "amount_usd": exact_amount(result.excluded_usd)},
        "notes": list(result.notes),
    }


def _row(row: Discrepancy) -> dict[str, Any]:
    return {
        "kind": row.kind,
        "amount_usd": exact_amount(row.amount),
        "bill_usd": exact_amount(row.bill),
        "ledger_usd": exact_amount(row.ledger),
        "day": row.day.isoformat() if row.day else None,
        "model": row.model,
        "deployment": row.deployment,
        "calls": [str(call) for call in row.calls[:MAX_CALLS]],
        "calls_in_all": len(row.calls),
        "lines": list(row.lines[:MAX_CALLS]),
        "note": row.note,
    }


def exact_amount(amount: Decimal) -> str:
    """An amount with all its digits, and at least twelve decimals."""
    return format_plain(amount, 12)
