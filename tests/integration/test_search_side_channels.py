"""What a person may not see changes nothing that they can: two companies that differ in hidden documents only answer
the same, to the last digit. Classifiers try to tell them apart by scores, counts and timing in ten thousand pairs
(soak)."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
import numpy as np
import pytest
from benchmarks import knowledge_side_channels as channels
from benchmarks.knowledge_side_channels import QUERIES, Company
from msgspec.structs import replace

from groundplan.knowledge.retrieval.wire import Newer, Passage, SearchAnswer
from groundplan.testing.database import Cluster

HIDDEN = 40


@pytest.fixture(scope="module")
def companies(postgres_cluster: Cluster) -> Iterator[tuple[Company, Company]]:
    """For tests that only ask."""
    with channels.build_companies(postgres_cluster, [0, HIDDEN]) as made:
        yield made[0], made[1]


def test_hidden_documents_change_no_answer(companies: tuple[Company, Company]) -> None:
    without, with_hidden = companies
    assert with_hidden.index.count == without.index.count + HIDDEN
    for query in QUERIES[::3]:
        found = without.ask(query)
        assert found == with_hidden.ask(query)
        assert found[0], "something is found"
    assert without.ask("secret") == with_hidden.ask("secret"), "a word that stands in hidden documents only"


def read(company: Company) -> dict[str, tuple[int, int]]:
    """Of chunks and documents: how often one of the tables was looked through, and how many rows were looked at."""
    with company.pool.connection() as conn:
        conn.execute("SELECT pg_stat_force_next_flush()")
        rows = conn.execute(
            """SELECT relname, seq_scan, seq_tup_read + idx_tup_fetch FROM pg_stat_user_tables
               WHERE relname IN ('chunk', 'document')"""
        ).fetchall()
    return {name: (scans, looked) for name, scans, looked in rows}


def test_hidden_documents_are_not_read(companies: tuple[Company, Company]) -> None:
    """However few documents there are: what is looked at takes time."""
    told = []
    for company in companies:
        for query in QUERIES[:10]:
            company.ask(query)
        before = read(company)
        for query in QUERIES:
            company.ask(query)
        after = read(company)
        told.append({name: (after[name][0] - before[name][0], after[name][1] - before[name][1]) for name in after})
    assert told[0] == told[1]
    assert all(scans == 0 and looked > len(QUERIES) for scans, looked in told[0].values()), told


@pytest.mark.soak
@pytest.mark.timeout(7200)
def test_ten_thousand_pairs_cannot_be_told_apart(postgres_cluster: Cluster) -> None:
    with channels.build_companies(postgres_cluster, [0, HIDDEN] * channels.PAIRS_OF_COMPANIES + [0, 0]) as made:
        found = channels.figures(*channels.collect_answers(made, 10_000 // channels.PAIRS_OF_COMPANIES))
    assert found["pairs"] == 10_000
    assert found["pairs_that_differ"] == 0
    assert max(found["auc"].values()) <= channels.TARGET, found


def test_the_comparison_detects_a_difference() -> None:
    """The classifiers find one that only two scores together have, and none where there is none."""
    chance = np.random.default_rng(3)
    values = chance.normal(size=(200, 3))
    pairs = np.repeat(np.arange(100), 2) % 4
    sign = np.sign(values[:, 0])
    values[:, 1] = np.where(np.arange(200) % 2, sign, -sign) * np.abs(values[:, 1])
    assert channels.auc(values[:, :2], pairs) > 0.8, "neither of the two says anything alone"
    assert channels.auc(values[:, 2:], pairs) < 0.7


def test_every_field_of_an_answer_is_compared() -> None:
    """A field that is added to the answer is a feature of the classifiers, and a difference in any one shows."""
    names = channels.feature_names()
    for field in msgspec.structs.fields(SearchAnswer):
        assert any(name.split(".")[0] == field.name for name in names), field.name
    passage = Passage(
        document="1", path="a", title="A", source="s", start_line=1, end_line=2, text="b", score=0.5, chunk="2"
    )
    newer = Newer(
        document="1", path="a", title="A", newer_document="2", newer_path="b", newer_title="B", newer_source="s"
    )
    plain = SearchAnswer(passages=[passage])
    other = [
        replace(plain, passages=[replace(passage, title="B")]), replace(plain, passages=[replace(passage, version=2)]),
        replace(plain, passages=[]), replace(plain, newer=[newer]), replace(plain, abstained=True),
        replace(plain, degraded="away"), replace(plain, confidence=0.1),
    ]  # fmt: skip
    told = [channels.answer_features(msgspec.json.encode(one), 1.0) for one in (plain, *other)]
    assert {len(one) for one in told} == {len(names)}
    assert all(one[:-2] != told[0][:-2] for one in told[1:]), "not only by its length"
