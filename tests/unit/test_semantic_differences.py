"""Kinds of difference between two requests, and what checks of them allow."""

from __future__ import annotations

import numpy as np
import pytest
from benchmarks.semantic_labelled import Pair
from benchmarks.semantic_tune import difference_kinds, proven_kinds
from hypothesis import example, given
from hypothesis import strategies as st

from groundplan.economics.semantic.differences import DIGEST, kind_digests
from groundplan.economics.semantic.equivalence import Verdict, judge, load_acceptance
from groundplan.economics.semantic.reading import read
from groundplan.economics.semantic.regions import ASK, CHECK, GIVE, MAX_KINDS, Learned, Region, Regions
from groundplan.economics.semantic.similarity import EmbeddedReading
from groundplan.economics.semantic.substitution import requires_strict_match

WORDS = st.sampled_from(
    """how do can i we the a permit renew renewed for to of in office please you is what which it my and""".split()  # noqa: SIM905
)


def between(one: str, other: str) -> set[str]:
    return set(difference_kinds(read(one), read(other)))


@pytest.mark.parametrize(
    ("one", "other", "kinds"),
    [
        ("How do I renew the permit?", "Please tell me how do I renew a permit?", set()),
        ("How do I renew the permit?", "How can we renew the permit?", {"^ can | do"}),
        ("What is the number of permits here?", "Hi, how many permits are here?", {" | is"}),
        ("How do I renew the permit?", "How is the permit renewed?", {"voice ^ do i | is", "form  | ed", "voice"}),
        ("How do I pay for the permit?", "How do I pay the permit?", {" | for"}),
        ("In Berlin, is the office open?", "Is the office open in Berlin?", {"order"}),
        ("How do I buy a permit?", "How do I purchase a permit?", {"synonym"}),
        ("What's the fee of the permit?", "What is the fee of the permit?", set()),
        ("How much deposit is required?", "How much deposit is available?", {"available | required"}),
    ],
)
def test_what_differs_is_told_by_kinds(one: str, other: str, kinds: set[str]) -> None:
    assert between(one, other) == kinds


@given(st.lists(WORDS, min_size=1, max_size=9), st.lists(WORDS, min_size=1, max_size=9))
@example(["how", "permit", "office"], ["office", "permit"])
def test_kinds_are_the_same_whichever_request_came_first(one: list[str], other: list[str]) -> None:
    a, b = " ".join(one) + "?", " ".join(other) + "?"
    assert between(a, b) == between(b, a)
    assert between(a, a) == set()


def proven(vector: np.ndarray) -> tuple[Regions, Region]:
    regions = Regions(bound=0.05, check=0.1, evidence=3, threshold=3.0)
    region = regions.region_of(vector)
    for _ in range(59):
        regions.learn(region, 9.0, same=True)
    return regions, region


def test_a_kind_of_difference_is_checked_before_it_is_given_and_off_once_it_was_wrong() -> None:
    vector = np.eye(4, dtype=np.float32)[0]
    regions, region = proven(vector)
    assert regions.decide(region, 9.0, 0.99) == GIVE
    (kind,), (other,) = kind_digests(["for | to"]), kind_digests(["can | do"])
    for _ in range(2):
        assert regions.decide(region, 9.0, 0.99, (kind,), (kind,)) == CHECK
        regions.learn(region, 9.0, same=True, kinds=(kind,))
    assert regions.decide(region, 9.0, 0.99, (kind,), (kind,)) == CHECK, "two checks are not three"
    regions.learn(region, 9.0, same=True, kinds=(kind,))
    assert regions.decide(region, 9.0, 0.99, (kind,), (kind,)) == GIVE
    assert regions.decide(region, 9.0, 0.99, (kind, other), (kind, other)) == CHECK
    elsewhere = regions.region_of(np.eye(4, dtype=np.float32)[1])
    regions.learn(elsewhere, 3.0, same=False, kinds=(kind,))
    assert regions.decide(region, 9.0, 0.99, (kind,), (kind,)) == ASK, "wrong in another region"
    assert regions.decide(region, 9.0, 0.05, (kind,)) == CHECK, "it may prove itself again"
    assert regions.decide(region, 9.0, 0.99) == GIVE, "others of its region are given"


def test_of_what_calibration_showed_no_check_is_awaited_but_a_wrong_one_counts() -> None:
    regions, region = proven(np.eye(4, dtype=np.float32)[0])
    (kind,) = kind_digests(["^ can | do"])
    assert regions.decide(region, 9.0, 0.99, (kind,)) == GIVE
    regions.learn(region, -np.inf, same=False, kinds=(kind,))
    for _ in range(60):
        regions.learn(region, 9.0, same=True)
    assert regions.decide(region, 9.0, 0.99, (kind,)) == ASK
    assert regions.decide(region, 9.0, 0.99) == GIVE


def said(text: str) -> EmbeddedReading:
    """A text near every other."""
    reading = read(text)
    return EmbeddedReading(
        reading, np.full(4, 0.5, dtype=np.float32), np.ones((len(reading.content_words), 4), dtype=np.int8)
    )


def judged(one: str, other: str) -> Verdict:
    return judge(load_acceptance(), said(one), said(other))


def test_a_match_tells_of_which_of_its_kinds_there_is_no_evidence() -> None:
    known = judged("How do I renew the permit?", "How can I renew the permit?")
    assert (known.veto, known.kinds, known.unproven) == ("", frozenset({"^ can | do"}), frozenset[str]())
    new = judged("How much deposit is required?", "How much deposit is available?")
    assert new.kinds == new.unproven == {"available | required"}
    turned = judged("Can I see the dashboard of another team?", "Can another team see my dashboard?")
    assert turned.veto == "" and turned.unproven, "*I* is left out where nothing is in the passive"
    assert not judged("Can I change the name?", "Can the name be changed?").unproven


def test_in_an_order_each_word_counts() -> None:
    assert judged("Turn the heating of the hall to 19 degrees.", "Turn the heating of the hall by 19 degrees.").veto
    assert judged("Open the valve before the test.", "Oil the valve before the test.").veto


@pytest.mark.parametrize(
    ("text", "orders"),
    [
        ("Turn the heating to 19 degrees.", True),
        ("Please turn the heating to 19 degrees.", True),
        ("Bring the lamps down.", True),
        ("Oil it twice.", True),
        ("Turning the heating down saves oil.", False),
        ("Lamps that blink need oil.", False),
        ("Despite the rain lamps blink.", False),
        ("Heating, the lamps and oil cost more.", False),
    ],
)
def test_an_order_begins_with_a_verb_and_what_it_is_done_to(text: str, orders: bool) -> None:
    assert requires_strict_match(read(text), read(text)) == orders


def test_kinds_are_shown_by_several_groups_and_by_no_trap() -> None:
    def pair(thing: str, same: bool = True, word: str = "can") -> Pair:
        return Pair(f"How do I renew the {thing}?", f"How {word} I renew the {thing}?", same)

    things = ["permit", "badge", "lease"]
    right = [pair(each) for each in things]
    assert proven_kinds(right, things, (read, said)) == {"statement", "^ can | do"}
    assert proven_kinds(right, ["permit"] * 3, (read, said)) == {"statement"}, "one group shows nothing"
    assert proven_kinds([*right, pair("visa", same=False)], [*things, "visa"], (read, said)) == {"statement"}


def test_kinds_beyond_those_that_are_counted_are_checked_for_ever() -> None:
    regions, region = proven(np.eye(4, dtype=np.float32)[0])
    many = kind_digests(map(str, range(MAX_KINDS + 1)))
    for _ in range(3):
        regions.learn(region, 9.0, same=True, kinds=many)
    assert len(regions.kinds) == MAX_KINDS
    assert {regions.decide(region, 9.0, 0.99, (kind,), (kind,)) for kind in regions.kinds} == {GIVE}
    assert regions.decide(region, 9.0, 0.99, many, many) == CHECK


def test_what_other_workers_found_of_a_kind_is_read_beside_regions() -> None:
    vector = np.eye(384, dtype=np.float32)[0]
    regions, region = proven(vector)
    (kind,) = kind_digests(["for | to"])
    assert len(kind) == DIGEST < len(region.first)
    regions.load([Learned(region.first, 59, 0, -np.inf), Learned(kind, 3, 0, -np.inf)])
    assert regions.decide(region, 9.0, 0.99, (kind,), (kind,)) == GIVE
    regions.load([Learned(region.first, 59, 0, -np.inf), Learned(kind, 4, 1, -np.inf)])
    assert regions.decide(region, 9.0, 0.99, (kind,), (kind,)) == ASK
    assert len(regions.known) == 1
