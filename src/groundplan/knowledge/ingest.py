"""Taking a folder of documents over into PostgreSQL: what is new, changed or gone since last time, and nothing else.

Each document is a transaction of its own, so that a bad one stops no other and a kill loses no finished one. What
cannot be read for certain is taken out of search until it can. It decides nothing about who may search which source.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

from psycopg import Connection

from groundplan.blueprint.model import Source
from groundplan.core.audit import SYSTEM, record
from groundplan.core.errors import Unavailable
from groundplan.knowledge import store
from groundplan.knowledge.chunk import chunks
from groundplan.knowledge.model import Chunk, Document, Embedder, Finding, IngestReport, Readers, by_grant
from groundplan.knowledge.read import Failed, scan

Progress = Callable[[str, str], None]
"""Told (source, path) before each document."""


@dataclass(slots=True)
class _Tally:
    """Counts of one run, and what its person should look at."""

    read: int = 0
    added: int = 0
    changed: int = 0
    deleted: int = 0
    readers_changed: int = 0
    chunks: int = 0
    failed: int = 0
    findings: list[Finding] = field(default_factory=list)
    readers: set[str] = field(default_factory=set)


def ingest(
    conn: Connection[Any],
    source: Source,
    folder: Path,
    embedder: Embedder,
    today: date,
    progress: Progress | None = None,
) -> IngestReport:
    """Bring a source's documents up to date with its folder; `conn` is of role control and in autocommit.

    A folder that cannot be listed changes nothing but opens a finding. Waits for another ingestion of the same source.
    Raises what the embedder and the database raise; what was done until then stays.
    """
    subject = f"source/{source.name}"
    store.put_source(conn, source.name, path=source.path, sensitivity=source.sensitivity, owner=source.owner)
    store.hold_source(conn, source.name)
    try:
        tally = _Tally()
        try:
            _take_over(conn, source, folder, embedder, today, progress or _silent, tally)
        except Unavailable as error:
            if error.code != "source_missing":
                raise
            tally.failed += 1
            tally.findings.append(Finding("knowledge_source_missing", "high", subject, error.message, error.hint))
        with conn.transaction():
            _conclude(conn, source, subject, tally)
    finally:
        store.let_go_of_source(conn, source.name)
    return IngestReport(
        source=source.name,
        read=tally.read,
        added=tally.added,
        changed=tally.changed,
        deleted=tally.deleted,
        readers_changed=tally.readers_changed,
        chunks=tally.chunks,
        failed=tally.failed,
        findings=tuple(tally.findings),
    )


def _silent(source: str, path: str) -> None:
    """Progress for callers who want none."""


def _take_over(
    conn: Connection[Any],
    source: Source,
    folder: Path,
    embedder: Embedder,
    today: date,
    progress: Progress,
    tally: _Tally,
) -> None:
    known = store.known_documents(conn, source.name)
    seen: set[str] = set()
    for found in scan(folder, Readers(frozenset({*source.readers, by_grant(source.name)}))):
        progress(source.name, found.path)
        if isinstance(found, Failed):
            tally.failed += 1
            tally.findings.append(_failure(source, found))
            continue
        seen.add(found.path)
        tally.read += 1
        tally.readers |= found.readers.allow | found.readers.deny
        _put(conn, source.name, found, known.get(found.path), embedder, tally)
        if found.review_by is not None and found.review_by < today:
            tally.findings.append(_outdated(source, found, found.review_by))
    for path, one in known.items():
        if path not in seen and one.live:
            with conn.transaction():
                store.delete_document(conn, one.id)
            tally.deleted += 1


def _put(
    conn: Connection[Any], source: str, document: Document, known: store.Known | None, embedder: Embedder, tally: _Tally
) -> None:
    """Store the document where it is new, changed or back; only its readers where only they changed."""
    if known is not None and known.live and known.digest == document.digest:
        if known.readers != document.readers:
            with conn.transaction():
                store.set_readers(conn, known.id, document.readers)
            tally.readers_changed += 1
        return
    parts = chunks(document.text, markdown=document.markdown, start=document.body_start)
    vectors = embedder.embed([context(document.title, part) for part in parts])
    with conn.transaction():
        store.put_document(conn, source, document, parts, vectors)
    tally.chunks += len(parts)
    if known is not None and known.live:
        tally.changed += 1
    else:
        tally.added += 1


def context(title: str, chunk: Chunk) -> str:
    """What is embedded for a chunk: where it stands, then its text."""
    above = [name for name in (title, *chunk.headings) if name not in chunk.text]
    return "\n".join([*dict.fromkeys(above), chunk.text])


def _conclude(conn: Connection[Any], source: Source, subject: str, tally: _Tally) -> None:
    """Findings, counts and the audit entry of a run."""
    for path, other_source, other in store.duplicates(conn, source.name):
        tally.findings.append(
            Finding(
                "knowledge_duplicate",
                "low",
                f"{subject}/{path}",
                f"{path} has the same content as {other} of {other_source}",
                "Keep one of the two, so that a correction reaches every reader.",
            )
        )
    for name in sorted(store.unknown_readers(conn, (tally.readers | set(source.readers)) - {by_grant(source.name)})):
        tally.findings.append(
            Finding(
                "knowledge_reader_unknown",
                "medium",
                f"{subject}/reader:{name}",
                f"'{name}' is named as a reader, but is no group, team or person",
                "Nobody reads these documents by that name. Correct it, or add the group.",
            )
        )
    store.keep_findings(conn, subject, tally.findings, source.owner)
    store.finish_source(conn, source.name)
    done = {"added": tally.added, "changed": tally.changed, "deleted": tally.deleted, "readers": tally.readers_changed}
    if any(done.values()):
        record(conn, action="knowledge.ingested", actor=SYSTEM, subject=subject, detail=done)


def _failure(source: Source, failed: Failed) -> Finding:
    unsupported = failed.error.code == "document_type"
    return Finding(
        "knowledge_unsupported" if unsupported else "knowledge_unreadable",
        "info" if unsupported else "medium",
        f"source/{source.name}/{failed.path}",
        f"{failed.path} is not searched: {failed.error.message}",
        failed.error.hint,
    )


def _outdated(source: Source, document: Document, since: date) -> Finding:
    return Finding(
        "knowledge_outdated",
        "medium",
        f"source/{source.name}/{document.path}",
        f"{document.path} was to be reviewed by {since.isoformat()}",
        "Review it and set `review_by` to the next date, or delete it.",
    )
