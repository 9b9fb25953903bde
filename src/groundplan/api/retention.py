"""Deletes data whose retention has ended: prompts and answers (also those that the served blueprint no longer allows),
with cached answers and unanswered questions; answers that waited too long for a review, names of erased people, settled
rows of budgets and batches, and old sessions."""

from __future__ import annotations

from datetime import timedelta
from functools import partial
from typing import Any

from psycopg import Connection

from groundplan.api.context import Services
from groundplan.api.served_blueprint import current_or_none
from groundplan.blueprint.model import Blueprint
from groundplan.core.audit.entry import SYSTEM
from groundplan.core.audit.store import record
from groundplan.gateway.budgets.periods import has_ended
from groundplan.governance.review import store as review_store
from groundplan.identity import erase, session_store
from groundplan.knowledge.signals import signal_store
from groundplan.ledger import background_store, completion_store, content_store, response_store, settled_budgets_store

SWEEP_SECONDS = 30.0
REVIEWS_SECONDS = 60.0
NAMES_SECONDS = 3600.0
SETTLED_SECONDS = 3600.0
SETTLED_RETENTION = timedelta(days=90)
"""How long movements and slices of budgets are kept after the end of their worker, and console sessions after theirs,
for investigations."""


def sweep(conn: Connection[Any], blueprint: Blueprint | None) -> dict[str, int]:
    """Delete content that may not be kept; returns workload -> deleted calls, which the audit log records, too.

    Without a blueprint only content past its time is deleted.
    """
    deleted = content_store.delete_expired(conn)
    if blueprint is not None:
        for keep_only in (content_store.apply_rules, response_store.apply_rules, completion_store.apply_rules):
            for workload, count in keep_only(conn, keep_rules(blueprint)).items():
                deleted[workload] = deleted.get(workload, 0) + count
        background_store.apply_rules(conn, keep_rules(blueprint))
        content_store.forget_answers(conn, keep_rules(blueprint))
        signal_store.forget_disabled(conn, [(workload, seconds) for workload, _, seconds in keep_rules(blueprint)])
    for workload, count in sorted(deleted.items()):
        record(conn, action="content.delete", actor=SYSTEM, subject=f"workload/{workload}", detail={"calls": count})
    return deleted


def keep_rules(blueprint: Blueprint) -> list[tuple[str, bool, int]]:
    """(workload, whether full content may be kept, seconds) of the workloads that keep any."""
    return [(w.name, w.keep.content == "full", w.keep.seconds) for w in blueprint.workloads if w.keep is not None]


def sweep_now(services: Services) -> dict[str, int]:
    """`sweep` by the served blueprint, in a transaction of its own."""
    with services.transaction() as conn:
        return sweep(conn, current_or_none(conn))


def forget_names(services: Services) -> int:
    """Delete names of erased people that approvals needed until today; returns how many."""
    with services.transaction() as conn:
        return erase.erase_due_names(conn, services.clock.now())


def forget_sessions(services: Services) -> int:
    """Delete sign-in links and console sessions that are long over; returns how many. The audit log keeps sign-ins."""
    with services.transaction() as conn:
        return session_store.delete_expired(conn, services.clock.now() - SETTLED_RETENTION)


def forget_settled(services: Services) -> int:
    """Delete settled movements and slices of budgets, batch lines whose calls were archived, and deleted files; returns
    how many. Done in parts, each in its own transaction, since the first round may find years of them."""
    before, count = services.clock.now() - SETTLED_RETENTION, 0
    with services.transaction() as conn:
        ended = [
            period
            for period in settled_budgets_store.list_periods(conn)
            if has_ended(period, f"{before:%Y-%m-%dT%H:%M}")
        ]
    # what ended for good first: its worker's row goes with the last that it held
    for forget in (settled_budgets_store.forget_ended, partial(settled_budgets_store.forget_settled, over=ended)):
        some = 1
        while some:
            with services.transaction() as conn:
                some = forget(conn, before)
            count += some
    return count


def drop_expired_reviews(services: Services) -> int:
    """Delete texts from the review queue whose time is over or whose worker is gone; returns how many. Several control
    processes may run it at once."""
    with services.transaction() as conn:
        return review_store.expire_unanswered(conn)
