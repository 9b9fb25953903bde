"""The phrasing of a pair of requests with its shared words as slots, so that evidence of a phrasing is counted. Pure.

Words with the same meaning become slots. All else stays as written, in order: function words, articles, content words
that only one has, forms of a word, synonyms. So two pairs with the same phrasing differ only in the words that both
requests of each share: what a guard finds in one pair it finds in the other. Numbers in digits are numbered slots:
their values are compared by a guard that no evidence overrules, like those of names, dates, units and language.
"""

from __future__ import annotations

from collections.abc import Sequence
from string import ascii_lowercase

from groundplan.economics.semantic.reading import Reading

PREFIX = "ways: "
"""Prefix that tells a phrasing from a kind of difference (`differences`)."""


def pair_phrasing(a: Reading, b: Reading, pairs: Sequence[tuple[int, int]]) -> str:
    """The phrasing of both readings, the same in both orders. `pairs`: indexes of content words that mean the same."""
    return PREFIX + min(_joint_phrasing(a, b, pairs), _joint_phrasing(b, a, [(j, i) for i, j in pairs]))


def _joint_phrasing(one: Reading, other: Reading, pairs: Sequence[tuple[int, int]]) -> str:
    ours, theirs = dict[int, str](), dict[int, str]()
    for number, (i, j) in enumerate(sorted(pairs)):
        said, meant = one.content_words[i], other.content_words[j]
        ours[one.word_places[i]] = f"<{number}>" if said == meant else f"<{number} {said} {meant}>"
        theirs[other.word_places[j]] = f"<{number}>"
    numbers: dict[str, str] = {}
    return f"{_phrasing(one, ours, numbers)} | {_phrasing(other, theirs, numbers)}"


def _phrasing(reading: Reading, put: dict[int, str], numbers: dict[str, str]) -> str:
    """The words of a text without polite phrases. `put`: index of a word -> its slot; `numbers`: number -> its slot,
    shared by both texts and extended here."""
    found = []
    for place, word in enumerate(reading.words):
        if place in put:
            found.append(put[place])
        elif word[0].isdigit():
            digits = word.rstrip(ascii_lowercase)
            number = numbers.setdefault(digits.replace(",", ""), f"#{len(numbers)}")
            found.append(number + word[len(digits) :])
        elif place not in reading.ignored:
            found.append(word)
    return " ".join(found)
