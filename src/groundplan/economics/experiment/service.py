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
from groundplan.economics.experiment.record import ExperimentRecord, blocking_experiment
from groundplan.economics.experiment.sequential import Range, Tally
from groundplan.economics.experiment.verdict import (
    CANDIDATE,
    GUARDS,
    UNASKED,
    UNREADABLE,
    Verdict,
    ab_verdict,
    shadow_verdict,
)
from groundplan.economics.replay.pairwise import (
    LEFT_ALONE,
    UNASKED_HINT,
    UNREAD,
    UNREAD_HINT,
    open_pairs_note,
    unreachable_problem,
    unreadable_problem,
)
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
MAX_TEXT = timedelta(days=180)
ORDINARY = timedelta(days=30)
REFUSED, SETTLED = 3, timedelta(minutes=1)
"""Second answers in a row for which a budget has no room, and for how long: what was open then is settled."""
LATE = "nobody approved it until its last day"
SEGMENTS = 100
"""Limit of segments of an experiment: applications may name another feature in each call."""
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
class EndedExperiment:
    """An experiment that ended, and the number of the live policy without it."""

    experiment: ExperimentRecord
    number: int


def check(made: ExperimentRecord, workload: Workload | None, now: datetime) -> None:
    """Raise `Invalid`, `NotFound` for an experiment that the workload, as it is served now, does not allow."""
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
    if made.until > now + MAX_TEXT:
        raise Invalid("an experiment ends within 180 days", code="experiment_until", hint="Name an earlier last day.")


def ask(
    conn: Connection[Any], actor: str, made: ExperimentRecord, *, waits: bool, now: datetime
) -> tuple[ExperimentRecord, int | None]:
    """Begin it, or ask for it where it `waits` for somebody else; the policy in which it runs.

    Raises `Conflict` (`experiment_running`).
    """
    number = None if waits else next_policy_number(conn, "experiment", str(made.id), False)
    if not waits:
        slow, dear = store.usual_limits(conn, made.workload, now - USUAL)
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
    found = get_experiment(conn, id)
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
    conn: Connection[Any], actor: str, found: ExperimentRecord, reason: str, now: datetime, served: Iterable[Workload]
) -> None:
    if found.until <= now:
        raise Conflict("its last day is over", code="experiment_until", hint="Ask for another one.")
    check(found, next((each for each in served if each.name == found.workload), None), now)
    if not store.begin(conn, found.id, actor, reason, store.usual_limits(conn, found.workload, now - USUAL)):
        raise _busy(conn, found.workload)


def stop(conn: Connection[Any], actor: str, id: UUID, reason: str, outcome: str = "stopped") -> int:
    """End an experiment now. Raises `NotFound`, `Conflict` (`experiment_decided`)."""
    number = next_policy_number(conn, "experiment", str(id), True)
    found = get_experiment(conn, id)
    if found.state not in ("asked", "running"):
        raise Conflict(f"it is {found.state} already", code="experiment_decided", hint="Nothing is left to do.")
    store.end(conn, id, actor, outcome, reason)
    _record(conn, "experiment.ended", actor, found, reason, outcome)
    return number


def get_experiment(conn: Connection[Any], id: UUID, *, lock: bool = True) -> ExperimentRecord:
    """Read an experiment, locked unless it is only read: to change it, lock live policy first. Raises `NotFound`
    (`experiment_unknown`)."""
    found = store.find(conn, id, lock=lock)
    if found is None:
        hint = "`groundplan experiments list` has them."
        raise NotFound(f"there is no experiment {id}", code="experiment_unknown", hint=hint)
    return found


def apply_declared(conn: Connection[Any], workloads: Iterable[Workload], number: int, now: datetime) -> int:
    """Start the experiments that blueprint `number` declares and end those it no longer declares; returns how many.

    A declaration begins once: what has ended does not begin again under the same name.
    """
    declared = {
        (workload.name, _digest(workload)): (workload, workload.experiment)
        for workload in workloads
        if workload.experiment is not None and workload.stage in SERVED
    }
    every = store.list_experiments(conn, limit=1000)
    known = {(each.workload, each.digest): each for each in every if each.digest}
    over = [each for key, each in known.items() if each.state == "running" and key not in declared]
    for each in over:
        stop(conn, SYSTEM, each.id, "it is not declared any more", "withdrawn")
    busy = {each.workload for each in every if each.state == "running"} - {each.workload for each in over}
    begun = 0
    for key, (workload, rule) in declared.items():
        if key in known or rule is None or workload.name in busy:
            continue  # while another experiment runs the declared one waits
        made = _from_declaration(workload, rule, key[1], number, now)
        barred = workload.routing is not None and made.candidate in workload.routing.barred
        if made.until <= now or barred or made.candidate not in workload.deployments[1:]:
            continue
        with suppress(Conflict):  # another control process was first
            ask(conn, SYSTEM, made, waits=False, now=now)
            begun += 1
    return len(over) + begun


def evaluate_running(conn: Connection[Any], now: datetime) -> list[EndedExperiment]:
    """Evaluate all running experiments, and end those that are decided, harmful, out of budget or expired. Refuse those
    that nobody approved until their last day."""
    standing = store.open_experiments(conn)
    waiting = [each for each in standing if each.state == "running"]
    finding_store.replace_findings(conn, _silent_findings(conn, waiting), kinds=(SILENT_KIND,))
    ended = _end_decided(conn, waiting, now) if waiting else []
    _refuse_late(conn, [each.id for each in standing if each.state == "asked" and each.until <= now])
    return ended


def _end_decided(conn: Connection[Any], waiting: list[ExperimentRecord], now: datetime) -> list[EndedExperiment]:
    # live policy is locked first, as everywhere, so that two control processes wait for each other in one order
    number = next_policy_number(conn, "experiments", "looked at", True) if _any_ended(conn, waiting, now) else 0
    ended = []
    for experiment in store.lock_running(conn):
        if experiment.slow_ms is None:
            # usual values were unknown at the start: they are fixed as soon as they are known
            store.set_usual_limits(conn, experiment.id, store.usual_limits(conn, experiment.workload, now - USUAL))
        found = current_verdict(conn, experiment, now)
        seen = found.quality
        store.add_look(
            conn, experiment.id, (seen.value, seen.low, seen.high, seen.count), figures(conn, experiment, found)
        )
        outcome, reason = (found.state, found.reason) if found.ended else ("", "")
        if not outcome and experiment.until <= now:
            outcome, reason = "expired", f"undecided: {found.reason}"
        if outcome and number:
            store.end(conn, experiment.id, SYSTEM, outcome, reason)
            _record(conn, "experiment.ended", SYSTEM, experiment, reason, outcome)
            finding_store.report(conn, _finding(experiment, outcome, reason))
            ended.append(EndedExperiment(experiment, number))
    return ended


def _refuse_late(conn: Connection[Any], late: Iterable[UUID]) -> None:
    for id in late:
        found = get_experiment(conn, id)
        if found.state == "asked":
            store.refuse(conn, id, SYSTEM, LATE)
            _record(conn, "experiment.refused", SYSTEM, found, LATE)


def current_verdict(conn: Connection[Any], experiment: ExperimentRecord, now: datetime) -> Verdict:
    """The present verdict of an experiment, from the ledger."""
    found = store.tallies(conn, experiment)
    spent = store.spent(conn, experiment)
    guards = {name: found[name, ""] for name in GUARDS if (name, "") in found}
    quality = found.get(("quality", ""), {})
    names = segment_order(experiment, [segment for name, segment in found if name == "quality" and segment])
    segments = {segment: found.get(("quality", segment), {}) for segment in names}
    if experiment.type == SHADOW:
        told = {segment: arms.get(CANDIDATE, Tally()) for segment, arms in segments.items()}
        left = {segment: arms[CANDIDATE].count for (name, segment), arms in found.items() if name == "open"}
        silent = _silent_end(conn, experiment, now)
        return shadow_verdict(experiment.rule, quality.get(CANDIDATE, Tally()), told, guards, spent, left, silent)
    return ab_verdict(experiment.rule, quality, segments, guards, spent)


def _silent_end(conn: Connection[Any], experiment: ExperimentRecord, now: datetime) -> tuple[str, str] | None:
    """(outcome, reason) of a shadow experiment whose judge is unreadable or unreachable for a day, or whose remaining
    budget is too small for another answer; None: it goes on."""
    problem = unreadable_problem(experiment.judge, store.newest_judge_texts(conn, experiment.id, UNREAD))
    if problem is not None:
        return UNREADABLE, problem.message
    refused, since = store.refused_by_budget(conn, experiment.id)
    if refused >= REFUSED and since is not None and since <= now - SETTLED:
        return (
            "budget",
            f"what is left of its budget of ${experiment.budget_usd:,.2f} is less than one more answer may cost",
        )
    pairs, since, code = store.uncompared_pairs(conn, experiment)
    if pairs < UNREAD or since is None or since > now - LEFT_ALONE:
        return None
    return UNASKED, unreachable_problem(experiment.judge, pairs, since, code).message


def _silent_findings(conn: Connection[Any], running: Iterable[ExperimentRecord]) -> list[Finding]:
    """Findings of shadow experiments whose answers cannot be compared now, although second answers are paid for."""
    found = []
    for experiment in running:
        pairs, since, code = store.uncompared_pairs(conn, experiment) if experiment.type == SHADOW else (0, None, "")
        if pairs < UNREAD or since is None:
            continue
        problem = unreachable_problem(experiment.judge, pairs, since, code)
        made = Finding(
            kind=SILENT_KIND,
            subject=f"workload/{experiment.workload}",
            mark=str(experiment.id),
            severity="medium",
            message=(
                f"The {experiment.kind} {experiment.name} of {experiment.candidate} decides nothing: {problem.message}"
            ),
            hint=f"{problem.hint} Second answers are made seldom until then; after a day without it ends.",
            detail={"experiment": str(experiment.id), "candidate": experiment.candidate},
        )
        found.append(made)
    return found


def segment_order(experiment: ExperimentRecord, names: Iterable[str]) -> list[str]:
    """Segments in the order in which they were first seen. Each keeps its position, which decides its share of the
    error; later ones get less."""
    before = [str(name) for name in experiment.figures.get("order", ())]
    return [*before, *sorted(set(names) - set(before))][:SEGMENTS]


def figures(conn: Connection[Any], experiment: ExperimentRecord, found: Verdict) -> dict[str, Any]:
    """A verdict as JSON, with counts of pairs."""
    pairs = {name: int(value) for name, value in store.pair_counts(conn, experiment.id).items()}
    return {
        "verdict": found.state,
        "reason": found.reason,
        "quality": _range(found.quality),
        "segments": {name: _range(each) for name, each in sorted(found.segments.items())},
        "order": list(found.segments),
        "guards": {name: {**_range(each), "what": GUARDS[name]} for name, each in found.guards.items()},
        "spent_usd": f"{found.spent_usd:.6f}",
        "pairs": pairs,
        "left": open_pairs_note(experiment.judge, pairs["unread"], pairs["unasked"]),
    }


def _any_ended(conn: Connection[Any], running: list[ExperimentRecord], now: datetime) -> bool:
    return any(each.until <= now or current_verdict(conn, each, now).ended for each in running)


def _range(seen: Range) -> dict[str, Any]:
    return {"value": seen.value, "low": seen.low, "high": seen.high, "count": seen.count}


def _from_declaration(
    workload: Workload, rule: DeclaredExperiment, known_as: str, number: int, now: datetime
) -> ExperimentRecord:
    last = end_of_day(date.fromisoformat(rule.until)) if rule.until else now + ORDINARY
    return ExperimentRecord(
        id=new_id(), name=rule.name, workload=workload.name, type=rule.type, candidate=rule.candidate,
        judge=rule.judge or "", share=rule.share, split=rule.split, tolerance=rule.tolerance,
        guard_tolerance=rule.guard_tolerance, budget_usd=to_decimal(rule.budget), until=last,
        reason=f"declared in blueprint {number}", asked_by=SYSTEM, state="running", blueprint=number, digest=known_as,
    )  # fmt: skip


def _digest(workload: Workload) -> str:
    return digest(msgspec.json.encode(workload.experiment, order="sorted"))


def _finding(experiment: ExperimentRecord, outcome: str, reason: str) -> Finding:
    good = outcome in ("better", "kept")
    return Finding(
        kind=KIND,
        subject=f"workload/{experiment.workload}",
        mark=str(experiment.id),
        severity="info" if good else "medium" if outcome in ("worse", "guard", UNREADABLE, UNASKED) else "low",
        message=f"The {experiment.kind} {experiment.name} of {experiment.candidate} ended ({outcome}): {reason}",
        hint=_HINTS.get(outcome, "See the experiment's page."),
        detail={"experiment": str(experiment.id), "outcome": outcome, "candidate": experiment.candidate},
    )


def _busy(conn: Connection[Any], workload: str) -> Conflict:
    runs = blocking_experiment(store.open_experiments(conn), workload)
    if runs is None or runs.state != "running":
        hint = "Change its declaration, or name another one."
        return Conflict(f"this experiment of {workload} ran before", code="experiment_running", hint=hint)
    hint = f"Wait for it, or stop it (`groundplan experiments stop {runs.id}`): two at a time would explain nothing."
    return Conflict(f"{runs.standing}, for the same workload", code="experiment_running", hint=hint)


def _record(
    conn: Connection[Any], action: str, actor: str, experiment: ExperimentRecord, reason: str, outcome: str = ""
) -> None:
    detail = {
        "experiment": str(experiment.id), "name": experiment.name, "type": experiment.type,
        "candidate": experiment.candidate, "share": f"{experiment.share / 100:g}%",
        "budget_usd": f"{experiment.budget_usd:.6f}", "reason": reason,
    }  # fmt: skip
    if outcome:
        detail["outcome"] = outcome
    record(conn, action=action, actor=actor, subject=f"workload/{experiment.workload}", detail=detail)
