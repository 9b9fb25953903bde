"""Who may say what a call was worth, or what became of a ticket: who answers for its workload; of a call its person.

At the gateway the key says which workload it is; here somebody may hold a duty for one, and what it was worth decides
about experiments, routers and savings of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from groundplan.api.caller import Caller, readable_workloads
from groundplan.core.errors import Denied
from groundplan.ledger.outcome_store import Whose

NOT_THEIRS = "duty_missing"


def check_call(caller: Caller, call: UUID, calls: Whose) -> None:
    """Raises `Denied` (`duty_missing`). A call that is not in the ledger is its writer's to refuse."""
    answers_for = readable_workloads(caller)
    if answers_for is None or call not in calls:
        return
    workload, person = calls[call]
    if workload not in answers_for and (person is None or person != caller.person):
        raise _denied(f"the call {call} is of another workload than yours")


def workloads_told(caller: Caller, ticket: str, worked_on: frozenset[str]) -> Sequence[str | None]:
    """The workloads for which they may tell it; None: all of them. Raises `Denied` (`duty_missing`)."""
    answers_for = readable_workloads(caller)
    if answers_for is None:
        return (None,)
    theirs = sorted(worked_on & answers_for)
    if not theirs:
        raise _denied(f"the ticket {ticket} is of another workload than yours")
    return theirs


def _denied(message: str) -> Denied:
    return Denied(
        message, code=NOT_THEIRS, hint="Ask an owner of its workload, or somebody with a duty of the company."
    )
