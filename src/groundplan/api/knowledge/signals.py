"""Unanswered questions: stored as far as a workload keeps content, and reported by topic."""

from __future__ import annotations

import logging
from datetime import timedelta
from functools import partial
from uuid import UUID

import psycopg
from psycopg import Connection

from groundplan.api.context import Services
from groundplan.api.served_blueprint import current_or_none
from groundplan.blueprint.model import Workload
from groundplan.core.audit.subject import SubjectKeys
from groundplan.core.detect import redact
from groundplan.core.errors import GroundplanError
from groundplan.core.ids import new_id
from groundplan.knowledge.service_client import RemoteEmbedder
from groundplan.knowledge.signals import gather, signal_store
from groundplan.knowledge.signals.signal_store import UNANSWERED, Signal

log = logging.getLogger("groundplan.api.knowledge.signals")
GATHER_SECONDS = 900.0


def record_unanswered(
    services: Services,
    conn: Connection[object],
    workload: Workload,
    person: UUID,
    question: str,
    id: UUID | None = None,
) -> UUID:
    """Record that nothing was found. The question and the person are stored only if the workload keeps content: sealed
    under the person's key, redacted, and for as long as the workload declares."""
    keep, id = workload.keep, id or new_id()
    if keep is None:
        return signal_store.add_signal(conn, Signal(workload.name, UNANSWERED, id=id))
    text = question if keep.content == "full" else redact(question)[0]
    sealed = SubjectKeys.of(services.home).seal(conn, person, text)
    until = services.clock.now() + timedelta(seconds=keep.seconds)
    return signal_store.add_signal(
        conn, Signal(workload.name, UNANSWERED, person=person, asked=sealed, until=until, id=id)
    )


def gather_now(services: Services) -> int:
    """Delete expired questions, and report the topics of the others; returns how many.

    If no embedder is available, the next round does it.
    """
    with services.own_connection() as conn:
        now = services.clock.now()
        signal_store.forget_expired(conn, now)
        blueprint = current_or_none(conn)
        unseal = partial(SubjectKeys.of(services.home).unseal, conn)
        embedder = RemoteEmbedder(services.home, patience=0.0)
        topics = []
        try:
            for workload in blueprint.workloads if blueprint else ():
                if workload.grounding is None:
                    continue
                sources = workload.grounding.sources
                if workload.keep is not None:
                    topics += gather.unanswered_topics(conn, workload.name, sources, now, embedder, unseal)
                else:
                    topics += gather.unrecorded_topics(conn, workload.name, sources, now)
        except (GroundplanError, psycopg.Error) as error:
            log.warning("unanswered questions are not grouped yet: %s", error)
            return 0
        with conn.transaction():
            gather.put_topics(conn, topics)
        return len(topics)
