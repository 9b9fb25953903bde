"""Compiles sources, glossary terms and the index. Pure; documents are not read."""

from __future__ import annotations

from groundplan.blueprint import model as bp
from groundplan.catalog import model as doc
from groundplan.catalog.index import IndexRule, RerankRule
from groundplan.catalog.retention import DAY_MS
from groundplan.catalog.workspace import Workspace
from groundplan.release.compile.grants import compile_grants, subject_name

_MAX_DAYS = 365_000
"""the longest retention in days: longer ones are cut to it, since no calendar reaches so far"""


def compile_index(rule: IndexRule) -> bp.Index:
    """How documents are chunked and embedded."""
    own = rule.embedding
    return bp.Index(
        characters=rule.characters,
        embedding=None
        if own is None
        else bp.IndexEmbedding(workload=own.workload, deployment=own.deployment, dimensions=own.dimensions),
        by_hand=rule.switch == "by-hand",
        keep_days=_days(rule.keep) or 0,
        questions=rule.questions,
    )


def compile_rerank(rule: RerankRule | None) -> bp.Rerank | None:
    """The workload and deployment that rerank passages; None without reranking."""
    if rule is None:
        return None
    return bp.Rerank(workload=rule.workload, deployment=rule.deployment, passages=rule.passages, within_ms=rule.within)


def compile_source(workspace: Workspace, item: doc.SourceDoc) -> bp.Source:
    """A declared source, with its readers and governance."""
    return bp.Source(
        name=item.name,
        path=item.path or "",
        sensitivity=item.sensitivity,
        owner=workspace.email_of(item.owner),
        readers=sorted(subject_name(workspace, reader) for reader in item.readers),
        read=compile_grants(workspace, "read", f"source/{item.name}"),
        governed=_compile_governed(workspace, item),
        connector=bp.Connector(type=item.connector.type, settings=item.connector.settings(), acl=item.connector.acl)
        if item.connector
        else None,
        checks=[check.model_dump(mode="json", exclude_defaults=True) for check in item.checks],
        characters=item.chunking.characters,
        pdf=item.reading.pdf,
    )


def _compile_governed(workspace: Workspace, item: doc.SourceDoc) -> bp.Governed:
    rule = item.governed
    return bp.Governed(
        steward=workspace.email_of(rule.steward) if rule.steward else None,
        state=rule.state,
        purposes=sorted(rule.purposes),
        workloads=sorted(rule.workloads),
        residency=sorted(rule.residency),
        licence=rule.licence,
        retain_days=_days(rule.retain),
        legal_hold=rule.legal_hold,
        erase_days=_days(rule.erase_within) or 0,
    )


def _days(milliseconds: int | None) -> int | None:
    return None if milliseconds is None else max(0, min(milliseconds // DAY_MS, _MAX_DAYS))


def compile_term(workspace: Workspace, item: doc.TermDoc) -> bp.Term:
    """A glossary term."""
    return bp.Term(
        name=item.name,
        title=item.title,
        meaning=item.meaning,
        synonyms=sorted(item.synonyms),
        forbidden=sorted(item.forbidden),
        owner=workspace.email_of(item.owner) if item.owner else None,
    )


def review_days(workspace: Workspace, used: set[str]) -> dict[str, int]:
    """Source -> days between its reviews, for used sources that declare them."""
    return {
        name: days
        for name, item in workspace.sources.items()
        if name in used and (days := _days(item.review_every)) is not None
    }
