"""The state of the installation: blueprint, gateways, pending changes, problems, and differences of the workspace."""

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
    """The state of the installation in one response. Pending changes, reasons of kills, nearly exhausted limits and
    differences of the workspace are included only for callers with a duty."""
    may_read_all = can_read_all(caller)
    with services.transaction() as conn:
        blueprint = current_or_none(conn)
        workers = store.gateways(conn)
        pending = governance.pending_changes(conn) if may_read_all else []
        findings = sum(finding_store.count_by_kind(conn, only=ownership.own_findings(conn, caller)).values())
        kills = store.kills(conn)
        needed_services = required_services(conn)
        near_limit_texts = near_limits(conn, blueprint, services.clock.now()) if may_read_all else []
        problems = store.database_problems(conn)
    difference = workspace_differences(services, blueprint) if may_read_all else []
    if (unwritten := request.app.state.sequencer.problem) is not None:
        problems.append(f"the audit log is not written: {unwritten.splitlines()[0]}")
    problems += health.ledger_problems(services.home, workers, services.clock.now())
    problems += health.missing_key_problems(blueprint)
    problems += request.app.state.search_health.problems(needed_services)
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
                # negative for a heartbeat that was written after the start of this transaction
                "silent_s": max(0.0, round(row["silent_s"], 3)),
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
        "kills": [{"scope": row["scope"], "reason": row["reason"] if may_read_all else ""} for row in kills],
        "near_limits": near_limit_texts,
        "services": needed_services,
        "indexed": request.app.state.indexer.is_done,
        "demo": services.demo,
        "addresses": services.addresses(),
    }
