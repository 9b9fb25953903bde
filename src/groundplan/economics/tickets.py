"""Reads exports of ticket systems: CSV with a header, JSON, or one JSON object a line. Pure; the calls of tickets are
looked up elsewhere.

Columns are found by their usual names, or as declared. A line that cannot be read is reported with its place and what
to do, and the others are read: an export may be imported again, so a corrected file can be imported as a whole.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal, InvalidOperation
from typing import Any, Final
from uuid import UUID

from groundplan.core.errors import Invalid, Problem, Where
from groundplan.economics.bills.columns import normalize_name
from groundplan.ledger.outcome_store import VALUE_DIGITS, VALUE_PLACES
from groundplan.ledger.ticket_store import TICKET_FORM, State, TicketReport

MAX_BYTES: Final = 16 << 20
MAX_ROWS: Final = 100_000
ROLES: Final[dict[str, tuple[str, ...]]] = {
    "ticket": ("ticket", "ticketid", "ticketnumber", "issuekey", "key", "number", "casenumber", "reference"),
    "call": ("call", "callid"),
    "status": ("status", "state", "ticketstatus", "issuestatus", "resolved"),
    "at": (
        "at", "updatedat", "updated", "statuschangedat", "resolvedat", "solvedat", "closedat", "sysupdatedon",
        "resolutiondate", "time", "timestamp", "date",
    ),
    "id": ("id", "eventid", "event"),
    "value": ("valueusd", "value"),
}  # fmt: skip
"""Role of a column -> its usual names, most certain first, in lower-case letters and digits only."""
STATES: Final[dict[State, frozenset[str]]] = {
    "resolved": frozenset({"resolved", "solved", "done", "closed", "fixed", "completed", "complete", "true", "yes"}),
    "unresolved": frozenset(
        {"unresolved", "reopened", "declined", "rejected", "wontfix", "wontdo", "cancelled", "canceled", "failed",
         "abandoned", "false", "no"}
    ),
    "open": frozenset(
        {"open", "new", "todo", "backlog", "assigned", "inprogress", "pending", "onhold", "hold", "waiting",
         "waitingforcustomer", "waitingforsupport", "escalated", "active"}
    ),
}  # fmt: skip
AHEAD: Final = timedelta(minutes=5)
"""How far a ticket system's clock may be ahead of ours."""
_TICKET = re.compile(TICKET_FORM)
_FORM_HINT = "At most 64 letters, digits and . _ / # : -, as it was sent in the header groundplan-ticket."


@dataclass(frozen=True, slots=True)
class TicketChange:
    """A report on one ticket: whether it was `accepted`, or its `status` in the words of its system."""

    ticket: str
    accepted: bool | None
    status: str | None
    value_usd: Decimal | None
    at: datetime | None
    id: UUID | None


@dataclass(frozen=True, slots=True)
class Row:
    """One change of one ticket, or of one call."""

    where: Where
    ticket: str
    call: UUID | None
    state: State
    at: datetime
    event: str
    value: Decimal | None


@dataclass(frozen=True, slots=True)
class Export:
    """`rows` in the order in which they happened; `columns` as they were read."""

    rows: tuple[Row, ...]
    refused: tuple[Problem, ...]
    columns: Mapping[str, str]


def state_of(text: str, said: Mapping[str, str]) -> State | None:
    """The state that a status of a ticket system means; None: unknown. `said` (status -> state) takes precedence."""
    own = {normalize_name(name): state for name, state in said.items()}.get(normalize_name(text))
    if own is not None:
        return next((state for state in STATES if state == own), None)
    return next((state for state, names in STATES.items() if normalize_name(text) in names), None)


def event_id(id: str, state: State, at: datetime | None) -> str:
    """Identity of a change, so that a repeated report counts once: its own id, else its state and time."""
    return f"id {id}" if id else f"{state} {'' if at is None else at.astimezone(UTC).isoformat()}"


def to_report(said: TicketChange, by: str, workload: str | None, now: datetime) -> TicketReport:
    """The outcome as it is stored. Raises `Invalid` (`ticket_form`, `ticket_state`, `ticket_time`)."""
    if not _TICKET.fullmatch(said.ticket):
        raise Invalid(f"{said.ticket[:80]!r} is not a ticket number", code="ticket_form", hint=_FORM_HINT)
    state: State | None = None
    if (said.accepted is None) != (said.status is None):
        state = state_of(said.status, {}) if said.status is not None else "resolved" if said.accepted else "unresolved"
    if state is None:
        hint = "Send accepted: true (resolved) or false (reopened), or a status such as resolved, reopened or open."
        raise Invalid("whether the ticket is resolved is not said", code="ticket_state", hint=hint)
    if said.at is not None and said.at > now + AHEAD:
        raise Invalid(f"{said.at.isoformat()} is in the future", code="ticket_time", hint="Correct the time.")
    try:
        at = (said.at or now).astimezone(UTC)
    except OverflowError as error:  # in the first hours of year 1, of a zone that is ahead
        raise Invalid(f"{said.at} is no time in UTC", code="ticket_time", hint="Correct the time.") from error
    event = event_id("" if said.id is None else str(said.id), state, at)
    return TicketReport(
        ticket=said.ticket, state=state, at=at, event=event, by=by, value_usd=said.value_usd, workload=workload
    )


def read_tickets(text: str, file: str, columns: Mapping[str, str], states: Mapping[str, str], now: datetime) -> Export:
    """Read an export. Raises `Invalid` if nothing of the file can be read: its form, its columns, declared columns and
    states."""
    _check(columns, states)
    if len(text) > MAX_BYTES:
        raise _invalid("the file is larger than 16 MiB", "tickets_too_large", "Export fewer days at once.", file)
    body = text.removeprefix("\ufeff")
    lines = list(_json(body, file) if body.lstrip()[:1] in ("[", "{") else _csv(body, file))
    if not lines:
        hint = "Export CSV with a head, or JSON: a list of objects, or one object a line."
        raise _invalid("the file has no tickets", "tickets_empty", hint, file)
    if len(lines) > MAX_ROWS:
        raise _invalid(f"more than {MAX_ROWS} tickets", "tickets_too_large", "Export fewer days at once.", file)
    places = _find_columns({name for _, cells in lines for name in cells}, columns, file)
    reader = _Reader(file, places, states, now)
    read = [reader.read(number, cells) for number, cells in lines]
    rows = sorted((each for each in read if isinstance(each, Row)), key=lambda row: row.at)
    refused = tuple(each for each in read if isinstance(each, Problem))
    return Export(tuple(rows), refused, places)


def _check(columns: Mapping[str, str], states: Mapping[str, str]) -> None:
    for role in columns:
        if role not in ROLES:
            hint = f"Write --columns ROLE=NAME with one of {', '.join(ROLES)}."
            raise Invalid(f"no column says {role[:40]}", code="column_role", hint=hint)
    for name, state in states.items():
        if state not in STATES:
            hint = f"Write --state '{name[:40]}=resolved', or unresolved, or open."
            raise Invalid(f"not a state of a ticket: {state[:40]}", code="ticket_state", hint=hint)


def _find_columns(head: set[str], said: Mapping[str, str], file: str) -> dict[str, str]:
    """Find columns: role -> name of its column. Raises `Invalid`."""
    by_plain = {normalize_name(name): name for name in sorted(head)}
    for role, name in said.items():
        if normalize_name(name) not in by_plain:
            hint = f"Its columns are {', '.join(sorted(head))[:400]}."
            raise _invalid(f"no column {name[:80]} for {role}", "column_unknown", hint, file)
    taken = {normalize_name(name) for name in said.values()}
    found = {role: by_plain[normalize_name(name)] for role, name in said.items()}
    for role, names in ROLES.items():
        own = next((by_plain[each] for each in names if each in by_plain and each not in taken), None)
        if own is not None:
            found.setdefault(role, own)
    for roles, hint in (
        (("ticket", "call"), "which ticket or call it is: --columns ticket=NAME, or call=NAME."),
        (("status",), "whether it is resolved: --columns status=NAME."),
        (("at", "id"), "when that was (--columns at=NAME), or an id of each change (id=NAME): else it counts again "
         "with each import."),
    ):  # fmt: skip
        if not any(role in found for role in roles):
            raise _invalid(f"no column says {' or '.join(roles)}", "column_missing", f"Say {hint}", file)
    return found


@dataclass(frozen=True, slots=True)
class _Reader:
    file: str
    places: Mapping[str, str]
    states: Mapping[str, str]
    now: datetime

    def read(self, number: int, cells: Mapping[str, str]) -> Row | Problem:
        """Read one line: a row, or the problem that it has."""
        told = {role: cells.get(name, "").strip() for role, name in self.places.items()}
        ticket, call, status = told.get("ticket", ""), told.get("call", ""), told.get("status", "")
        if not (ticket or call):
            return self._problem(number, "no ticket and no call", "ticket_missing", "Name one, or leave the line out.")
        if ticket and not _TICKET.fullmatch(ticket):
            return self._problem(number, f"{ticket[:80]!r} is not a ticket number", "ticket_form", _FORM_HINT)
        of_call = _uuid(call)
        if call and of_call is None:
            return self._problem(number, f"{call[:80]!r} is no call", "call_form", "Write the id of the answer's call.")
        state = state_of(status, self.states)
        if state is None:
            hint = f"Say what it means: --state '{status[:40] or 'NAME'}=resolved', or unresolved, or open."
            return self._problem(number, f"the status {status[:40]!r} is not known", "ticket_state", hint)
        at = _moment(told["at"]) if told.get("at") else None
        if at is None and (told.get("at") or not told.get("id")):
            hint = "Write a time such as 2026-11-25T14:30:00Z (UTC where it names no zone), or an id of the change."
            return self._problem(number, f"{told.get('at', '')[:40]!r} is no time", "ticket_time", hint)
        if at is not None and at > self.now + AHEAD:
            hint = "Correct its time, or name another column: --columns at=NAME."
            return self._problem(number, f"{at:%Y-%m-%d %H:%M} UTC is in the future", "ticket_time", hint)
        value = _value(told["value"]) if told.get("value") else None
        if told.get("value") and value is None:
            hint = "Write USD such as 12.50, at least 0, or name another column: --columns value=NAME."
            return self._problem(number, f"{told['value'][:40]!r} is no value", "ticket_value", hint)
        event = event_id(told.get("id", ""), state, at)
        return Row(Where(self.file, number), ticket, of_call, state, at or self.now, event, value)

    def _problem(self, number: int, message: str, code: str, hint: str) -> Problem:
        return Problem(message, code, hint, Where(self.file, number))


def _csv(text: str, file: str) -> Iterator[tuple[int, dict[str, str]]]:
    delimiter = max(",;\t", key=text.partition("\n")[0].count)
    # strict: a quote that is not closed would make one cell of all lines after it
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    head: list[str] | None = None
    number = 1
    try:
        for row in reader:
            if any(cell.strip() for cell in row):
                if head is None:
                    head = [cell.strip() for cell in row]
                else:
                    yield number, dict(zip(head, row, strict=False))
            number = reader.line_num + 1
    except csv.Error as error:
        hint = "Export it as CSV, quoted where a cell has commas, and close each quote."
        raise _invalid(
            f"the file is not CSV from line {number} on: {error}", "tickets_syntax", hint, file, number
        ) from error


def _json(text: str, file: str) -> Iterator[tuple[int, dict[str, str]]]:
    """Objects of a list, of a list below `tickets` or `issues`, or one after the other; each with its line."""
    decoder, place = json.JSONDecoder(), _space(text, 0)
    line, counted = 1, 0
    inside = text[place] == "["
    if inside:
        place = _space(text, place + 1)
    while place < len(text) and not (inside and text[place] == "]"):
        line, counted = line + text.count("\n", counted, place), place
        try:
            value, end = decoder.raw_decode(text, place)
        except (ValueError, RecursionError) as error:
            hint = "Export a list of objects, or one object a line."
            raise _invalid("the file is not JSON", "tickets_syntax", hint, file, line) from error
        below = next((value[name] for name in ("tickets", "issues") if isinstance(value, dict) and name in value), None)
        for each in below if isinstance(below, list) else [value]:
            if not isinstance(each, dict):
                raise _invalid("a ticket is no object", "tickets_syntax", "Export objects.", file, line)
            yield line, {name: _text(cell) for name, cell in each.items()}
        place = _space(text, end)
        if place < len(text) and text[place] == ",":
            place = _space(text, place + 1)


def _space(text: str, place: int) -> int:
    while place < len(text) and text[place] in " \t\r\n":
        place += 1
    return place


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return "" if value is None or isinstance(value, dict | list) else str(value)


def _uuid(text: str) -> UUID | None:
    try:
        return UUID(text)
    except ValueError:
        return None


def _moment(text: str) -> datetime | None:
    try:
        moment = datetime.fromisoformat(text.replace(" UTC", "+00:00"))
        return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        return None


def _value(text: str) -> Decimal | None:
    try:
        value = Decimal(text.removeprefix("$").removesuffix("USD").strip())
    except InvalidOperation:
        return None
    exponent = value.as_tuple().exponent
    if not isinstance(exponent, int) or -exponent > VALUE_PLACES or value < 0:
        return None
    return value if value < 10 ** (VALUE_DIGITS - VALUE_PLACES) else None


def _invalid(message: str, code: str, hint: str, file: str, line: int = 1) -> Invalid:
    return Invalid(message, code=code, hint=hint, where=Where(file, line))
