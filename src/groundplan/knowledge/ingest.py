"""Bringing PostgreSQL up to date with one source: its documents, what is wrong with them, its line in the audit log.

What cannot be read for certain is taken out of search until it can. It decides nothing about who may search which
source.
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
from groundplan.core.words import counted
from groundplan.knowledge import store
from groundplan.knowledge.deletion import legal_hold_store, names_store
from groundplan.knowledge.intake import intake_store
from groundplan.knowledge.intake.concurrent_changes import Redeclared, check_declared
from groundplan.knowledge.intake.failures import READING, failures
from groundplan.knowledge.intake.run import Progress, Run
from groundplan.knowledge.intake.tally import Tally
from groundplan.knowledge.model import IngestReport, by_grant
from groundplan.knowledge.parsing.sandbox import Sandbox
from groundplan.knowledge.parsing.text import printable
from groundplan.knowledge.quality import quality_store
from groundplan.knowledge.sources.model import Beside, Connector
from groundplan.ledger.finding import Finding

_MISSING = "knowledge.source_missing"
_TABLES = ("knowledge.table", "knowledge.sensor")
FAILED = "knowledge.failed"
_UNCONFINED = "knowledge.unconfined"
_SIDECAR = "knowledge.sidecar"
_BECAME = {"changed": "changed", "gone": "went", "unreadable": "became unreadable"}


@dataclass(frozen=True, slots=True)
class Settings:
    """Of an ingestion, besides the source: days until a review by default, and who parses."""

    review_days: int | None = None
    sandbox: Sandbox | None = None
    progress: Progress | None = None
    models: Path | None = None
    """Folder of models, for sources that declare who reads their files."""


_DEFAULT = Settings()


def take_over(
    conn: Connection[Any], source: Source, connector: Connector, settings: Settings = _DEFAULT
) -> IngestReport:
    """Bring a source's documents up to date; `conn` is of role control and in autocommit.

    A source that is away changes nothing but opens a finding. Waits for another ingestion of the same source. Raises
    what the database raises, and `Redeclared` where what is served declares the source otherwise, also as soon as it
    does; what was done until then stays.
    """
    subject = f"source/{source.name}"
    try:
        with conn.transaction():
            intake_store.hold_changes(conn)
            check_declared(conn, source)
            store.put_source(conn, source.name, path=source.path, sensitivity=source.sensitivity, owner=source.owner)
            _put_governed(conn, source, settings)
        with _held_alone(conn, source.name), _parser(settings) as sandbox:
            run = Run(
                conn,
                source,
                connector,
                sandbox,
                review_days=settings.review_days,
                progress=settings.progress,
                models=settings.models,
            )
            away: Unavailable | None = None
            try:
                run.take_over()
            except Redeclared:
                raise
            except Unavailable as error:
                away = error
            with conn.transaction():
                _conclude(conn, source, subject, run.tally, away, whole=connector.whole)
                if away is None and isinstance(connector, Beside):
                    found = [_alone(source, subject, path) for path in connector.alone()]
                    quality_store.tell(conn, source.name, found, kinds=[_SIDECAR])
    finally:
        connector.close()
    return _report(source, run.tally, away)


@contextmanager
def _held_alone(conn: Connection[Any], name: str) -> Iterator[None]:
    """No other ingestion of the source goes on."""
    store.hold_source(conn, name)
    try:
        yield
    finally:
        store.let_go_of_source(conn, name)


@contextmanager
def _parser(settings: Settings) -> Iterator[Sandbox]:
    if settings.sandbox is not None:
        yield settings.sandbox
        return
    with Sandbox() as sandbox:
        yield sandbox


def _put_governed(conn: Connection[Any], source: Source, settings: Settings) -> None:
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


def _conclude(
    conn: Connection[Any], source: Source, subject: str, tally: Tally, away: Unavailable | None, *, whole: bool
) -> None:
    """Findings of reading, counts and the audit entry of a run."""
    missing = [] if away is None else [_away(source, subject, away)]
    quality_store.tell(conn, source.name, missing, kinds=[_MISSING], settled=[subject])
    found = failures(source, tally.bad, tally.blocked)
    looked = {f"{subject}/{key}" for key in tally.seen | tally.gone}
    everything = whole and away is None
    quality_store.tell(conn, source.name, found, kinds=READING, settled=None if everything else looked)
    names_store.forget_closed(conn, source.name)
    tables = list(chain.from_iterable(tally.tables.values()))
    bad = [each.key for each in tally.bad]
    with_tables = {f"{subject}/{key}".rstrip("/") for key in [*tally.tables, *tally.gone, *bad]}
    quality_store.tell(conn, source.name, tables, kinds=_TABLES, settled=with_tables if source.checks else None)
    if tally.checks is not None:
        intake_store.put_checked(conn, tally.checked, tally.checks)
    _unknown_readers(conn, source, subject)
    _held(conn, source, subject)
    unconfined = [_unconfined(source, subject, count)] if (count := intake_store.unconfined(conn, source.name)) else []
    quality_store.tell(conn, source.name, unconfined, kinds=[_UNCONFINED], settled=[subject])
    store.finish_source(conn, source.name)
    health = "down" if away else "failing" if tally.bad else "ok"
    reason = away.message if away else f"{counted(len(tally.bad), 'document')} cannot be read" if tally.bad else None
    intake_store.set_health(conn, source.name, health, reason)
    done = {
        "added": tally.added, "changed": tally.changed, "deleted": tally.deleted, "readers": tally.readers_changed,
        "kept": tally.kept,
    }  # fmt: skip
    if any(done.values()):
        record(conn, action="knowledge.ingested", actor=SYSTEM, subject=subject, detail=done)


def _unknown_readers(conn: Connection[Any], source: Source, subject: str) -> None:
    """Names among the readers of the source itself, and all that its documents refuse; those whom documents let read
    are told by a look at them."""
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
        _stranger(source, subject, name, paths) for name, paths in intake_store.strangers(conn, source.name).items()
    ]
    subjects = {f"{subject}/reader:{name}" for name in named} | store.reader_subjects(conn, subject)
    quality_store.tell(conn, source.name, found, kinds=["knowledge.reader_unknown"], settled=subjects)


def _held(conn: Connection[Any], source: Source, subject: str) -> None:
    """Documents that changed, went or cannot be read any more while a legal hold keeps what they said."""
    found = []
    for path, causes, document in legal_hold_store.places(conn, source.name):
        became = " and ".join(_BECAME[cause] for cause in causes)
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
    quality_store.tell(conn, source.name, found, kinds=[legal_hold_store.FINDING])


def _stranger(source: Source, subject: str, name: str, paths: Sequence[str]) -> Finding:
    """Of a name that documents refuse and nobody has."""
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


def _alone(source: Source, subject: str, path: str) -> Finding:
    """Of a sidecar whose document was deleted or renamed without it: under another name nothing of it holds."""
    return Finding(
        kind=_SIDECAR, subject=f"{subject}/{printable(path)}", severity="medium",
        owner=source.governed.steward or source.owner,
        message=f"{printable(path)} declares properties of a document that does not exist",
        hint="Rename it together with its document, or delete it; until then it has no effect.",
    )  # fmt: skip


def _unconfined(source: Source, subject: str, count: int) -> Finding:
    return Finding(
        kind=_UNCONFINED, subject=subject, severity="high", owner=source.owner,
        message=f"{counted(count, 'document was', 'documents were')} read by a parser that the kernel does not confine",
        hint="Run on Linux (x86-64 or ARM64) with seccomp, see `groundplan doctor`; a changed one is parsed again.",
    )  # fmt: skip


def failed(source: Source, what: str, error: Exception) -> Finding:
    """Of a step that ended in a way nobody foresaw; where it did is in the log alone."""
    return Finding(
        kind=FAILED, subject=f"source/{source.name}", severity="high", owner=source.owner,
        message=f"{what} failed ({type(error).__name__})", detail={"error": type(error).__name__},
        hint="The log has the details; what was done stays, other sources continue, and it is tried again.",
    )  # fmt: skip


def _away(source: Source, subject: str, error: Unavailable) -> Finding:
    return Finding(
        kind=_MISSING, subject=subject, severity="high", owner=source.owner, message=error.message,
        hint=error.hint or "Check its address and key.",
    )  # fmt: skip


def _report(source: Source, tally: Tally, away: Unavailable | None) -> IngestReport:
    return IngestReport(
        source=source.name,
        read=tally.read,
        added=tally.added,
        changed=tally.changed,
        deleted=tally.deleted,
        readers_changed=tally.readers_changed,
        chunks=tally.chunks,
        failed=len(tally.bad) + (away is not None),
    )
