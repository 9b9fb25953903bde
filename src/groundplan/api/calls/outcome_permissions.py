"""Who may report outcomes of a call or a ticket: holders of a duty for its workload, and the person of the call.

At the gateway the key determines the workload; here a person may hold a duty for only one workload, and outcomes decide
about its experiments, routers and savings.
"""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from groundplan.api.caller import Caller, readable_workloads
from groundplan.core.errors import Denied
from groundplan.ledger.outcome_store import CallOwners

DENIED_CODE = "duty_missing"


def check_outcome_of_call(caller: Caller, call: UUID, calls: CallOwners) -> None:
    """Raise `Denied` (`duty_missing`) unless the caller may report an outcome of the call. A call that is not in the
    ledger is refused later, when the outcome is written."""
    answers_for = readable_workloads(caller)
    if answers_for is None or call not in calls:
        return
    workload, person = calls[call]
    if workload not in answers_for and (person is None or person != caller.person):
        raise _denied(f"the call {call} is of another workload than yours")


def reportable_workloads(caller: Caller, ticket: str, worked_on: frozenset[str]) -> Sequence[str | None]:
    """The workloads for which the caller may report the ticket; `(None,)` means all. Raises `Denied`
    (`duty_missing`)."""
    answers_for = readable_workloads(caller)
    if answers_for is None:
        return (None,)
    permitted = sorted(worked_on & answers_for)
    if not permitted:
        raise _denied(f"the ticket {ticket} is of another workload than yours")
    return permitted


def _denied(message: str) -> Denied:
    return Denied(
        message, code=DENIED_CODE, hint="Ask an owner of its workload, or somebody with a duty of the company."
    )
