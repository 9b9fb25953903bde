"""Status of the controls of a framework for each workload: from evidence alone, as of a moment. Pure.

The newest evidence that counts decides about a need. Evidence that does not hold opens the control again; evidence that
has ended, or that a person gave before the law or norm changed, makes it `expired`. Facts are judged again regularly.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from uuid import UUID

from groundplan.governance.controls.checks import CHECKS
from groundplan.governance.controls.model import (
    COLLECTOR,
    DOCUMENT,
    Amendment,
    AppliedFramework,
    Control,
    ControlStatus,
    Evidence,
    NeedStatus,
    State,
)
from groundplan.ledger.finding import Finding

SOON = timedelta(days=30)
"""How long before its end the owner is told about evidence that a person gave."""
EXPIRED, EXPIRES = "governance.evidence_expired", "governance.evidence_expires"
KINDS = (EXPIRED, EXPIRES)

DecisiveEvidence = Mapping[tuple[str, str], Evidence]
"""(subject, what) -> the newest evidence that was not withdrawn."""


def select_decisive(evidence: Iterable[Evidence]) -> dict[tuple[str, str], Evidence]:
    """The evidence that decides, by (subject, what): the newest that counts, else the newest."""
    found: dict[tuple[str, str], Evidence] = {}
    for each in evidence:
        key = (each.subject, each.what)
        if key not in found or _rank(each) > _rank(found[key]):
            found[key] = each
    return found


def _rank(each: Evidence) -> tuple[bool, datetime, UUID]:
    return each.counts, each.at, each.id


def evidence_name(need: str, framework: str, control: str) -> str:
    """The name under which evidence of a need is stored: the check, or `FRAMEWORK/CONTROL` for a document."""
    return f"{framework}/{control}" if need == DOCUMENT else need


def control_status(
    framework: str,
    control: Control,
    subject: str,
    known: DecisiveEvidence,
    now: datetime,
    amended: Amendment | None = None,
) -> ControlStatus:
    """Status of one control of one subject; exclusions are not considered. `amended`: the newest change of the law or
    norm behind it."""
    shown = tuple(
        _need_status(need, evidence_name(need, framework, control.id), subject, known, now, amended)
        for need in control.needs
    )
    states = {each.state for each in shown}
    state: State = "open" if "open" in states else "expired" if "expired" in states else "satisfied"
    return ControlStatus(control, state, shown)


def _need_status(
    need: str, what: str, subject: str, known: DecisiveEvidence, now: datetime, amended: Amendment | None
) -> NeedStatus:
    check = CHECKS.get(need)
    hint = f"Show it: `groundplan evidence add '{what}'`." if check is None else check.hint
    found = known.get((subject, what)) or known.get(("company", what))
    if found is None:
        return NeedStatus(need, "open", None, hint)
    if not found.counts:
        return NeedStatus(
            need, "open", found, "It was given and is not approved: it is decided at its change, in the inbox."
        )
    if not found.holds:
        return NeedStatus(need, "open", found, hint)
    if found.valid_until <= now:
        return NeedStatus(need, "expired", found, hint)
    if amended is not None and found.collector != COLLECTOR and found.at.date() < amended.on:
        return NeedStatus(need, "expired", found, f"{amended.what} ({amended.source}, {amended.on}). {hint}".rstrip())
    return NeedStatus(need, "satisfied", found, "")


def assess(applied: AppliedFramework, known: DecisiveEvidence, now: datetime) -> dict[str, tuple[ControlStatus, ...]]:
    """Statuses of all controls by workload, in the order of `applied.controls`."""
    amended = {control.id: applied.amendment(control.id, now.date()) for control in applied.controls}
    return {
        workload: tuple(
            ControlStatus(control, "excluded", reason=applied.excluded[control.id])
            if control.id in applied.excluded
            else control_status(
                applied.framework.name,
                control,
                f"workload/{workload}",
                known,
                now,
                amended[control.id],
            )
            for control in applied.controls
        )
        for workload in applied.workloads
    }


def coverage(standings: Sequence[ControlStatus]) -> dict[str, int]:
    """Number of controls in each state, and of those that apply."""
    counts = {"satisfied": 0, "open": 0, "expired": 0, "excluded": 0}
    for each in standings:
        counts[each.state] += 1
    return {**counts, "apply": len(standings) - counts["excluded"]}


def evidence_findings(
    applied: AppliedFramework, standings: Mapping[str, Sequence[ControlStatus]], now: datetime
) -> list[Finding]:
    """Findings about controls that opened again because evidence ended, and evidence of people that ends soon."""
    found: dict[tuple[str, str, str], Finding] = {}
    for workload, statuses in standings.items():
        for status in statuses:
            for need in status.shown:
                finding = _finding(applied, workload, status, need, now)
                if finding is not None:
                    found[finding.identity] = finding
    return list(found.values())


def _finding(
    applied: AppliedFramework, workload: str, status: ControlStatus, shown: NeedStatus, now: datetime
) -> Finding | None:
    evidence, control = shown.evidence, status.control
    if evidence is None or not evidence.holds or not evidence.counts:
        return None
    about = f"{applied.framework.name} {control.id} ({control.title}) of {workload}"
    last = evidence.valid_until.date()
    what = evidence_name(shown.need, applied.framework.name, control.id)
    if shown.state == "expired":
        amended = applied.amendment(control.id, now.date()) if evidence.valid_until > now else None
        day, why = (last, "Evidence ended") if amended is None else (amended.on, "The law or norm changed")
        return Finding(
            kind=EXPIRED, subject=f"workload/{workload}", mark=what, severity="high", owner=applied.owner,
            message=f"{why} on {day}: {about} is open again.", hint=shown.hint, due=day,
            detail={"evidence": str(evidence.id), "what": what},
        )  # fmt: skip
    if evidence.collector != COLLECTOR and evidence.valid_until - now <= SOON:
        return Finding(
            kind=EXPIRES, subject=f"workload/{workload}", mark=what, severity="low", owner=applied.owner,
            message=f"Evidence ends on {last}: {about} opens again then.",
            hint=f"Renew it: `groundplan evidence add '{what}' --workload {workload}`.", due=last,
            detail={"evidence": str(evidence.id), "what": what},
        )  # fmt: skip
    return None
