"""What the control process calls: take over all sources of a blueprint. Searching is `knowledge.retrieval`."""

from __future__ import annotations

import logging
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

from psycopg import Connection

from groundplan.blueprint.model import Source, Term
from groundplan.core.database import connect
from groundplan.knowledge import store
from groundplan.knowledge.index import index_store
from groundplan.knowledge.index.build import never_stop
from groundplan.knowledge.index.model import COMPLETE_STATES
from groundplan.knowledge.ingest import STEP_FAILED, IngestSettings, ingest_source, step_failure_finding
from groundplan.knowledge.intake.concurrent_changes import Redeclared
from groundplan.knowledge.intake.run import Progress
from groundplan.knowledge.intake.vectors import embed_pending
from groundplan.knowledge.model import Embedder, IngestReport
from groundplan.knowledge.parsing.sandbox import Sandbox
from groundplan.knowledge.quality import quality_store
from groundplan.knowledge.quality.assess import AllDocuments, assess, scan_pending
from groundplan.knowledge.quality.quality_store import assessed_sources
from groundplan.knowledge.quality.text import glossary
from groundplan.knowledge.sources import git
from groundplan.knowledge.sources.open import open_or_unavailable

log = logging.getLogger("groundplan.knowledge")


@dataclass(frozen=True, slots=True)
class IngestContext:
    """Where and by which rules sources are read; their paths are relative to `workspace`."""

    workspace: Path
    today: date
    review_days: Mapping[str, int] = field(default_factory=dict)
    """Source name -> days until a review of its documents."""
    terms: Sequence[Term] = ()
    """The glossary."""
    mirrors: Path | None = None
    """Folder for the mirrors of git repositories."""
    models: Path | None = None
    """Folder of models, for sources that declare a model to read their PDFs."""
    progress: Progress | None = None
    stop: Callable[[], bool] = never_stop


def ingest_sources(
    url: str, sources: Iterable[Source], embedder: Embedder, context: IngestContext, only: Container[str] | None = None
) -> list[IngestReport]:
    """Bring the documents of all `sources` up to date, or of those named in `only`; `url` is the DSN of role control.

    All sources are ingested first, so that their words can be searched; then come the assessment of quality, the scan
    for personal data and secrets, and vectors. A source that is unavailable, or whose step fails unexpectedly, becomes
    a finding, and the others go on. Raises `Unavailable` where the database or the embedder is unavailable, and where
    a source is redeclared meanwhile; completed work stays.
    """
    all_sources = list(sources)
    reports = []
    failing: set[str] = set()
    with closing(connect(url, autocommit=True)) as conn, Sandbox() as sandbox:
        for source in all_sources:
            if only is not None and source.name not in only:
                continue
            report = IngestReport(source.name, 0, 0, 0, 0, 0, 0, failed=1)
            with _isolate_source(conn, source, "taking it over", failing):
                report = _ingest_source(conn, source, sandbox, context)
            reports.append(report)
        if context.mirrors is not None:
            urls = [
                str(one.connector.settings["url"])
                for one in all_sources
                if one.connector and one.connector.type == "git"
            ]
            git.remove_other_mirrors(context.mirrors, urls)
        store.analyze_if_new(conn)
        if any(map(_has_changes, reports)) or not {source.name for source in all_sources} <= assessed_sources(
            conn, context.today
        ):
            # what is new in one source may be a copy of what another has
            _assess_quality(conn, all_sources, context, failing)
        if scan_pending(conn, glossary(context.terms), context.stop):
            _assess_quality(conn, all_sources, context, failing)
        for source in all_sources:
            if source.name not in failing:
                quality_store.put_findings(
                    conn, source.name, [], kinds=[STEP_FAILED], subjects=[f"source/{source.name}"]
                )
        for edition in index_store.editions(conn, COMPLETE_STATES):
            if edition.settings.embedding is None:
                embed_pending(conn, embedder, edition.id, context.stop)
    return reports


@contextmanager
def _isolate_source(conn: Connection[Any], source: Source, step: str, failing: set[str]) -> Iterator[None]:
    """Turn an unexpected error of one source into a finding, and add its name to `failing`; other sources go on."""
    try:
        yield
    except Redeclared:
        raise
    except Exception as error:  # the boundary of one source: a fault in reading it must not keep the others from search
        if conn.closed or conn.broken:
            raise
        log.exception("source %s: %s failed", source.name, step)
        failing.add(source.name)
        quality_store.put_findings(conn, source.name, [step_failure_finding(source, step, error)], kinds=[STEP_FAILED])


def _ingest_source(conn: Connection[Any], source: Source, sandbox: Sandbox, context: IngestContext) -> IngestReport:
    settings = IngestSettings(context.review_days.get(source.name), sandbox, context.progress, context.models)
    mirrors = context.mirrors or context.workspace / ".mirrors"
    return ingest_source(conn, source, open_or_unavailable(source, context.workspace, conn, mirrors=mirrors), settings)


def _assess_quality(
    conn: Connection[Any], sources: Sequence[Source], context: IngestContext, failing: set[str]
) -> None:
    everywhere = AllDocuments(conn)
    for source in sources:
        with _isolate_source(conn, source, "looking at its quality", failing):
            assess(conn, source.name, context.today, everywhere)


def _has_changes(report: IngestReport) -> bool:
    return bool(report.added or report.changed or report.deleted or report.readers_changed)
