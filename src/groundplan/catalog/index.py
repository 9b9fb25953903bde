"""How documents are cut and embedded for search, by the company or a single source.

Types only. Changing one of these makes another edition of the index beside the one that serves; see `knowledge.index`.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from groundplan.catalog.base import Strict
from groundplan.catalog.fields import Duration, Name, Path
from groundplan.catalog.retention import DAY_MS

Characters = Annotated[int, Field(ge=100, le=8_000)]


class EmbeddingRule(Strict):
    """Vectors of a deployment of embeddings, asked of the gateway like any other call: metered, budgeted, audited."""

    workload: Name
    """Workload to which the calls belong; its `embeddings` name the deployment."""
    deployment: Name
    dimensions: Annotated[int, Field(ge=1, le=4096)]
    """Length of its vectors."""


def _in_time(milliseconds: int) -> int:
    if not 20 <= milliseconds <= 3000:
        raise ValueError("20ms to 3s are possible: whoever asked waits for it")
    return milliseconds


class RerankRule(Strict):
    """The best passages put in order by a deployment of type rerank, asked of the gateway like any other call: metered,
    budgeted, audited. Only passages that the person may read are sent to it."""

    workload: Name
    """Workload to which the calls belong; its `also` names the deployment."""
    deployment: Name
    passages: Annotated[int, Field(ge=2, le=100)] = 30
    """Number of the best passages."""
    within: Annotated[Duration, AfterValidator(_in_time)] = 500
    """Timeout: after it the order by words and vectors is kept, and the answer says so."""


class IndexRule(Strict):
    """The search index of all sources."""

    characters: Characters = 400
    """Maximum number of characters of a passage; passages end at the end of a section, sentence or word."""
    embedding: EmbeddingRule | None = None
    """Left out: the embedded model all-MiniLM-L6-v2."""
    rerank: RerankRule | None = None
    """Default for workloads with sources, unless `grounding` says otherwise. Left out: no reranking."""
    switch: Literal["automatic", "by-hand"] = "automatic"
    """automatic: switch to a new edition once it is complete and no worse than the current one."""
    keep: Duration = 30 * DAY_MS
    """How long the previous edition is kept for a rollback."""
    questions: Path | None = None
    """Labelled questions (JSON lines, as for `groundplan knowledge evaluate`) that editions are compared with."""


class ReadingRule(Strict):
    """How files of one source are read, where other than usual."""

    pdf: Literal["plain", "docling"] = "plain"
    """docling: with `groundplan[docling]` and its models, which come from a hub."""


class ChunkingRule(Strict):
    """How one source is cut, where other than the company says."""

    characters: Characters | None = None
