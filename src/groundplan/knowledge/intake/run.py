"""One run over a source: ingests what is new, changed or deleted since the last run.

Documents are written by `writer` in batches of about two hundred: after a kill at any point, the next run continues
there. A document that cannot be read becomes one finding, and is excluded from search until it can be read for certain.
This module does not decide who may search which source, and computes no vectors.
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
from groundplan.knowledge.index.model import serving_edition
from groundplan.knowledge.intake import intake_store as store
from groundplan.knowledge.intake.batch import Batch, InheritedDecisions, Pending
from groundplan.knowledge.intake.content import (
    LONGEST_NAME,
    checks_fingerprint,
    content_digest,
    has_content,
    is_valid_key,
    modification_time,
)
from groundplan.knowledge.intake.failures import READING_KINDS, TRANSIENT_CODES, is_permanent
from groundplan.knowledge.intake.moved_documents import MovedDocuments, inherited_decisions
from groundplan.knowledge.intake.settle import DocumentGovernance, declared_values, superseded_paths
from groundplan.knowledge.intake.source_governance import SourceGovernance
from groundplan.knowledge.intake.tally import Tally
from groundplan.knowledge.intake.writer import BatchWriter
from groundplan.knowledge.parsing.model import Job, Outcome, Parsed, Refused, Table
from groundplan.knowledge.parsing.prepare import PROCESSING, TABULAR_SUFFIXES
from groundplan.knowledge.parsing.sandbox import Sandbox
from groundplan.knowledge.parsing.text import printable
from groundplan.knowledge.quality.forms import FormChecker
from groundplan.knowledge.quality.tables import table_findings
from groundplan.knowledge.sources.model import Change, Connector, Content, Cursor

log = logging.getLogger("groundplan.knowledge.intake")
_PROCESS = uuid4().hex
"""Part of the parser version: a refused document is parsed again once a day and by the next process; one that was
refused for a transient reason is also parsed again by the next run."""
MAX_DEFERRED = 20
"""How many documents of a source may be unavailable before the source itself counts as unavailable."""

Progress = Callable[[str, str], None]
"""Called with (source, path) before each document."""


class IngestRun:
    """One run over the documents of a connector. `conn` has role control and is in autocommit."""

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
        """`models`: the folder of models, for sources that declare a model to read their PDFs."""
        self._conn, self._source, self._connector, self._sandbox = conn, source, connector, sandbox
        self._forms = FormChecker()
        self._governance = SourceGovernance(conn, source, review_days)
        self._progress = progress
        self._pdf = "" if source.pdf == "plain" else f"{source.pdf}:{(models or Path()) / source.pdf}"
        self._parser_version = f"{datetime.now(UTC):%Y-%m-%d} {PROCESSING} {self._pdf} {_PROCESS}"
        self._known = store.stored_documents(conn, source.name)
        self._excluded = store.excluded_documents(conn, source.name, READING_KINDS)
        deleted = deletion_store.deleted_digests(conn, source.name)
        self._moved = MovedDocuments(
            self._known, store.undeclared_documents(conn, source.name), deleted, self._is_absent
        )
        self._blocked = deletion_store.closed_places(conn, source.name)
        self._limit = serving_edition(index_store.editions(conn)).settings.limit(source.name)
        self._batch = Batch()
        self._pending: deque[Pending] = deque()
        self._ids: dict[str, UUID] = {}
        self._deferred_count = 0
        self._retry_count = 0
        self._cursor_may_advance = True
        self._outage: Unavailable | None = None
        self.tally = Tally(checks=checks_fingerprint(source.checks, datetime.now(UTC).date()))
        self._writer = BatchWriter(conn, source, self._known, self._limit, self.tally)

    def execute(self) -> Tally:
        """Ingest everything since the cursor. Raises `Unavailable` where the source is; batches written before stay."""
        self._writer.save_progress(None, running=True)
        try:
            return self._process_changes()
        finally:
            self._forms.close()
            with suppress(psycopg.Error):
                self._writer.save_progress(None, running=False)

    def _process_changes(self) -> Tally:
        reprocess_all = any(document.live and document.chunked != PROCESSING for document in self._known.values())
        cursor = None if reprocess_all else store.read_cursor(self._conn, self._source.name)
        for _, outcome in self._sandbox.parse_all(self._parse_jobs(self._changes(cursor))):
            self._handle_outcome(self._pending.popleft(), outcome)
            self._flush(only_if_full=True)
        if self._outage is None and self._connector.is_complete:
            for path, document in self._known.items():
                if document.live and path not in self.tally.seen_keys and path not in self.tally.deleted_keys:
                    self._record_deletion(path)
                    self._flush(only_if_full=True)
        elif self._outage is None:
            self._refresh_unmentioned()
        if self.tally.checks is not None and self._outage is None:
            self._recheck_tables(self.tally.checks)
        self._flush(only_if_full=False)
        if self._source.checks and self._outage is None:
            with self._stop_on_source_error():
                self._check_tables("", self._connector.tables())
        with self._conn.transaction():
            store.lock_changes(self._conn)
            self._writer.forget_lost(self._lost_documents())
            if store.refresh_superseded(self._conn, self._source.name):
                store.notify_followers(self._conn)
        if self._outage is not None:
            raise self._outage
        return self.tally

    def _changes(self, cursor: Cursor | None) -> Iterator[Change]:
        """The connector's changes, until it ends or cannot go on: changes before an error are ingested all the same."""
        reported = set()
        with self._stop_on_source_error():
            for change in self._connector.changes(cursor):
                reported.add(change.key)
                yield change
                if self._outage is not None:
                    return
            if not self._connector.is_complete:
                yield from self._retry_excluded(reported)

    def _retry_excluded(self, reported: Container[str]) -> Iterator[Change]:
        """Excluded documents that may be readable now, for a connector that reports only changes and so does not report
        them again: those deleted here and readmitted since, and those whose parser was missing or ran out of time."""
        places = dict.fromkeys(store.readmitted_paths(self._conn, self._source.name), "")
        for path, version in {**places, **self._retryable_places()}.items():
            document = self._known.get(path)
            live = document is not None and document.live
            if not (live or path in reported or path in self._blocked):
                yield Change(path, version)
                if self._outage is not None:
                    return

    def _retryable_places(self) -> dict[str, str]:
        """Path -> version (empty: unknown) of excluded documents that may be readable now though they did not
        change."""
        return {
            path: failure.version
            for path, failure in self._excluded.items()
            if not (is_permanent(path, failure.code) or failure.parser_version == self._parser_version)
        }

    @contextmanager
    def _stop_on_source_error(self) -> Iterator[None]:
        """Turn an error of the source as a whole into an outage, which is raised once the rest was written."""
        try:
            yield
        except Unavailable as error:
            self._outage = error
        except psycopg.Error:
            raise
        except Exception as error:  # noqa: BLE001 -- the edge of a source: whatever a library says of it
            self._outage = source_outage(self._source.name, error)

    def _refresh_unmentioned(self) -> None:
        """Resolve governance anew for documents that were not reported: rules of the source or a folder may differ."""
        for path, document in self._known.items():
            if (
                document.live
                and path not in self.tally.seen_keys
                and path not in self.tally.deleted_keys
                and self._outage is None
            ):
                with self._isolate_document(path):
                    self._keep_content(
                        document, Change(path, document.token or ""), tuple(self._connector.folder_rules(path))
                    )
                self._flush(only_if_full=True)

    def _recheck_tables(self, checks: str) -> None:
        """Check the tables of unchanged documents where the checks changed, or a table may have become stale."""
        done = {*self.tally.tables, *self.tally.deleted_keys, *(failure.key for failure in self.tally.failures)}
        for path, document in self._known.items():
            if (
                not document.live
                or path in done
                or document.tables_by == checks
                or document.media not in TABULAR_SUFFIXES
            ):
                continue
            if self._outage is not None:
                return
            with self._isolate_document(path):
                content = self._connector.read(path)
                if content_digest(content) != document.digest:
                    continue  # changed meanwhile: the next run ingests it
                outcome = self._sandbox.parse(self._parse_job(path, content))
                if isinstance(outcome, Parsed):
                    self._check_tables(path, outcome.tables)
                self.tally.checked_documents.add(document.id)
            self._flush(only_if_full=True)

    def _check_tables(self, key: str, tables: Sequence[Table]) -> None:
        self.tally.tables[key] = table_findings(self._source, key, tables, self._forms.misfits)

    def _parse_job(self, key: str, content: Content) -> Job:
        return Job(
            key=key, data=content.data, media=content.media, tables=bool(self._source.checks), limit=self._limit,
            pdf=self._pdf,
        )  # fmt: skip

    @contextmanager
    def _isolate_document(self, key: str) -> Iterator[None]:
        """Record an error of one document as its failure; the other documents go on."""
        try:
            yield
        except NotFound:
            self._record_deletion(key)
        except Invalid as error:
            self._exclude_document(key, error.code, error.message, error.hint or "")
        except Unavailable as error:
            self._defer_document(key, error)
        except psycopg.Error:
            raise
        except Exception as error:
            log.error("%s of source %s could not be read", printable(key), self._source.name, exc_info=error)
            self._retry_count += 1
            self._exclude_document(
                key, "document_failed", f"reading it failed ({type(error).__name__})",
                "Save it anew where it is from; the log has the details. It is tried again.",
            )  # fmt: skip

    def _parse_jobs(self, changes: Iterator[Change]) -> Iterator[Job]:
        """Parse jobs of the documents that need parsing; all other changes are handled on the way."""
        for change in changes:
            if not is_valid_key(change.key):
                self._exclude_document(
                    printable(change.key)[:LONGEST_NAME], "document_name",
                    f"its name is not UTF-8, or longer than {LONGEST_NAME} characters", "Rename it where it is from.",
                )  # fmt: skip
                if not self._pending:
                    self._advance_cursor(change, may_advance=not self._retry_count)
                continue
            if self._progress is not None:
                self._progress(self._source.name, change.key)
            pending = None if change.is_deleted or change.key in self._blocked else self._prepare_parse(change)
            if change.is_deleted:
                self._record_deletion(change.key)
            elif change.key in self._blocked:
                self.tally.blocked_keys.add(change.key)
                self.tally.seen_keys.add(change.key)
            if pending is not None:
                self._pending.append(pending)
                yield self._parse_job(change.key, pending.content)
            elif not self._pending:
                # behind documents that are still being parsed, the cursor waits for them
                self._advance_cursor(change, may_advance=not self._retry_count)
            self._flush(only_if_full=True)

    def _advance_cursor(self, change: Change, *, may_advance: bool) -> None:
        """Move the cursor to this change, unless a document before it is to be retried."""
        if may_advance and self._cursor_may_advance:
            self._batch.cursor = change.cursor or self._batch.cursor

    def _prepare_parse(self, change: Change) -> Pending | None:
        """The document of a change if it needs parsing; None where it is unchanged or cannot be read."""
        with self._isolate_document(change.key):
            folder_rules = tuple(self._connector.folder_rules(change.key))
            known = self._known.get(change.key)
            if known is not None and known.live and known.token == change.version and known.chunked == PROCESSING:
                self._keep_content(known, change, folder_rules)
                return None
            refused = self._excluded.get(change.key)
            seen = (change.version, self._parser_version)
            if refused is not None and (refused.version, refused.parser_version) == seen:
                self._exclude_document(*astuple(refused))
                return None
            content = self._connector.read(change.key)
            digest = content_digest(content)
            if known is not None and known.live and known.digest == digest and known.chunked == PROCESSING:
                self._keep_content(known, change, folder_rules)
                return None
            if (known is None or not known.live) and has_content(content):
                self._moved.check_not_deleted(change.key, digest)
            return Pending(change, content, folder_rules, digest, cursor_may_advance=not self._retry_count)
        return None

    def _defer_document(self, key: str, error: Unavailable) -> None:
        """Keep a document as it is that could not be fetched now. Where too many cannot, the source is unavailable."""
        self._deferred_count += 1
        self._retry_count += 1
        if self._deferred_count > MAX_DEFERRED:
            self._outage = error
        self.tally.record_failure(key, error.code, error.message, error.hint or "")

    def _keep_content(self, document: store.StoredDocument, change: Change, folder_rules: tuple[Any, ...]) -> None:
        """Ingest a document whose content is unchanged; the rules above it may have changed."""

        def resolve(decisions: Mapping[str, Any], held_by: str | None) -> DocumentGovernance:
            return self._governance.resolve(
                folder_rules, document.declared, decisions, document.digest, document.modified_at, held_by
            )

        governance = resolve(document.decided, document.held_by)
        self.tally.seen_keys.add(change.key)
        self.tally.read += 1
        if governance.row["settled"] != document.settled:
            row = {**governance.row, "id": str(document.id), "path": change.key, "token": change.version}
            self._batch.governance_rows.append(row)
            self._batch.set_governance(document.id, governance, resolve, document.decided)
            self.tally.readers_changed += 1
        elif document.token != change.version:
            self._batch.tokens[document.id] = change.version

    def _handle_outcome(self, pending: Pending, outcome: Outcome) -> None:
        key, retries = pending.change.key, self._retry_count
        if isinstance(outcome, Refused):
            version, previous = pending.change.version, self._excluded.get(key)
            retries = previous is not None and (previous.version, previous.code) == (version, outcome.code)
            parser_version = "" if outcome.code in TRANSIENT_CODES and not retries else self._parser_version
            self._exclude_document(key, outcome.code, outcome.message, outcome.hint, version, parser_version)
        else:
            with self._isolate_document(key):
                self._store_parsed(pending, outcome)
        self._cursor_may_advance = self._cursor_may_advance and retries == self._retry_count
        # outcomes come in the order of the jobs: everything before this one is done
        self._advance_cursor(pending.change, may_advance=pending.cursor_may_advance)

    def _store_parsed(self, pending: Pending, parsed: Parsed) -> None:
        key, content = pending.change.key, pending.content
        previous = self._known.get(key)
        modified = modification_time(previous, content, parsed)
        declared_by_document = declared_values(parsed.told, content.governed_values)
        decisions, held_by = (previous.decided, previous.held_by) if previous else ({}, None)

        def resolve(decided: Mapping[str, Any], held_by: str | None) -> DocumentGovernance:
            return self._governance.resolve(
                pending.folder_rules, declared_by_document, decided, pending.digest, modified, held_by
            )

        governance = resolve(decisions, held_by)
        was_stored = previous is not None or key in self._ids
        id = self._ids.setdefault(key, previous.id if previous else new_id())
        is_new = not (previous and previous.live) and has_content(content)
        if is_new and (moved_from := self._moved.find_origin(key, pending.digest)):
            inherited = inherited_decisions(moved_from, governance.row, pending.digest)
            decisions = {**decisions, **inherited}
            governance = resolve(decisions, held_by)
            self._batch.inherited[id] = InheritedDecisions(moved_from.id, inherited)
        self._batch.rows.append(self._document_row(id, pending, parsed, governance, modified))
        self._batch.set_governance(id, governance, resolve, decisions)
        self._batch.chunks[id] = parsed.pieces
        if not parsed.markdown:
            self._batch.plain_documents.add(id)
        self._batch.characters += parsed.characters
        if was_stored:
            self._batch.replaced.append(id)
        if self.tally.checks is not None:
            self._check_tables(key, parsed.tables)
            self.tally.checked_documents.add(id)
        self.tally.seen_keys.add(key)
        self.tally.read += 1
        self.tally.chunks += len(parsed.pieces)
        if previous is not None and previous.live:
            self.tally.changed += 1
        else:
            self.tally.added += 1

    def _document_row(
        self, id: UUID, pending: Pending, parsed: Parsed, governance: DocumentGovernance, modified: datetime
    ) -> Mapping[str, Any]:
        return {
            **governance.row,
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
            "supersedes": superseded_paths(pending.change.key, governance.own),
            "confined": parsed.confined,
            "tables_by": None,
        }

    def _exclude_document(
        self, key: str, code: str, message: str, hint: str, version: str = "", parser_version: str = ""
    ) -> None:
        """Record the failure of a document that cannot be read for certain, and exclude it from search."""
        self.tally.record_failure(key, code, message, hint, version, parser_version)
        self._remove_from_search(key, "unreadable")

    def _is_absent(self, key: str) -> bool:
        """Whether the source no longer has a readable document at this key."""
        if key in self.tally.seen_keys or key in self.tally.deleted_keys:
            return key in self.tally.deleted_keys
        try:
            self._connector.read(key)
        except GroundplanError:
            return True
        return False

    def _lost_documents(self) -> list[UUID]:
        """Documents that were unreadable before and are deleted at their source now."""
        is_complete = self._outage is None and self._connector.is_complete
        tally = self.tally
        return [
            document.id
            for path, document in self._known.items()
            if document.unreadable and (path in tally.deleted_keys or (is_complete and path not in tally.seen_keys))
        ]

    def _record_deletion(self, key: str) -> None:
        self.tally.deleted_keys.add(key)
        if self._remove_from_search(key, "gone"):
            self.tally.deleted += 1

    def _remove_from_search(self, key: str, cause: Cause) -> bool:
        document = self._known.get(key)
        id = document.id if document is not None and document.live else self._ids.get(key)
        if id is None:
            return False
        self._batch.removed[id] = cause
        return True

    def _flush(self, *, only_if_full: bool) -> None:
        """Write the batch if it is full; with `only_if_full` False, write it in any case."""
        batch = self._batch
        if not only_if_full or batch.is_full:
            self._batch = Batch()
            self._writer.write(batch)


def source_outage(source: str, error: Exception) -> Unavailable:
    """The outage to report for a source that ended with an error; the traceback of an unexpected one is logged only."""
    if isinstance(error, GroundplanError):
        return Unavailable(error.message, code=error.code, hint=error.hint)
    log.error("source %s could not be read", source, exc_info=error)
    return Unavailable(
        f"reading it failed ({type(error).__name__})", code="source_failed",
        hint="The log has the details. What was read stays; it is tried again.",
    )  # fmt: skip
