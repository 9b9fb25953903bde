"""HOME/tombstones.jsonl: what was deleted, one line each, so that a restored backup does not bring it back.

The file is appended to and flushed to the disk; the table `tombstone` has the same. Whatever one of the two lacks is
taken over from the other, at start and with each sweep: after a restore of an older backup the file has more, after a
crash between the two the table has.
"""

from __future__ import annotations

import json
import os
from collections.abc import Container, Iterable
from datetime import datetime
from pathlib import Path
from uuid import UUID

from groundplan.core.home import write_atomically
from groundplan.knowledge.deletion.deletion_store import Tombstone

FILE = "tombstones.jsonl"


def append_tombstones(home: Path, stones: Iterable[Tombstone]) -> None:
    """Add lines; on the disk when this returns."""
    lines = [json.dumps(_plain(stone), sort_keys=True) for stone in stones]
    if not lines:
        return
    with (home / FILE).open("ab+") as file:
        os.fchmod(file.fileno(), 0o600)
        size = file.seek(0, os.SEEK_END)
        torn = size > 0 and os.pread(file.fileno(), 1, size - 1) != b"\n"
        file.write(("\n" * torn + "\n".join(lines) + "\n").encode())
        file.flush()
        os.fsync(file.fileno())


def replace_names(home: Path, stones: Iterable[Tombstone]) -> None:
    """Write the list anew, without what it said of these deletions before: their names. What somebody adds meanwhile
    is taken over from the table."""
    given = {str(stone.id): stone for stone in stones}
    if not given:
        return
    lines = [line for line in _lines(home) if not _names(line, given)]
    lines += [json.dumps(_plain(stone), sort_keys=True) for stone in given.values()]
    write_atomically(home / FILE, "".join(f"{line}\n" for line in lines).encode())


def read_tombstones(home: Path) -> dict[UUID, Tombstone]:
    """By id; the last line of an id holds. What is torn or damaged is left out: the table has it, too."""
    found: dict[UUID, Tombstone] = {}
    for line in _lines(home):
        try:
            stone = _stone(json.loads(line))
        except (ValueError, KeyError, TypeError):
            continue
        found[stone.id] = stone
    return found


def _lines(home: Path) -> list[str]:
    try:
        return (home / FILE).read_text(encoding="utf-8", errors="replace").splitlines()
    except FileNotFoundError:
        return []


def _names(line: str, given: Container[str]) -> bool:
    """Whether a line is about one of these ids; a torn one may be."""
    try:
        return json.loads(line)["id"] in given
    except (ValueError, KeyError, TypeError):
        return True


def _plain(stone: Tombstone) -> dict[str, str | None]:
    return {
        "id": str(stone.id), "document": str(stone.document_id), "source": stone.source, "path": stone.path,
        "digest": stone.digest, "at": stone.at.isoformat(), "by": stone.by, "reason": stone.reason,
        "due": stone.due.isoformat(), "lifted_at": stone.lifted_at.isoformat() if stone.lifted_at else None,
        "cause": stone.cause, "salt": None if stone.salt is None else stone.salt.hex(),
    }  # fmt: skip


def _stone(line: dict[str, str | None]) -> Tombstone:
    def text(name: str) -> str:
        return str(line[name])

    lifted, salt = line.get("lifted_at"), line.get("salt")
    return Tombstone(
        UUID(text("id")), UUID(text("document")), text("source"), text("path"), text("digest"),
        datetime.fromisoformat(text("at")), text("by"), text("reason"), datetime.fromisoformat(text("due")),
        None, datetime.fromisoformat(lifted) if lifted else None, line.get("cause") or "decided",
        bytes.fromhex(salt) if salt else None,
    )  # fmt: skip
