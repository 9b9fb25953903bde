"""Replays begin and end: which kept calls are asked again, and what the judged ones let one propose.

Asking is the control process's, by way of a gateway; each change here is part of the caller's transaction.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any

from psycopg import Connection

from groundplan.blueprint.model import Workload
from groundplan.core.audit.entry import SYSTEM
from groundplan.core.audit.store import record
from groundplan.core.errors import Conflict, Invalid, NotFound, Problem
from groundplan.core.ids import new_id
from groundplan.core.money import to_decimal
from groundplan.economics.replay import replay_store as store
from groundplan.economics.replay.model import Proposal
from groundplan.economics.replay.pairwise import UNFIT
from groundplan.economics.replay.run import Run
from groundplan.ledger import finding_store
from groundplan.ledger.finding import Finding

KIND = "cost.cheaper_model"
JUDGE = "cost.judge"
SHADOW_SHARE = 0.1
GOOD = 0.5
"""Least share of answers that keep their quality for which anything is told."""


def check(made: Run, workload: Workload | None) -> None:
    """Raise `NotFound`, `Invalid` for what cannot be replayed."""
    if workload is None:
        hint = "`groundplan status` lists them."
        raise NotFound(f"there is no workload {made.workload}", code="workload_unknown", hint=hint)
    for name in (made.candidate, made.judge):
        if name not in workload.deployments:
            hint = f"Use one of: {', '.join(workload.deployments)}."
            raise Invalid(f"{made.workload} may not use {name}", code="replay_outside", hint=hint)
    if len({made.candidate, made.judge}) < 2 or made.candidate == workload.deployments[0]:
        hint = f"Name a candidate other than {workload.deployments[0]}, and another judge."
        raise Invalid("a deployment would be compared with itself", code="replay_itself", hint=hint)
    if (rule := _barred(workload, made.candidate)) is not None:
        hint = "Name another candidate, or change objectives.quality or routing.risk."
        raise Invalid(f"{made.candidate} takes no calls of {made.workload}: {rule}", code="replay_barred", hint=hint)
    if workload.keep is None:
        hint = "Declare `keep: {content: redacted}` and come back when calls were kept."
        raise Invalid(f"{made.workload} keeps no calls", code="replay_nothing_kept", hint=hint)


def check_alone(conn: Connection[Any], made: Run) -> None:
    """Raise `Conflict` (`replay_running`) if the same replay is waiting or running: each has its own budget, and a
    second click would pay twice. Concurrent requests for the workload wait until the transaction ends."""
    if (before := store.find_unfinished(conn, made)) is not None:
        hint = f"Run {before} is it; ask again when that has ended."
        raise Conflict("this is being replayed already", code="replay_running", hint=hint)


def ask(conn: Connection[Any], actor: str, made: Run) -> bool:
    """Request a replay; False if this night has it already."""
    if not store.insert(conn, made):
        return False
    detail = {
        "run": str(made.id), "candidate": made.candidate, "judge": made.judge, "calls": made.calls,
        "budget_usd": f"{made.budget_usd:.6f}",
    }  # fmt: skip
    record(conn, action="replay.asked", actor=actor, subject=f"workload/{made.workload}", detail=detail)
    return True


def queue_declared(conn: Connection[Any], workloads: Iterable[Workload], now: datetime) -> int:
    """By night, queue a run for each declared candidate, once a night; returns how many were added."""
    night, added = store.current_night(now), 0
    if night is None:
        return 0
    for workload in workloads:
        rule = workload.replay
        if rule is None or workload.keep is None or workload.stage not in ("experiment", "pilot", "production"):
            continue
        for candidate in rule.candidates:
            if candidate not in workload.deployments[1:] or _barred(workload, candidate) is not None:
                continue
            made = Run(
                id=new_id(), workload=workload.name, current=workload.deployments[0], candidate=candidate,
                judge=rule.judge, budget_usd=to_decimal(rule.budget), calls=rule.calls, night=night, asked_by=SYSTEM,
            )  # fmt: skip
            added += ask(conn, SYSTEM, made)
    return added


def finish(conn: Connection[Any], run: Run, calls_a_month: Mapping[str, float], now: datetime, why: str = "") -> None:
    """End a run with its result. `why`: why it ended before all calls were replayed; empty: all were."""
    from groundplan.economics.replay.quality import LEAST, propose  # noqa: PLC0415 -- numpy, for this alone

    since = now - timedelta(days=store.DAYS)
    judged = store.judged_calls(conn, run, since)
    doubted, of = store.contradiction_counts(conn, run.id)
    if of:
        finding_store.withdraw(conn, JUDGE, f"workload/{run.workload}", run.judge, "it gives verdicts again")
    if of and doubted / of >= UNFIT:
        told_of = f"the judge {run.judge} contradicted itself on {doubted} of {of} pairs"
        store.fail(conn, run.id, Problem(told_of, "judge_contradicts", "Name another judge: this one goes by places."))
        return
    if len(judged) < LEAST:
        few = f"{len(judged)} judged calls are too few to propose anything; {LEAST} are needed"
        store.end(conn, run.id, f"{few} ({why})" if why else few, None)
        return
    left = store.left_open_by_segment(conn, run, since)
    found = propose(judged, run.current, run.candidate, calls_a_month, left_open=left)
    share = doubted / of if of else 0.0
    store.end(conn, run.id, why or "all were asked", proposal_json(run, found, share))
    if found.saving.value > 0 and found.quality.value >= GOOD:
        finding_store.report(conn, _finding(run, found))
    else:
        why = "a later replay found it no cheaper" if found.saving.value <= 0 else "a later replay found it worse"
        finding_store.withdraw(conn, KIND, f"workload/{run.workload}", _mark(run), why)


def end_unreadable(conn: Connection[Any], run: Run, problem: Problem) -> None:
    """End a run whose judge gives no readable verdicts, with a finding for those who may name another judge."""
    store.fail(conn, run.id, problem)
    finding_store.report(
        conn,
        Finding(
            kind=JUDGE,
            subject=f"workload/{run.workload}",
            mark=run.judge,
            severity="medium",
            message=f"The replay of {run.workload} on {run.candidate} has ended: {problem.message}",
            hint=problem.hint,
            detail={"code": problem.code, "replay": str(run.id), "judge": run.judge},
        ),
    )


def close_stale(conn: Connection[Any], workloads: Iterable[Workload], now: datetime) -> int:
    """Close proposals that no longer apply: the workload is gone, another deployment answers first, the candidate may
    not answer, or the replayed calls are too old; returns how many."""
    declared = {f"workload/{workload.name}": workload for workload in workloads}
    closed = 0
    for each in finding_store.list_findings(conn, kinds=[KIND], limit=1000):
        current, _, candidate = each["mark"].partition(">")
        workload = declared.get(each["subject"])
        why = ""
        if workload is None or workload.stage == "retired":
            why = "the workload is not served any more"
        elif workload.deployments[:1] != [current]:
            why = f"{current} does not answer first any more"
        elif candidate not in workload.deployments:
            why = f"{candidate} may not answer any more"
        elif (rule := _barred(workload, candidate)) is not None:
            why = f"{candidate} takes no calls: {rule}"
        elif now - each["seen_at"] > timedelta(days=store.DAYS):
            why = f"no replay has found it for {store.DAYS} days, and the calls it was judged by are older"
        if why:
            closed += finding_store.withdraw(conn, KIND, each["subject"], each["mark"], why)
    return closed


def open_proposals(conn: Connection[Any]) -> frozenset[str]:
    """Ids of the runs with an open proposal: the newest of each that still applies."""
    found = finding_store.list_findings(conn, kinds=[KIND], limit=1000)
    return frozenset(str(each["detail"].get("run", "")) for each in found)


def _barred(workload: Workload, deployment: str) -> str | None:
    """The floor or risk class that bars a deployment from calls, or None."""
    return None if workload.routing is None else workload.routing.barred.get(deployment)


def _mark(run: Run) -> str:
    return f"{run.current}>{run.candidate}"


def proposal_json(run: Run, found: Proposal, doubted: float) -> dict[str, Any]:
    """A proposal as JSON, with the request of its one click."""
    return {
        "text": found.told(run.workload),
        "judged": found.judged,
        "left_open": found.left_open,
        "quality": _interval(found.quality),
        "saving_usd_a_month": _interval(found.saving),
        "agreement": {"text": found.agreement.text, "reviewed": found.agreement.reviewed, "same": found.agreement.same},
        "contradicted": doubted,
        "covered": found.covered,
        "known": found.known,
        "worse": [{"segment": s.name, "calls": s.calls, "quality": _interval(s.quality)} for s in found.worse],
        "shadow": shadow_request(run),
    }


def shadow_request(run: Run) -> dict[str, Any]:
    """The body of `POST /api/experiments` that starts the shadow experiment."""
    return {
        "workload": run.workload, "name": f"shadow-{run.candidate}"[:63], "type": "shadow",
        "candidate": run.candidate, "judge": run.judge, "share": SHADOW_SHARE,
        "budget_usd": float(run.budget_usd) * 5, "reason": f"replay {run.id} proposes it",
    }  # fmt: skip


def _interval(value: Any) -> dict[str, float]:
    return {"value": value.value, "low": value.low, "high": value.high, "level": value.level}


def _finding(run: Run, found: Proposal) -> Finding:
    return Finding(
        kind=KIND,
        subject=f"workload/{run.workload}",
        mark=_mark(run),
        severity="info",
        message=f"{run.candidate} instead of {run.current}: {found.told(run.workload)}",
        hint=f"Judge and people agree: {found.agreement.text}. Cost, Experiments has the replay and starts a shadow.",
        detail={"run": str(run.id), "judged": found.judged, "saving_usd": round(found.saving.value, 2)},
        fix={"experiment": shadow_request(run)},
    )
