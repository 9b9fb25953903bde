"""How far a workload is with the controls of a framework: from evidence alone, as of a moment. Pure.

The newest evidence of a need that counts decides. One that says no opens the control again; one that is over, or that
a person gave before the law or norm changed, says `expired`. What facts show is judged again all the time.
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
    Applied,
    Control,
    Evidence,
    Shown,
    Standing,
    State,
)
from groundplan.ledger.finding import Finding

SOON = timedelta(days=30)
"""So long before evidence that a person gave ends, its owner is told."""
EXPIRED, EXPIRES = "governance.evidence_expired", "governance.evidence_expires"
KINDS = (EXPIRED, EXPIRES)

Newest = Mapping[tuple[str, str], Evidence]
"""(subject, what) -> the newest evidence that was not withdrawn."""


def newest(evidence: Iterable[Evidence]) -> dict[tuple[str, str], Evidence]:
    """Of each (subject, what) the evidence that decides."""
    found: dict[tuple[str, str], Evidence] = {}
    for each in evidence:
        key = (each.subject, each.what)
        if key not in found or _rank(each) > _rank(found[key]):
            found[key] = each
    return found


def _rank(each: Evidence) -> tuple[bool, datetime, UUID]:
    return each.counts, each.at, each.id


def what_of(need: str, framework: str, control: str) -> str:
    """Under which name evidence of a need is kept."""
    return f"{framework}/{control}" if need == DOCUMENT else need


def standing(
    framework: str, control: Control, subject: str, known: Newest, now: datetime, amended: Amendment | None = None
) -> Standing:
    """One control of one subject, without exclusions. `amended`: the newest change of the law or norm behind it."""
    shown = tuple(
        _shown(need, what_of(need, framework, control.id), subject, known, now, amended) for need in control.needs
    )
    states = {each.state for each in shown}
    state: State = "open" if "open" in states else "expired" if "expired" in states else "satisfied"
    return Standing(control, state, shown)


def _shown(need: str, what: str, subject: str, known: Newest, now: datetime, amended: Amendment | None) -> Shown:
    check = CHECKS.get(need)
    hint = f"Show it: `groundplan evidence add '{what}'`." if check is None else check.hint
    found = known.get((subject, what)) or known.get(("company", what))
    if found is None:
        return Shown(need, "open", None, hint)
    if not found.counts:
        return Shown(
            need, "open", found, "It was given and is not approved: it is decided at its change, in the inbox."
        )
    if not found.holds:
        return Shown(need, "open", found, hint)
    if found.valid_until <= now:
        return Shown(need, "expired", found, hint)
    if amended is not None and found.collector != COLLECTOR and found.at.date() < amended.on:
        return Shown(need, "expired", found, f"{amended.what} ({amended.source}, {amended.on}). {hint}".rstrip())
    return Shown(need, "satisfied", found, "")


def assess(applied: Applied, known: Newest, now: datetime) -> dict[str, tuple[Standing, ...]]:
    """Standings of all controls by workload."""
    amended = {control.id: applied.amendment(control.id, now.date()) for control in applied.controls}
    return {
        workload: tuple(
            Standing(control, "excluded", reason=applied.excluded[control.id])
            if control.id in applied.excluded
            else standing(
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


def coverage(standings: Sequence[Standing]) -> dict[str, int]:
    """How many controls are in each state, and how many apply."""
    counts = {"satisfied": 0, "open": 0, "expired": 0, "excluded": 0}
    for each in standings:
        counts[each.state] += 1
    return {**counts, "apply": len(standings) - counts["excluded"]}


def findings(applied: Applied, standings: Mapping[str, Sequence[Standing]], now: datetime) -> list[Finding]:
    """Controls that opened again because evidence ended, and evidence of people that ends soon."""
    found: dict[tuple[str, str, str], Finding] = {}
    for workload, each in standings.items():
        for one in each:
            for shown in one.shown:
                made = _finding(applied, workload, one, shown, now)
                if made is not None:
                    found[made.identity] = made
    return list(found.values())


def _finding(applied: Applied, workload: str, one: Standing, shown: Shown, now: datetime) -> Finding | None:
    evidence = shown.evidence
    if evidence is None or not evidence.holds or not evidence.counts:
        return None
    about = f"{applied.framework.name} {one.control.id} ({one.control.title}) of {workload}"
    last = evidence.valid_until.date()
    what = what_of(shown.need, applied.framework.name, one.control.id)
    if shown.state == "expired":
        amended = applied.amendment(one.control.id, now.date()) if evidence.valid_until > now else None
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
