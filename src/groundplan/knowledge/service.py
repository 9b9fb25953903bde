"""What the control process calls: take over all sources of a blueprint. Searching is `knowledge.retrieval`."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import closing
from datetime import date
from pathlib import Path

from groundplan.blueprint.model import Source
from groundplan.core.database import connect
from groundplan.knowledge.ingest import Progress, ingest
from groundplan.knowledge.model import Embedder, IngestReport


def ingest_sources(
    url: str,
    sources: Iterable[Source],
    workspace: Path,
    embedder: Embedder,
    today: date,
    progress: Progress | None = None,
) -> list[IngestReport]:
    """Bring the documents of all `sources` up to date; their paths are relative to `workspace`.

    `url` is of role control. One source after the other, in order; a missing folder is a finding in its report. Raises
    `Unavailable` where the database or the embedder is.
    """
    reports = []
    with closing(connect(url, autocommit=True)) as conn:
        for source in sources:
            reports.append(ingest(conn, source, workspace / source.path, embedder, today, progress))
    return reports
