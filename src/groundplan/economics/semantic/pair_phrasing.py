"""How the two requests of a pair are phrased, whatever is put into them: so that evidence of both is counted. Pure.

Words that say the same are places to put something in. All else is told as it is written, in its order: little words,
articles, words of content that only one has, forms of a word, synonyms. So two pairs that are put in the same two ways
differ in nothing but what both of their requests have; whatever a guard finds between the two of one it finds between
the two of the other. Numbers in digits are told by their places: which they are is for a guard that no evidence
overrules, as it is of names, dates, units and language.
"""

from __future__ import annotations

from collections.abc import Sequence
from string import ascii_lowercase

from groundplan.economics.semantic.reading import Reading

BEGINS = "ways: "
"""Before both, so that they are no kind of difference (`differences`)."""


def ways(a: Reading, b: Reading, pairs: Sequence[tuple[int, int]]) -> str:
    """Both ways of readings of which the words at these places say the same; the same whichever comes first."""
    return BEGINS + min(_both(a, b, pairs), _both(b, a, [(j, i) for i, j in pairs]))


def _both(one: Reading, other: Reading, pairs: Sequence[tuple[int, int]]) -> str:
    ours, theirs = dict[int, str](), dict[int, str]()
    for number, (i, j) in enumerate(sorted(pairs)):
        said, meant = one.spoken[i], other.spoken[j]
        ours[one.told[i]] = f"<{number}>" if said == meant else f"<{number} {said} {meant}>"
        theirs[other.told[j]] = f"<{number}>"
    numbers: dict[str, str] = {}
    return f"{_way(one, ours, numbers)} | {_way(other, theirs, numbers)}"


def _way(reading: Reading, put: dict[int, str], numbers: dict[str, str]) -> str:
    """The words of a text, without what is said around it. `numbers`: by which each is told, the same in both."""
    found = []
    for place, word in enumerate(reading.words):
        if place in put:
            found.append(put[place])
        elif word[0].isdigit():
            digits = word.rstrip(ascii_lowercase)
            number = numbers.setdefault(digits.replace(",", ""), f"#{len(numbers)}")
            found.append(number + word[len(digits) :])
        elif place not in reading.apart:
            found.append(word)
    return " ".join(found)
