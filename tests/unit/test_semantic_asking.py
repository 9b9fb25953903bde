"""What is said around a question, and its moods: found by the words with which they begin, as by looking everywhere."""

from __future__ import annotations

import re
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from groundplan.economics.semantic import grammar as g
from groundplan.economics.semantic.question import polite_places, possible_moods
from groundplan.economics.semantic.reading import read

OTHERS = """permit renew the a my office "please tell" `can you` wi-fi please's can't i'm you'll may march than who 5
will-call e-mail don't""".split()  # noqa: SIM905
SHORT = {"i'm", "you'll", "i'd", "we'd", "we're"}
"""Read as their first word."""
SPOKEN = sorted({*re.findall(r"[a-z']+", g.POLITE.pattern.replace(r"\b", " ")), *OTHERS} - SHORT)
MOODS = sorted(
    {*re.findall(r"[a-z']+", " ".join(way.pattern for way in g.MOODS.values()).replace(r"\b", " ")), *OTHERS}
)


@given(st.lists(st.sampled_from(SPOKEN), max_size=14))
def test_what_is_said_around_a_question_is_found_wherever_it_stands(words: list[str]) -> None:
    text = " ".join(words)
    begins = [len(" ".join(words[:place])) + (place > 0) for place in range(len(words))]
    found = {
        place
        for polite in g.POLITE.finditer(text)
        for place, begin in enumerate(begins)
        if begin < polite.end() and begin + len(words[place]) > polite.start()
    }
    assert polite_places(words) == found


@given(st.lists(st.sampled_from(MOODS), min_size=1, max_size=12))
def test_no_mood_is_said_but_by_words_that_may_say_one(words: list[str]) -> None:
    said = " ".join(words)
    moods = {name for name, way in g.MOODS.items() if way.search(said)}
    assert moods <= frozenset[str]().union(*map(possible_moods, words))


def steps(text: str) -> int:
    """Calls, of Python's own functions too, that it takes to read a text."""
    read(text)  # what is remembered of words is by now
    taken = 0

    def count(frame: Any, event: str, argument: Any) -> None:
        nonlocal taken
        taken += 1

    before = sys.getprofile()
    sys.setprofile(count)
    try:
        read(text)
    finally:
        sys.setprofile(before)
    return taken


@pytest.mark.parametrize("words", ["5km ", "every a ", "e all ", "but: ", "1 all "])
def test_a_text_of_any_words_takes_no_more_for_each_than_a_short_one(words: str) -> None:
    """Of answers, which may be long, and made of whatever their caller wants."""
    assert steps(words * 800) < 6 * steps(words * 200)
