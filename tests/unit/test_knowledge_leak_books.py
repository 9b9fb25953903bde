"""The books of the benchmark of leaks: what is held against an answer, and what is not, by the order of commits.

A run once flagged an answer that was right: its books learned of a grant only after the commit, so for a moment they
knew less than the database. The first test is that order of events.
"""

from __future__ import annotations

import pytest
from benchmarks.knowledge_permissions import Books, Link, Rules

from groundplan.knowledge.model import Readers

OPEN, SHUT = Readers(frozenset({"everyone"})), Readers(frozenset({"g1"}))


@pytest.fixture
def books() -> Books:
    """One person and one document, which is refused since second 1."""
    made = Books(Rules({0: True}, {0: set(), 1: set()}, {0: {1}}, {0: SHUT}))
    made.begin_refusals({0}, {0}, 1.0)
    return made


def change(books: Books, readers: Readers, begun: float, returned: float) -> None:
    books.rules.readers[0] = readers
    books.end_refusals({0}, {0}, begun)
    books.begin_refusals({0}, {0}, returned)


def test_an_answer_between_a_grant_and_the_note_of_it_is_no_leak(books: Books) -> None:
    books.rules.readers[0] = OPEN
    books.end_refusals({0}, {0}, 3.0)
    # the database has committed at 3.1, the books have not heard that it returned: asked at 2, answered at 3.2
    assert books.refusal_during(0, 0, asked=2.0, answered=3.2) is None
    assert books.refusal_during(0, 0, asked=2.0, answered=2.9) is not None, "but not before the grant was begun"


def test_a_commit_that_returned_before_the_question_is_a_leak(books: Books) -> None:
    change(books, OPEN, 3.0, 3.2)
    change(books, SHUT, 5.0, 5.2)
    assert books.refusal_during(0, 0, asked=5.1, answered=5.4) is None, "the revocation was still on its way"
    refusal = books.refusal_during(0, 0, asked=5.3, answered=5.4)
    assert refusal is not None
    assert refusal.since == 5.2


def test_a_grant_after_the_answer_does_not_hide_its_leak(books: Books) -> None:
    change(books, OPEN, 3.0, 3.2)
    assert books.refusal_during(0, 0, asked=1.5, answered=2.5) is not None
    assert books.refusal_during(0, 0, asked=1.5, answered=3.1) is None


def test_a_refusal_that_goes_on_keeps_its_beginning(books: Books) -> None:
    change(books, Readers(frozenset({"nobody"})), 3.0, 3.2)
    refusal = books.refusal_during(0, 0, asked=2.0, answered=4.0)
    assert refusal is not None
    assert refusal.since == 1.0


def test_rules_are_those_of_the_product() -> None:
    rules = Rules({0: True, 1: False}, {0: set(), 1: {0, 1}}, {0: {1}}, {0: Readers(frozenset({"g0"}), frozenset())})
    assert rules.may_read(rules.names(0), 0), "through a group in a group"
    assert not rules.may_read(rules.names(1), 0), "who has left reads nothing"
    rules.readers[0] = Readers(frozenset({"everyone"}), frozenset({"g1"}))
    assert not rules.may_read(rules.names(0), 0), "a refusal wins"


def test_grants_links_states_and_deletions_count() -> None:
    rules = Rules({0: True}, {0: {0}}, {}, {0: Readers(frozenset({"source/s"})), 1: Readers(frozenset({"nobody"}))})
    assert not rules.may_read(rules.names(0), 0)
    rules.granted.add("g0")
    assert rules.may_read(rules.names(0), 0), "a grant to the group that the person is in"
    rules.links[1] = Link({0})
    assert rules.may_read(rules.names(0), 1), "who has opened the link"
    rules.links[1].holds = False
    assert not rules.may_read(rules.names(0), 1), "until it is withdrawn"
    rules.retired.add(0)
    assert not rules.may_read(rules.names(0), 0)
    rules.retired.clear()
    rules.deleted.add(0)
    assert not rules.may_read(rules.names(0), 0)
