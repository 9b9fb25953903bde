"""By which kinds of difference two requests differ that are taken for the same, so that evidence of each is counted.
Pure.

Words that say the same are anchors. What stands before each of them and behind the last, but for articles and what is
said around a question, is compared: words that stand there in one of both are a kind (*do* in place of *can*). So are
a word in another form, a synonym, a slip of the pen, and another order. Kinds know nothing of what they mean: whether
requests that differ by one have one answer is for evidence to tell.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import lru_cache
from hashlib import blake2b
from itertools import pairwise

from groundplan.economics.semantic import grammar as g
from groundplan.economics.semantic import vocabulary as v
from groundplan.economics.semantic.reading import Reading
from groundplan.economics.semantic.word_positions import PASSIVE

_NOTHING = g.DETERMINERS & {"a", "an", "the"} | v.FRAMING | v.NUMBER_WORDS.keys()
"""Say nothing before a word, or are compared by themselves."""
_SHORT = {"'s": "is", "'m": "am", "'re": "are", "'ve": "have", "'ll": "will", "'d": "would"}
_ALIKE = {"are": "is", "am": "is", "were": "was", "does": "do", "has": "have", "could": "can", "we": "i", "us": "me",
          "our": "my", "whom": "who", "frequently": "often"}  # fmt: skip
"""Forms that another word in the text asks for, and persons that are taken for one."""
_ASKS = (
    ("(?:which|what) (?:person|people)", "who"), ("what number of", "how many"), ("what is number of", "how many"),
    ("for what reason", "why"), ("what is reason (?:that|for|why)?", "why "),
    ("(?:at |on )?what (?:time|day|date)", "when"), ("what is (?:way|steps|process) to", "how do i"),
)  # fmt: skip
"""What asks in more words -> what asks."""
_ASKING = [(re.compile(rf"\b{way}\b"), instead) for way, instead in _ASKS]
MOVED, TURNED = "order", "voice"
BEGINS = "^ "
DIGEST = 8
"""Bytes by which a kind is known where it is counted."""


def difference_kinds(a: Reading, b: Reading, pairs: Sequence[tuple[int, int]]) -> frozenset[str]:
    """The kinds of two readings of which the words at these places say the same; empty: word for word the same."""
    met = sorted(pairs)
    places = {j: number for number, j in enumerate(sorted(j for _, j in met))}
    ours, theirs = _gaps(a, [i for i, _ in met]), _gaps(b, list(places))
    gaps = [(number, places[j]) for number, (_, j) in enumerate(met)] + [(len(met), len(met))]
    found = {_form(a, i, b, j) for i, j in met if a.spoken[i] != b.spoken[j]}
    begins = BEGINS
    if any(j > after for (_, j), (_, after) in pairwise(met)):
        moved = TURNED if any(_turned(a, i, b, j) for i, j in met) else MOVED
        found.add(moved)
        # who does it begins a question, unless it was turned about
        begins = f"{moved} {BEGINS}"
        first = next(one for one, other in gaps if other == 0)
        if first and (ours[0] != theirs[gaps[0][1]] or theirs[0] != ours[first]):
            # what begins both, whatever comes next in each
            found.add(_said(ours[0], theirs[0], begins))
            ours[0], theirs[0] = (), ()
    for one, other in gaps:
        found.add(_said(ours[one], theirs[other], begins if one == other == 0 else ""))
    return frozenset(found - {""})


def _turned(a: Reading, i: int, b: Reading, j: int) -> bool:
    return (a.clause.put.voices[i] == PASSIVE) != (b.clause.put.voices[j] == PASSIVE)


def digests(kinds: Iterable[str]) -> tuple[bytes, ...]:
    """By which kinds are counted."""
    return tuple(blake2b(kind.encode(), digest_size=DIGEST).digest() for kind in sorted(kinds))


def _gaps(reading: Reading, anchors: Sequence[int]) -> list[tuple[str, ...]]:
    """The words before each anchor and behind the last one, as far as they may say something."""
    found, begin, words, apart = list[tuple[str, ...]](), 0, reading.words, reading.apart
    for end in (*(reading.told[anchor] for anchor in anchors), len(words)):
        said = words[begin:end]
        if said and not apart.isdisjoint(range(begin, end)):
            said = tuple(words[place] for place in range(begin, end) if place not in apart)
        found.append(_plain(said) if said else ())
        begin = end + 1
    first = found[0]
    leads = next((place for place, word in enumerate(first) if word not in g.LEADS), len(first))
    found[0] = first[leads:]
    return found


@lru_cache(maxsize=4096)
def _plain(words: tuple[str, ...]) -> tuple[str, ...]:
    """What words between two of content may say; the same few stand there again and again."""
    said = " ".join(
        _ALIKE.get(each, each)
        for word in words
        if word not in _NOTHING and not word[0].isdigit()
        for each in _whole(word)
    )
    for way, instead in _ASKING:
        said = way.sub(instead, said)
    return tuple(said.split())


def _whole(word: str) -> tuple[str, ...]:
    first, mark, rest = word.partition("'")
    return (first, _SHORT[mark + rest]) if mark + rest in _SHORT else (word,)


def _said(ours: Sequence[str], theirs: Sequence[str], where: str) -> str:
    """What differs of two gaps, the same whichever comes first; empty: nothing."""
    if ours == theirs:
        return ""
    begin = 0
    while begin < min(len(ours), len(theirs)) and ours[begin] == theirs[begin]:
        begin += 1
    end = 0
    while end < min(len(ours), len(theirs)) - begin and ours[-1 - end] == theirs[-1 - end]:
        end += 1
    one, other = sorted(" ".join(each[begin : len(each) - end]) for each in (ours, theirs))
    return f"{where}{one} | {other}"


def _form(a: Reading, i: int, b: Reading, j: int) -> str:
    if a.stems[i] != b.stems[j]:
        return "synonym"
    one, other = sorted((a.spoken[i], b.spoken[j]), key=lambda word: (len(word), word))
    root = 0
    while root < len(one) and one[root] == other[root]:
        root += 1
    return f"form {one[root:]} | {other[root:]}"
