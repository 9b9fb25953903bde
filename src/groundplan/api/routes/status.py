"""What is served, by whom, what is pending, and how the workspace differs from it."""

from __future__ import annotations

from typing import Any

from fastapi import Request

from groundplan.api import health, store
from groundplan.api.access.protected_routes import protected_router
from groundplan.api.caller import SignedIn, can_read_all
from groundplan.api.context import ServicesDep
from groundplan.api.journal_lag import journal_lag
from groundplan.api.knowledge import ownership
from groundplan.api.routes.limits import near_limits
from groundplan.api.served_blueprint import current_or_none, required_services
from groundplan.api.unapplied_changes import workspace_differences
from groundplan.governance import service as governance
from groundplan.ledger import finding_store

router = protected_router("status")


@router.get("/status")
def status(request: Request, services: ServicesDep, caller: SignedIn) -> dict[str, Any]:
    """Everything that tells whether this installation is well, in one answer. What waits, why something was stopped,
    who is near a limit and what the workspace changes is told who holds a duty."""
    whole = can_read_all(caller)
    with services.transaction() as conn:
        blueprint = current_or_none(conn)
        workers = store.gateways(conn)
        pending = governance.pending_changes(conn) if whole else []
        findings = sum(finding_store.count_by_kind(conn, only=ownership.own_findings(conn, caller)).values())
        kills = store.kills(conn)
        wanted = required_services(conn)
        near = near_limits(conn, blueprint, services.clock.now()) if whole else []
        problems = store.database_problems(conn)
    difference = workspace_differences(services, blueprint) if whole else []
    if (unwritten := request.app.state.sequencer.problem) is not None:
        problems.append(f"the audit log is not written: {unwritten.splitlines()[0]}")
    problems += health.ledger_problems(services.home, workers, services.clock.now())
    problems += health.missing_key_problems(blueprint)
    problems += request.app.state.search_health.problems(wanted)
    problems += health.certificate_problems(services.certificate(), services.clock.now())
    return {
        "blueprint": blueprint.number if blueprint else None,
        "company": blueprint.company if blueprint else None,
        "gateways": [
            {
                "pid": row["pid"],
                "epoch": str(row["epoch"]),
                "blueprint": row["blueprint"],
                "journal_lag": journal_lag(services.home.journal / str(row["epoch"]), row["segment"], row["position"]),
                "ready": row["ready"],
                "policy_ack": row["policy_ack"],
                "health": row["health"],
                "silent_s": max(0.0, round(row["silent_s"], 3)),  # it may have come after this transaction began
            }
            for row in workers
        ],
        "pending": [
            {
                "change": str(change.id),
                "subject": change.subject,
                "waits_for": [{"subject": need.subject, "duty": need.duty} for need in change.open_needs],
            }
            for change in pending
        ],
        "difference": difference,
        "postgres": "external" if services.settings.database_url else "embedded",
        "problems": problems,
        "findings": findings,
        "kills": [{"scope": row["scope"], "reason": row["reason"] if whole else ""} for row in kills],
        "near_limits": near,
        "services": wanted,
        "indexed": request.app.state.indexer.is_done,
        "demo": services.demo,
        "addresses": services.addresses(),
    }
