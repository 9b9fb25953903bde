"""Hints that a search returns besides its passages: contradicting documents, and newer versions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from psycopg import Connection

from groundplan.knowledge.retrieval import hints_store
from groundplan.knowledge.retrieval.wire import Conflict, Newer, Passage, SearchRequest

MAX_CONFLICTS = 5
"""Most conflicts that one search returns."""


def find_conflicts(conn: Connection[Any], passages: Sequence[Passage], sources: Sequence[str]) -> list[Conflict]:
    """Conflicting facts: sentences of these passages, each with what another document of these sources says instead."""
    ids = list(dict.fromkeys(UUID(passage.document) for passage in passages))
    if not ids:
        return []
    found = hints_store.conflicts(conn, ids, sources)
    texts: dict[str, list[str]] = {}
    for passage in passages if found else ():
        texts.setdefault(passage.document, []).append(_collapse_spaces(passage.text))
    kept: dict[frozenset[tuple[str, str]], Conflict] = {}
    for one in found:
        if any(_collapse_spaces(one.says) in text for text in texts[one.document]):
            # two documents may have been found to contradict each other from either side
            kept.setdefault(frozenset({(one.document, one.says), (one.other_document, one.other_says)}), one)
    return list(kept.values())[:MAX_CONFLICTS]


def find_newer(
    conn: Connection[Any], scores: Mapping[UUID, float], readable: Sequence[UUID], least: float, request: SearchRequest
) -> list[Newer]:
    """Documents that would have been among the passages if a newer one did not replace them.

    `scores`: chunk -> score, as the index proposed them for this person; `readable`: chunks that may be used; `least`:
    the score of the last passage. Reads nothing where all proposed chunks may be used, which is nearly always the case.
    """
    usable = set(readable)
    withheld = [id for id, score in scores.items() if score >= least and id not in usable]
    return hints_store.newer(conn, withheld, request.workload, request.where, request.sources) if withheld else []


def _collapse_spaces(text: str) -> str:
    return " ".join(text.split())
