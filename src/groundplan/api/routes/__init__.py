"""The routes of the control API, one file for each subject; each is thin: who may, one transaction, one shape."""

from groundplan.api.routes import (
    audit,
    batches,
    cache,
    changes,
    content,
    demo,
    findings,
    history,
    inbox,
    keys,
    kill,
    knowledge,
    ledger,
    limits,
    live,
    people,
    playground,
    reconcile,
    session,
    status,
    traffic,
    why,
    workloads,
)

ALL = (
    status.router,
    changes.router,
    history.router,
    workloads.router,
    live.router,
    content.router,
    traffic.router,
    batches.router,
    playground.router,
    ledger.router,
    limits.router,
    reconcile.router,
    keys.router,
    people.router,
    kill.router,
    cache.router,
    audit.router,
    knowledge.router,
    inbox.router,
    findings.router,
    why.router,
    session.router,
    demo.router,
)
"""Routers below /api."""

PAGES = (session.pages,)
"""Routers without prefix."""
