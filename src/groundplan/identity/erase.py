"""Erasing a person who has left: their key is destroyed, so what the log and kept content hold of them opens no more,
and what the database says of them goes.

Who approved something stays known by name until the retention of approvals is over: somebody must be able to say who
let it in. Every proof of the log stays valid. A restore from an older backup brings keys back; `replay` destroys them
again from the list in HOME and from the log itself. Does not decide who may ask.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

from psycopg import Connection

from groundplan.core.audit import record
from groundplan.core.audit.checkpoint import parse_checkpoint, parse_note
from groundplan.core.audit.store import destroy_subject_key
from groundplan.core.audit.tiles import Tiles, tiles_of
from groundplan.core.errors import Conflict, GroundplanError, NotFound
from groundplan.core.home import Home, write_atomically
from groundplan.identity import erase_store, store

ACTION = "person.erased"
RETENTION = timedelta(days=365 * 6 + 2)
"""How long it stays known who approved something: at least the six years for which companies keep such papers."""


def erase(conn: Connection[Any], home: Home, actor: str, person_id: UUID, now: datetime) -> dict[str, Any]:
    """Destroy what is personal; `{"erased": [...], "kept": [...], "until": day or None}` says what stayed and why.

    Raises `NotFound` (`unknown_person`), `Conflict` (`still_here`).
    """
    person = store.person(conn, person_id)
    if person is None:
        raise NotFound(f"there is no person {person_id}", code="unknown_person", hint="List them: groundplan people.")
    if person.active:
        raise Conflict(
            f"{person.email} is still here", code="still_here", hint="`groundplan people leave` comes first."
        )
    _note(home, [person_id])  # before the key: what is noted twice is destroyed twice, what is not noted comes back
    destroy_subject_key(conn, str(person_id))
    erase_store.forget(conn, person_id)
    approved = erase_store.last_approval(conn, person_id)
    until = None if approved is None else (approved + RETENTION).date()
    stays = until is not None and until > now.date()
    if not stays:
        erase_store.forget_name(conn, person_id)
    erased = ["key of the person", "passkeys", "sign-in", "directory", "mail", *([] if stays else ["name and address"])]
    detail = {"name_kept_until": str(until) if stays else None}
    record(conn, action=ACTION, actor=actor, subject=f"person/{person_id}", detail=detail)
    return {"erased": erased, "kept": ["name and address"] if stays else [], "until": until if stays else None}


def forget_due(conn: Connection[Any], now: datetime) -> int:
    """Forget the names that stayed because of approvals whose retention is over by now; how many."""
    due = erase_store.names_due(conn, now - RETENTION)
    for person_id in due:
        erase_store.forget_name(conn, person_id)
        record(conn, action=ACTION, actor="system", subject=f"person/{person_id}", detail={"name_kept_until": None})
    return len(due)


def replay(conn: Connection[Any], home: Home) -> int:
    """Destroy again the keys of everybody who was erased, by the list in HOME and by the log; how many there were."""
    erased = {*noted(home), *logged(home.audit)}
    with suppress(OSError):  # where the disk takes nothing the log goes on to name them
        _note(home, erased)
    for person_id in erased:
        destroy_subject_key(conn, str(person_id))
        erase_store.forget(conn, person_id)
    return len(erased)


def noted(home: Home) -> set[UUID]:
    """Whom the list in HOME names; it holds ids only. A damaged line is passed over: the log names them, too."""
    found: set[UUID] = set()
    with suppress(FileNotFoundError):
        for line in _list(home).read_text("ascii", "replace").split():
            with suppress(ValueError):
                found.add(UUID(line))
    return found


def logged(folder: Path) -> set[UUID]:
    """Who was erased by the entries of a log's files; what cannot be read is left to `audit verify`."""
    found: set[UUID] = set()
    word = f'"{ACTION}"'.encode()
    try:
        size = parse_checkpoint(parse_note((folder / "checkpoint").read_bytes()).text).size
    except (OSError, GroundplanError):
        return found
    for index, width in tiles_of(size, 0):
        try:
            if word not in Tiles(folder).read("entries", index, width):
                continue
            for entry in Tiles(folder).entries(index, width):
                body = json.loads(entry) if word in entry else {}
                if body.get("action") == ACTION:
                    found.add(UUID(body["subject"].removeprefix("person/")))
        except (GroundplanError, OSError, ValueError):
            continue
    return found


def _note(home: Home, people: Iterable[UUID]) -> None:
    known = noted(home)
    wanted = known | set(people)
    if wanted != known:
        write_atomically(_list(home), "".join(f"{id}\n" for id in sorted(wanted, key=str)).encode())


def _list(home: Home) -> Path:
    return home.root / "erased"
