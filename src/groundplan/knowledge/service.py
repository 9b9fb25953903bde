"""What the control process calls: take over all sources of a blueprint. Searching is `knowledge.retrieval`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

from groundplan.blueprint.model import Source, Term
from groundplan.core.database import connect
from groundplan.knowledge.index import index_store
from groundplan.knowledge.index.model import WHOLE
from groundplan.knowledge.ingest import Settings, take_over
from groundplan.knowledge.intake.run import Progress
from groundplan.knowledge.intake.vectors import embed_pending
from groundplan.knowledge.model import Embedder, IngestReport
from groundplan.knowledge.parsing.sandbox import Sandbox
from groundplan.knowledge.quality.assess import assess, scan_pending
from groundplan.knowledge.quality.quality_store import assessed
from groundplan.knowledge.quality.text import glossary
from groundplan.knowledge.sources.open import connector


@dataclass(frozen=True, slots=True)
class Declared:
    """What the blueprint says besides its sources: days until a review by source, and the glossary."""

    review_days: Mapping[str, int] = field(default_factory=dict)
    terms: Sequence[Term] = ()


def ingest_sources(
    url: str,
    sources: Iterable[Source],
    workspace: Path,
    embedder: Embedder,
    today: date,
    progress: Progress | None = None,
    *,
    declared: Declared = Declared(),
    mirrors: Path | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> list[IngestReport]:
    """Bring the documents of all `sources` up to date; their paths are relative to `workspace`.

    First all are taken over, so that their words can be searched; then come the assessment of quality, the scan for
    personal data and secrets, and vectors. `url` is of role control; `mirrors` is a folder for what is kept of
    repositories. A source that is away is a finding. Raises `Unavailable` where the database or the embedder is; what
    was done stays.
    """
    every = list(sources)
    reports = []
    with closing(connect(url, autocommit=True)) as conn, Sandbox() as sandbox:
        for source in every:
            settings = Settings(declared.review_days.get(source.name), sandbox, progress)
            found = connector(source, workspace, conn, mirrors=mirrors or workspace / ".mirrors")
            reports.append(take_over(conn, source, found, settings))
        if any(map(_moved, reports)) or not {source.name for source in every} <= assessed(conn, today):
            # what is new in one source may be a copy of what another has
            for source in every:
                assess(conn, source.name, today)
        if scan_pending(conn, glossary(declared.terms), stop):
            for source in every:
                assess(conn, source.name, today)
        for edition in index_store.editions(conn, WHOLE):
            if edition.settings.embedding is None:
                embed_pending(conn, embedder, edition.id, stop)
    return reports


def _moved(report: IngestReport) -> bool:
    return bool(report.added or report.changed or report.deleted or report.readers_changed)
