"""One run over a source: what is new, changed or gone since last time, and nothing else.

Documents are taken over some hundred at a time, as `writer` writes them: killed at any point, the next run goes on
there. A bad document costs one finding, and is out of search until it can be read for certain. Nothing is decided here
about who may search which source, and no vector is made.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import astuple
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import psycopg
from psycopg import Connection

from groundplan.blueprint.model import Source
from groundplan.core.errors import GroundplanError, Invalid, NotFound, Unavailable
from groundplan.core.ids import new_id
from groundplan.knowledge.deletion import deletion_store
from groundplan.knowledge.deletion.legal_hold_store import Cause
from groundplan.knowledge.index import index_store
from groundplan.knowledge.index.model import serving
from groundplan.knowledge.intake import intake_store as store
from groundplan.knowledge.intake.batch import Batch, Carried, Pending
from groundplan.knowledge.intake.content import (
    LONGEST_NAME,
    changed_at,
    checks_mark,
    digest_of,
    nameable,
    says_something,
)
from groundplan.knowledge.intake.failures import MAY_PASS, READING, for_good
from groundplan.knowledge.intake.moved_documents import Moved, carried
from groundplan.knowledge.intake.settle import Settled, closed, declared, settle, source_values, superseded_paths
from groundplan.knowledge.intake.tally import Tally
from groundplan.knowledge.intake.writer import Writer
from groundplan.knowledge.parsing.model import Job, Outcome, Parsed, Refused, Table
from groundplan.knowledge.parsing.prepare import PROCESSING, TABLED
from groundplan.knowledge.parsing.sandbox import Sandbox
from groundplan.knowledge.parsing.text import printable
from groundplan.knowledge.quality.forms import Forms
from groundplan.knowledge.quality.tables import of_tables
from groundplan.knowledge.sources.model import Change, Connector, Content, Cursor
from groundplan.knowledge.store import unknown_readers

log = logging.getLogger("groundplan.knowledge.intake")
_PROCESS = uuid4().hex
"""What a parser refused is given to it again once a day, and by the next process; where it may pass, by the next look
as well."""
MOST_AWAY = 20
"""So many documents of a source may be out of reach before the source itself is taken for away."""

Progress = Callable[[str, str], None]
"""Told (source, path) before each document."""


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
        self._forms = Forms()
        self._values = source_values(source, review_days)
        self._progress = progress
        self._pdf = "" if source.pdf == "plain" else f"{source.pdf}:{(models or Path()) / source.pdf}"
        self._by = f"{datetime.now(UTC):%Y-%m-%d} {PROCESSING} {self._pdf} {_PROCESS}"
        self._known = store.known(conn, source.name)
        self._out = store.left_out(conn, source.name, READING)
        deleted = deletion_store.digests(conn, source.name)
        self._moved = Moved(self._known, store.left(conn, source.name), deleted, self._is_gone)
        self._blocked = deletion_store.closed(conn, source.name)
        self._limit = serving(index_store.editions(conn)).settings.limit(source.name)
        self._batch = Batch()
        self._pending: deque[Pending] = deque()
        self._ids: dict[str, UUID] = {}
        self._nobody: dict[str, bool] = {}
        self._away = 0
        self._again = 0
        self._clear = True
        self._ended: Unavailable | None = None
        self.tally = Tally(checks=checks_mark(source.checks, datetime.now(UTC).date()))
        self._writer = Writer(conn, source, self._known, self._limit, self.tally)

    def take_over(self) -> Tally:
        """Everything since the cursor. Raises `Unavailable` where the source is away: what was done stays."""
        self._writer.go_on(None, running=True)
        try:
            return self._take_over()
        finally:
            self._forms.close()
            with suppress(psycopg.Error):
                self._writer.go_on(None, running=False)

    def _take_over(self) -> Tally:
        old = any(one.live and one.chunked != PROCESSING for one in self._known.values())
        cursor = None if old else store.cursor_of(self._conn, self._source.name)
        for _, outcome in self._sandbox.parse_all(self._jobs(self._changes(cursor))):
            self._parsed(self._pending.popleft(), outcome)
            self._write_if(full=True)
        if self._ended is None and self._connector.whole:
            for path, one in self._known.items():
                if one.live and path not in self.tally.seen and path not in self.tally.gone:
                    self._gone(path)
                    self._write_if(full=True)
        elif self._ended is None:
            self._settle_again()
        if self.tally.checks is not None and self._ended is None:
            self._check_again(self.tally.checks)
        self._write_if(full=False)
        if self._source.checks and self._ended is None:
            with self._ends_here():
                self._check("", self._connector.tables())
        with self._conn.transaction():
            store.hold_changes(self._conn)
            self._writer.let_go(self._lost())
            if store.set_superseded(self._conn, self._source.name):
                store.tell_followers(self._conn)
        if self._ended is not None:
            raise self._ended
        return self.tally

    def _changes(self, cursor: Cursor | None) -> Iterator[Change]:
        """What the connector tells, until it ends or cannot go on: what it told before is taken over all the same."""
        told = set()
        with self._ends_here():
            for change in self._connector.changes(cursor):
                told.add(change.key)
                yield change
                if self._ended is not None:
                    return
            if not self._connector.whole:
                yield from self._left_out(told)

    def _left_out(self, told: Container[str]) -> Iterator[Change]:
        """What a connector that tells changes alone does not tell again, though why it is out may have ended without a
        change of its own: it was deleted here and is let in again, or what reads it was missing or had no time."""
        places = dict.fromkeys(store.let_in_again(self._conn, self._source.name), "")
        for path, version in {**places, **self._left()}.items():
            one = self._known.get(path)
            live = one is not None and one.live
            if not (live or path in told or path in self._blocked):
                yield Change(path, version)
                if self._ended is not None:
                    return

    def _left(self) -> dict[str, str]:
        """Places, and versions where they are known, of what is out and may be read now though it did not change."""
        return {
            path: bad.version for path, bad in self._out.items() if not (for_good(path, bad.code) or bad.by == self._by)
        }

    @contextmanager
    def _ends_here(self) -> Iterator[None]:
        """Whatever goes wrong with the source as a whole ends its run, and is told once the rest was written."""
        try:
            yield
        except Unavailable as error:
            self._ended = error
        except psycopg.Error:
            raise
        except Exception as error:  # noqa: BLE001 -- the edge of a source: whatever a library says of it
            self._ended = failed(self._source.name, error)

    def _settle_again(self) -> None:
        """What was not mentioned is as it was, but the source or a folder may say something else of it now."""
        for path, one in self._known.items():
            if one.live and path not in self.tally.seen and path not in self.tally.gone and self._ended is None:
                with self._costs_one(path):
                    self._unchanged(one, Change(path, one.token or ""), tuple(self._connector.around(path)))
                self._write_if(full=True)

    def _check_again(self, checks: str) -> None:
        """Look at the tables of documents that did not change: the checks did, or a table has grown old."""
        done = {*self.tally.tables, *self.tally.gone, *(bad.key for bad in self.tally.bad)}
        for path, one in self._known.items():
            if not one.live or path in done or one.tables_by == checks or one.media not in TABLED:
                continue
            if self._ended is not None:
                return
            with self._costs_one(path):
                content = self._connector.read(path)
                if digest_of(content) != one.digest:
                    continue  # it has changed meanwhile: the next run takes it over
                outcome = self._sandbox.parse(self._job(path, content))
                if isinstance(outcome, Parsed):
                    self._check(path, outcome.tables)
                self.tally.checked.add(one.id)
            self._write_if(full=True)

    def _check(self, key: str, tables: Sequence[Table]) -> None:
        self.tally.tables[key] = of_tables(self._source, key, tables, self._forms.misfits)

    def _job(self, key: str, content: Content) -> Job:
        return Job(
            key=key, data=content.data, media=content.media, tables=bool(self._source.checks), limit=self._limit,
            pdf=self._pdf,
        )  # fmt: skip

    @contextmanager
    def _costs_one(self, key: str) -> Iterator[None]:
        """Whatever goes wrong with a document costs that one, and is told; the others go on."""
        try:
            yield
        except NotFound:
            self._gone(key)
        except Invalid as error:
            self._bad(key, error.code, error.message, error.hint or "")
        except Unavailable as error:
            self._put_off(key, error)
        except psycopg.Error:
            raise
        except Exception as error:
            log.error("%s of source %s could not be read", printable(key), self._source.name, exc_info=error)
            self._again += 1
            self._bad(
                key, "document_failed", f"reading it failed ({type(error).__name__})",
                "Save it anew where it is from; the log has the details. It is tried again.",
            )  # fmt: skip

    def _jobs(self, changes: Iterator[Change]) -> Iterator[Job]:
        """Documents that have to be parsed; all others are dealt with on the way."""
        for change in changes:
            if not nameable(change.key):
                self._bad(
                    printable(change.key)[:LONGEST_NAME], "document_name",
                    f"its name is not UTF-8, or longer than {LONGEST_NAME} characters", "Rename it where it is from.",
                )  # fmt: skip
                if not self._pending:
                    self._advance(change, clear=not self._again)
                continue
            if self._progress is not None:
                self._progress(self._source.name, change.key)
            content = None if change.gone or change.key in self._blocked else self._needed(change)
            if change.gone:
                self._gone(change.key)
            elif change.key in self._blocked:
                self.tally.blocked.add(change.key)
                self.tally.seen.add(change.key)
            if content is not None:
                self._pending.append(content)
                yield self._job(change.key, content.content)
            elif not self._pending:
                # behind documents that are still being parsed, the cursor waits for them
                self._advance(change, clear=not self._again)
            self._write_if(full=True)

    def _advance(self, change: Change, *, clear: bool) -> None:
        """Everything up to this change is done. Behind a document that is tried again the cursor stays."""
        if clear and self._clear:
            self._batch.cursor = change.cursor or self._batch.cursor

    def _needed(self, change: Change) -> Pending | None:
        """What has to be parsed of a change: nothing where the document is as it was, or cannot be read."""
        with self._costs_one(change.key):
            around = tuple(self._connector.around(change.key))
            one = self._known.get(change.key)
            if one is not None and one.live and one.token == change.version and one.chunked == PROCESSING:
                self._unchanged(one, change, around)
                return None
            refused = self._out.get(change.key)
            if refused is not None and (refused.version, refused.by) == (change.version, self._by):
                self._bad(*astuple(refused))
                return None
            content = self._connector.read(change.key)
            digest = digest_of(content)
            if one is not None and one.live and one.digest == digest and one.chunked == PROCESSING:
                self._unchanged(one, change, around)
                return None
            if (one is None or not one.live) and says_something(content):
                self._moved.check(change.key, digest)
            return Pending(change, content, around, digest, clear=not self._again)
        return None

    def _put_off(self, key: str, error: Unavailable) -> None:
        """One document could not be fetched now: it stays as it was. Where many cannot, the source is away."""
        self._away += 1
        self._again += 1
        if self._away > MOST_AWAY:
            self._ended = error
        self.tally.tell(key, error.code, error.message, error.hint or "")

    def _settled(
        self,
        around: tuple[Any, ...],
        says: Mapping[str, Mapping[str, Any]],
        decided: Mapping[str, Any],
        digest: str,
        modified: datetime | None,
        held_by: str | None,
    ) -> Settled:
        found = settle(self._source, self._values, around, says, decided, digest, modified, held_by)
        return closed(found, self._strangers(found.readers.deny - {"public"}))

    def _strangers(self, names: frozenset[str]) -> list[str]:
        """Those of the names that are no group, no team and no person."""
        new = names - self._nobody.keys()
        if new:
            unknown = unknown_readers(self._conn, new)
            self._nobody.update((name, name in unknown) for name in new)
        return sorted(name for name in names if self._nobody[name])

    def _unchanged(self, one: store.Known, change: Change, around: tuple[Any, ...]) -> None:
        """The content stands; what holds for it may have changed above it."""

        def settle(decided: Mapping[str, Any], held_by: str | None) -> Settled:
            return self._settled(around, one.declared, decided, one.digest, one.modified_at, held_by)

        settled = settle(one.decided, one.held_by)
        self.tally.seen.add(change.key)
        self.tally.read += 1
        if settled.row["settled"] != one.settled:
            row = {**settled.row, "id": str(one.id), "path": change.key, "token": change.version}
            self._batch.held.append(row)
            self._batch.keep(one.id, settled, settle, one.decided)
            self.tally.readers_changed += 1
        elif one.token != change.version:
            self._batch.tokens[one.id] = change.version

    def _parsed(self, pending: Pending, outcome: Outcome) -> None:
        key, again = pending.change.key, self._again
        if isinstance(outcome, Refused):
            version, before = pending.change.version, self._out.get(key)
            again = before is not None and (before.version, before.code) == (version, outcome.code)
            by = "" if outcome.code in MAY_PASS and not again else self._by
            self._bad(key, outcome.code, outcome.message, outcome.hint, version, by)
        else:
            with self._costs_one(key):
                self._take(pending, outcome)
        self._clear = self._clear and again == self._again
        # documents come back in order: everything before this one is done
        self._advance(pending.change, clear=pending.clear)

    def _take(self, pending: Pending, parsed: Parsed) -> None:
        key, content = pending.change.key, pending.content
        one = self._known.get(key)
        modified = changed_at(one, content, parsed)
        says = declared(parsed.told, content.told)
        known, held_by = (one.decided, one.held_by) if one else ({}, None)

        def settle(decided: Mapping[str, Any], held_by: str | None) -> Settled:
            return self._settled(pending.around, says, decided, pending.digest, modified, held_by)

        settled = settle(known, held_by)
        told_before = one is not None or key in self._ids
        id = self._ids.setdefault(key, one.id if one else new_id())
        new = not (one and one.live) and says_something(content)
        if new and (before := self._moved.before(key, pending.digest)):
            more = carried(before, settled.row, pending.digest)
            known = {**known, **more}
            settled = settle(known, held_by)
            self._batch.carried[id] = Carried(before.id, more)
        self._batch.rows.append(self._row(id, pending, parsed, settled, modified))
        self._batch.keep(id, settled, settle, known)
        self._batch.chunks[id] = parsed.pieces
        if not parsed.markdown:
            self._batch.plain.add(id)
        self._batch.characters += parsed.characters
        if told_before:
            self._batch.replaced.append(id)
        if self.tally.checks is not None:
            self._check(key, parsed.tables)
            self.tally.checked.add(id)
        self.tally.seen.add(key)
        self.tally.read += 1
        self.tally.chunks += len(parsed.pieces)
        if one is not None and one.live:
            self.tally.changed += 1
        else:
            self.tally.added += 1

    def _row(
        self, id: UUID, pending: Pending, parsed: Parsed, settled: Settled, modified: datetime
    ) -> Mapping[str, Any]:
        return {
            **settled.row,
            "id": str(id),
            "source": self._source.name,
            "path": pending.change.key,
            "title": parsed.title,
            "digest": pending.digest,
            "modified_at": modified,
            "media": parsed.media,
            "bytes": len(pending.content.data),
            "content": parsed.content or None,
            "sketch": f"\\x{parsed.sketch.hex()}" if parsed.sketch else None,
            "token": pending.change.version,
            "chunked": PROCESSING,
            "lines": parsed.lines,
            "notes": parsed.notes,
            "supersedes": superseded_paths(pending.change.key, settled.own),
            "confined": parsed.confined,
            "tables_by": None,
        }

    def _bad(self, key: str, code: str, message: str, hint: str, version: str = "", by: str = "") -> None:
        """A document that cannot be read for certain: told, and taken out of search until it can."""
        self.tally.tell(key, code, message, hint, version, by)
        self._remove(key, "unreadable")

    def _is_gone(self, key: str) -> bool:
        """Whether a document stands there no more, or may not."""
        if key in self.tally.seen or key in self.tally.gone:
            return key in self.tally.gone
        try:
            self._connector.read(key)
        except GroundplanError:
            return True
        return False

    def _lost(self) -> list[UUID]:
        """Documents that could not be read before, and are gone now."""
        rest = self._ended is None and self._connector.whole
        tally = self.tally
        return [
            one.id
            for path, one in self._known.items()
            if one.unreadable and (path in tally.gone or (rest and path not in tally.seen))
        ]

    def _gone(self, key: str) -> None:
        self.tally.gone.add(key)
        if self._remove(key, "gone"):
            self.tally.deleted += 1

    def _remove(self, key: str, cause: Cause) -> bool:
        one = self._known.get(key)
        id = one.id if one is not None and one.live else self._ids.get(key)
        if id is None:
            return False
        self._batch.removed[id] = cause
        return True

    def _write_if(self, *, full: bool) -> None:
        """Write the batch, if it is full or (`full` False) if there is anything."""
        batch = self._batch
        if not full or batch.full:
            self._batch = Batch()
            self._writer.write(batch)


def failed(source: str, error: Exception) -> Unavailable:
    """What is told of a source that ended by an error; where, of one that nobody foresaw, is in the log alone."""
    if isinstance(error, GroundplanError):
        return Unavailable(error.message, code=error.code, hint=error.hint)
    log.error("source %s could not be read", source, exc_info=error)
    return Unavailable(
        f"reading it failed ({type(error).__name__})", code="source_failed",
        hint="The log has the details. What was read stays; it is tried again.",
    )  # fmt: skip
