"""Names the kinds of difference between two requests that may mean the same, so that evidence of each is counted. Pure.

Words with the same meaning are anchors. The words before each anchor and behind the last, without articles and polite
phrases, are compared: words that only one text has there are a kind (*do* in place of *can*). So are another form of a
word, a synonym, a misspelling, and another order. A kind does not tell whether requests that differ by it have the same
answer; checks do.
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

_IGNORED_WORDS = g.DETERMINERS & {"a", "an", "the"} | v.FRAMING | v.NUMBER_WORDS.keys()
"""Words that change nothing in a gap, or are compared elsewhere."""
_CONTRACTIONS = {"'s": "is", "'m": "am", "'re": "are", "'ve": "have", "'ll": "will", "'d": "would"}
_NORMAL_FORMS = {"are": "is", "am": "is", "were": "was", "does": "do", "has": "have", "could": "can", "we": "i",
                 "us": "me", "our": "my", "whom": "who", "frequently": "often"}  # fmt: skip
"""Inflected forms and persons that are not told apart -> the form that stands for them."""
_QUESTION_PHRASES = (
    ("(?:which|what) (?:person|people)", "who"), ("what number of", "how many"), ("what is number of", "how many"),
    ("for what reason", "why"), ("what is reason (?:that|for|why)?", "why "),
    ("(?:at |on )?what (?:time|day|date)", "when"), ("what is (?:way|steps|process) to", "how do i"),
)  # fmt: skip
"""(pattern of a longer question phrase, question word that it means)"""
_QUESTION_PATTERNS = [(re.compile(rf"\b{way}\b"), instead) for way, instead in _QUESTION_PHRASES]
MOVED, TURNED = "order", "voice"
AT_START = "^ "
DIGEST = 8
"""Bytes of the digest of a kind, by which it is counted and stored."""


def difference_kinds(a: Reading, b: Reading, pairs: Sequence[tuple[int, int]]) -> frozenset[str]:
    """The kinds of difference between two readings. `pairs`: indexes of content words with the same meaning. Empty: the
    texts are the same word for word."""
    met = sorted(pairs)
    places = {j: number for number, j in enumerate(sorted(j for _, j in met))}
    ours, theirs = _gaps(a, [i for i, _ in met]), _gaps(b, list(places))
    gaps = [(number, places[j]) for number, (_, j) in enumerate(met)] + [(len(met), len(met))]
    found = {_form_difference(a, i, b, j) for i, j in met if a.content_words[i] != b.content_words[j]}
    begins = AT_START
    if any(j > after for (_, j), (_, after) in pairwise(met)):
        moved = TURNED if any(_voice_changed(a, i, b, j) for i, j in met) else MOVED
        found.add(moved)
        # the beginning of a rearranged question may hold its agent: a kind of its own
        begins = f"{moved} {AT_START}"
        first = next(one for one, other in gaps if other == 0)
        if first and (ours[0] != theirs[gaps[0][1]] or theirs[0] != ours[first]):
            # the first gaps are compared with each other, whatever follows them
            found.add(_gap_difference(ours[0], theirs[0], begins))
            ours[0], theirs[0] = (), ()
    for one, other in gaps:
        found.add(_gap_difference(ours[one], theirs[other], begins if one == other == 0 else ""))
    return frozenset(found - {""})


def _voice_changed(a: Reading, i: int, b: Reading, j: int) -> bool:
    return (a.clause.arrangement.voices[i] == PASSIVE) != (b.clause.arrangement.voices[j] == PASSIVE)


def kind_digests(kinds: Iterable[str]) -> tuple[bytes, ...]:
    """The digests of kinds, in order, by which they are counted and stored."""
    return tuple(blake2b(kind.encode(), digest_size=DIGEST).digest() for kind in sorted(kinds))


def _gaps(reading: Reading, anchors: Sequence[int]) -> list[tuple[str, ...]]:
    """The words before each anchor and behind the last one, without those that change nothing."""
    found, begin, words, apart = list[tuple[str, ...]](), 0, reading.words, reading.ignored
    for end in (*(reading.word_places[anchor] for anchor in anchors), len(words)):
        said = words[begin:end]
        if said and not apart.isdisjoint(range(begin, end)):
            said = tuple(words[place] for place in range(begin, end) if place not in apart)
        found.append(_normalize_gap(said) if said else ())
        begin = end + 1
    first = found[0]
    leads = next((place for place, word in enumerate(first) if word not in g.LEAD_INS), len(first))
    found[0] = first[leads:]
    return found


@lru_cache(maxsize=4096)
def _normalize_gap(words: tuple[str, ...]) -> tuple[str, ...]:
    """The words between two anchors in their normal forms. Cached: the same few occur again and again."""
    said = " ".join(
        _NORMAL_FORMS.get(each, each)
        for word in words
        if word not in _IGNORED_WORDS and not word[0].isdigit()
        for each in _expand_contraction(word)
    )
    for way, instead in _QUESTION_PATTERNS:
        said = way.sub(instead, said)
    return tuple(said.split())


def _expand_contraction(word: str) -> tuple[str, ...]:
    first, mark, rest = word.partition("'")
    return (first, _CONTRACTIONS[mark + rest]) if mark + rest in _CONTRACTIONS else (word,)


def _gap_difference(ours: Sequence[str], theirs: Sequence[str], where: str) -> str:
    """The kind of difference between two gaps, the same in both orders; empty: none. `where`: prefix of the kind."""
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


def _form_difference(a: Reading, i: int, b: Reading, j: int) -> str:
    if a.stems[i] != b.stems[j]:
        return "synonym"
    one, other = sorted((a.content_words[i], b.content_words[j]), key=lambda word: (len(word), word))
    root = 0
    while root < len(one) and one[root] == other[root]:
        root += 1
    return f"form {one[root:]} | {other[root:]}"
