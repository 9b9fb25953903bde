"""What a journal says of a call, as rows of the ledger."""

from __future__ import annotations

from typing import Any

from groundplan.core.ids import new_id
from groundplan.gateway.journal.ledger_rows import attempt_row, call_row
from groundplan.gateway.journal.ledger_store import INSERT_ATTEMPTS, INSERT_CALLS
from groundplan.gateway.journal.recovery import CallState, EpochState
from groundplan.ledger.model import Charge, Finish, Reservation, Settlement, Usage

EPOCH = new_id()


def ended(duration_us: int) -> CallState:
    call, state = new_id().bytes, EpochState()
    made = Reservation(call, 0, 1000, "w", "", "k", "chat.completions", "d", "s", "m", 1, 5, [Charge("b", "total", 5)])
    state.apply(made, 1)
    state.apply(Settlement(call, 0, 1000, 3, "ok", 200, Usage(input=1, output=1), False, [], duration_us), 1)
    finish = Finish(call, 1000, "w", "", "k", "chat.completions", "ok", 200, "", "d", "none", 1, duration_us, 0, [], [])
    found = state.apply(finish, 1)
    assert found is not None
    return found


def rows(call: CallState) -> tuple[Any, Any]:
    whole = INSERT_CALLS.row_type(*call_row(call, EPOCH, lambda *_: None, {}))
    return whole, INSERT_ATTEMPTS.row_type(*attempt_row(call.attempts[0], EPOCH))


def test_how_long_a_call_took_that_a_provider_made_on_its_own_is_not_known() -> None:
    """As in metrics: as nothing it would be the median of a workload that is asked in batches by night."""
    assert [each.duration_ms for each in rows(ended(0))] == [None, None]
    assert [each.duration_ms for each in rows(ended(1500))] == [1.5, 1.5]
