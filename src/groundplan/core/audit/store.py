"""The SQL of the audit log: entries are inserted in the transaction that they describe; the sequencer indexes them
later.

Does not touch the files of the log (`log.py`) and never changes or deletes an entry.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, LiteralString
from uuid import UUID

import msgspec
from psycopg import Connection
from psycopg.rows import tuple_row

from groundplan.core.audit.entry import Acting, Entry, acting_as, decode
from groundplan.core.ids import new_id

CALL_ACTION = "call"
"""The action of most entries: one for each call."""
MAX_LIST_ITEMS = 200
"""Most items of a list in one entry: about two thousand ids would exceed its maximum size."""
SEQUENCER_LOCK = 0x6770_6175_6469_7401
"""Advisory lock key held by the one sequencer of a database."""


class _Row(msgspec.Struct, frozen=True, gc=False):
    """A row to insert; sending rows as JSON costs a third of sending arrays."""

    id: UUID
    at: datetime
    action: str
    actor: str
    subject: str
    body: str


_COPY: LiteralString = "COPY audit_entry (id, at, action, actor, subject, body) FROM STDIN (FORMAT binary)"
_SIGNATURE, _END = b"PGCOPY\n\xff\r\n\0" + bytes(8), b"\xff\xff"
_ID, _TIME, _LENGTH = struct.Struct(">hi"), struct.Struct(">iq"), struct.Struct(">i")
_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)
"""PostgreSQL counts microseconds since this time."""


@dataclass(frozen=True, slots=True)
class StoredEntry:
    """An entry with its index in the log; `leaf_index` is None until it is sequenced."""

    entry: Entry
    leaf_index: int | None


@dataclass(frozen=True, slots=True)
class EntryFilter:
    """Which entries to list: by actor, prefix of the action, workload, and time. None matches any."""

    actor: str | None = None
    action: str | None = None
    workload: str | None = None
    since: datetime | None = None
    until: datetime | None = None


_FILTER_SQL: LiteralString = """ AND (%(actor)s::text IS NULL OR actor = %(actor)s)
    AND (%(action)s::text IS NULL OR starts_with(action, %(action)s))
    AND (%(workload)s::text IS NULL OR subject = %(workload)s OR position(%(about)s::bytea IN body) > 0)
    AND (%(since)s::timestamptz IS NULL OR at >= %(since)s) AND (%(until)s::timestamptz IS NULL OR at < %(until)s)"""


@dataclass(frozen=True, slots=True)
class QueuedEntry:
    """An entry that waits for its leaf index; `queued` is its number in the queue."""

    id: UUID
    body: bytes
    queued: int


def _rows(
    conn: Connection[Any], query: LiteralString, parameters: Sequence[Any] | Mapping[str, Any] = ()
) -> list[tuple[Any, ...]]:
    with conn.cursor(row_factory=tuple_row) as cursor:
        return cursor.execute(query, parameters).fetchall()


def record(
    conn: Connection[Any],
    *,
    action: str,
    actor: str,
    subject: str,
    detail: Mapping[str, Any],
    at: datetime | None = None,
) -> UUID:
    """Add an entry to the caller's transaction and return its id. Raises `Invalid` as `Entry.encode` does.

    Where `actor` is an `ActingAs`, the entry is marked as made while acting.
    """
    entry = Entry(new_id(), at or datetime.now(UTC), action, str(actor), subject, detail, acting_as(actor))
    record_many(conn, [entry])
    return entry.id


def record_listed(
    conn: Connection[Any],
    *,
    action: str,
    actor: str,
    subject: str,
    detail: Mapping[str, Any],
) -> None:
    """As `record`, split into as many entries as the lists in `detail` need, with `MAX_LIST_ITEMS` items in each."""
    lists = {name: items for name, items in detail.items() if isinstance(items, list)}
    for start in range(0, max(1, *map(len, lists.values()), 0), MAX_LIST_ITEMS):
        part = {name: items[start : start + MAX_LIST_ITEMS] for name, items in lists.items()}
        record(conn, action=action, actor=actor, subject=subject, detail={**detail, **part})


def record_many(conn: Connection[Any], entries: Sequence[Entry]) -> int:
    """Add entries with ids of their own, each once, and return how many were new."""
    if not entries:
        return 0
    rows = [_Row(e.id, e.at, e.action, str(e.actor), e.subject, e.encode().decode()) for e in entries]
    with conn.cursor(row_factory=tuple_row) as cursor:
        cursor.execute(
            """INSERT INTO audit_entry (id, at, action, actor, subject, body)
               SELECT id, at, action, actor, subject, convert_to(body, 'UTF8')
               FROM json_to_recordset(%s::json)
                 AS t(id uuid, at timestamptz, action text, actor text, subject text, body text)
               ON CONFLICT (id) DO NOTHING""",
            (msgspec.json.encode(rows).decode(),),
        )
        return cursor.rowcount


def insert_sequenced(conn: Connection[Any], entries: Sequence[tuple[int, Entry, bytes]]) -> None:
    """Insert (leaf index, entry, bytes) of entries that are in the files of the log. Raises
    `psycopg.errors.UniqueViolation` where another entry has such an index."""
    if entries:
        conn.execute(
            """INSERT INTO audit_entry (leaf_index, id, at, action, actor, subject, body)
               SELECT * FROM unnest(%s::bigint[], %s::uuid[], %s::timestamptz[], %s::text[], %s::text[], %s::text[],
                 %s::bytea[])""",
            [
                list(column)
                for column in zip(
                    *((at, e.id, e.at, e.action, str(e.actor), e.subject, body) for at, e, body in entries), strict=True
                )
            ],
        )


def copy_entries(conn: Connection[Any], entries: Sequence[Entry]) -> None:
    """Add many new entries by COPY. Raises `psycopg.errors.UniqueViolation` where one exists."""
    if entries:
        with conn.cursor() as cursor, cursor.copy(_COPY) as copy:
            copy.write(b"".join((_SIGNATURE, *map(_encode_row, entries), _END)))


def _encode_row(entry: Entry) -> bytes:
    """A row of COPY's binary format: the length of each value, and the value."""
    action, actor, subject, body = entry.action.encode(), entry.actor.encode(), entry.subject.encode(), entry.encode()
    at = (entry.at - _EPOCH) // timedelta(microseconds=1)
    return b"".join(
        (
            _ID.pack(6, 16), entry.id.bytes, _TIME.pack(8, at), _LENGTH.pack(len(action)), action,
            _LENGTH.pack(len(actor)), actor, _LENGTH.pack(len(subject)), subject, _LENGTH.pack(len(body)), body,
        )
    )  # fmt: skip


def entry_by_id(conn: Connection[Any], id: UUID) -> StoredEntry | None:
    """One entry, or None."""
    for body, leaf in _rows(conn, "SELECT body, leaf_index FROM audit_entry WHERE id = %s", (id,)):
        return StoredEntry(decode(bytes(body)), leaf)
    return None


def list_entries(
    conn: Connection[Any],
    *,
    subject: str | None = None,
    without: str | None = None,
    before: UUID | None = None,
    limit: int = 100,
    wanted: EntryFilter | None = None,
) -> list[StoredEntry]:
    """List entries, newest first, of one subject or all; continue with `before` = the id of the last one seen.

    Entries whose action is `without` are left out; `wanted` filters further.
    """
    # The partial index of entries that are no calls is used only where the statement repeats its condition literally.
    kept: LiteralString = (
        "action <> 'call'" if without == CALL_ACTION else "(%(without)s::text IS NULL OR action <> %(without)s)"
    )
    query: LiteralString = (
        """SELECT body, leaf_index FROM audit_entry
           WHERE (%(subject)s::text IS NULL OR subject = %(subject)s)
             AND (%(before)s::uuid IS NULL OR id < %(before)s) AND """
        + kept
        + (_FILTER_SQL if wanted is not None else "")
        + " ORDER BY id DESC LIMIT %(limit)s"
    )
    values: dict[str, Any] = {"subject": subject, "without": without, "before": before, "limit": limit}
    if wanted is not None:
        about = f'"workload":"{wanted.workload}"'.encode() if wanted.workload else None
        values |= {
            "actor": wanted.actor, "action": wanted.action, "since": wanted.since, "until": wanted.until,
            "workload": f"workload/{wanted.workload}" if wanted.workload else None, "about": about,
        }  # fmt: skip
    rows = _rows(conn, query, values)
    return [StoredEntry(decode(bytes(body)), leaf) for body, leaf in rows]


def was_recorded_since(conn: Connection[Any], actor: str, action: str, subject: str, since: datetime) -> bool:
    """Whether this action by this actor on this subject was recorded since then."""
    query: LiteralString = (
        "SELECT 1 FROM audit_entry WHERE subject = %s AND actor = %s AND action = %s AND at >= %s LIMIT 1"
    )
    return bool(_rows(conn, query, (subject, actor, action, since)))


def entries_about(
    conn: Connection[Any], subjects: Sequence[str], id: UUID | None, limit: int = 20
) -> list[StoredEntry]:
    """The newest entries about one of these subjects, and the one with this id, newest first. Entries of calls, which a
    workload may have millions of, are left out except the one with this id."""
    rows = _rows(
        conn,
        """SELECT body, leaf_index FROM (
             (SELECT id, body, leaf_index FROM audit_entry
              WHERE subject = ANY(%(subjects)s) AND action <> 'call' ORDER BY id DESC LIMIT %(limit)s)
             UNION SELECT id, body, leaf_index FROM audit_entry WHERE id = %(id)s) e
           ORDER BY id DESC LIMIT %(limit)s""",
        {"subjects": list(subjects), "id": id, "limit": limit},
    )
    return [StoredEntry(decode(bytes(body)), leaf) for body, leaf in rows]


def keys_made_acting(conn: Connection[Any], keys: Sequence[UUID]) -> dict[str, Acting]:
    """Which of these API keys were created while acting as somebody: key id -> as whom, and by whom."""
    rows = _rows(
        conn,
        "SELECT body FROM audit_entry WHERE subject = ANY (%s) AND action = 'key.created'",
        ([f"key/{key}" for key in keys],),
    )
    made = [decode(bytes(body)) for (body,) in rows]
    return {
        entry.subject.removeprefix("key/"): Acting(entry.acting.by, entry.actor)
        for entry in made
        if entry.acting is not None
    }


def try_lock_sequencer(conn: Connection[Any]) -> bool:
    """Try to take the database-wide sequencer lock for the rest of this session; False where another session holds
    it."""
    return bool(_rows(conn, "SELECT pg_try_advisory_lock(%s)", (SEQUENCER_LOCK,))[0][0])


def unsequenced(conn: Connection[Any], limit: int, behind: int = -1) -> list[QueuedEntry]:
    """Entries without a leaf index, oldest first, with a queue number above `behind`. An entry that committed late is
    indexed after those that were sequenced before it."""
    rows = _rows(
        conn,
        """SELECT id, body, queued FROM audit_entry WHERE leaf_index IS NULL AND queued > %s
           ORDER BY queued LIMIT %s""",
        (behind, limit),
    )
    return [QueuedEntry(id, bytes(body), queued) for id, body, queued in rows]


def sequenced_from(conn: Connection[Any], leaf_index: int, limit: int) -> list[tuple[int, bytes]]:
    """(leaf index, body) of entries from `leaf_index` on, in order."""
    rows = _rows(
        conn,
        "SELECT leaf_index, body FROM audit_entry WHERE leaf_index >= %s ORDER BY leaf_index LIMIT %s",
        (leaf_index, limit),
    )
    return [(leaf, bytes(body)) for leaf, body in rows]


def next_leaf(conn: Connection[Any]) -> int:
    """One more than the highest leaf index assigned in the database; 0 where there is none."""
    query: LiteralString = (
        "SELECT greatest((SELECT max(leaf_index) + 1 FROM audit_entry), (SELECT max(until) FROM archived_range), 0)"
    )
    return int(_rows(conn, query)[0][0])


def count_sequenced(conn: Connection[Any], first: int = 0) -> int:
    """The number of entries with a leaf index of `first` or above."""
    return int(_rows(conn, "SELECT count(*) FROM audit_entry WHERE leaf_index >= %s", (first,))[0][0])


def contiguous_until(conn: Connection[Any]) -> int:
    """The leaf index below which every index is known to have an entry."""
    return int(_rows(conn, "SELECT upto FROM audit_whole")[0][0])


def set_contiguous_until(conn: Connection[Any], upto: int) -> None:
    """Store that every leaf index below `upto` has an entry."""
    conn.execute("UPDATE audit_whole SET upto = %s WHERE upto <> %s", (upto, upto))


def existing_ids(conn: Connection[Any], ids: Sequence[UUID]) -> set[UUID]:
    """Which of these entries are in the database."""
    return {id for (id,) in _rows(conn, "SELECT id FROM audit_entry WHERE id = ANY (%s)", (list(ids),))}


def assign_indexes(conn: Connection[Any], ids: Sequence[UUID], first: int) -> int:
    """Assign the entries the leaf indexes first, first+1, … and return how many had none before."""
    with conn.cursor() as cursor:
        cursor.execute(
            """UPDATE audit_entry e SET leaf_index = v.leaf FROM unnest(%s::uuid[], %s::bigint[]) AS v(id, leaf)
               WHERE e.id = v.id AND e.leaf_index IS NULL""",
            (list(ids), list(range(first, first + len(ids)))),
        )
        return cursor.rowcount


def subject_key(conn: Connection[Any], subject: str) -> bytes | None:
    """A wrapped per-person key: None where none was ever made, empty where it was destroyed."""
    for (wrapped,) in _rows(conn, "SELECT wrapped FROM subject_key WHERE subject = %s", (subject,)):
        return bytes(wrapped)
    return None


def insert_subject_key(conn: Connection[Any], subject: str, wrapped: bytes) -> None:
    """Store a wrapped key unless the subject has one (or had one that was destroyed)."""
    conn.execute(
        "INSERT INTO subject_key (subject, wrapped) VALUES (%s, %s) ON CONFLICT (subject) DO NOTHING",
        (subject, wrapped),
    )


def destroy_subject_key(conn: Connection[Any], subject: str) -> None:
    """Destroy a key; the empty row stays, so that no new key is made for this subject."""
    conn.execute(
        """INSERT INTO subject_key (subject, wrapped) VALUES (%s, '')
           ON CONFLICT (subject) DO UPDATE SET wrapped = ''""",
        (subject,),
    )
