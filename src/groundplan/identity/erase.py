"""Erases a person who has left: destroys their key, so that their personal data in the log and in stored content can no
longer be decrypted, and deletes their data from the database.

The name of somebody who approved something is kept until the retention of approvals ends, so that it remains known who
approved it. All proofs of the log stay valid. A restore of an older backup brings keys back; `reapply_erasures`
destroys them again, from the list in HOME and from the log. Who may request an erasure is decided elsewhere.
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
APPROVAL_RETENTION = timedelta(days=365 * 6 + 2)
"""How long names of approvers are kept: at least the six years for which companies keep such records."""


def erase(conn: Connection[Any], home: Home, actor: str, person_id: UUID, now: datetime) -> dict[str, Any]:
    """Erase a person's data; returns `{"erased": [...], "kept": [...], "until": day or None}`.

    Raises `NotFound` (`unknown_person`), `Conflict` (`still_here`).
    """
    person = store.person(conn, person_id)
    if person is None:
        raise NotFound(f"there is no person {person_id}", code="unknown_person", hint="List them: groundplan people.")
    if person.active:
        raise Conflict(
            f"{person.email} is still here", code="still_here", hint="`groundplan people leave` comes first."
        )
    _add_to_list(
        home, [person_id]
    )  # before the key is destroyed: listing it twice is harmless, not listing it lets a restore revive the key
    destroy_subject_key(conn, str(person_id))
    erase_store.delete_personal_data(conn, person_id)
    approved = erase_store.last_approval(conn, person_id)
    until = None if approved is None else (approved + APPROVAL_RETENTION).date()
    stays = until is not None and until > now.date()
    if not stays:
        erase_store.erase_name(conn, person_id)
    erased = ["key of the person", "passkeys", "sign-in", "directory", "mail", *([] if stays else ["name and address"])]
    detail = {"name_kept_until": str(until) if stays else None}
    record(conn, action=ACTION, actor=actor, subject=f"person/{person_id}", detail=detail)
    return {"erased": erased, "kept": ["name and address"] if stays else [], "until": until if stays else None}


def erase_due_names(conn: Connection[Any], now: datetime) -> int:
    """Erase the names that were kept for approvals whose retention is over; returns how many."""
    due = erase_store.due_names(conn, now - APPROVAL_RETENTION)
    for person_id in due:
        erase_store.erase_name(conn, person_id)
        record(conn, action=ACTION, actor="system", subject=f"person/{person_id}", detail={"name_kept_until": None})
    return len(due)


def reapply_erasures(conn: Connection[Any], home: Home) -> int:
    """Destroy the keys of all erased people again, by the list in HOME and by the log; returns how many there are."""
    erased = {*read_erased_list(home), *erased_in_log(home.audit)}
    with suppress(OSError):  # if the disk is full, the log still names them
        _add_to_list(home, erased)
    for person_id in erased:
        destroy_subject_key(conn, str(person_id))
        erase_store.delete_personal_data(conn, person_id)
    return len(erased)


def read_erased_list(home: Home) -> set[UUID]:
    """Ids in the list in HOME. Damaged lines are skipped: the log names those people, too."""
    ids: set[UUID] = set()
    with suppress(FileNotFoundError):
        for line in _list_path(home).read_text("ascii", "replace").split():
            with suppress(ValueError):
                ids.add(UUID(line))
    return ids


def erased_in_log(folder: Path) -> set[UUID]:
    """People erased according to a log's files; unreadable files are skipped, `audit verify` reports them."""
    ids: set[UUID] = set()
    word = f'"{ACTION}"'.encode()
    try:
        size = parse_checkpoint(parse_note((folder / "checkpoint").read_bytes()).text).size
    except (OSError, GroundplanError):
        return ids
    for index, width in tiles_of(size, 0):
        try:
            if word not in Tiles(folder).read("entries", index, width):
                continue
            for entry in Tiles(folder).entries(index, width):
                body = json.loads(entry) if word in entry else {}
                if body.get("action") == ACTION:
                    ids.add(UUID(body["subject"].removeprefix("person/")))
        except (GroundplanError, OSError, ValueError):
            continue
    return ids


def _add_to_list(home: Home, people: Iterable[UUID]) -> None:
    listed = read_erased_list(home)
    all_ids = listed | set(people)
    if all_ids != listed:
        write_atomically(_list_path(home), "".join(f"{id}\n" for id in sorted(all_ids, key=str)).encode())


def _list_path(home: Home) -> Path:
    return home.root / "erased"
