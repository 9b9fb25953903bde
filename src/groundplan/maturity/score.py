"""Scores readiness from evidence only: a point without evidence is not earned, and says what to do next.

Pure. A point lapses with its evidence, because evidence is gathered anew each time. There are no weights, gates or
roadmap yet.
"""

from __future__ import annotations

from groundplan.maturity.model import Evidence, Point, Readiness

ENOUGH_CALLS = 100
"""Fewer calls prove neither latency nor availability."""


def score(evidence: Evidence) -> Readiness:
    """All points of a workload, earned or not, in the recommended order."""
    points = (
        *_placement(evidence),
        *_data(evidence),
        *_cost(evidence),
        *_operations(evidence),
        *_governance(evidence),
    )
    return Readiness(evidence.workload, evidence.stage, points)


def _make_point(area: str, name: str, proof: str | None, next_step: str) -> Point:
    return Point(area, name, 1, proof, None) if proof else Point(area, name, 0, None, next_step)


def _too_few_calls(calls: int) -> str:
    return f"Needs {ENOUGH_CALLS} calls in 30 days, demo traffic not counted; so far {calls}."


def _serving_step(e: Evidence) -> str:
    """The next step for a workload that is not served."""
    if e.stage in ("proposed", "retired"):
        return f"It is {e.stage}: give it a stage that is served, such as experiment."
    return "Get it served: see what its change waits for."


def _declaring_step(e: Evidence, declared: str, otherwise: str) -> str:
    """The next step for a missing part: to serve the workload where the part is declared, else `otherwise`."""
    return _serving_step(e) if declared in e.declares and not e.served else otherwise


def _blueprint(evidence: Evidence) -> str | None:
    return f"/blueprints/{evidence.blueprint}" if evidence.served and evidence.blueprint else None


def _calls(evidence: Evidence) -> str:
    return f"/calls?workload={evidence.workload}"


def _call(id: str | None) -> str | None:
    return f"/calls/{id}" if id else None


def _placement(e: Evidence) -> list[Point]:
    objective, measured = e.first_token_objective_ms, e.first_byte_p95_ms
    fast = objective is not None and measured is not None and measured <= objective and e.calls >= ENOUGH_CALLS
    if objective is None:
        faster = "Declare objectives: {first_token: 800ms}."
    elif e.calls < ENOUGH_CALLS:
        faster = _too_few_calls(e.calls)
    else:
        faster = f"95% of first tokens come within {measured or 0:.0f} ms, {objective} ms is the objective."
    return [
        _make_point("placement", "runs where its rules allow", _blueprint(e), _serving_step(e)),
        _make_point(
            "placement",
            "another deployment can take over",
            _blueprint(e) if e.fallbacks else None,
            _declaring_step(e, "fallbacks", "Declare fallbacks: [NAME]."),
        ),
        _make_point(
            "placement",
            "a fallback has been exercised",
            _call(e.fallback_call),
            "Take the primary down once, on purpose, and watch a call.",
        ),
        _make_point("placement", "meets its latency objective", _calls(e) if fast else None, faster),
    ]


def _data(e: Evidence) -> list[Point]:
    if not e.sources:
        return [
            _make_point("data", "uses no governed data", _blueprint(e), _serving_step(e)),
        ]
    lost = [source.name for source in e.sources if not source.owner_present]
    unread = [source.name for source in e.sources if not source.indexed]
    doubtful = [source.name for source in e.sources if source.open_findings]
    link = f"/knowledge?workload={e.workload}"
    return [
        _make_point(
            "data",
            "every source has an owner",
            None if lost or not e.served else link,
            f"Name an owner for {', '.join(lost)}." if lost and e.served else _serving_step(e),
        ),
        _make_point(
            "data",
            "its sources are indexed",
            None if unread else link,
            f"Index {', '.join(unread)}." if e.served else _serving_step(e),
        ),
        _make_point(
            "data",
            "no document has an open finding",
            None if unread or doubtful else link,
            f"Close the findings on {', '.join(doubtful)}." if doubtful else "Have its sources indexed.",
        ),
        _make_point(
            "data", "answers quote passages", _call(e.grounded_call), "Ask a question that its sources answer."
        ),
    ]


def _budget_step(e: Evidence) -> str:
    if e.own_budget_usd is not None:
        return f"Its budget warns and refuses nothing: add one that is hard, covers: workload/{e.workload}."
    return f"Add kind: budget, covers: workload/{e.workload}."


def _cost(e: Evidence) -> list[Point]:
    inside = e.own_budget_usd is not None and e.calls > 0 and e.cost_usd <= e.own_budget_usd
    link = f"/cost?workload={e.workload}"
    return [
        _make_point(
            "cost",
            "a hard budget of its own",
            link if e.own_hard_budget and e.served else None,
            _declaring_step(e, "budget", _budget_step(e)),
        ),
        _make_point(
            "cost",
            "the price of each deployment is known",
            _blueprint(e) if e.price_sources else None,
            _serving_step(e),
        ),
        _make_point("cost", "its cost is measured", link if e.calls else None, "Make the first real call."),
        _make_point(
            "cost", "stays inside its budget", link if inside else None, "Make calls, then compare in 30 days."
        ),
        _make_point(
            "cost",
            "its outcomes are reported",
            _calls(e) if e.outcomes else None,
            "Report outcomes with POST /api/outcomes.",
        ),
    ]


def _operations(e: Evidence) -> list[Point]:
    enough = e.calls >= ENOUGH_CALLS
    share = e.ok / e.calls if e.calls else 0.0
    held = e.availability_objective is not None and enough and share >= e.availability_objective
    if e.availability_objective is None:
        how = "Declare objectives: {availability: 99.5%}."
    elif not enough:
        how = _too_few_calls(e.calls)
    else:
        how = f"{share:.2%} of the calls were answered, {e.availability_objective:.2%} is the objective."
    return [
        _make_point("operations", "meets its availability objective", _calls(e) if held else None, how),
        _make_point(
            "operations",
            "support with a runbook is declared",
            f"/workloads/{e.workload}#support" if e.support else None,
            "Declare support: {contact: ..., hours: ..., runbook: ...}.",
        ),
        _make_point("operations", "an outage has been drilled", None, "Scheduled drills do not exist yet."),
    ]


def _governance(e: Evidence) -> list[Point]:
    unnamed = ", ".join(duty for duty in e.duties_missing if duty not in e.declares)
    unfilled = ", ".join(e.duties_missing) if e.served else ""
    missing = unnamed or unfilled
    if e.stage == "production":
        approval = "Have it approved by its duties; approvals in the demo or by oneself do not count."
    else:
        approval = "Move it to production, which others have to approve."
    return [
        _make_point(
            "governance",
            "an owner in every duty",
            None if e.duties_missing or not e.duties_held else f"/workloads/{e.workload}#owners",
            f"Name somebody for {missing}." if missing else _serving_step(e),
        ),
        _make_point(
            "governance",
            "approved by somebody other than the requester",
            f"/governance#change-{e.approved_change}" if e.approved_change else None,
            approval,
        ),
        _make_point(
            "governance",
            "its calls are in the audit log",
            f"{_call(e.logged_call)}#proof" if e.logged_call else None,
            "Make the first real call; its entry follows within 5 seconds.",
        ),
    ]
