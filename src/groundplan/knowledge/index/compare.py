"""Compares an edition with the serving one, to decide whether it may serve: counts, missing documents, recall against
exact search, and quality.

Pure except for `compare_edition`, which reads the counts. Searches are run by functions passed in; nothing is switched
here."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Final

from psycopg import Connection

from groundplan.knowledge.index import index_store as store
from groundplan.knowledge.index.model import Edition, serving_edition

MIN_RECALL: Final = 0.98
"""Smallest share of the ten exactly nearest passages that the projection must propose."""
MAX_LOSS: Final = 0.02
"""Largest loss in nDCG@10, or in the share of documents found by their headings."""
SAMPLES: Final = 60


@dataclass(frozen=True, slots=True)
class Examined:
    """A search service's figures for an edition: `recall` against exact search; `found`: the share of headings whose
    document is among the first ten; `rank`: the mean of 1/rank."""

    recall: float
    found: float
    rank: float
    questions: int


Examine = Callable[[int, Sequence[tuple[str, str]]], Examined]
"""(edition, (heading, its document) pairs) -> figures from a search service."""
Judge = Callable[[int], Mapping[str, Any] | None]
"""Edition -> figures for the labelled questions; None if there are no questions."""


def compare_edition(
    conn: Connection[Any], edition: Edition, examine: Examine, judge: Judge, at: datetime
) -> dict[str, Any]:
    """Compare an edition with the serving one, and store the result with the edition."""
    serving = serving_edition(store.editions(conn))
    samples = store.heading_samples(conn, SAMPLES)
    figures: dict[str, Any] = {"at": at.isoformat(timespec="seconds"), "with": serving.id}
    for name, one in (("own", edition), ("serving", serving)):
        examined = examine(one.id, samples)  # first: it waits until the service holds the complete edition
        judged = judge(one.id)
        figures[name] = {
            **asdict(store.compare_counts(conn, one.id)),
            **asdict(examined),
            "labelled": None if judged is None else _figures_text(judged),
        }
    figures["missing"] = store.missing_documents(conn, edition.id)
    figures["against"] = objections(figures)
    store.put_compared(conn, edition.id, figures)
    return figures


def objections(figures: Mapping[str, Any]) -> list[str]:
    """The reasons why the edition should not serve, in sentences; empty if there are none."""
    own, serving = figures["own"], figures["serving"]
    found = []
    if figures["missing"]:
        found.append(f"it lacks {', '.join(figures['missing'][:5])}")
    if own["changed"]:
        found.append(f"{own['changed']} documents have other characters than in the one that serves")
    if own["without_vector"]:
        found.append(f"{own['without_vector']} passages have no vector")
    if own["questions"] and own["recall"] < MIN_RECALL:
        found.append(f"it proposes {own['recall']:.1%} of the ten nearest passages, less than {MIN_RECALL:.0%}")
    if own["found"] < serving["found"] - MAX_LOSS:
        found.append(f"{own['found']:.1%} of documents are found by their headings, {serving['found']:.1%} before")
    if own["labelled"] and serving["labelled"]:
        before, after = serving["labelled"]["ndcg@10"], own["labelled"]["ndcg@10"]
        if after < before - MAX_LOSS:
            found.append(f"nDCG@10 on the labelled questions is {after:.3f}, {before:.3f} before")
    return found


def _figures_text(judged: Mapping[str, Any]) -> dict[str, Any]:
    names = ("ndcg@10", "recall@100", "mrr@10", "span_recall", "questions")
    return {name: judged[name] for name in names if judged.get(name) is not None}
