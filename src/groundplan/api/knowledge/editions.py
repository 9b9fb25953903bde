"""Background job: keeps the search index as declared; also used by its routes. Two control processes may run.

It composes: `knowledge.index` builds and evaluates editions; the embedder and the services are chosen here.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from psycopg import Connection

from groundplan.api.context import Services
from groundplan.api.knowledge import labelled_questions
from groundplan.api.knowledge.index_key import ensure_key, withdraw_keys
from groundplan.api.local_services import post_local
from groundplan.api.served_blueprint import current_or_none
from groundplan.blueprint.model import Blueprint
from groundplan.core.audit import SYSTEM
from groundplan.core.errors import Unavailable
from groundplan.knowledge.embedding.deployed import DeployedEmbedder
from groundplan.knowledge.index import index_store
from groundplan.knowledge.index.build import never_stop
from groundplan.knowledge.index.compare import Examined
from groundplan.knowledge.index.model import COMPLETE_STATES, Edition, declared_settings
from groundplan.knowledge.index.switch import SwitchActor
from groundplan.knowledge.index.upkeep import DeclaredIndex, Tools, keep_up
from groundplan.knowledge.model import Embedder
from groundplan.knowledge.service_client import RemoteEmbedder

log = logging.getLogger("groundplan.api.knowledge.editions")
LOOK_SECONDS = 5.0
_EXAMINE_SECONDS = 600.0


@dataclass(frozen=True, slots=True)
class IndexContext:
    """Context of work on the index: a connection of role control in autocommit, and the blueprint."""

    services: Services
    conn: Connection[Any]
    blueprint: Blueprint

    def declared_settings(self) -> DeclaredIndex:
        """The index settings of the blueprint."""
        models = {deployment.name: deployment.model for deployment in self.blueprint.deployments}
        rule = self.blueprint.index
        return DeclaredIndex(declared_settings(rule, self.blueprint.sources, models), rule.by_hand)

    def change_author(self, actor: str) -> SwitchActor:
        """The author of a change, with its time."""
        return SwitchActor(actor, self.services.clock.now(), timedelta(days=self.blueprint.index.keep_days))

    def tools(self, stop: Callable[[], bool] = never_stop) -> Tools:
        """The embedder, examiner and judge of this installation."""
        return Tools(self._embedder, self._examine, self._judge, stop)

    def _embedder(self, edition: Edition) -> Embedder:
        embedding = edition.settings.embedding
        if embedding is None:
            return RemoteEmbedder(self.services.home, patience=5.0)
        ensure_key(self.services, embedding.workload)
        return DeployedEmbedder(self.services.home, embedding)

    def _examine(self, edition: int, samples: Sequence[tuple[str, str]]) -> Examined:
        body = {"edition": edition, "samples": list(samples)}
        return Examined(**post_local(self.services.home, "search", "/examine", body, _EXAMINE_SECONDS))

    def _judge(self, edition: int) -> Mapping[str, Any] | None:
        file, folder = self.blueprint.index.questions, self.services.folder()
        if file is None or folder is None:
            return None
        question_lines = labelled_questions.read_questions(folder, file)
        questions = [line.question for line in question_lines]
        requests = [
            labelled_questions.search_request(self.conn, f"{file}:{line.number}", line.question)
            for line in question_lines
        ]
        return labelled_questions.evaluate_questions(
            self.services, questions, [{**request, "edition": edition, "rerank": None} for request in requests]
        )


def update_keys(services: Services, conn: Connection[Any], blueprint: Blueprint) -> None:
    """Create a key for each workload that rerankers are called for, and withdraw keys that are no longer needed."""
    rerankers = {
        item.grounding.rerank.workload for item in blueprint.workloads if item.grounding and item.grounding.rerank
    }
    for workload in sorted(rerankers):
        try:
            ensure_key(services, workload)
        except Unavailable as error:
            # search goes on without the reranker, and each answer says so
            log.info("index: %s", error.message)
    embeddings = [edition.settings.embedding for edition in index_store.editions(conn, (*COMPLETE_STATES, "building"))]
    declared = blueprint.index.embedding
    needed = rerankers | {embedding.workload for embedding in (*embeddings, declared) if embedding is not None}
    withdraw_keys(services, needed)


def update_index(services: Services, stop: Callable[[], bool] = never_stop) -> None:
    """One round: build, compare and switch to the declared index, as far as possible now."""
    with services.own_connection() as conn:
        with conn.transaction():
            blueprint = current_or_none(conn)
        if blueprint is None or not index_store.take_lead(conn):
            return
        update_keys(services, conn, blueprint)
        context = IndexContext(services, conn, blueprint)
        for step in keep_up(conn, context.declared_settings(), context.tools(stop), context.change_author(SYSTEM)):
            log.info("index: %s of edition %d is done", step.what, step.edition)
