"""HOME/tombstones.jsonl: the deletions, one per line, so that a restored backup does not bring documents back.

The file is appended to and flushed to the disk; the table `tombstone` has the same entries. Entries that one of the two
lacks are copied from the other, at start and with each sweep: after a restore of an older backup the file has more,
after a crash between the two writes the table has.
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
    """Append tombstones to the file; they are on the disk when this returns."""
    lines = [json.dumps(_to_json(stone), sort_keys=True) for stone in stones]
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
    """Rewrite the file with these tombstones in place of the earlier lines with their ids, which had names. Lines that
    are appended meanwhile are restored from the table."""
    replaced = {str(stone.id): stone for stone in stones}
    if not replaced:
        return
    lines = [line for line in _read_lines(home) if not _may_concern(line, replaced)]
    lines += [json.dumps(_to_json(stone), sort_keys=True) for stone in replaced.values()]
    write_atomically(home / FILE, "".join(f"{line}\n" for line in lines).encode())


def read_tombstones(home: Path) -> dict[UUID, Tombstone]:
    """The tombstones by id; the last line of an id counts. Torn and damaged lines are skipped: the table has them
    too."""
    found: dict[UUID, Tombstone] = {}
    for line in _read_lines(home):
        try:
            stone = _parse_tombstone(json.loads(line))
        except (ValueError, KeyError, TypeError):
            continue
        found[stone.id] = stone
    return found


def _read_lines(home: Path) -> list[str]:
    try:
        return (home / FILE).read_text(encoding="utf-8", errors="replace").splitlines()
    except FileNotFoundError:
        return []


def _may_concern(line: str, replaced: Container[str]) -> bool:
    """Whether a line may have one of these ids; True for a torn one."""
    try:
        return json.loads(line)["id"] in replaced
    except (ValueError, KeyError, TypeError):
        return True


def _to_json(stone: Tombstone) -> dict[str, str | None]:
    return {
        "id": str(stone.id), "document": str(stone.document_id), "source": stone.source, "path": stone.path,
        "digest": stone.digest, "at": stone.at.isoformat(), "by": stone.by, "reason": stone.reason,
        "due": stone.due.isoformat(), "lifted_at": stone.lifted_at.isoformat() if stone.lifted_at else None,
        "cause": stone.cause, "salt": None if stone.salt is None else stone.salt.hex(),
    }  # fmt: skip


def _parse_tombstone(line: dict[str, str | None]) -> Tombstone:
    def text(name: str) -> str:
        return str(line[name])

    lifted, salt = line.get("lifted_at"), line.get("salt")
    return Tombstone(
        UUID(text("id")), UUID(text("document")), text("source"), text("path"), text("digest"),
        datetime.fromisoformat(text("at")), text("by"), text("reason"), datetime.fromisoformat(text("due")),
        None, datetime.fromisoformat(lifted) if lifted else None, line.get("cause") or "decided",
        bytes.fromhex(salt) if salt else None,
    )  # fmt: skip
