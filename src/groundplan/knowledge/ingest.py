"""Ingest one source into PostgreSQL: its documents, the findings about them, and its entry in the audit log.

A document that cannot be read for certain is excluded from search until it can. This module does not decide who may
search which source.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from psycopg import Connection

from groundplan.blueprint.model import Source
from groundplan.catalog.fields import is_email
from groundplan.core.audit import SYSTEM, record
from groundplan.core.errors import Unavailable
from groundplan.core.words import quantity
from groundplan.knowledge import store
from groundplan.knowledge.deletion import legal_hold_store, names_store
from groundplan.knowledge.intake import intake_store
from groundplan.knowledge.intake.concurrent_changes import Redeclared, check_declared
from groundplan.knowledge.intake.failures import READING_KINDS, failure_findings
from groundplan.knowledge.intake.run import IngestRun, Progress
from groundplan.knowledge.intake.tally import Tally
from groundplan.knowledge.model import IngestReport, by_grant
from groundplan.knowledge.parsing.sandbox import Sandbox
from groundplan.knowledge.parsing.text import printable
from groundplan.knowledge.quality import quality_store
from groundplan.knowledge.sources.model import Connector, SidecarConnector
from groundplan.ledger.finding import Finding

_MISSING = "knowledge.source_missing"
_TABLES = ("knowledge.table", "knowledge.sensor")
STEP_FAILED = "knowledge.failed"
_UNCONFINED = "knowledge.unconfined"
_SIDECAR = "knowledge.sidecar"
_CAUSE_VERBS = {"changed": "changed", "gone": "went", "unreadable": "became unreadable"}


@dataclass(frozen=True, slots=True)
class IngestSettings:
    """Settings of an ingestion besides the source: default days until a review, and the sandbox that parses."""

    review_days: int | None = None
    sandbox: Sandbox | None = None
    progress: Progress | None = None
    models: Path | None = None
    """Folder of models, for sources that declare a model to read their PDFs."""


_DEFAULT = IngestSettings()


def ingest_source(
    conn: Connection[Any], source: Source, connector: Connector, settings: IngestSettings = _DEFAULT
) -> IngestReport:
    """Bring a source's documents up to date; `conn` has role control and is in autocommit.

    An unavailable source changes nothing but opens a finding. Waits for another ingestion of the same source. Raises
    database errors, and `Redeclared` as soon as the served blueprint declares the source differently; documents that
    were written until then stay.
    """
    subject = f"source/{source.name}"
    try:
        with conn.transaction():
            intake_store.lock_changes(conn)
            check_declared(conn, source)
            store.put_source(conn, source.name, path=source.path, sensitivity=source.sensitivity, owner=source.owner)
            _store_governance(conn, source, settings)
        with _exclusive_ingestion(conn, source.name), _open_sandbox(settings) as sandbox:
            run = IngestRun(
                conn,
                source,
                connector,
                sandbox,
                review_days=settings.review_days,
                progress=settings.progress,
                models=settings.models,
            )
            outage: Unavailable | None = None
            try:
                run.execute()
            except Redeclared:
                raise
            except Unavailable as error:
                outage = error
            with conn.transaction():
                _record_results(conn, source, subject, run.tally, outage, is_complete=connector.is_complete)
                if outage is None and isinstance(connector, SidecarConnector):
                    found = [_orphan_sidecar_finding(source, subject, path) for path in connector.orphan_sidecars()]
                    quality_store.put_findings(conn, source.name, found, kinds=[_SIDECAR])
    finally:
        connector.close()
    return _build_report(source, run.tally, outage)


@contextmanager
def _exclusive_ingestion(conn: Connection[Any], name: str) -> Iterator[None]:
    """Hold the session lock of a source, so that only one ingestion of it runs at a time."""
    store.lock_source(conn, name)
    try:
        yield
    finally:
        store.unlock_source(conn, name)


@contextmanager
def _open_sandbox(settings: IngestSettings) -> Iterator[Sandbox]:
    if settings.sandbox is not None:
        yield settings.sandbox
        return
    with Sandbox() as sandbox:
        yield sandbox


def _store_governance(conn: Connection[Any], source: Source, settings: IngestSettings) -> None:
    rule = source.governed
    store.put_source_rule(
        conn,
        source.name,
        {
            "type": source.connector.type if source.connector else "folder",
            "steward": rule.steward,
            "state": rule.state,
            "purposes": rule.purposes or None,
            "workloads": rule.workloads or None,
            "residency": rule.residency or None,
            "licence": rule.licence,
            "review_days": settings.review_days,
            "retain_days": rule.retain_days,
            "legal_hold": rule.legal_hold,
            "erase_days": rule.erase_days,
        },
    )


def _record_results(
    conn: Connection[Any], source: Source, subject: str, tally: Tally, outage: Unavailable | None, *, is_complete: bool
) -> None:
    """Store the findings, the health and counts of the source, and the audit entry of a run."""
    missing = [] if outage is None else [_outage_finding(source, subject, outage)]
    quality_store.put_findings(conn, source.name, missing, kinds=[_MISSING], subjects=[subject])
    found = failure_findings(source, tally.failures, tally.blocked_keys)
    examined = {f"{subject}/{key}" for key in tally.seen_keys | tally.deleted_keys}
    everything = is_complete and outage is None
    quality_store.put_findings(conn, source.name, found, kinds=READING_KINDS, subjects=None if everything else examined)
    names_store.forget_closed_findings(conn, source.name)
    tables = list(chain.from_iterable(tally.tables.values()))
    bad = [failure.key for failure in tally.failures]
    with_tables = {f"{subject}/{key}".rstrip("/") for key in [*tally.tables, *tally.deleted_keys, *bad]}
    quality_store.put_findings(
        conn, source.name, tables, kinds=_TABLES, subjects=with_tables if source.checks else None
    )
    if tally.checks is not None:
        intake_store.mark_tables_checked(conn, tally.checked_documents, tally.checks)
    _report_unknown_readers(conn, source, subject)
    _report_held_changes(conn, source, subject)
    unconfined = (
        [_unconfined_finding(source, subject, count)]
        if (count := intake_store.count_unconfined(conn, source.name))
        else []
    )
    quality_store.put_findings(conn, source.name, unconfined, kinds=[_UNCONFINED], subjects=[subject])
    store.finish_source(conn, source.name)
    health = "down" if outage else "failing" if tally.failures else "ok"
    reason = (
        outage.message
        if outage
        else f"{quantity(len(tally.failures), 'document')} cannot be read"
        if tally.failures
        else None
    )
    intake_store.set_health(conn, source.name, health, reason)
    counts = {
        "added": tally.added, "changed": tally.changed, "deleted": tally.deleted, "readers": tally.readers_changed,
        "kept": tally.held_versions,
    }  # fmt: skip
    if any(counts.values()):
        record(conn, action="knowledge.ingested", actor=SYSTEM, subject=subject, detail=counts)


def _report_unknown_readers(conn: Connection[Any], source: Source, subject: str) -> None:
    """Report unknown names among the source's own readers, and those that its documents deny. Unknown names that
    documents allow are reported by the quality assessment."""
    named = set(source.readers) - {by_grant(source.name), "public"}
    found = [
        Finding(
            kind="knowledge.reader_unknown", subject=f"{subject}/reader:{name}", severity="medium", owner=source.owner,
            message=f"'{name}' is named as a reader, but is no group, team or person",
            hint="Nobody reads these documents by that name. Correct it, or add the group.",
        )
        for name in sorted(store.unknown_readers(conn, named))
    ]  # fmt: skip
    found += [
        _denied_name_finding(source, subject, name, paths)
        for name, paths in intake_store.unknown_denied_names(conn, source.name).items()
    ]
    subjects = {f"{subject}/reader:{name}" for name in named} | store.reader_subjects(conn, subject)
    quality_store.put_findings(conn, source.name, found, kinds=["knowledge.reader_unknown"], subjects=subjects)


def _report_held_changes(conn: Connection[Any], source: Source, subject: str) -> None:
    """Report documents that changed, were deleted or became unreadable at their source while under a legal hold."""
    found = []
    for path, causes, document in legal_hold_store.kept_places(conn, source.name):
        became = " and ".join(_CAUSE_VERBS[cause] for cause in causes)
        found.append(
            Finding(
                kind=legal_hold_store.FINDING,
                subject=f"{subject}/{path}",
                severity="high",
                owner=source.governed.steward or source.owner,
                detail={"document": None if document is None else str(document), "causes": causes},
                message=f"{path} {became} at its source while a legal hold keeps it: what it said is kept",
                hint="Ask who did that. `groundplan knowledge held` lists it; it is erased once the hold has ended.",
            )
        )
    quality_store.put_findings(conn, source.name, found, kinds=[legal_hold_store.FINDING])


def _denied_name_finding(source: Source, subject: str, name: str, paths: Sequence[str]) -> Finding:
    """The finding about a name that documents deny and that no group, team or person has."""
    where = f"{paths[0]} and others" if len(paths) > 1 else paths[0]
    effect = (
        "It refuses nobody." if is_email(name) else "Nobody reads these documents meanwhile, since it may be misspelt."
    )
    return Finding(
        kind="knowledge.reader_unknown", subject=f"{subject}/reader:!{name}", owner=source.governed.steward or
        source.owner, severity="low" if is_email(name) else "high", detail={"paths": list(paths)},
        message=f"'{name}' is refused by {where}, but is no group, team or person",
        hint=f"{effect} Correct the name, take it out, or add the group.",
    )  # fmt: skip


def _orphan_sidecar_finding(source: Source, subject: str, path: str) -> Finding:
    """The finding about a sidecar whose document was deleted or renamed without it, so that it has no effect."""
    return Finding(
        kind=_SIDECAR, subject=f"{subject}/{printable(path)}", severity="medium",
        owner=source.governed.steward or source.owner,
        message=f"{printable(path)} declares properties of a document that does not exist",
        hint="Rename it together with its document, or delete it; until then it has no effect.",
    )  # fmt: skip


def _unconfined_finding(source: Source, subject: str, count: int) -> Finding:
    return Finding(
        kind=_UNCONFINED, subject=subject, severity="high", owner=source.owner,
        message=f"{quantity(count, 'document was', 'documents were')} read by a parser "
        "that the kernel does not confine",
        hint="Run on Linux (x86-64 or ARM64) with seccomp, see `groundplan doctor`; a changed one is parsed again.",
    )  # fmt: skip


def step_failure_finding(source: Source, step: str, error: Exception) -> Finding:
    """The finding about a step that failed unexpectedly; the traceback is in the log only."""
    return Finding(
        kind=STEP_FAILED, subject=f"source/{source.name}", severity="high", owner=source.owner,
        message=f"{step} failed ({type(error).__name__})", detail={"error": type(error).__name__},
        hint="The log has the details; what was done stays, other sources continue, and it is tried again.",
    )  # fmt: skip


def _outage_finding(source: Source, subject: str, error: Unavailable) -> Finding:
    return Finding(
        kind=_MISSING, subject=subject, severity="high", owner=source.owner, message=error.message,
        hint=error.hint or "Check its address and key.",
    )  # fmt: skip


def _build_report(source: Source, tally: Tally, outage: Unavailable | None) -> IngestReport:
    return IngestReport(
        source=source.name,
        read=tally.read,
        added=tally.added,
        changed=tally.changed,
        deleted=tally.deleted,
        readers_changed=tally.readers_changed,
        chunks=tally.chunks,
        failed=len(tally.failures) + (outage is not None),
    )
