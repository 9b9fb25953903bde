"""Whether two requests differ in that one thing stands in place of another: another country, tool or verb. Pure.

A name is seen by its capital where it has one (`guards`). At the beginning of a sentence and in lower case nothing
tells it from other words, so words that are left over on both sides must be counterparts of each other: forms of one
word, words that say the same, or with embeddings as near as those of such words are. In a short request that holds of
all of them: each of the fewer must have one of its own. In a long one, where people say much otherwise, it holds of
those that stand at the same place between the same words. Words that are over on one side alone are additions; how
alike the requests are with them is `accept`'s to weigh.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from difflib import SequenceMatcher

from groundplan.economics.semantic import vocabulary as v
from groundplan.economics.semantic.likeness import SYNONYM, Vector
from groundplan.economics.semantic.reading import Reading, stem
from groundplan.economics.semantic.synonyms import say_the_same

SHORT = 10
"""Content words of a short request."""
SIDE_BY_SIDE = 2
"""Words that may stand together in place of as many others."""
KIND = "substitution"


def substituted(a: Reading, b: Reading, vector: Callable[[str], Vector]) -> bool:
    """Whether a word of one stands in place of another in the other. `vector`: the unit embedding of a word."""
    left, right = left_over(a, b), left_over(b, a)
    if not left or not right:
        return False
    if min(len(a.stems), len(b.stems)) <= SHORT and least_counterpart(_things(left), _things(right), vector) < SYNONYM:
        return True
    ours, theirs = set(map(stem, left)), set(map(stem, right))
    return any(
        stem(one) in ours and stem(other) in theirs and _nearness(one, other, vector) < SYNONYM
        for one, other in _in_place(a, b)
    )


def left_over(a: Reading, b: Reading) -> list[str]:
    """Content words of the first that the other has not, or has less often; no fillers."""
    others, found = Counter(b.stems), []
    for word, its in zip(a.spoken, a.stems, strict=True):
        if others[its] > 0:
            others[its] -= 1
        else:
            found.append(word)
    return found


def _things(words: Sequence[str]) -> list[str]:
    return [word for word in words if word not in v.FILLERS]


def least_counterpart(left: Sequence[str], right: Sequence[str], vector: Callable[[str], Vector]) -> float:
    """How near the farthest of the counterparts is, each word having one of its own; 1 where one side has no words."""
    pairs = sorted(
        ((_nearness(one, other, vector), i, j) for i, one in enumerate(left) for j, other in enumerate(right)),
        reverse=True,
    )
    ours, theirs, least = set(range(len(left))), set(range(len(right))), 1.0
    for near, i, j in pairs:
        if i in ours and j in theirs:
            ours.remove(i)
            theirs.remove(j)
            least = near
    return least


def _in_place(a: Reading, b: Reading) -> Iterator[tuple[str, str]]:
    """Words that stand at the same place between the same words."""
    blocks = SequenceMatcher(None, a.stems, b.stems, autojunk=False).get_opcodes()
    for kind, begin, end, other_begin, other_end in blocks:
        if kind == "replace" and end - begin == other_end - other_begin <= SIDE_BY_SIDE:
            yield from zip(a.spoken[begin:end], b.spoken[other_begin:other_end], strict=True)


def _nearness(one: str, other: str, vector: Callable[[str], Vector]) -> float:
    return 1.0 if say_the_same(one, other) else float(vector(one) @ vector(other))
