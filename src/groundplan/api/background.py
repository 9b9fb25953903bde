"""Background tasks of the control process: the audit sequencer, indexing, periodic jobs, and kills written offline."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from typing import Final

import psycopg

from groundplan.api.audit import call_archive, lost_revocations, siem, unwritten_log, witnesses
from groundplan.api.calls import replays
from groundplan.api.context import Services
from groundplan.api.cost import upkeep as costs
from groundplan.api.genesis import note_database
from groundplan.api.knowledge import editions as index_editions
from groundplan.api.knowledge import signals
from groundplan.api.knowledge.ingest import Indexer
from groundplan.api.knowledge.upkeep import LOOK_SECONDS as SOURCES_SECONDS
from groundplan.api.knowledge.upkeep import SWEEP_SECONDS as UPKEEP_SECONDS
from groundplan.api.knowledge.upkeep import replay_now
from groundplan.api.knowledge.upkeep import sweep_now as upkeep
from groundplan.api.mail import smtp as mail
from groundplan.api.mail import weekly
from groundplan.api.periodic import PeriodicTask
from groundplan.api.placement import placing
from groundplan.api.retention import (
    NAMES_SECONDS,
    REVIEWS_SECONDS,
    SETTLED_SECONDS,
    SWEEP_SECONDS,
    drop_expired_reviews,
    forget_names,
    forget_sessions,
    forget_settled,
    sweep_now,
)
from groundplan.api.watch import (
    access_rights,
    anomalies,
    approval_terms,
    budget_crossings,
    dated_prices,
    departed_owners,
    gone_workers,
    model_changes,
    placement_ramps,
    policy_shadow,
    price_changes,
    prompt_changes,
    quality_floors,
    router_drift,
    running_experiments,
    stage_ends,
    storage_samples,
)
from groundplan.core.audit.entry import OPERATOR
from groundplan.core.audit.keys import load_private
from groundplan.core.audit.sequencer import Sequencer
from groundplan.core.database import database_url
from groundplan.core.errors import GroundplanError
from groundplan.identity import erase, kill_file
from groundplan.identity import service as identity

log = logging.getLogger("groundplan.api.background")
WATCH_SECONDS = 1.0
NOTE_SECONDS = 2.0
"""Interval between rounds. Once the database's identity is recorded, a round only reads a file."""


JOBS: Final[tuple[tuple[str, float, Callable[[Services], object]], ...]] = (
    ("deleting kept content", SWEEP_SECONDS, sweep_now),
    ("forgetting names", NAMES_SECONDS, forget_names),
    ("forgetting what is settled", SETTLED_SECONDS, forget_settled),
    ("forgetting sessions", SETTLED_SECONDS, forget_sessions),
    ("erasing documents", UPKEEP_SECONDS, upkeep),
    ("grouping unanswered questions", signals.GATHER_SECONDS, signals.gather_now),
    ("building the index", index_editions.LOOK_SECONDS, index_editions.update_index),
    ("forgetting requests", costs.FORGET_SECONDS, costs.count_repeated_requests),
    ("adding up costs", costs.ROLL_UP_SECONDS, costs.roll_up_costs),
    ("taking reviews as outcomes", costs.REVIEWS_SECONDS, costs.take_reviews),
    ("archiving facts", costs.ARCHIVE_SECONDS, costs.archive_facts),
    ("archiving entries of calls", call_archive.KEEP_SECONDS, call_archive.archive_entries),
    ("writing to owners", weekly.LOOK_SECONDS, weekly.queue_if_due),
    ("sending mail", mail.SEND_SECONDS, mail.send_waiting),
    ("sending security events", siem.SEND_SECONDS, siem.send_new_events),
    ("asking witnesses", witnesses.ASK_SECONDS, witnesses.ask_witnesses),
    ("replaying calls", replays.LOOK_SECONDS, replays.run_next_replay),
    ("closing reviews", REVIEWS_SECONDS, drop_expired_reviews),
    ("checking placement", placing.LOOK_SECONDS, placing.update_drift_findings),
    ("moving workloads in steps", placement_ramps.LOOK_SECONDS, placement_ramps.advance_due_ramps),
    ("watching spending", anomalies.WATCH_SECONDS, anomalies.update_findings),
    ("checking budgets", budget_crossings.LOOK_SECONDS, budget_crossings.update_findings),
    ("checking prices", price_changes.LOOK_SECONDS, price_changes.update_findings),
    ("sampling kept content", storage_samples.LOOK_SECONDS, storage_samples.sample_storage),
    ("checking routers", router_drift.LOOK_SECONDS, router_drift.update_findings),
    ("checking quality floors", quality_floors.LOOK_SECONDS, quality_floors.update_findings),
    ("deciding experiments", running_experiments.LOOK_SECONDS, running_experiments.advance_experiments),
    ("checking approvals", approval_terms.LOOK_SECONDS, approval_terms.process_approval_terms),
    ("checking stages", stage_ends.LOOK_SECONDS, stage_ends.update_findings),
    ("checking models", model_changes.LOOK_SECONDS, model_changes.update_findings),
    ("checking rights", access_rights.LOOK_SECONDS, access_rights.update_findings),
    ("checking duties", departed_owners.LOOK_SECONDS, departed_owners.update_findings),
    ("fencing workers that are gone", gone_workers.LOOK_SECONDS, gone_workers.fence_silent_workers),
)
"""(name, seconds between two rounds, function) of the periodic jobs."""


def start(services: Services, indexer: Indexer, stack: ExitStack) -> Sequencer:
    """Start all background tasks; `stack` stops them in reverse order. Returns the sequencer of the audit log."""
    import_offline_kills(services)
    start_periodic(stack, PeriodicTask("taking over kills", WATCH_SECONDS, partial(import_offline_kills, services)))
    replay_erasures(services)
    noting = partial(note_database, services.home, services.settings)
    start_periodic(stack, PeriodicTask("noting which database this is", NOTE_SECONDS, noting))
    sequencer = Sequencer(
        database_url(services.home, services.settings, "control"),
        services.home.audit,
        load_private(services.home, "checkpoint"),
        home=services.home,
        on_lost=lost_revocations.report_lost_decisions,
    )
    sequencer.start()
    stack.callback(sequencer.stop)
    audit_log_watch = unwritten_log.UnwrittenLogWatch(services.transaction, lambda: sequencer.problem)
    start_periodic(
        stack, PeriodicTask("watching the audit log", unwritten_log.LOOK_SECONDS, audit_log_watch.update_finding)
    )
    replay_now(services)
    indexer.start()
    stack.callback(indexer.stop)
    start_periodic(stack, PeriodicTask("scanning sources", SOURCES_SECONDS, indexer.request_again))
    for name, seconds, work in JOBS:
        start_periodic(stack, PeriodicTask(name, seconds, partial(work, services)))
    try_rules = partial(policy_shadow.try_shadow_rules, services)
    start_periodic(
        stack,
        PeriodicTask(
            "trying rules in shadow", policy_shadow.LOOK_SECONDS, try_rules, part=policy_shadow.MAX_TIME_SHARE
        ),
    )
    apply_prices = dated_prices.DatedPrices(services).apply_due_prices
    start_periodic(stack, PeriodicTask("applying prices that begin", dated_prices.LOOK_SECONDS, apply_prices))
    start_periodic(
        stack,
        PeriodicTask(
            "checking prompts", prompt_changes.LOOK_SECONDS, prompt_changes.PromptChanges(services).update_findings
        ),
    )
    return sequencer


def start_periodic(stack: ExitStack, task: PeriodicTask) -> None:
    task.start()
    stack.callback(task.stop)


def replay_erasures(services: Services) -> int:
    """Repeat erasures that an older backup undid; returns how many people were erased."""
    with services.transaction() as conn:
        return erase.reapply_erasures(conn, services.home)


def import_offline_kills(services: Services) -> int:
    """Move the kills of HOME/run/kill.json, which `groundplan kill` writes if this API did not answer, into the live
    policy, then remove the file. Returns how many there were.

    Gateways obey the file until it is removed, so that a kill is in force at every moment.
    """
    path = kill_file.kill_file_path(services.home)
    try:
        offline_kills = kill_file.read_kills(services.home)
        kills = [(str(item["scope"]), str(item["reason"])) for item in offline_kills]
    except (OSError, ValueError, KeyError) as error:
        log.error("%s cannot be read; gateways go on by what they read before: %s", path, error.__class__.__name__)
        return 0
    if not kills:
        return 0
    try:
        with services.transaction() as conn:
            for scope, reason in kills:
                identity.kill(conn, OPERATOR, scope, f"{reason} (written offline)")
        kill_file.remove_kills(services.home, offline_kills)
    except (GroundplanError, psycopg.Error, OSError, ValueError) as error:
        log.error("%s cannot be taken over yet: %s", path, error)
        return 0
    return len(kills)
