"""What the benchmarks of knowledge hold search against: the exhaustive answer, and how their figures are summed up."""

from __future__ import annotations

from uuid import UUID

import numpy as np
import pytest
from benchmarks import knowledge_beir as beir
from benchmarks import knowledge_machine as machine
from benchmarks.knowledge_exact import ExhaustiveSearch, nearest, similarities
from benchmarks.knowledge_scale import overlap, summarise_recall
from numpy.typing import NDArray

from groundplan.knowledge.evaluation.beir import LabelledCorpus
from groundplan.knowledge.model import DIMENSION
from groundplan.knowledge.retrieval.projection import DocumentEntry, Projection, Row
from groundplan.knowledge.retrieval.propose import ProposalRequest, propose

TEXTS = [
    ["paid leave", "leave of parents", "trains and planes"],
    ["leave is paid", "laptop", "paid twice"],
    ["hidden leave paid", "hidden", "hidden paid leave"],
    ["nothing of it", "paid leave ends", "office"],
]
QUESTION = "when is paid leave"
TERMS = ["paid", "leave"]


def held() -> tuple[Projection, NDArray[np.float16]]:
    """Four documents of three chunks; the third is for others. Each chunk is a little less like the question."""
    random, index = np.random.default_rng(3), Projection()
    vectors = random.normal(size=(12, DIMENSION)).astype(np.float32)
    vectors[:, 0] = 0
    like = np.linspace(0.9, 0.1, 12, dtype=np.float32)[:, None]
    vectors *= np.sqrt(1 - like**2) / np.linalg.norm(vectors, axis=1, keepdims=True)
    vectors[:, :1] = like
    for document, texts in enumerate(TEXTS):
        rows = [
            Row(UUID(int=100 + document * 3 + at), text.split(), vectors[document * 3 + at])
            for at, text in enumerate(texts)
        ]
        index.replace_documents(
            [DocumentEntry(UUID(int=document + 1), "s", 2 if document == 2 else 1, rows)], document + 1
        )
    return index, vectors.astype(np.float16)


def test_the_exhaustive_answer_is_what_search_proposes_where_it_looks_at_everything() -> None:
    index, vectors = held()
    question = np.zeros(DIMENSION, np.float32)
    question[0] = 1
    rows = np.array([row for row in range(12) if row // 3 != 2])
    similar = similarities(vectors, question[None], rows)[0]
    texts = [text for one in TEXTS for text in one]
    stock = ExhaustiveSearch(index.view, texts.__getitem__, lambda row: (row,))
    proposed = propose(index.view, ProposalRequest(TERMS, question, frozenset({"s"}), frozenset({1}), 100))
    wanted = [texts[row] for row in proposed.order]
    assert len(wanted) > 5
    assert stock.answers(QUESTION, TERMS, similar, rows, 20) == wanted
    assert stock.answers(QUESTION, TERMS, similar, rows, 3) == wanted[:3]
    last = stock.answers(QUESTION, TERMS, similar, rows, 20, rows // 3 == 3)
    assert last == [text for text in wanted if text in TEXTS[3]], "of what is asked about, in the same order"
    assert nearest(similar, rows, 3) == [0, 1, 2]


def test_words_in_their_order_count_as_in_search() -> None:
    index, vectors = held()
    question = np.zeros(DIMENSION, np.float32)
    rows = np.arange(12)
    texts = [text for one in TEXTS for text in one]
    stock = ExhaustiveSearch(index.view, texts.__getitem__, lambda row: (row,))
    similar = similarities(vectors, question[None], rows)[0]
    assert stock.answers("hidden paid leave", [*TERMS, "hidden"], similar, rows, 1) == ["hidden paid leave"]


def test_each_band_counts_by_itself() -> None:
    """The mean hides nothing: one band below the target is told, and of which kind."""
    good = {"recall@10": 1.0, "candidates@10": 1.0, "answers@10": 1.0}
    found = [{"visible": one, "of": "all", **good} for one in (0.001, 0.05, 1.0)]
    assert summarise_recall(found)["met"]
    found.append({"visible": 0.1, "of": "path", "answers@10": 0.9})
    told = summarise_recall(found)
    assert not told["met"]
    assert told["conjunctions"]["answers@10"]["least"] == told["visible_2_to_20_percent"]["answers@10"]["least"] == 0.9
    assert told["every_band"]["recall@10"]["least"] == 1.0
    found[-1] = {"visible": 0.1, "of": "all", **good, "candidates@10": 0.5}
    assert summarise_recall(found)["met"], "what is proposed and not answered with is shown only"
    assert overlap(["a", "b"], ["b", "c", "d"]) == 0.5


def test_a_ranking_below_the_better_one_is_told() -> None:
    relevant = {f"quoted-{n}": {"d": 1} for n in range(4)} | {f"words-{n}": {"d": 1} for n in range(4)}
    labelled = LabelledCorpus([], dict.fromkeys(relevant, "q"), relevant, "test", "")
    first, second = {"d": 2.0, "e": 1.0}, {"e": 2.0, "d": 1.0}
    rankings: dict[str, beir.Rankings] = {
        "answered": dict.fromkeys(relevant, first), "words": dict.fromkeys(relevant, first),
        "vectors": dict.fromkeys(relevant, second),
    }  # fmt: skip
    assert beir.figures(labelled, rankings)["never_below"]
    rankings["answered"] = {**rankings["answered"], "quoted-0": second}
    told = beir.figures(labelled, rankings)
    assert not told["never_below"]
    assert told["ndcg@10"]["quoted"]["difference"]["mean"] < 0 == told["ndcg@10"]["words"]["difference"]["mean"]


def test_a_run_beside_others_is_not_valid(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half of the machine was busy with others, then nearly none of it."""
    for busy, valid in ((60.0, False), (15.0, True)):
        seen, own = iter([(0.0, 0.0), (busy, 100.0)]), iter([0.0, 10.0])
        monkeypatch.setattr(machine, "machine_cpu_seconds", lambda seen=seen: next(seen))
        monkeypatch.setattr(machine, "_own_seconds", lambda own=own: next(own))
        with machine.Watch() as watch:
            pass
        assert watch.figures()["valid"] is valid
        assert watch.figures()["others_share"] == (busy - 10) / 100
