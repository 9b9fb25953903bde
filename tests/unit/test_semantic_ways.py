"""The two ways in which a pair of requests is put, of which evidence overrules a guard."""

from __future__ import annotations

from math import inf

import numpy as np
import pytest
from benchmarks.semantic_tune import difference_kinds
from hypothesis import example, given
from hypothesis import strategies as st

from groundplan.economics.semantic.differences import kind_digests
from groundplan.economics.semantic.equivalence import Verdict, compare_words, judge, load_acceptance
from groundplan.economics.semantic.pair_phrasing import PREFIX, pair_phrasing
from groundplan.economics.semantic.reading import read
from groundplan.economics.semantic.regions import ASK, CHECK, GIVE, MAX_REMEMBERED, Regions
from groundplan.economics.semantic.similarity import EmbeddedReading, align, lexical_nearness
from groundplan.economics.semantic.substitution import aligned_places

WORDS = st.sampled_from(
    """how do can i we must not a the permit permits renew renewed cancel lease for to of in office which it my and
    who""".split()  # noqa: SIM905
)


def of(one: str, other: str) -> str:
    a, b = read(one), read(other)
    return pair_phrasing(a, b, aligned_places(a, b, lexical_nearness(a.content_words, b.content_words), align(a, b)))


def judged(one: str, other: str) -> Verdict:
    """As texts that are near every other."""
    readings = map(read, (one, other))
    a, b = (
        EmbeddedReading(r, np.full(4, 0.5, dtype=np.float32), np.ones((len(r.content_words), 4), dtype=np.int8))
        for r in readings
    )
    return judge(load_acceptance(), a, b)


def test_ways_are_the_same_whatever_is_put_into_both() -> None:
    renew = of("How do I renew my permit in Oslo?", "What does one do to renew a permit of Oslo?")
    assert renew == of("How do I cancel my lease in Rome?", "What does one do to cancel a lease of Rome?")
    assert renew.startswith(PREFIX) and "permit" not in renew and " one do to <0> " in renew


@pytest.mark.parametrize(
    "other",
    [
        "How do I renew my own permit?", "How do I renew the permit?", "How do I renew my permits?",
        "How do I renew my work permit?", "How do I extend my permit?", "How do I not renew my permit?",
        "My permit renewed: how do I?", "How do we renew my permit?",
    ],
)  # fmt: skip
def test_each_word_and_its_place_makes_other_ways(other: str) -> None:
    asked = "How do I renew my permit?"
    assert of(asked, other) != of(asked, asked) == of("How do I cancel my lease?", "How do I cancel my lease?")


def test_a_number_belongs_to_its_word() -> None:
    asked = "Do I get 2 rooms for 5 guests?"
    same = of(asked, "For 5 guests, do I get 2 rooms?")
    assert same == of("Do I get 3 lamps for 7 desks?", "For 7 desks, do I get 3 lamps?")
    assert same != of(asked, "For 2 guests, do I get 5 rooms?")
    first = of("Is the first room free?", "Is the 1st room free?")
    assert first != of("Is the second room free?", "Is the 1st room free?")
    assert first != of("Is the first room free?", "Is the 1 room free?")


@example(["permit", "renew"], ["renew", "permit", "cancel", "renew"])
@given(*(st.lists(WORDS, min_size=1, max_size=8) for _ in range(2)))
def test_ways_are_the_same_whichever_request_came_first(one: list[str], other: list[str]) -> None:
    a, b = " ".join(one) + "?", " ".join(other) + "?"
    assert of(a, b) == of(b, a)


@given(*(st.lists(WORDS, min_size=1, max_size=8) for _ in range(3)))
def test_to_one_request_other_words_are_other_ways(one: list[str], other: list[str], third: list[str]) -> None:
    """So a trap is never put in the ways of a repeat of the same request."""
    a, b, c = (" ".join(words) + "?" for words in (one, other, third))
    if read(b).words != read(c).words:
        assert of(a, b) != of(a, c)


def test_what_evidence_may_overrule_is_told_by_its_ways_and_all_else_is_not() -> None:
    asked = "How do I renew my permit?"
    put = judged(asked, "Which form renews my permit?")
    assert put.veto and put.score > -inf
    assert put.kinds == put.unproven == {of(asked, "Which form renews my permit?")}
    for trap in ("How do I renew my 2 permits?", "How do I not renew my permit?", "Wie verlängere ich my permit?",
                 "How do I renew my permit on Monday?", "How do I renew my Norway permit?"):  # fmt: skip
        assert judged(asked, trap).score == -inf and judged(asked, trap).veto
    accepted = judged(asked, "How can I renew my permit?")
    assert not accepted.veto and accepted.kinds == difference_kinds(read(asked), read("How can I renew my permit?"))
    assert isinstance(compare_words(read(asked), read("How do I not renew my permit?")), str)


def test_of_ways_that_a_guard_refuses_checks_say_nothing_of_the_region() -> None:
    regions = Regions(bound=0.05, check=0.1, evidence=3, threshold=3.0)
    region = regions.region_of(np.eye(4, dtype=np.float32)[0])
    for _ in range(59):
        regions.learn(region, 9.0, same=True)
    (put,) = kind_digests(["ways: a | b"])
    assert not regions.was_seen(put) and regions.was_seen(put), "what was met once is not checked"
    for _ in range(3):
        assert not regions.are_proven_kinds((put,))
        assert regions.decide(region, 9.0, 0.99, (put,), (put,)) == CHECK
        regions.learn(None, 9.0, same=True, kinds=(put,))
    assert regions.are_proven_kinds((put,)) and regions.decide(region, 9.0, 0.99, (put,), (put,)) == GIVE
    regions.learn(None, 9.0, same=False, kinds=(put,))
    assert regions.decide(region, 9.0, 0.99, (put,), (put,)) == ASK
    assert (region.checked, region.wrong, region.raised) == (59, 0, -inf)


def test_ways_that_were_met_once_are_forgotten_when_there_are_many() -> None:
    regions = Regions(bound=0.05, check=0.1, evidence=3, threshold=3.0)
    many = kind_digests(f"ways: {number}" for number in range(MAX_REMEMBERED + 1))
    assert not any(map(regions.was_seen, many))
    assert len(regions.seen_once) == MAX_REMEMBERED and not regions.was_seen(many[0]) and regions.was_seen(many[-1])
