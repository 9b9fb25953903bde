"""The SQL of archived ranges: parts of the log whose entries of calls were moved to files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, LiteralString
from uuid import UUID

from psycopg import Connection
from psycopg.rows import class_row, tuple_row

_COLUMNS: Final[LiteralString] = "first, until, url, file, sha256, root, since, till"
_FETCHED: Final = 500


@dataclass(frozen=True, slots=True)
class Range:
    """Entries `first` to `until` - 1, archived in a file of a store. `root` is their root, a node of the log's tree;
    `since` and `till` are their earliest and latest time."""

    first: int
    until: int
    url: str
    file: str
    sha256: str
    root: bytes
    since: datetime | None = None
    till: datetime | None = None

    def to_json(self) -> dict[str, Any]:
        times = {"since": self.since and self.since.isoformat(), "till": self.till and self.till.isoformat()}
        return {
            "first": self.first, "until": self.until, "url": self.url, "file": self.file, "sha256": self.sha256,
            "root": self.root.hex(), **times,
        }  # fmt: skip

    @classmethod
    def of_json(cls, value: Mapping[str, Any]) -> Range:
        """The inverse of `to_json`."""
        times = {name: value[name] and datetime.fromisoformat(value[name]) for name in ("since", "till")}
        return cls(
            value["first"], value["until"], value["url"], value["file"], value["sha256"],
            bytes.fromhex(value["root"]), **times,
        )  # fmt: skip


def list_ranges(conn: Connection[Any], since: int = 0, limit: int | None = None) -> list[Range]:
    """The ranges that end after leaf index `since`, in order."""
    with conn.cursor(row_factory=class_row(Range)) as cursor:
        return cursor.execute(
            "SELECT " + _COLUMNS + " FROM archived_range WHERE until > %s ORDER BY first LIMIT %s", (since, limit)
        ).fetchall()


def newest_range(conn: Connection[Any], until: int) -> Range | None:
    """The last range that ends at leaf index `until` or before."""
    with conn.cursor(row_factory=class_row(Range)) as cursor:
        return cursor.execute(
            "SELECT " + _COLUMNS + " FROM archived_range WHERE until <= %s ORDER BY until DESC LIMIT 1", (until,)
        ).fetchone()


def ranges_with_id(conn: Connection[Any], id: UUID, limit: int) -> list[Range]:
    """The ranges that may contain the entry with this id, the most likely first."""
    with conn.cursor(row_factory=class_row(Range)) as cursor:
        return cursor.execute(
            "SELECT " + _COLUMNS + """ FROM archived_range WHERE low <= %(id)s AND high >= %(id)s
               ORDER BY till - since, first LIMIT %(limit)s""",
            {"id": id, "limit": limit},
        ).fetchall()  # fmt: skip


def archived_until(conn: Connection[Any]) -> tuple[int, datetime | None]:
    """Return the first leaf index that is not archived, and the latest time of the archived entries."""
    with conn.cursor(row_factory=tuple_row) as cursor:
        row = cursor.execute("SELECT coalesce(max(until), 0), max(till) FROM archived_range").fetchone()
    assert row is not None
    return int(row[0]), row[1]


def is_ready(conn: Connection[Any], first: int, until: int, before: datetime) -> bool:
    """Whether a range is complete in the files of the log and all its entries are older than `before`. Times in the
    future come from a wrong clock and are ignored."""
    with conn.cursor(row_factory=tuple_row) as cursor:
        row = cursor.execute(
            """SELECT %(until)s <= (SELECT upto FROM audit_whole)
                 AND NOT EXISTS (SELECT FROM audit_entry WHERE leaf_index >= %(first)s AND leaf_index < %(until)s
                   AND at >= %(before)s AND at <= now())""",
            {"first": first, "until": until, "before": before},
        ).fetchone()
    return bool(row and row[0])


def missing_entries(conn: Connection[Any]) -> tuple[int, int] | None:
    """(first, until) of the gap between the archived entries and the first one in the database; None without a gap."""
    with conn.cursor(row_factory=tuple_row) as cursor:
        row = cursor.execute(
            """SELECT u.upto, (SELECT min(e.leaf_index) FROM audit_entry e WHERE e.leaf_index >= u.upto)
               FROM (SELECT coalesce(max(until), 0) AS upto FROM archived_range) u"""
        ).fetchone()
    assert row is not None
    return None if row[1] is None or row[1] == row[0] else (int(row[0]), int(row[1]))


def iterate_bodies(conn: Connection[Any], first: int, until: int) -> Iterator[tuple[int, bytes]]:
    """Yield (leaf index, entry) in order, through a server-side cursor; needs a transaction."""
    with conn.cursor("entries_that_leave", row_factory=tuple_row) as cursor:
        cursor.itersize = _FETCHED
        cursor.execute(
            """SELECT leaf_index, body FROM audit_entry WHERE leaf_index >= %s AND leaf_index < %s
               ORDER BY leaf_index""",
            (first, until),
        )
        for index, body in cursor:
            yield index, bytes(body)


def move_out(conn: Connection[Any], done: Range) -> int:
    """Record where a range is archived, delete its entries of calls, and return how many. Raises psycopg's
    `SerializationFailure` where it is not the next range, or differs from the rows."""
    row = conn.execute(
        "SELECT archive_range(%s, %s, %s, %s, %s, %s)",
        (done.first, done.until, done.url, done.file, done.sha256, done.root),
    ).fetchone()
    assert row is not None
    return int(row[0])
