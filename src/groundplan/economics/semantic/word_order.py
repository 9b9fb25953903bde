"""Whether the same words in another order may say something else. Pure.

Every difference counts but those that are known to say nothing: a phrase behind a preposition moves; a passive turns
what is done and what it is done to; *A of B* is *B A*; what `and` joins has no order. Words are told apart by what
others stand for them (`Pairs`), never by what they mean. A difference that is not listed here is a difference.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from groundplan.economics.semantic import grammar as g
from groundplan.economics.semantic.reading import Reading
from groundplan.economics.semantic.spelling import past_form
from groundplan.economics.semantic.word_positions import ACTING, DOING, PASSIVE, PAST, QUALIFYING, Arrangement

Pairs = Sequence[tuple[int, int]]
"""Places of words of content, in one and in the other, that say the same."""
_AROUND = g.LOOSE | {"for", "about", "to", "in", "on", "at", "with"}
"""Prepositions behind which a word stands that qualifies another from before it elsewhere: *the office in Berlin*."""
WINDOW = 8
"""Words of content within which the order of two is compared, where not all are in the same order."""


@dataclass(frozen=True, slots=True)
class _Side:
    """One text, with the place in the other of each of its words that is said there."""

    reading: Reading
    put: Arrangement
    to: dict[int, int]


def rearranged(a: Reading, b: Reading, pairs: Pairs) -> str:
    """The kind of difference in how words are arranged; empty: none that may say something else."""
    one, other = a.clause.put, b.clause.put
    if _strays(a, b) != _strays(b, a) or one.codes != other.codes:
        return LEFT_OVER
    if one.pointed and other.pointed and one.pointed != other.pointed:
        return LEFT_OVER
    kept = [(i, j) for i, j in sorted(pairs) if one.runs[i] >= 0 and other.runs[j] >= 0]
    sides = _Side(a, one, dict(kept)), _Side(b, other, {j: i for i, j in kept})
    return next((kind for kind, differs in _RULES if differs(*sides)), "")


def _strays(reading: Reading, other: Reading) -> list[str]:
    """How much something is so matters where it is asked whether it is."""
    sharp = "polar" in (reading.clause.focus, other.clause.focus)
    return [said for said in reading.clause.put.strays if sharp or said != "very"]


def _formed(one: _Side, other: _Side) -> bool:
    """A verb in another aspect or tense, or an adverb in place of an adjective."""
    for i, j in one.to.items():
        ours, theirs = one.reading.spoken[i], other.reading.spoken[j]
        if ours == theirs:
            continue
        voices = {one.put.voices[i], other.put.voices[j]}
        if DOING in voices and len(voices) > 1:
            return True
        if PAST in voices and past_form(ours) != past_form(theirs):
            return True
        if one.reading.stems[i] == other.reading.stems[j] and _adverb(ours, theirs) != _adverb(theirs, ours):
            return True
    return False


def _adverb(word: str, other: str) -> bool:
    """Whether a word is one, and no verb as *apply* of *applying*."""
    return word.endswith("ly") and not other.startswith(word[:-1])


def _held(one: _Side, other: _Side) -> bool:
    """A number or a denial that belongs to another word."""
    for said, places in one.put.held.items():
        there = other.put.held.get(said)
        if there is not None:
            ours = {one.to[i] for i in places if i in one.to}
            theirs = {j for j in there if j in other.to}
            if ours and theirs and ours != theirs:
                return True
    return False


def _qualified(one: _Side, other: _Side) -> bool:
    """Two words that stand together in one, and not in the other."""
    return _parted(one, other) or _parted(other, one)


def _parted(one: _Side, other: _Side) -> bool:
    runs, free_of = one.put.runs, _free(one, other)
    for i in one.to:
        free = not free_of.isdisjoint((i, i + 1))
        if i + 1 in one.to and runs[i] == runs[i + 1] and not free and not _together(one, other, i):
            return True
    return any(_of_another(one, other, i) for i in one.to if one.put.relations[i] == "of")


def _free(one: _Side, other: _Side) -> set[int]:
    """Words that stand anywhere: how well something is to be done, and what `and` joins in both."""
    joined = {stem for pair in one.reading.clause.joined.keys() & other.reading.clause.joined.keys() for stem in pair}
    return {i for i in one.to if one.reading.spoken[i] in g.CARE or one.reading.stems[i] in joined}


def _together(one: _Side, other: _Side, i: int) -> bool:
    """Whether a word and the next one of its run belong together in the other text as well."""
    x, y, put = one.to[i], one.to[i + 1], other.put
    turned = _turned(one, other, i, x) or _turned(one, other, i + 1, y)
    if put.runs[x] == put.runs[y]:
        return x < y or turned
    if put.segments[x] != put.segments[y]:
        return False
    if y < x:
        return turned or put.relations[x] in _AROUND
    if put.relations[y] not in ("", "of") or (put.relations[y] == "of" and one.put.voices[i] != ACTING):
        return turned or _between(one, other, i, range(x + 1, y))
    return turned or y == x + 1 or _between(one, other, i, range(x + 1, y))


def _between(one: _Side, other: _Side, i: int, places: range) -> bool:
    """Whether nothing stands there but what belongs to a word, a verb in the passive, or what asks for nothing."""
    ahead = {one.to.get(k) for k in range(one.put.runs.index(one.put.runs[i]), i)}
    return bool(places) and all(
        place in ahead or place not in other.to or _turned(one, other, other.to[place], place) for place in places
    )


def _turned(one: _Side, other: _Side, i: int, j: int) -> bool:
    """Whether a verb is in the passive in one text alone."""
    voices = {one.put.voices[i], other.put.voices[j]}
    return PASSIVE in voices and len(voices) > 1 and QUALIFYING not in voices


def _of_another(one: _Side, other: _Side, i: int) -> bool:
    """Whether what stands behind `of` belongs to another word in the other text."""
    run = one.put.runs[i]
    head = next((k for k in range(i - 1, -1, -1) if one.put.runs[k] not in (run, -1)), -1)
    if head not in one.to or one.put.segments[head] != one.put.segments[i]:
        return False
    x, y = one.to[i], one.to[head]
    return other.put.segments[x] != other.put.segments[y] or abs(other.put.runs[x] - other.put.runs[y]) > 1


def _ordered(one: _Side, other: _Side) -> bool:
    """Two words that stand behind no preposition, in another order."""
    met = sorted(one.to.items())
    if all(j < after for (_, j), (_, after) in pairwise(met)):
        return False
    for number, (i, j) in enumerate(met):
        for k, m in met[number + 1 : number + 1 + WINDOW]:
            if m < j and not _may_turn(one, other, (i, j), (k, m)):
                return True
    return False


def _may_turn(one: _Side, other: _Side, first: tuple[int, int], second: tuple[int, int]) -> bool:
    (i, j), (k, m) = first, second
    ours, theirs = one.put, other.put
    if ours.segments[i] != ours.segments[k] or theirs.segments[j] != theirs.segments[m]:
        return True
    if ours.relations[i] or ours.relations[k] or theirs.relations[j] or theirs.relations[m]:
        return True
    if _turned(one, other, i, j) or _turned(one, other, k, m):
        return True
    if one.reading.spoken[i] in g.CARE or one.reading.spoken[k] in g.CARE:
        return True
    joined = frozenset((one.reading.stems[i], one.reading.stems[k]))
    return joined in one.reading.clause.joined and joined in other.reading.clause.joined


def _voiced(one: _Side, other: _Side) -> bool:
    """What does something in one, and has it done to it in the other."""
    ours, theirs = one.put, other.put
    if not one.reading.clause.focus or not other.reading.clause.focus:
        return False
    for verb, its in one.to.items():
        if _turned(one, other, verb, its):
            for i, j in one.to.items():
                before = i < verb and j < its and not ours.relations[i] and not theirs.relations[j]
                if before and ours.segments[i] == ours.segments[verb] and theirs.segments[j] == theirs.segments[its]:
                    return True
    return False


def _dealt(one: _Side, other: _Side) -> bool:
    """Words of as many segments in both, but otherwise divided among them."""
    met = {(one.put.segments[i], other.put.segments[j]) for i, j in one.to.items()}
    ours, theirs = len({i for i, _ in met}), len({j for _, j in met})
    return ours == theirs > 1 and len(met) != ours


LEFT_OVER = "little word"
_RULES: tuple[tuple[str, Callable[[_Side, _Side], bool]], ...] = (
    ("form", _formed),
    ("scope", _held),
    ("order", _qualified),
    ("order", _ordered),
    ("voice", _voiced),
    ("sentence", _dealt),
)
KINDS = (LEFT_OVER, *dict.fromkeys(kind for kind, _ in _RULES))
