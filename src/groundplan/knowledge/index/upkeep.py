"""Brings the index to its declared settings step by step: build, compare, switch, remove.

`next_step` decides and is pure; `keep_up` executes. It is called periodically, by one process at a time, and continues
interrupted work from the stored state.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Literal

from psycopg import Connection

from groundplan.core.audit import record
from groundplan.core.errors import Unavailable
from groundplan.knowledge.index import build as building
from groundplan.knowledge.index import compare, switch
from groundplan.knowledge.index import index_store as store
from groundplan.knowledge.index.model import COMPLETE_STATES, Edition, IndexSettings, describe, serving_edition
from groundplan.knowledge.index.switch import SwitchActor
from groundplan.knowledge.intake import intake_store
from groundplan.knowledge.intake.vectors import embed_pending
from groundplan.knowledge.model import Embedder
from groundplan.ledger import finding_store
from groundplan.ledger.finding import Finding

StepKind = Literal["create", "build", "compare", "begin", "finish", "drop"]
KIND: Final = "knowledge.index"
_MAX_STEPS: Final = 20


@dataclass(frozen=True, slots=True)
class Step:
    """The next action, and the edition that it is for."""

    what: StepKind
    edition: int = 0


@dataclass(frozen=True, slots=True)
class DeclaredIndex:
    """The declared settings. `by_hand`: switches are requested by people only."""

    settings: IndexSettings
    by_hand: bool = False


@dataclass(frozen=True, slots=True)
class Tools:
    """The functions that the steps need: the embedder of an edition, and searches in one."""

    embedder: Callable[[Edition], Embedder]
    examine: compare.Examine
    judge: compare.Judge
    stop: Callable[[], bool] = building.never_stop


def next_step(editions: Sequence[Edition], declared: DeclaredIndex) -> Step | None:
    """The next step towards the declared settings; None if there is nothing to do automatically."""
    switching = _find_in_state(editions, "switching")
    if switching is not None:
        return Step("finish", switching.id)
    candidate = _find_in_state(editions, "building") or _find_in_state(editions, "ready")
    serving = serving_edition(editions)
    if candidate is not None and (candidate.settings != declared.settings or serving.settings == declared.settings):
        return Step("drop", candidate.id)
    if serving.settings == declared.settings:
        return None
    if candidate is not None:
        return _step_for_new_edition(candidate, declared)
    kept = [one for one in editions if one.state == "kept" and one.settings == declared.settings]
    if not kept:
        return Step("create")
    # an edition that somebody went back from is not switched to again by its declaration
    return None if kept[-1].declined or declared.by_hand else Step("begin", kept[-1].id)


def _step_for_new_edition(candidate: Edition, declared: DeclaredIndex) -> Step | None:
    if candidate.state == "building":
        return Step("build", candidate.id)
    if candidate.compared is None:
        return Step("compare", candidate.id)
    return None if declared.by_hand or candidate.compared["against"] else Step("begin", candidate.id)


def _find_in_state(editions: Sequence[Edition], state: str) -> Edition | None:
    return next((one for one in editions if one.state == state), None)


def keep_up(conn: Connection[Any], declared: DeclaredIndex, tools: Tools, actor: SwitchActor) -> list[Step]:
    """Take steps until there is nothing to do now, and return them. `conn` is in autocommit, of role control.

    An unavailable deployment or search service ends this round and is recorded as a finding.
    """
    taken: list[Step] = []
    switch.remove_dropped(conn)
    switch.drop_due(conn, actor)
    failures: list[Unavailable] = []
    for work in (partial(_take_steps, conn, declared, tools, actor, taken), partial(embed_others, conn, tools)):
        try:
            work()
        except Unavailable as error:
            # a failure for one edition must not hold up the others
            failures.append(error)
    switch.remove_dropped(conn)
    with conn.transaction():
        finding_store.replace_findings(conn, _build_findings(store.editions(conn), declared, failures), kinds=[KIND])
    return taken


def _take_steps(
    conn: Connection[Any], declared: DeclaredIndex, tools: Tools, actor: SwitchActor, taken: list[Step]
) -> None:
    while len(taken) < _MAX_STEPS and not tools.stop():
        step = next_step(store.editions(conn), declared)
        if step is None or not take_step(conn, step, declared, tools, actor):
            return
        taken.append(step)


def take_step(conn: Connection[Any], step: Step, declared: DeclaredIndex, tools: Tools, actor: SwitchActor) -> bool:
    """Take one step; returns False if it has to wait."""
    if step.what == "create":
        begin_edition(conn, declared.settings, actor)
        return True
    if step.what == "finish":
        return switch.finish_switch(conn, step.edition, actor)
    if step.what == "begin":
        switch.request_switch(conn, step.edition, actor)
        return True
    if step.what == "drop":
        switch.drop_edition(conn, step.edition, actor, "something else is declared now")
        return True
    edition = store.read_edition(conn, step.edition)
    if edition is None:
        return False
    if step.what == "build":
        return building.build(conn, edition, tools.embedder(edition), tools.stop)
    compare.compare_edition(conn, edition, tools.examine, tools.judge, actor.at)
    return True


def begin_edition(conn: Connection[Any], settings: IndexSettings, actor: SwitchActor) -> int:
    """Create an edition beside the serving one; returns its number."""
    with conn.transaction():
        intake_store.lock_changes(conn)
        id = store.create_edition(conn, settings)
        model, chunking = describe(settings)
        detail = {"model": model, "chunking": chunking, "beside": serving_edition(store.editions(conn)).id}
        record(conn, action="index.begun", actor=actor.by, subject=f"index/{id}", detail=detail, at=actor.at)
    return id


def embed_others(conn: Connection[Any], tools: Tools) -> None:
    """Embed new documents by the deployments of editions; `service` does so for the embedded model."""
    for edition in store.editions(conn, COMPLETE_STATES):
        if edition.settings.embedding is not None:
            embed_pending(conn, tools.embedder(edition), edition.id, tools.stop)


def _build_findings(
    editions: Sequence[Edition], declared: DeclaredIndex, failures: Sequence[Unavailable]
) -> list[Finding]:
    found = []
    for error in failures:
        hint = error.hint or "It is tried again by itself."
        found.append(
            Finding(
                kind=KIND, subject="company", mark=error.message[:80], severity="high", message=error.message, hint=hint
            )
        )
    ready = _find_in_state(editions, "ready")
    if ready is None or ready.compared is None:
        return found
    reasons = ready.compared["against"]
    if isinstance(reasons, list) and reasons:
        found.append(
            Finding(
                kind=KIND, subject=f"index/{ready.id}", mark="worse", severity="medium",
                message=f"edition {ready.id} of the index is not switched to: {'; '.join(map(str, reasons))}",
                hint=f"`groundplan knowledge index switch {ready.id}` switches to it all the same; or declare another.",
            )
        )  # fmt: skip
    elif declared.by_hand:
        found.append(
            Finding(
                kind=KIND, subject=f"index/{ready.id}", mark="ready", severity="low",
                message=f"edition {ready.id} of the index is ready and no worse than the one that serves",
                hint=f"`groundplan knowledge index switch {ready.id}`",
            )
        )  # fmt: skip
    return found
