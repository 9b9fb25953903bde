"""Reads the ledger in the JSON form of the control API: exact amounts as text in `*_usd`, times in ISO 8601 UTC.

Does not check whether the caller may see it: the API does.
"""

from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from psycopg import Connection

from groundplan.core.errors import Invalid, NotFound
from groundplan.core.money import format_numeric, format_usd, from_decimal
from groundplan.ledger import archive_store, rollup_store, store
from groundplan.ledger.store import CallFilter
from groundplan.ledger.used_documents import conflicts, passages

PAGE = 100
"""Most calls on a page."""
ATTEMPTS = 300_000
"""Most attempts that are compared with a bill at once."""

_EVERYTHING = CallFilter()
_TOOLS, _USE = rollup_store.TOOLS, "tool "
"""The endpoint of tool uses, and the prefix of their step."""


def cost_summary(conn: Connection[Any], wanted: CallFilter = _EVERYTHING) -> dict[str, Any]:
    """Cost in total and by workload; refused calls are not counted. `open_reservations` are attempts in flight or of a
    crash not recovered yet; `crashed_attempts` were cut off by a crash, count at their bound, and are not archived.

    `cached` calls were answered from the cache, which saved `saved_usd`; `prefix_saved_usd` is what providers' prompt
    caches saved, which is already subtracted from the cost of calls.
    """
    rows = store.costs_by_workload(conn, wanted)
    waiting, crashed = store.count_unsettled(conn, wanted)
    sums = ("total_usd", "saved_usd", "prefix_saved_usd")
    return {
        **{name: format_numeric(sum((row[name] for row in rows), Decimal(0))) for name in sums},
        "calls": sum(row["calls"] for row in rows),
        "cached": sum(row["cached"] for row in rows),
        "open_reservations": waiting,
        "crashed_attempts": crashed,
        "by_workload": [_plain(row) for row in rows],
    }


def list_calls(
    conn: Connection[Any], wanted: CallFilter = _EVERYTHING, *, before: UUID | None = None, limit: int = PAGE
) -> dict[str, Any]:
    """List calls, newest first. `next` is the `before` of the next page, None on the last one."""
    size = max(1, min(limit, PAGE))
    rows = store.calls(conn, wanted, before, size + 1)
    shown = [_call(row) for row in rows[:size]]
    return {"calls": shown, "next": shown[-1]["id"] if len(rows) > size else None}


def arrived_calls(conn: Connection[Any], since: datetime, limit: int) -> list[tuple[datetime, dict[str, Any]]]:
    """(arrival time, call) of the newest `limit` calls that reached the ledger after `since`, in order of arrival."""
    return [(row.pop("shipped_at"), _call(row)) for row in store.calls_shipped_since(conn, since, limit)]


def arrival_time(conn: Connection[Any], call_id: UUID) -> datetime | None:
    """When a call reached the ledger; None where it has not."""
    return store.shipped_at(conn, call_id)


def database_time(conn: Connection[Any]) -> datetime:
    return store.database_time(conn)


def _missing_error(conn: Connection[Any], call_id: UUID) -> NotFound:
    if (day := archive_store.archived_day_of(conn, call_id)) is None:
        return NotFound(f"there is no call {call_id}", code="call_unknown", hint="Calls appear within a second or two.")
    return NotFound(
        f"the facts of the call {call_id} are archived with those of {day}",
        code="call_archived",
        hint=f"Ask for them: groundplan cost archive --sql \"SELECT * FROM calls WHERE id = '{call_id}'\"",
    )


def receipt(conn: Connection[Any], call_id: UUID) -> dict[str, Any]:
    """All facts of one call: steps, attempts with reservation and cost, passages, charges, audit entry.

    `conflicts` are documents that contradict a passage and of which no passage was given.
    `citations` say for each statement that cites a passage whether the passage supports it (null: not checked).
    `made_for_it` are calls that the gateway itself made for this one, each with its `purpose` (as in
    `Reservation.purpose`); `together_usd` is what all of them and this one cost.
    `feature` and `ticket` are as its caller said.
    `of` is the call that this one was made for, or null. `refusal` names the budget or limit that refused it, or is
    null.
    `acting` is null, or `{"by", "as", "demo"}` for a call made while acting as somebody in a demo.

    Raises `NotFound`: `call_unknown` for a call that is not in the ledger (calls arrive within a second),
    `call_archived` for one whose facts are archived.
    """
    row = store.get_call(conn, call_id)
    if row is None:
        raise _missing_error(conn, call_id)
    detail = row["detail"]
    used = detail.get("sources", [])
    charges = [_plain(charge) for charge in store.charges(conn, call_id)]
    attempts = [_attempt(row) for row in store.attempts(conn, call_id)]
    for attempt in attempts:
        attempt["charges"] = [charge for charge in charges if charge["attempt"] == attempt["number"]]
    entry = store.audit_leaf(conn, call_id)
    made = store.subcalls(conn, call_id)
    return {
        **_call(row),
        "steps": [{"step": name, "ms": microseconds / 1000} for name, microseconds in detail.get("steps", [])],
        "attempts": attempts,
        "passages": [
            {"document": document, "path": path, "first_line": first, "last_line": last}
            for document, path, first, last in passages(used)
        ],
        "conflicts": [{"document": row[0], "path": row[1]} for row in conflicts(used)],
        "citations": [_plain(citation) for citation in store.citations(conn, call_id)],
        "flags": detail.get("flags", []),
        "acting": detail.get("acting"),
        "client_certificate": detail.get("client"),
        "feature": detail.get("feature"),
        "ticket": detail.get("ticket"),
        "refusal": detail.get("refusal"),
        "route": detail.get("route"),
        "charges": charges,
        "made_for_it": [_plain(each) for each in made],
        "together_usd": format_numeric(sum((each["cost_usd"] for each in made), row["cost_usd"])),
        "of": detail.get("of"),
        "purpose": detail.get("purpose"),
        "outcomes": [_plain(outcome) for outcome in store.outcomes(conn, call_id)],
        "audit": None if entry is None else {"entry": str(entry["id"]), "index": entry["leaf_index"]},
    }


def _attempt(row: dict[str, Any]) -> dict[str, Any]:
    """The JSON of an attempt with `terms`: the parts of its cost, the dearest first, which add up exactly. A part that
    is charged at the bound, or counted without the provider, is estimated."""
    cost = from_decimal(row["cost_usd"])
    known: dict[str, list[int]] = row["parts"] or ({"whole": [0, cost]} if cost else {})
    terms = [
        {
            "term": name, "count": count, "cost_usd": format_usd(amount),
            "basis": "estimated" if row["estimated"] or name == "bound" else "measured",
        }
        for name, (count, amount) in sorted(known.items(), key=lambda part: (-part[1][1], part[0]))
        if count or amount
    ]  # fmt: skip
    return {**_plain({key: value for key, value in row.items() if key != "parts"}), "terms": terms}


def attempts_for_bill(
    conn: Connection[Any], since: datetime, until: datetime, calls: list[UUID]
) -> list[dict[str, Any]]:
    """Attempts to compare with a bill, amounts as exact decimals: those of a time, and all attempts of `calls`.

    Raises `Invalid` where there are more than `ATTEMPTS`.
    """
    rows = store.attempts_between(conn, since, until, calls, ATTEMPTS + 1)
    if len(rows) > ATTEMPTS:
        raise Invalid(
            f"there are more than {ATTEMPTS} attempts in that time",
            code="too_many_attempts",
            hint="Compare fewer days at once: --from 2026-11-01 --to 2026-11-07.",
        )
    return rows


def daily_cost(conn: Connection[Any], wanted: CallFilter = _EVERYTHING) -> list[dict[str, Any]]:
    """[{day, workload, cost_usd, calls}]"""
    return [_plain(row) for row in store.daily_costs(conn, wanted)]


def latency(conn: Connection[Any], wanted: CallFilter = _EVERYTHING) -> list[dict[str, Any]]:
    """[{workload, calls, p50_ms, p95_ms, first_byte_p95_ms}] of calls that were answered."""
    return [_plain(row) for row in store.latencies(conn, wanted)]


def statuses(conn: Connection[Any], wanted: CallFilter = _EVERYTHING) -> dict[str, dict[str, int]]:
    """workload -> status -> number of calls"""
    found: dict[str, dict[str, int]] = {}
    for row in store.statuses(conn, wanted):
        found.setdefault(row["workload"], {})[row["status"]] = row["calls"]
    return found


def budget_use(conn: Connection[Any], at: date | datetime, near: float | None = None) -> list[dict[str, Any]]:
    """[{budget, period, limit_usd, granted_usd, spent_usd}] in the periods of `at` in which anything was granted. With
    `near`, budgets of single keys only where at least this share is spent."""
    if not isinstance(at, datetime):
        at = datetime(at.year, at.month, at.day, 12, tzinfo=UTC)
    moment = at.astimezone(UTC)
    periods = [moment.strftime(form) for form in ("%Y-%m-%d", "%Y-%m", "%Y")] + ["total"]
    return [_plain(row) for row in store.budgets(conn, periods, moment, near)]


def _call(row: dict[str, Any]) -> dict[str, Any]:
    """The JSON of a call; `tool` is the tool that it used by MCP, such as `crm/lookup_order`, or null."""
    used = (name for name, _ in row["detail"].get("steps", ()) if row["endpoint"] == _TOOLS)
    tool = next((name.removeprefix(_USE) for name in used if name.startswith(_USE)), None)
    return {**_plain({key: value for key, value in row.items() if key != "detail"}), "tool": tool}


def _plain(row: dict[str, Any]) -> dict[str, Any]:
    return {key: _value(value) for key, value in row.items()}


def _value(value: Any) -> Any:
    if isinstance(value, Decimal):
        return format_numeric(value)
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat(timespec="milliseconds")
    if isinstance(value, date):
        return value.isoformat()
    return str(value) if isinstance(value, UUID) else value
