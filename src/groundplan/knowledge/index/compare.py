"""Whether an edition may serve: counts, documents that it lacks, how near its answers are to exact ones, and quality.

Pure but for `compare_edition`, which reads the counts. How questions are asked is given from outside; nothing is
switched."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Final

from psycopg import Connection

from groundplan.knowledge.index import index_store as store
from groundplan.knowledge.index.model import Edition, serving_edition

MIN_RECALL: Final = 0.98
"""Least part of the ten nearest passages of all that the projection proposes."""
MAX_LOSS: Final = 0.02
"""An edition whose nDCG@10, or part of documents found by their headings, is lower by more than this is worse."""
SAMPLES: Final = 60


@dataclass(frozen=True, slots=True)
class Examined:
    """What a search service says of an edition that it holds: `recall` against exact, `found`: the part of headings
    whose document is among the first ten, `rank`: the mean of 1/place."""

    recall: float
    found: float
    rank: float
    questions: int


Examine = Callable[[int, Sequence[tuple[str, str]]], Examined]
"""Asks a search service about an edition, with headings and the documents that they are of."""
Judge = Callable[[int], Mapping[str, Any] | None]
"""Figures of the labelled questions asked of an edition; None where there are no questions."""


def compare_edition(
    conn: Connection[Any], edition: Edition, examine: Examine, judge: Judge, at: datetime
) -> dict[str, Any]:
    """Compare an edition with the one that serves, and keep what came out of it with the edition."""
    now = serving_edition(store.editions(conn))
    samples = store.heading_samples(conn, SAMPLES)
    figures: dict[str, Any] = {"at": at.isoformat(timespec="seconds"), "with": now.id}
    for name, one in (("own", edition), ("serving", now)):
        examined = examine(one.id, samples)  # first: it waits until all of the edition is held
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
    """Why the edition should not serve, in sentences; none where nothing speaks against it."""
    own, now = figures["own"], figures["serving"]
    found = []
    if figures["missing"]:
        found.append(f"it lacks {', '.join(figures['missing'][:5])}")
    if own["changed"]:
        found.append(f"{own['changed']} documents have other characters than in the one that serves")
    if own["without_vector"]:
        found.append(f"{own['without_vector']} passages have no vector")
    if own["questions"] and own["recall"] < MIN_RECALL:
        found.append(f"it proposes {own['recall']:.1%} of the ten nearest passages, less than {MIN_RECALL:.0%}")
    if own["found"] < now["found"] - MAX_LOSS:
        found.append(f"{own['found']:.1%} of documents are found by their headings, {now['found']:.1%} before")
    if own["labelled"] and now["labelled"]:
        before, after = now["labelled"]["ndcg@10"], own["labelled"]["ndcg@10"]
        if after < before - MAX_LOSS:
            found.append(f"nDCG@10 on the labelled questions is {after:.3f}, {before:.3f} before")
    return found


def _figures_text(judged: Mapping[str, Any]) -> dict[str, Any]:
    names = ("ndcg@10", "recall@100", "mrr@10", "span_recall", "questions")
    return {name: judged[name] for name in names if judged.get(name) is not None}
