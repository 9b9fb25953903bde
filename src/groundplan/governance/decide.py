"""Which changes may go ahead at once, and whose approval the others need. Pure: no clock, no store, no people.

Whether an approval is valid is decided by `service`; where a workload may run, by placement. A change is always
compared with what is served today, so that a rollback to an older blueprint follows the same rules.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date, timedelta

from groundplan.blueprint.model import ApprovalTerms, Caps
from groundplan.core.errors import Problem
from groundplan.governance.model import SENSITIVITY_ORDER, ApprovalStatus, Decision, Need, Terms

SERVED = ("experiment", "pilot", "production")
KEEPS = ("none", "redacted", "full")
"""How prompts and answers may be stored, the least first."""


def decide_workload(
    before: Terms | None, after: Terms, *, caps: Caps, standing: ApprovalStatus, today: date, genesis: bool = False
) -> Decision:
    """What it takes to serve `after` where `before` is served now (None: not served).

    Production, and an experiment or pilot beyond `caps`, need approvals unless exactly this content is served already
    or was approved before. A workload whose end has passed is refused unless it is served already (gateways refuse its
    calls then), so that it does not hold up other changes. At genesis the caps on people, calls and days do not apply.
    """
    if after.stage not in SERVED:
        return Decision()
    if standing.is_revoked(after.subject, after.digest, *after.former_digests):
        before = None
    elif before is not None and before.digest == after.digest:
        return Decision()
    if after.stage != "production" and after.expires is not None and after.expires < today:
        return Decision(refusals=(_expired_problem(after),))
    if standing.is_approved(after.subject, after.digest, *after.former_digests):
        return Decision()
    needs: tuple[Need, ...] = ()
    # limits granted by an approval apply to the approved content only; those declared at genesis apply to any content
    by_approval = before is not None and standing.is_approved(before.subject, before.digest, *before.former_digests)
    if after.stage == "production" or excess_over_caps(None if by_approval else before, after, caps, today, genesis):
        needs = _workload_needs(before, after)
    return Decision(needs=(*needs, *(need for need in _retention_needs(before, after) if need not in needs)))


def _retention_needs(before: Terms | None, after: Terms) -> tuple[Need, ...]:
    """Needs where prompts and answers of restricted data would be stored, or stored in a clearer form than now."""
    had = before.keeps if before is not None and before.sensitivity == "restricted" else KEEPS[0]
    if after.sensitivity != "restricted" or KEEPS.index(after.keeps) <= KEEPS.index(had):
        return ()
    return (Need(after.subject, "security"), Need(after.subject, "compliance"))


def excess_over_caps(
    before: Terms | None, after: Terms, caps: Caps, today: date, genesis: bool = False
) -> tuple[str, ...]:
    """In words, each way in which an experiment or pilot asks for more than the caps and for more than it has now."""
    had = before if before is not None and before.stage == after.stage else None
    last = None if caps.days is None else today + timedelta(days=caps.days)
    found: list[str] = []
    if _exceeds_cap(after.people, caps.people, had.people if had else None, had is not None) and not genesis:
        found.append(f"{_count_text(after.people)} people, the cap is {caps.people}")
    if (
        _exceeds_cap(after.calls_per_day, caps.calls_per_day, had.calls_per_day if had else None, had is not None)
        and not genesis
    ):
        found.append(f"{_count_text(after.calls_per_day)} calls a day, the cap is {caps.calls_per_day}")
    if _ends_after_cap(after.expires, last, had) and not genesis:
        found.append(f"until {after.expires or 'further notice'}, the cap is {caps.days} days")
    rank = SENSITIVITY_ORDER.index
    allowed = max(rank(caps.sensitivity), rank(had.sensitivity) if had else 0)
    if rank(after.sensitivity) > allowed:
        found.append(f"{after.sensitivity} data, the cap is {caps.sensitivity}")
    return tuple(found)


def decide_budget(
    subject: str, digest: str, before: int | None, after: int, *, standing: ApprovalStatus, loosened: bool = False
) -> Decision:
    """A shared budget may be lowered or added at once; raising it (amounts in picodollars a month), or making it cover
    less or nothing (`loosened`), needs finance."""
    if before is None or (after <= before and not loosened) or standing.is_approved(subject, digest):
        return Decision()
    return Decision(needs=(Need("company", "finance"),))


def decide_company(
    digest: str, before: Caps | None, after: Caps, *, loosened: bool, standing: ApprovalStatus
) -> Decision:
    """Caps and company-wide duties are set freely at genesis (`before` is None). Raising a cap, giving a duty to others
    or asking for fewer approvals (both `loosened`) needs business and security; lowering a cap needs nobody."""
    if before is None or standing.is_approved("company", digest) or not (loosened or _is_raised(before, after)):
        return Decision()
    return Decision(needs=(Need("company", "business"), Need("company", "security")))


def is_looser(before: ApprovalTerms, after: ApprovalTerms) -> bool:
    """Whether fewer people would have to approve, or approvals would last longer or cover more."""
    return stricter_terms(before, after) != after


def stricter_terms(before: ApprovalTerms, after: ApprovalTerms) -> ApprovalTerms:
    """The terms that apply while looser ones wait for approval: each the stricter of both."""
    return ApprovalTerms(
        seats=max(before.seats, after.seats),
        valid_days=min(before.valid_days, after.valid_days),
        grace_days=min(before.grace_days, after.grace_days),
        price_band=min(before.price_band, after.price_band),
    )


def decide_rule(subject: str, digest: str, *, enforced: bool, same: bool, standing: ApprovalStatus) -> Decision:
    """A company rule may be added, or tried in shadow, at once. Changing or removing one that is `enforced` now needs
    security and compliance, since it may let through what it stopped."""
    if same or not enforced or standing.is_approved(subject, digest):
        return Decision()
    return Decision(needs=(Need("company", "security"), Need("company", "compliance")))


def lower_caps(before: Caps, after: Caps) -> Caps:
    """The caps that apply while a raise waits for approval: each the stricter of both."""
    return Caps(
        people=_smallest((before.people, after.people)),
        calls_per_day=_smallest((before.calls_per_day, after.calls_per_day)),
        days=_smallest((before.days, after.days)),
        sensitivity=min(before.sensitivity, after.sensitivity, key=SENSITIVITY_ORDER.index),
    )


def _workload_needs(before: Terms | None, after: Terms) -> tuple[Need, ...]:
    duties = ["business", "security"]
    if after.sources:
        duties.append("data")
    if after.budget > (before.budget if before else 0):
        duties.append("finance")
    return tuple(Need(after.subject, duty) for duty in duties)


def _exceeds_cap(value: int | None, cap: int | None, had: int | None, known: bool) -> bool:
    """Whether `value` is above the cap, and above the value it has already (`had`, where `known`); None: no limit."""
    if cap is None or (value is not None and value <= cap):
        return False
    if not known:
        return True
    return had is not None and (value is None or value > had)


def _ends_after_cap(value: date | None, last: date | None, had: Terms | None) -> bool:
    if last is None or (value is not None and value <= last and (had is None or had.expires is None)):
        return False
    if had is None:
        return True
    return had.expires is not None and (value is None or value > had.expires)


def _is_raised(before: Caps, after: Caps) -> bool:
    pairs = ((before.people, after.people), (before.calls_per_day, after.calls_per_day), (before.days, after.days))
    order = SENSITIVITY_ORDER.index
    return any(old is not None and (new is None or new > old) for old, new in pairs) or order(
        after.sensitivity
    ) > order(before.sensitivity)


def _smallest(values: Iterable[int | None]) -> int | None:
    return min((value for value in values if value is not None), default=None)


def _count_text(value: int | None) -> str:
    return "any number of" if value is None else str(value)


def _expired_problem(after: Terms) -> Problem:
    return Problem(
        message=f"{after.subject} was to end on {after.expires}",
        code="stage_expired",
        hint="Retire it, move it to production, or set limits.expires to a later day (which needs approval).",
    )
