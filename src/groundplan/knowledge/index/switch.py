"""Switching between editions, going back, and removing what is kept no longer: each one transaction, told in the log.

A switch waits until every connected search service holds the edition whole, and comes true in one statement for all of
them; a search that runs meanwhile ends with the edition that it began with. Killed at any point, what is stored says
where to go on. Whether an edition is good enough is `compare`.
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

_REMOVED_AT_ONCE = 5_000


@dataclass(frozen=True, slots=True)
class SwitchActor:
    """Who switches, and when. `keep`: how long the edition before is kept."""

    by: str
    at: datetime
    keep: timedelta = timedelta(days=30)


def request_switch(conn: Connection[Any], id: int, who: SwitchActor, *, declined: bool = False) -> Edition:
    """Ask for an edition to serve: search services read it, and `finish_switch` switches when they have.

    `declined`: what serves now is gone back from, and is never switched to by itself again. Raises `NotFound`
    (index_unknown) and `Conflict` (index_state) for one that is not whole, or serves already.
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
        now = serving_edition(store.editions(conn))
        store.set_declined(conn, now.id, declined=declined)
        detail = {"from": now.id, "was": edition.state, "declined": declined}
        record(conn, action="index.switching", actor=who.by, subject=f"index/{id}", detail=detail, at=who.at)
        intake_store.notify_followers(conn)
    return edition


def finish_switch(conn: Connection[Any], id: int, who: SwitchActor) -> bool:
    """Switch, where every search service that is connected holds the edition whole; False where one does not yet."""
    with conn.transaction():
        intake_store.lock_changes(conn)
        edition = _read_edition(conn, id)
        if edition.state != "switching" or any(id not in held for held in store.connected_followers(conn)):
            return edition.state == "serving"
        missing, _ = store.count_missing(conn, id)
        before = serving_edition(store.editions(conn))
        if missing:
            # it was whole when it became ready, and every change keeps it so: somebody wrote around the product
            store.put_state(conn, id, "building")
            return False
        store.put_state(conn, before.id, "kept", until=who.at + who.keep, declined=before.declined)
        store.put_state(conn, id, "serving")
        model, chunking = describe(edition.settings)
        detail = {"from": before.id, "model": model, "chunking": chunking, "back": edition.served_at is not None}
        record(conn, action="index.switched", actor=who.by, subject=f"index/{id}", detail=detail, at=who.at)
        intake_store.notify_followers(conn)
    return True


def previous_edition(conn: Connection[Any]) -> Edition:
    """The edition to go back to, which is the same for whoever goes back at the same time, and none that somebody went
    back from. Raises `Conflict` (index_no_way_back)."""
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


def drop_edition(conn: Connection[Any], id: int, who: SwitchActor, reason: str) -> None:
    """Take an edition away that does not serve; its rows go with `remove_dropped`. Raises as `request_switch` does."""
    with conn.transaction():
        intake_store.lock_changes(conn)
        edition = _read_edition(conn, id)
        if edition.state in ("serving", "dropped"):
            raise Conflict(f"edition {id} is {edition.state}", code="index_state", hint="Switch to another one first.")
        store.put_state(conn, id, "dropped", declined=edition.declined)
        detail = {"was": edition.state, "reason": reason}
        record(conn, action="index.dropped", actor=who.by, subject=f"index/{id}", detail=detail, at=who.at)
        intake_store.notify_followers(conn)


def drop_due(conn: Connection[Any], who: SwitchActor) -> int:
    """Drop what was kept for as long as declared; how many."""
    due = [one for one in store.editions(conn, ["kept"]) if one.until is not None and one.until <= who.at]
    for one in due:
        drop_edition(conn, one.id, who, "kept for as long as declared")
    return len(due)


def remove_dropped(conn: Connection[Any]) -> int:
    """Delete the passages of dropped editions, some in each transaction; how many. `conn` is in autocommit."""
    done = 0
    for edition in store.editions_to_remove(conn):
        while some := store.remove_passages(conn, edition, _REMOVED_AT_ONCE):
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
