"""Experiments begin, are looked at and end: each change one transaction, with its entry in the audit log.

Gateways follow them as live policy, so an end is effective within a second. Who may begin or approve one the API knows;
that nobody approves their own where production demands another person is decided here.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from typing import Any
from uuid import UUID

import msgspec
from psycopg import Connection

from groundplan.blueprint.experiment import DeclaredExperiment
from groundplan.blueprint.model import Workload
from groundplan.core.audit.entry import SYSTEM
from groundplan.core.audit.store import record
from groundplan.core.canonical import digest
from groundplan.core.clock import end_of_day
from groundplan.core.errors import Conflict, Denied, Invalid, NotFound
from groundplan.core.ids import new_id
from groundplan.core.money import to_decimal
from groundplan.economics.experiment import experiment_store as store
from groundplan.economics.experiment.model import SHADOW
from groundplan.economics.experiment.record import Recorded, in_the_way
from groundplan.economics.experiment.sequential import Range, Tally
from groundplan.economics.experiment.verdict import (
    CANDIDATE,
    GUARDS,
    UNASKED,
    UNREADABLE,
    Verdict,
    shadow_verdict,
    verdict,
)
from groundplan.economics.replay.pairwise import LEFT_ALONE, UNASKED_HINT, UNREAD, UNREAD_HINT, left, unasked, unread
from groundplan.identity import rights_store
from groundplan.identity.store import next_policy_number
from groundplan.ledger import finding_store
from groundplan.ledger.finding import Finding

KIND = "cost.experiment"
SILENT_KIND = "cost.experiment.judge"
"""Of one that runs and whose answers nobody compares."""
SERVED = ("experiment", "pilot", "production")
"""Stages of workloads that are called."""
USUAL = timedelta(days=7)
LONGEST = timedelta(days=180)
ORDINARY = timedelta(days=30)
REFUSED, SETTLED = 3, timedelta(minutes=1)
"""Second answers in a row for which a budget has no room, and for how long: what was open then is settled."""
LATE = "nobody approved it until its last day"
SEGMENTS = 100
"""Of an experiment, at most: applications that name a feature for each call have as many as calls."""
_HINTS = {
    "better": "Put it first in the workload's deployments.",
    "kept": "Put it first in the workload's deployments, or try it on a share of callers: type ab.",
    "worse": "Leave it out, or try it where it does well: see its segments.",
    "guard": "Look at the guard metric on the experiment's page.",
    "budget": "Begin another one with a larger budget if the answer matters.",
    UNREADABLE: UNREAD_HINT,
    UNASKED: UNASKED_HINT,
    "expired": "Nothing was decided in time: a larger share, or more reported outcomes, decide sooner.",
}


@dataclass(frozen=True, slots=True)
class Ended:
    """An experiment that ended, and the policy that says so."""

    tried: Recorded
    number: int


def check(made: Recorded, workload: Workload | None, now: datetime) -> None:
    """Raise `Invalid`, `NotFound` for what cannot be tried on a workload as it is served now."""
    if workload is None:
        hint = "`groundplan status` lists them."
        raise NotFound(f"there is no workload {made.workload}", code="workload_unknown", hint=hint)
    if workload.stage not in SERVED:
        hint = "Only experiments, pilots and production are served; change its stage."
        raise Invalid(f"{made.workload} is {workload.stage}", code="workload_not_running", hint=hint)
    for name in (made.candidate, made.judge):
        if name and name not in workload.deployments:
            hint = f"Use one of: {', '.join(workload.deployments)}."
            raise Invalid(f"{made.workload} may not use {name}", code="experiment_outside", hint=hint)
    if made.candidate == workload.deployments[0] or made.judge == made.candidate:
        hint = "Name another candidate, and a judge that is not the candidate."
        raise Invalid(f"{made.candidate} would be compared with itself", code="experiment_primary", hint=hint)
    barred = workload.routing.barred if workload.routing is not None else {}
    if made.candidate in barred:
        hint = "Name another candidate, or change objectives.quality or routing.risk."
        raise Invalid(
            f"{made.candidate} takes no calls of {made.workload}: {barred[made.candidate]}",
            code="experiment_barred",
            hint=hint,
        )
    if made.judge and made.type != SHADOW:
        hint = "Leave judge out: what callers report decides."
        raise Invalid("a test of two arms shows one answer only", code="experiment_judge", hint=hint)
    if made.until <= now:
        raise Invalid("its last day is over", code="experiment_until", hint="Name a later last day.")
    if made.until > now + LONGEST:
        raise Invalid("an experiment ends within 180 days", code="experiment_until", hint="Name an earlier last day.")


def ask(
    conn: Connection[Any], actor: str, made: Recorded, *, waits: bool, now: datetime
) -> tuple[Recorded, int | None]:
    """Begin it, or ask for it where it `waits` for somebody else; the policy in which it runs.

    Raises `Conflict` (`experiment_running`).
    """
    number = None if waits else next_policy_number(conn, "experiment", str(made.id), False)
    if not waits:
        slow, dear = store.usual(conn, made.workload, now - USUAL)
        made = replace(made, slow_ms=slow, dear_usd=dear, began_at=now)
    made = replace(made, state="asked" if waits else "running")
    if not store.insert(conn, made):
        raise _busy(conn, made.workload)
    _record(conn, "experiment.asked" if waits else "experiment.started", actor, made, made.reason)
    return made, number


def decide(
    conn: Connection[Any],
    actor: str,
    id: UUID,
    *,
    approve: bool,
    reason: str,
    now: datetime,
    served: Iterable[Workload] = (),
) -> int | None:
    """Approve or refuse what was asked for; the policy in which it runs. Nobody approves their own, nor what cannot be
    tried any more on the workloads that are `served` now.

    Raises `NotFound`, `Invalid` as `check`, `Conflict` (`experiment_decided`, `experiment_running`), `Denied`
    (`own_experiment`).
    """
    number = next_policy_number(conn, "experiment", str(id), False) if approve else None
    found = one(conn, id)
    if found.state != "asked":
        raise Conflict(f"it is {found.state} already", code="experiment_decided", hint="Ask for another one.")
    if approve and rights_store.responsible_actor(conn, found.asked_by) == actor:
        hint = "Somebody else with the duty must approve it."
        raise Denied("nobody approves their own experiment", code="own_experiment", hint=hint)
    if approve:
        _begin(conn, actor, found, reason, now, served)
    else:
        store.refuse(conn, id, actor, reason)
    _record(conn, "experiment.approved" if approve else "experiment.refused", actor, found, reason)
    return number


def _begin(
    conn: Connection[Any], actor: str, found: Recorded, reason: str, now: datetime, served: Iterable[Workload]
) -> None:
    if found.until <= now:
        raise Conflict("its last day is over", code="experiment_until", hint="Ask for another one.")
    check(found, next((each for each in served if each.name == found.workload), None), now)
    if not store.begin(conn, found.id, actor, reason, store.usual(conn, found.workload, now - USUAL)):
        raise _busy(conn, found.workload)


def stop(conn: Connection[Any], actor: str, id: UUID, reason: str, outcome: str = "stopped") -> int:
    """End it now. Raises `NotFound`, `Conflict` (`experiment_decided`)."""
    number = next_policy_number(conn, "experiment", str(id), True)
    found = one(conn, id)
    if found.state not in ("asked", "running"):
        raise Conflict(f"it is {found.state} already", code="experiment_decided", hint="Nothing is left to do.")
    store.end(conn, id, actor, outcome, reason)
    _record(conn, "experiment.ended", actor, found, reason, outcome)
    return number


def one(conn: Connection[Any], id: UUID, *, lock: bool = True) -> Recorded:
    """Locked, but for who only looks at it: whoever changes it holds live policy before. Raises `NotFound`
    (`experiment_unknown`)."""
    found = store.find(conn, id, lock=lock)
    if found is None:
        hint = "`groundplan experiments list` has them."
        raise NotFound(f"there is no experiment {id}", code="experiment_unknown", hint=hint)
    return found


def heed_declared(conn: Connection[Any], workloads: Iterable[Workload], number: int, now: datetime) -> int:
    """Begin what blueprint `number` declares and end what it declares no more; how many changed.

    A declaration begins once: what has ended does not begin again under the same name.
    """
    declared = {
        (workload.name, _digest(workload)): (workload, workload.experiment)
        for workload in workloads
        if workload.experiment is not None and workload.stage in SERVED
    }
    every = store.every(conn, limit=1000)
    known = {(each.workload, each.digest): each for each in every if each.digest}
    over = [each for key, each in known.items() if each.state == "running" and key not in declared]
    for each in over:
        stop(conn, SYSTEM, each.id, "it is not declared any more", "withdrawn")
    busy = {each.workload for each in every if each.state == "running"} - {each.workload for each in over}
    begun = 0
    for key, (workload, rule) in declared.items():
        if key in known or rule is None or workload.name in busy:
            continue  # where something else is tried, the declaration's turn comes when that has ended
        made = _of(workload, rule, key[1], number, now)
        barred = workload.routing is not None and made.candidate in workload.routing.barred
        if made.until <= now or barred or made.candidate not in workload.deployments[1:]:
            continue
        with suppress(Conflict):  # another control process was first
            ask(conn, SYSTEM, made, waits=False, now=now)
            begun += 1
    return len(over) + begun


def look(conn: Connection[Any], now: datetime) -> list[Ended]:
    """Judge everything that runs by its facts, and end what is decided, harmful, used up or over; what nobody approved
    until its last day is refused."""
    standing = store.standing(conn)
    waiting = [each for each in standing if each.state == "running"]
    finding_store.replace_findings(conn, _silent(conn, waiting), kinds=(SILENT_KIND,))
    ended = _end(conn, waiting, now) if waiting else []
    _refuse_late(conn, [each.id for each in standing if each.state == "asked" and each.until <= now])
    return ended


def _end(conn: Connection[Any], waiting: list[Recorded], now: datetime) -> list[Ended]:
    # live policy is locked first, as everywhere, so that two control processes wait for each other in one order
    number = next_policy_number(conn, "experiments", "looked at", True) if _due(conn, waiting, now) else 0
    ended = []
    for tried in store.running(conn):
        if tried.slow_ms is None:
            # nothing was known when it began: what is usual is fixed as soon as it is
            store.fix_usual(conn, tried.id, store.usual(conn, tried.workload, now - USUAL))
        found = judged(conn, tried, now)
        seen = found.quality
        store.look(conn, tried.id, (seen.value, seen.low, seen.high, seen.count), figures(conn, tried, found))
        outcome, reason = (found.state, found.reason) if found.ended else ("", "")
        if not outcome and tried.until <= now:
            outcome, reason = "expired", f"undecided: {found.reason}"
        if outcome and number:
            store.end(conn, tried.id, SYSTEM, outcome, reason)
            _record(conn, "experiment.ended", SYSTEM, tried, reason, outcome)
            finding_store.report(conn, _finding(tried, outcome, reason))
            ended.append(Ended(tried, number))
    return ended


def _refuse_late(conn: Connection[Any], late: Iterable[UUID]) -> None:
    for id in late:
        found = one(conn, id)
        if found.state == "asked":
            store.refuse(conn, id, SYSTEM, LATE)
            _record(conn, "experiment.refused", SYSTEM, found, LATE)


def judged(conn: Connection[Any], tried: Recorded, now: datetime) -> Verdict:
    """What its facts show now."""
    found = store.tallies(conn, tried)
    spent = store.spent(conn, tried)
    guards = {name: found[name, ""] for name in GUARDS if (name, "") in found}
    quality = found.get(("quality", ""), {})
    names = seen_segments(tried, [segment for name, segment in found if name == "quality" and segment])
    segments = {segment: found.get(("quality", segment), {}) for segment in names}
    if tried.type == SHADOW:
        told = {segment: arms.get(CANDIDATE, Tally()) for segment, arms in segments.items()}
        left = {segment: arms[CANDIDATE].count for (name, segment), arms in found.items() if name == "open"}
        silent = _gives_up(conn, tried, now)
        return shadow_verdict(tried.rule, quality.get(CANDIDATE, Tally()), told, guards, spent, left, silent)
    return verdict(tried.rule, quality, segments, guards, spent)


def _gives_up(conn: Connection[Any], tried: Recorded, now: datetime) -> tuple[str, str] | None:
    """How a shadow ends, and why, whose judge says nothing readable, or could not be asked for a day, or of whose
    budget what is left is too little for one more answer."""
    problem = unread(tried.judge, store.said(conn, tried.id, UNREAD))
    if problem is not None:
        return UNREADABLE, problem.message
    refused, since = store.without_room(conn, tried.id)
    if refused >= REFUSED and since is not None and since <= now - SETTLED:
        return "budget", f"what is left of its budget of ${tried.budget_usd:,.2f} is less than one more answer may cost"
    pairs, since, code = store.unasked(conn, tried)
    if pairs < UNREAD or since is None or since > now - LEFT_ALONE:
        return None
    return UNASKED, unasked(tried.judge, pairs, since, code).message


def _silent(conn: Connection[Any], running: Iterable[Recorded]) -> list[Finding]:
    """Those whose answers nobody compares now, though second answers are made and paid."""
    found = []
    for tried in running:
        pairs, since, code = store.unasked(conn, tried) if tried.type == SHADOW else (0, None, "")
        if pairs < UNREAD or since is None:
            continue
        problem = unasked(tried.judge, pairs, since, code)
        made = Finding(
            kind=SILENT_KIND,
            subject=f"workload/{tried.workload}",
            mark=str(tried.id),
            severity="medium",
            message=f"The {tried.kind} {tried.name} of {tried.candidate} decides nothing: {problem.message}",
            hint=f"{problem.hint} Second answers are made seldom until then; after a day without it ends.",
            detail={"experiment": str(tried.id), "candidate": tried.candidate},
        )
        found.append(made)
    return found


def seen_segments(tried: Recorded, names: Iterable[str]) -> list[str]:
    """Segments in the order in which they were first seen: each keeps its place, and with it its share of the error,
    of which little is left for later ones."""
    before = [str(name) for name in tried.figures.get("order", ())]
    return [*before, *sorted(set(names) - set(before))][:SEGMENTS]


def figures(conn: Connection[Any], tried: Recorded, found: Verdict) -> dict[str, Any]:
    """What is shown of a verdict, as JSON."""
    pairs = {name: int(value) for name, value in store.counted(conn, tried.id).items()}
    return {
        "verdict": found.state,
        "reason": found.reason,
        "quality": _range(found.quality),
        "segments": {name: _range(each) for name, each in sorted(found.segments.items())},
        "order": list(found.segments),
        "guards": {name: {**_range(each), "what": GUARDS[name]} for name, each in found.guards.items()},
        "spent_usd": f"{found.spent_usd:.6f}",
        "pairs": pairs,
        "left": left(tried.judge, pairs["unread"], pairs["unasked"]),
    }


def _due(conn: Connection[Any], running: list[Recorded], now: datetime) -> bool:
    return any(each.until <= now or judged(conn, each, now).ended for each in running)


def _range(seen: Range) -> dict[str, Any]:
    return {"value": seen.value, "low": seen.low, "high": seen.high, "count": seen.count}


def _of(workload: Workload, rule: DeclaredExperiment, known_as: str, number: int, now: datetime) -> Recorded:
    last = end_of_day(date.fromisoformat(rule.until)) if rule.until else now + ORDINARY
    return Recorded(
        id=new_id(), name=rule.name, workload=workload.name, type=rule.type, candidate=rule.candidate,
        judge=rule.judge or "", share=rule.share, split=rule.split, tolerance=rule.tolerance,
        guard_tolerance=rule.guard_tolerance, budget_usd=to_decimal(rule.budget), until=last,
        reason=f"declared in blueprint {number}", asked_by=SYSTEM, state="running", blueprint=number, digest=known_as,
    )  # fmt: skip


def _digest(workload: Workload) -> str:
    return digest(msgspec.json.encode(workload.experiment, order="sorted"))


def _finding(tried: Recorded, outcome: str, reason: str) -> Finding:
    good = outcome in ("better", "kept")
    return Finding(
        kind=KIND,
        subject=f"workload/{tried.workload}",
        mark=str(tried.id),
        severity="info" if good else "medium" if outcome in ("worse", "guard", UNREADABLE, UNASKED) else "low",
        message=f"The {tried.kind} {tried.name} of {tried.candidate} ended ({outcome}): {reason}",
        hint=_HINTS.get(outcome, "See the experiment's page."),
        detail={"experiment": str(tried.id), "outcome": outcome, "candidate": tried.candidate},
    )


def _busy(conn: Connection[Any], workload: str) -> Conflict:
    runs = in_the_way(store.standing(conn), workload)
    if runs is None or runs.state != "running":
        hint = "Change its declaration, or name another one."
        return Conflict(f"this experiment of {workload} ran before", code="experiment_running", hint=hint)
    hint = f"Wait for it, or stop it (`groundplan experiments stop {runs.id}`): two at a time would explain nothing."
    return Conflict(f"{runs.standing}, for the same workload", code="experiment_running", hint=hint)


def _record(conn: Connection[Any], action: str, actor: str, tried: Recorded, reason: str, outcome: str = "") -> None:
    detail = {
        "experiment": str(tried.id), "name": tried.name, "type": tried.type, "candidate": tried.candidate,
        "share": f"{tried.share / 100:g}%", "budget_usd": f"{tried.budget_usd:.6f}", "reason": reason,
    }  # fmt: skip
    if outcome:
        detail["outcome"] = outcome
    record(conn, action=action, actor=actor, subject=f"workload/{tried.workload}", detail=detail)
