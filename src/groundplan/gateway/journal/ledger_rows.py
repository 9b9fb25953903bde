"""Turns the journal's records of a call into its rows and audit entry. Pure; the statements are in `ledger_store`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any
from uuid import UUID

import msgspec

from groundplan.blueprint.model import Rates
from groundplan.core.audit.entry import Acting, Entry, gateway_actor
from groundplan.core.ids import id_text
from groundplan.core.money import format_usd
from groundplan.economics.terms.split import Split, explain_cost, split_cost
from groundplan.gateway.journal.recovery import Attempt, CallState
from groundplan.ledger.model import Finish, Usage
from groundplan.ledger.used_documents import used_documents

Row = tuple[Any, ...]
Seal = Callable[[UUID, str], str]
TeamOf = Callable[[int, str], str | None]
"""(blueprint number, workload) -> team"""
RatesOf = Callable[[int, str], Rates | None]
"""(blueprint number, deployment) -> its rates in that blueprint"""

_NOTHING = Usage()
_usd = lru_cache(maxsize=4096)(format_usd)
"""Cached, since rows name the same few amounts again and again; a numeric column takes their text."""


def from_milliseconds(milliseconds: int) -> datetime:
    """Return the aware UTC time of journal milliseconds."""
    return datetime.fromtimestamp(milliseconds / 1000, UTC)  # rounded to the microsecond, so exact until 2242


@lru_cache(maxsize=4096)
def as_uuid(text: str) -> UUID | None:
    """Parse a UUID; None for text that is none, such as an empty person."""
    try:
        return UUID(text)
    except ValueError:
        return None


def attempt_state(attempt: Attempt) -> str:
    """Return open | settled | crashed."""
    return "settled" if attempt.settlement is not None else "crashed" if attempt.is_crashed else "open"


def attempt_row(attempt: Attempt, epoch: UUID, rates: RatesOf = lambda _number, _name: None) -> Row:
    """Return the row of an attempt, in the order of the columns of `attempt`. `rates` explain its cost."""
    made, settled = attempt.reservation, attempt.settlement
    state = attempt_state(attempt)
    flags = list(settled.flags) if settled else ["crash"] if attempt.is_crashed else []
    parts, tier = _cost_parts(attempt, rates)
    return (
        made.call.hex(),
        made.attempt,
        from_milliseconds(made.at),
        made.deployment,
        made.site,
        made.model,
        state,
        settled.outcome if settled else state,
        settled.http_status if settled else None,
        _usd(made.bound),
        _usd(attempt.cost),
        settled.usage if settled else {},
        settled.estimated if settled else attempt.is_crashed,
        flags,
        _ms(settled.duration_us) if settled else None,
        epoch,
        _ms(settled.started_us) if settled else None,
        _ms(settled.connect_us) if settled else None,
        _ms(settled.first_byte_us) if settled else None,
        made.workload,
        made.blueprint,
        made.demo,
        parts,
        made.purpose,
        tier,
    )


def _cost_parts(attempt: Attempt, rates: RatesOf) -> tuple[Split | None, str]:
    """Return the parts of its cost, and the service tier that was charged; nothing while it is open."""
    made, settled, cost = attempt.reservation, attempt.settlement, attempt.cost
    if attempt.is_open:
        return None, ""
    if settled is None or not (cost or settled.usage.input or settled.usage.output):
        return split_cost(None, _NOTHING, cost), ""
    parts, tier = explain_cost(rates(made.blueprint, made.deployment), settled.usage, cost)
    return parts, tier if cost else ""


def _ms(microseconds: int) -> float | None:
    """Milliseconds; None for what was not measured, or did not happen."""
    return microseconds / 1000 if microseconds else None


def charge_rows(attempt: Attempt) -> list[Row]:
    """Return a row for each budget of a settled or crashed attempt, each with the full cost."""
    made = attempt.reservation
    call, number, cost = made.call.hex(), made.attempt, _usd(attempt.cost)
    names = {(charge.budget, charge.period): None for charge in made.charges}
    return [(call, number, budget, period, cost) for budget, period in names]


def leading_attempt(call: CallState) -> Attempt | None:
    """Return the attempt that answered, else the last one tried; None for a call that was never sent."""
    if len(call.attempts) == 1:
        return next(iter(call.attempts.values()))
    tried = [attempt for _, attempt in sorted(call.attempts.items())]
    good = [attempt for attempt in tried if attempt.settlement is not None and attempt.settlement.outcome == "ok"]
    return (good or tried)[-1] if tried else None


def call_row(call: CallState, epoch: UUID, team: TeamOf, acting: Mapping[str, Acting]) -> Row:
    """Return the row of a call, in the order of the columns of `call`. Without a finish it was cut off by a crash.

    `acting` has the keys that were created while acting as another person in a demo.
    """
    lead, end, source = leading_attempt(call), call.finish, call.describing_record
    settled = [attempt.settlement for attempt in call.attempts.values() if attempt.settlement is not None]
    prompt = completion = prefix = 0
    flags: list[str] = []
    for one in settled:
        prompt, completion = prompt + one.usage.input, completion + one.usage.output
        prefix += one.saved
        flags += one.flags
    detail = {
        "steps": end.steps if end else [(call.tool_use.model, 0)] if call.tool_use else [],
        "sources": used_documents(end) if end else [],
        "flags": sorted(set(flags)) if flags else flags,
        "key": source.key,
    }
    if source.key in acting:
        detail["acting"] = acting[source.key].to_json()
    if end:
        detail |= _optional_details(end)
    return (
        call.call.hex(),
        from_milliseconds(_started_ms(call)),
        source.workload,
        as_uuid(source.person),
        as_uuid(source.key),
        team(source.blueprint, source.workload),
        source.endpoint,
        end.status if end else "crashed",
        end.http_status if end else 0,
        (end.error_code or None) if end else "crashed",
        lead.reservation.model if lead else None,
        lead.reservation.deployment if lead else ((end.deployment or None) if end else None),
        lead.reservation.site if lead else None,
        _usd(call.cost),
        _usd(call.reserved),
        prompt,
        completion,
        end.cache if end else "none",
        source.blueprint,
        epoch,
        source.demo,
        _ms(end.duration_us) if end else None,
        _ms(end.first_byte_us) if end else None,
        detail,
        _usd(end.saved) if end else 0,
        _usd(prefix),
    )


def _optional_details(end: Finish) -> dict[str, Any]:
    """Return the details that only few calls have."""
    details: dict[str, Any] = {}
    if end.client:
        details["client"] = end.client
    if end.feature:
        details["feature"] = end.feature
    if end.ticket:
        details["ticket"] = end.ticket
    if end.refusal:
        details["refusal"] = end.refusal
    if end.scores:
        details["scores"] = end.scores
    if end.of:
        details |= {"of": end.of, "purpose": end.purpose}
    if end.route:
        details["route"] = msgspec.json.decode(end.route)
    return details


def call_entry(call: CallState, epoch: UUID, seal: Seal, acting: Mapping[str, Acting]) -> Entry:
    """Return the audit entry of an ended call; its id is the call's. The person is sealed under that person's key.

    `acting` has the keys that were created while acting as another person in a demo.
    """
    end, source = call.finish, call.describing_record
    person = as_uuid(source.person)
    detail = {
        "call": id_text(call.call),
        "workload": source.workload,
        "person": seal(person, source.person) if person else "",
        "key": source.key,
        "endpoint": source.endpoint,
        "status": end.status if end else "crashed",
        "http_status": end.http_status if end else 0,
        "error_code": end.error_code if end else "crashed",
        "cost_usd": _usd(call.cost),
        "reserved_usd": _usd(call.reserved),
        "blueprint": source.blueprint,
        "cache": end.cache if end else "none",
        # by id alone: a name may be a person's, and audit entries stay
        "sources": [[document, *more] for document, _, *more in used_documents(end)] if end else [],
        "attempts": [_attempt_detail(attempt) for _, attempt in sorted(call.attempts.items())],
        "demo": source.demo,
    }
    if end and end.saved:
        detail["saved_usd"] = _usd(end.saved)
    at = from_milliseconds(end.at if end else _started_ms(call))
    subject = f"workload/{source.workload}"
    return Entry(UUID(bytes=call.call), at, "call", gateway_actor(epoch), subject, detail, acting.get(source.key))


def _attempt_detail(attempt: Attempt) -> dict[str, Any]:
    made, settled = attempt.reservation, attempt.settlement
    return {
        "number": made.attempt,
        "deployment": made.deployment,
        "site": made.site,
        "model": made.model,
        "state": attempt_state(attempt),
        "outcome": settled.outcome if settled else attempt_state(attempt),
        "reserved_usd": _usd(made.bound),
        "cost_usd": _usd(attempt.cost),
        "input_tokens": settled.usage.input if settled else 0,
        "output_tokens": settled.usage.output if settled else 0,
    }


def _started_ms(call: CallState) -> int:
    """Return in milliseconds when the first attempt was made; for a refused call, when the call began."""
    times = [attempt.reservation.at for attempt in call.attempts.values()]
    if times:
        return min(times)
    if call.finish is None:
        return call.describing_record.at
    return call.finish.at - call.finish.duration_us // 1000
