"""One run over a source: what is new, changed or gone since last time, and nothing else.

Documents are taken over some hundred at a time, each batch with the cursor behind it in one transaction: killed at any
point, the next run goes on there. A bad document costs one finding, and is out of search until it can be read for
certain. Nothing is decided here about who may search which source, and no vector is made.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

from psycopg import Connection

from groundplan.blueprint.model import Source
from groundplan.core.errors import Invalid, NotFound, TooLarge, Unavailable
from groundplan.core.ids import new_id
from groundplan.knowledge.index import index_store
from groundplan.knowledge.index.model import serving
from groundplan.knowledge.index.recut import recut
from groundplan.knowledge.intake import intake_store as store
from groundplan.knowledge.intake.settle import Settled, declared, settle, source_values, superseded_paths
from groundplan.knowledge.model import Readers
from groundplan.knowledge.parsing.model import Job, Outcome, Parsed, Piece, Refused, Table
from groundplan.knowledge.parsing.prepare import PROCESSING
from groundplan.knowledge.parsing.sandbox import Sandbox
from groundplan.knowledge.sources.model import Change, Connector, Content, Cursor
from groundplan.knowledge.store import put_readers

BATCH = 200
_BATCH_CHARACTERS = 4_000_000
_BATCH_SECONDS = 2.0
MOST_AWAY = 20
"""So many documents of a source may be out of reach before the source itself is taken for away."""

Progress = Callable[[str, str], None]
"""Told (source, path) before each document."""


@dataclass(frozen=True, slots=True)
class Bad:
    """A document that is not searched, and why."""

    key: str
    code: str
    message: str
    hint: str


@dataclass(slots=True)
class Tally:
    """Counts of one run, and what a person should look at."""

    read: int = 0
    added: int = 0
    changed: int = 0
    deleted: int = 0
    readers_changed: int = 0
    chunks: int = 0
    bad: list[Bad] = field(default_factory=list)
    seen: set[str] = field(default_factory=set)
    gone: set[str] = field(default_factory=set)
    blocked: set[str] = field(default_factory=set)
    tables: dict[str, list[Table]] = field(default_factory=dict)


@dataclass(slots=True)
class _Batch:
    """What is written together."""

    rows: list[Mapping[str, Any]] = field(default_factory=list)
    held: list[Mapping[str, Any]] = field(default_factory=list)
    tokens: dict[UUID, str] = field(default_factory=dict)
    readers: dict[UUID, Readers] = field(default_factory=dict)
    chunks: dict[UUID, list[Piece]] = field(default_factory=dict)
    plain: set[UUID] = field(default_factory=set)
    """Of `chunks`: documents that are no Markdown."""
    replaced: list[UUID] = field(default_factory=list)
    removed: list[UUID] = field(default_factory=list)
    cursor: Cursor | None = None
    began: float = field(default_factory=time.monotonic)
    characters: int = 0

    @property
    def full(self) -> bool:
        count = len(self.rows) + len(self.held) + len(self.removed) + len(self.tokens) // 10
        late = time.monotonic() - self.began > _BATCH_SECONDS
        return (
            count >= BATCH or self.characters >= _BATCH_CHARACTERS or (late and (count > 0 or self.cursor is not None))
        )


@dataclass(frozen=True, slots=True)
class _Pending:
    """A document on its way through the parser."""

    change: Change
    content: Content
    around: tuple[Any, ...]
    digest: str


class Run:
    """One pass of a connector. `conn` is of role control and in autocommit."""

    def __init__(
        self,
        conn: Connection[Any],
        source: Source,
        connector: Connector,
        sandbox: Sandbox,
        *,
        review_days: int | None = None,
        progress: Progress | None = None,
        models: Path | None = None,
    ) -> None:
        """`models`: the folder of models, for what a source declares about reading."""
        self._conn, self._source, self._connector, self._sandbox = conn, source, connector, sandbox
        self._values = source_values(source, review_days)
        self._progress = progress
        self._pdf = "" if source.pdf == "plain" else f"{source.pdf}:{(models or Path()) / source.pdf}"
        self._known = store.known(conn, source.name)
        self._blocked = store.blocked(conn, source.name)
        self._limit = serving(index_store.editions(conn)).settings.limit(source.name)
        self._batch = _Batch()
        self._pending: dict[str, _Pending] = {}
        self._away = 0
        self.tally = Tally()

    def take_over(self) -> Tally:
        """Everything since the cursor. Raises `Unavailable` where the source is away: what was done stays."""
        old = any(one.live and one.chunked != PROCESSING for one in self._known.values())
        cursor = None if old else store.cursor_of(self._conn, self._source.name)
        changes = self._connector.changes(cursor)
        for job, outcome in self._sandbox.parse_all(self._jobs(changes)):
            self._parsed(self._pending.pop(job.key), outcome)
            self._write_if(full=True)
        if self._connector.whole:
            for path, one in self._known.items():
                if path not in self.tally.seen and one.live:
                    self._gone(path)
                    self._write_if(full=True)
        else:
            self._settle_again()
        self._write_if(full=False)
        if self._source.checks:
            self.tally.tables[""] = list(self._connector.tables())
        with self._conn.transaction():
            store.hold_changes(self._conn)
            if store.set_superseded(self._conn, self._source.name):
                store.tell_followers(self._conn)
        return self.tally

    def _settle_again(self) -> None:
        """What was not mentioned is as it was, but the source or a folder may say something else of it now."""
        for path, one in self._known.items():
            if one.live and path not in self.tally.seen and path not in self.tally.gone:
                self._unchanged(one, Change(path, one.token or ""), tuple(self._connector.around(path)))
                self._write_if(full=True)

    def _jobs(self, changes: Iterator[Change]) -> Iterator[Job]:
        """Documents that have to be parsed; all others are dealt with on the way."""
        for change in changes:
            if self._progress is not None:
                self._progress(self._source.name, change.key)
            content = None if change.gone or change.key in self._blocked else self._needed(change)
            if change.gone:
                self._gone(change.key)
            elif change.key in self._blocked:
                self.tally.blocked.add(change.key)
                self.tally.seen.add(change.key)
            if content is not None:
                self._pending[change.key] = content
                yield Job(
                    key=change.key, data=content.content.data, media=content.content.media,
                    tables=bool(self._source.checks), limit=self._limit, pdf=self._pdf,
                )  # fmt: skip
            elif not self._pending:
                # behind documents that are still being parsed, the cursor waits for them
                self._batch.cursor = change.cursor or self._batch.cursor
            self._write_if(full=True)

    def _needed(self, change: Change) -> _Pending | None:
        """What has to be parsed of a change: nothing where the document is as it was, or cannot be read."""
        try:
            around = tuple(self._connector.around(change.key))
            one = self._known.get(change.key)
            if one is not None and one.live and one.token == change.version and one.chunked == PROCESSING:
                self._unchanged(one, change, around)
                return None
            content = self._connector.read(change.key)
            digest = _digest(content)
            if one is not None and one.live and one.digest == digest and one.chunked == PROCESSING:
                self._unchanged(one, change, around)
                return None
            return _Pending(change, content, around, digest)
        except (Invalid, TooLarge) as error:
            self._bad(change.key, error.code, error.message, error.hint or "")
        except NotFound:
            self._gone(change.key)
        except Unavailable as error:
            self._put_off(change.key, error)
        return None

    def _put_off(self, key: str, error: Unavailable) -> None:
        """One document could not be fetched now: it stays as it was. Where many cannot, the source is away."""
        self._away += 1
        if self._away > MOST_AWAY:
            raise error
        self.tally.bad.append(Bad(key, error.code, error.message, error.hint or ""))
        self.tally.seen.add(key)

    def _unchanged(self, one: store.Known, change: Change, around: tuple[Any, ...]) -> None:
        """The content stands; what holds for it may have changed above it."""
        settled = settle(self._source, self._values, around, one.declared, one.decided, one.digest, one.modified_at)
        self.tally.seen.add(change.key)
        self.tally.read += 1
        if settled.row["settled"] != one.settled:
            self._batch.held.append({**settled.row, "id": str(one.id), "token": change.version})
            self._batch.readers[one.id] = settled.readers
            self.tally.readers_changed += 1
        elif one.token != change.version:
            self._batch.tokens[one.id] = change.version

    def _parsed(self, pending: _Pending, outcome: Outcome) -> None:
        key = pending.change.key
        if isinstance(outcome, Refused):
            self._bad(key, outcome.code, outcome.message, outcome.hint)
        else:
            try:
                self._take(pending, outcome)
            except (Invalid, TooLarge) as error:
                self._bad(key, error.code, error.message, error.hint or "")
        # documents come back in order: everything before this one is done
        self._batch.cursor = pending.change.cursor or self._batch.cursor

    def _take(self, pending: _Pending, parsed: Parsed) -> None:
        key, content = pending.change.key, pending.content
        one = self._known.get(key)
        modified = content.modified_at or datetime.now(UTC)
        says = declared(parsed.told, content.told)
        settled = settle(
            self._source, self._values, pending.around, says, one.decided if one else {}, pending.digest, modified
        )
        id = one.id if one else new_id()
        self._batch.rows.append(self._row(id, pending, parsed, settled))
        self._batch.readers[id] = settled.readers
        self._batch.chunks[id] = parsed.pieces
        if not parsed.markdown:
            self._batch.plain.add(id)
        self._batch.characters += parsed.characters
        if one is not None:
            self._batch.replaced.append(id)
        if parsed.tables:
            self.tally.tables[key] = parsed.tables
        self.tally.seen.add(key)
        self.tally.read += 1
        self.tally.chunks += len(parsed.pieces)
        if one is not None and one.live:
            self.tally.changed += 1
        else:
            self.tally.added += 1

    def _row(self, id: UUID, pending: _Pending, parsed: Parsed, settled: Settled) -> Mapping[str, Any]:
        return {
            **settled.row,
            "id": str(id),
            "source": self._source.name,
            "path": pending.change.key,
            "title": parsed.title,
            "digest": pending.digest,
            "modified_at": pending.content.modified_at,
            "media": parsed.media,
            "bytes": len(pending.content.data),
            "content": parsed.content or None,
            "sketch": f"\\x{parsed.sketch.hex()}" if parsed.sketch else None,
            "token": pending.change.version,
            "chunked": PROCESSING,
            "lines": parsed.lines,
            "notes": parsed.notes,
            "supersedes": superseded_paths(pending.change.key, settled.own),
        }

    def _bad(self, key: str, code: str, message: str, hint: str) -> None:
        """A document that cannot be read for certain: told, and taken out of search until it can."""
        self.tally.bad.append(Bad(key, code, message, hint))
        self.tally.seen.add(key)
        self._remove(key)

    def _gone(self, key: str) -> None:
        self.tally.gone.add(key)
        if self._remove(key):
            self.tally.deleted += 1

    def _remove(self, key: str) -> bool:
        one = self._known.get(key)
        if one is None or not one.live:
            return False
        self._batch.removed.append(one.id)
        return True

    def _write_if(self, *, full: bool) -> None:
        """Write the batch, if it is full or (`full` False) if there is anything."""
        batch = self._batch
        if full and not batch.full:
            return
        self._batch = _Batch()
        with self._conn.transaction():
            if batch.rows or batch.removed or batch.held:
                store.hold_changes(self._conn)
            if batch.rows:
                store.put_documents(self._conn, batch.rows)
                self._put_chunks(batch)
            if batch.held:
                store.put_held(self._conn, batch.held)
            if batch.tokens:
                store.put_tokens(self._conn, batch.tokens)
            if batch.readers:
                put_readers(self._conn, batch.readers)
            if batch.removed:
                store.remove(self._conn, batch.removed)
            if batch.rows or batch.removed or batch.held:
                store.tell_followers(self._conn)
            store.go_on(self._conn, self._source.name, batch.cursor, self._progressed())

    def _put_chunks(self, batch: _Batch) -> None:
        """Into every edition that there is, cut as that one is: none of them ever lacks what another has."""
        store.take_away(self._conn, batch.replaced)
        for edition in index_store.editions(self._conn):
            limit, chunks = edition.settings.limit(self._source.name), batch.chunks
            if limit != self._limit:
                chunks = {
                    id: recut(pieces, markdown=id not in batch.plain, limit=limit) for id, pieces in chunks.items()
                }
            store.put_chunks(self._conn, edition.id, chunks)

    def _progressed(self) -> dict[str, Any]:
        tally = self.tally
        return {
            "read": tally.read, "added": tally.added, "changed": tally.changed, "deleted": tally.deleted,
            "failed": len(tally.bad), "at": datetime.now(UTC).isoformat(timespec="seconds"),
        }  # fmt: skip


def _digest(content: Content) -> str:
    mark = json.dumps([PROCESSING, content.media, content.told], default=str, sort_keys=True).encode()
    return hashlib.sha256(mark + b"\0" + content.data).hexdigest()
