"""Whether two requests differ in that one thing stands in place of another: another country, tool or verb. Pure.

A name is seen by its capital where it has one (`guards`). At the beginning of a sentence and in lower case nothing
tells it from other words, so words that are left over on both sides must be counterparts of each other: forms of one
word, words that say the same, or as near within their texts as such words are. In a short request that holds of all of
them: each of the fewer must have one of its own. In a long one, where people say much otherwise, it holds of those that
stand at the same place between the same words, and of no other may the counterpart be far. A word that is over on one
side alone must be near some word of the other, or be one that the question implies; how alike the requests are with it
is `accept`'s to weigh.
"""

from __future__ import annotations

from collections.abc import Sequence

from groundplan.economics.semantic import vocabulary as v
from groundplan.economics.semantic.likeness import Compared, Near, Said, counterparts, nearness, things
from groundplan.economics.semantic.reading import Reading
from groundplan.economics.semantic.synonyms import listed

SAME = 0.8
"""Nearness from which on any two words say the same: a city and its country reach 0.75."""
ALIKE = 0.6
"""The same for two common words: two things of one sort, as a file and a folder, reach 0.59."""
FAR = 0.4
"""What is less near is another thing, however the rest is said."""
SHORT = 8
"""Content words of a short request."""
ADDED = 0.46
"""A word that is over is this near to some word of the other request where it only says more of the same: a qualifier
that makes another thing of it (an *admin* password) rarely reaches it."""
MORE = 0.5
"""Words over on one side, as a share of the shorter request's, from which on it asks for more than the other."""
KIND = "substitution"


def substituted(a: Reading, b: Reading, near: Near, found: Compared) -> bool:
    """Whether a word of one stands in place of another in the other, or one names something that the other does not."""
    ours, theirs = things(a, found.ours), things(b, found.theirs)
    if abs(len(ours) - len(theirs)) > max(1, MORE * min(len(a.stems), len(b.stems))):
        return True
    met = counterparts(near, ours, theirs)
    over, others = set(ours) - {i for i, _ in met}, set(theirs) - {j for _, j in met}
    if any(_named(a.spoken[i], near[i, :]) for i in over) or any(_named(b.spoken[j], near[:, j]) for j in others):
        return True
    if min(len(a.stems), len(b.stems)) > SHORT:
        met = [(i, j) for i, j in met if (i, j) in found.placed or near[i, j] < FAR]
    return not all(stands_for(a.spoken[i], b.spoken[j], float(near[i, j])) for i, j in met)


def _named(word: str, near: Near) -> bool:
    """Whether a word that is over names something of which the other request says nothing."""
    return word not in v.IMPLIED and (not near.size or float(near.max()) < ADDED)


def stands_for(one: str, other: str, near: float) -> bool:
    """Whether two words that are so near say the same."""
    return near >= SAME or (near >= ALIKE and listed(one) and listed(other))


def agree(one: Said, other: Said, ours: Sequence[int], theirs: Sequence[int]) -> bool:
    """Whether the words at these places, of which alone there are vectors, say the same two by two."""
    words, others = ([each.reading.spoken[i] for i in own] for each, own in ((one, ours), (other, theirs)))
    near = nearness(one.words, other.words, words, others)
    met = counterparts(near, range(len(words)), range(len(others)))
    return all(stands_for(words[i], others[j], float(near[i, j])) for i, j in met)
