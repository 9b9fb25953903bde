"""Bringing the index to what is declared: build, compare, switch, remove, one step after the other.

`next_step` decides and is pure; `keep_up` does. It is called again and again, and by one process at a time: whatever
was killed in its midst is gone on with from what is stored.
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
from groundplan.knowledge.index.model import WHOLE, Edition, IndexSettings, describe, serving_edition
from groundplan.knowledge.index.switch import SwitchActor
from groundplan.knowledge.intake import intake_store
from groundplan.knowledge.intake.vectors import embed_pending
from groundplan.knowledge.model import Embedder
from groundplan.ledger import finding_store
from groundplan.ledger.finding import Finding

What = Literal["create", "build", "compare", "begin", "finish", "drop"]
KIND: Final = "knowledge.index"
_MOST_STEPS: Final = 20


@dataclass(frozen=True, slots=True)
class Step:
    """What is to be done next, to which edition."""

    what: What
    edition: int = 0


@dataclass(frozen=True, slots=True)
class DeclaredIndex:
    """What is declared."""

    settings: IndexSettings
    by_hand: bool = False


@dataclass(frozen=True, slots=True)
class Tools:
    """What the steps need of the world around: who embeds for an edition, and who asks questions of one."""

    embedder: Callable[[Edition], Embedder]
    examine: compare.Examine
    judge: compare.Judge
    stop: Callable[[], bool] = building.never_stop


def next_step(editions: Sequence[Edition], wanted: DeclaredIndex) -> Step | None:
    """The next step towards what is declared; None where there is nothing to do by itself."""
    switching = _first_in_state(editions, "switching")
    if switching is not None:
        return Step("finish", switching.id)
    beside = _first_in_state(editions, "building") or _first_in_state(editions, "ready")
    now = serving_edition(editions)
    if beside is not None and (beside.settings != wanted.settings or now.settings == wanted.settings):
        return Step("drop", beside.id)
    if now.settings == wanted.settings:
        return None
    if beside is not None:
        return _step_beside(beside, wanted)
    kept = [one for one in editions if one.state == "kept" and one.settings == wanted.settings]
    if not kept:
        return Step("create")
    # who went back from an edition by hand is not led into it again by what is declared
    return None if kept[-1].declined or wanted.by_hand else Step("begin", kept[-1].id)


def _step_beside(beside: Edition, wanted: DeclaredIndex) -> Step | None:
    if beside.state == "building":
        return Step("build", beside.id)
    if beside.compared is None:
        return Step("compare", beside.id)
    return None if wanted.by_hand or beside.compared["against"] else Step("begin", beside.id)


def _first_in_state(editions: Sequence[Edition], state: str) -> Edition | None:
    return next((one for one in editions if one.state == state), None)


def keep_up(conn: Connection[Any], wanted: DeclaredIndex, tools: Tools, who: SwitchActor) -> list[Step]:
    """Take steps until nothing is left to do now; those that were taken. `conn` is in autocommit, of role control.

    A deployment or a search service that is away ends it for this time, and is told as a finding.
    """
    taken: list[Step] = []
    switch.remove_dropped(conn)
    switch.drop_due(conn, who)
    away: list[Unavailable] = []
    for work in (partial(_steps, conn, wanted, tools, who, taken), partial(embed_others, conn, tools)):
        try:
            work()
        except Unavailable as error:
            # what is away for one edition keeps nothing from another
            away.append(error)
    switch.remove_dropped(conn)
    with conn.transaction():
        finding_store.tell_all(conn, _findings(store.editions(conn), wanted, away), kinds=[KIND])
    return taken


def _steps(conn: Connection[Any], wanted: DeclaredIndex, tools: Tools, who: SwitchActor, taken: list[Step]) -> None:
    while len(taken) < _MOST_STEPS and not tools.stop():
        step = next_step(store.editions(conn), wanted)
        if step is None or not take_step(conn, step, wanted, tools, who):
            return
        taken.append(step)


def take_step(conn: Connection[Any], step: Step, wanted: DeclaredIndex, tools: Tools, who: SwitchActor) -> bool:
    """Take one step; False where it waits for something else."""
    if step.what == "create":
        begin_edition(conn, wanted.settings, who)
        return True
    if step.what == "finish":
        return switch.finish_switch(conn, step.edition, who)
    if step.what == "begin":
        switch.request_switch(conn, step.edition, who)
        return True
    if step.what == "drop":
        switch.drop_edition(conn, step.edition, who, "something else is declared now")
        return True
    edition = store.read_edition(conn, step.edition)
    if edition is None:
        return False
    if step.what == "build":
        return building.build(conn, edition, tools.embedder(edition), tools.stop)
    compare.compare_edition(conn, edition, tools.examine, tools.judge, who.at)
    return True


def begin_edition(conn: Connection[Any], settings: IndexSettings, who: SwitchActor) -> int:
    """Begin an edition beside the one that serves; its number."""
    with conn.transaction():
        intake_store.lock_changes(conn)
        id = store.create_edition(conn, settings)
        model, chunking = describe(settings)
        detail = {"model": model, "chunking": chunking, "beside": serving_edition(store.editions(conn)).id}
        record(conn, action="index.begun", actor=who.by, subject=f"index/{id}", detail=detail, at=who.at)
    return id


def embed_others(conn: Connection[Any], tools: Tools) -> None:
    """Vectors of deployments for documents that came since; those of the embedded model are made by `service`."""
    for edition in store.editions(conn, WHOLE):
        if edition.settings.embedding is not None:
            embed_pending(conn, tools.embedder(edition), edition.id, tools.stop)


def _findings(editions: Sequence[Edition], wanted: DeclaredIndex, away: Sequence[Unavailable]) -> list[Finding]:
    found = []
    for error in away:
        hint = error.hint or "It is tried again by itself."
        found.append(
            Finding(
                kind=KIND, subject="company", mark=error.message[:80], severity="high", message=error.message, hint=hint
            )
        )
    ready = _first_in_state(editions, "ready")
    if ready is None or ready.compared is None:
        return found
    against = ready.compared["against"]
    if isinstance(against, list) and against:
        found.append(
            Finding(
                kind=KIND, subject=f"index/{ready.id}", mark="worse", severity="medium",
                message=f"edition {ready.id} of the index is not switched to: {'; '.join(map(str, against))}",
                hint=f"`groundplan knowledge index switch {ready.id}` switches to it all the same; or declare another.",
            )
        )  # fmt: skip
    elif wanted.by_hand:
        found.append(
            Finding(
                kind=KIND, subject=f"index/{ready.id}", mark="ready", severity="low",
                message=f"edition {ready.id} of the index is ready and no worse than the one that serves",
                hint=f"`groundplan knowledge index switch {ready.id}`",
            )
        )  # fmt: skip
    return found
