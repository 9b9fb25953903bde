"""Switches between editions, goes back, and removes old ones: each in one transaction, recorded in the audit log.

A switch waits until every connected search service holds the complete edition, and takes effect for all of them in one
statement; a search that is running ends with the edition that it began with. After a crash at any point, the stored
state says where to continue. `compare` decides whether an edition is good enough.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from psycopg import Connection

from groundplan.core.audit import record
from groundplan.core.errors import Conflict, NotFound
from groundplan.knowledge.index import index_store as store
from groundplan.knowledge.index.model import Edition, describe, serving_edition
from groundplan.knowledge.intake import intake_store

_REMOVAL_BATCH = 5_000


@dataclass(frozen=True, slots=True)
class SwitchActor:
    """Who switches, and when. `keep`: how long the previous edition is kept."""

    by: str
    at: datetime
    keep: timedelta = timedelta(days=30)


def request_switch(conn: Connection[Any], id: int, actor: SwitchActor, *, declined: bool = False) -> Edition:
    """Begin a switch to an edition: search services load it, and `finish_switch` switches when they have.

    `declined`: the serving edition is gone back from, and is never switched to automatically again. Raises `NotFound`
    (index_unknown), and `Conflict` (index_state) for an edition that is not complete or serves already.
    """
    with conn.transaction():
        intake_store.lock_changes(conn)
        edition = _read_edition(conn, id)
        if edition.state == "switching":
            return edition
        if edition.state not in ("ready", "kept"):
            raise Conflict(
                f"edition {id} is {edition.state}", code="index_state",
                hint="Only an edition that is ready or kept can be switched to: `groundplan knowledge index list`.",
            )  # fmt: skip
        for other in store.editions(conn, ["switching"]):
            store.put_state(conn, other.id, "kept" if other.served_at else "ready", until=other.until)
        store.put_state(conn, id, "switching", until=edition.until)
        serving = serving_edition(store.editions(conn))
        store.set_declined(conn, serving.id, declined=declined)
        detail = {"from": serving.id, "was": edition.state, "declined": declined}
        record(conn, action="index.switching", actor=actor.by, subject=f"index/{id}", detail=detail, at=actor.at)
        intake_store.notify_followers(conn)
    return edition


def finish_switch(conn: Connection[Any], id: int, actor: SwitchActor) -> bool:
    """Switch if every connected search service holds the complete edition; returns whether the edition serves now."""
    with conn.transaction():
        intake_store.lock_changes(conn)
        edition = _read_edition(conn, id)
        if edition.state != "switching" or any(id not in held for held in store.connected_followers(conn)):
            return edition.state == "serving"
        missing, _ = store.count_missing(conn, id)
        previous = serving_edition(store.editions(conn))
        if missing:
            # it was complete when it became ready, and every change keeps it so: rows were changed by hand
            store.put_state(conn, id, "building")
            return False
        store.put_state(conn, previous.id, "kept", until=actor.at + actor.keep, declined=previous.declined)
        store.put_state(conn, id, "serving")
        model, chunking = describe(edition.settings)
        detail = {"from": previous.id, "model": model, "chunking": chunking, "back": edition.served_at is not None}
        record(conn, action="index.switched", actor=actor.by, subject=f"index/{id}", detail=detail, at=actor.at)
        intake_store.notify_followers(conn)
    return True


def previous_edition(conn: Connection[Any]) -> Edition:
    """The edition to go back to: the same one for concurrent requests, and never one that somebody went back from.
    Raises `Conflict` (index_no_way_back)."""
    every = store.editions(conn)
    for one in every:
        if one.state == "switching" and serving_edition(every).declined:
            return one
    kept = [one for one in every if one.state == "kept" and one.served_at is not None and not one.declined]
    if not kept:
        raise Conflict(
            "no edition is kept to go back to", code="index_no_way_back",
            hint="`groundplan knowledge index switch N` serves one that is kept; else declare its settings again.",
        )  # fmt: skip
    return max(kept, key=lambda one: (one.served_at is not None, one.served_at))


def drop_edition(conn: Connection[Any], id: int, actor: SwitchActor, reason: str) -> None:
    """Drop an edition that does not serve; `remove_dropped` deletes its rows. Raises as `request_switch` does."""
    with conn.transaction():
        intake_store.lock_changes(conn)
        edition = _read_edition(conn, id)
        if edition.state in ("serving", "dropped"):
            raise Conflict(f"edition {id} is {edition.state}", code="index_state", hint="Switch to another one first.")
        store.put_state(conn, id, "dropped", declined=edition.declined)
        detail = {"was": edition.state, "reason": reason}
        record(conn, action="index.dropped", actor=actor.by, subject=f"index/{id}", detail=detail, at=actor.at)
        intake_store.notify_followers(conn)


def drop_due(conn: Connection[Any], actor: SwitchActor) -> int:
    """Drop the kept editions whose time has passed; returns their number."""
    due = [one for one in store.editions(conn, ["kept"]) if one.until is not None and one.until <= actor.at]
    for one in due:
        drop_edition(conn, one.id, actor, "kept for as long as declared")
    return len(due)


def remove_dropped(conn: Connection[Any]) -> int:
    """Delete the passages of dropped editions in batches; returns their number. `conn` is in autocommit."""
    done = 0
    for edition in store.editions_to_remove(conn):
        while some := store.remove_passages(conn, edition, _REMOVAL_BATCH):
            done += some
        store.mark_removed(conn, edition)
    return done


def _read_edition(conn: Connection[Any], id: int) -> Edition:
    edition = store.read_edition(conn, id)
    if edition is None:
        raise NotFound(
            f"there is no edition {id} of the index", code="index_unknown",
            hint="`groundplan knowledge index list` shows all.",
        )  # fmt: skip
    return edition
