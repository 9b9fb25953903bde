"""Decides whether the same words in another arrangement may mean something else. Pure.

Every difference counts unless it is known to change nothing: prepositional phrases move; a passive swaps verb and
object; *A of B* is *B A*; words joined by `and` have no order. Words are compared by their counterparts (`Pairs`),
never by meaning.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from groundplan.economics.semantic import grammar as g
from groundplan.economics.semantic.reading import Reading
from groundplan.economics.semantic.spelling import is_past_form
from groundplan.economics.semantic.word_positions import ACTING, DOING, PASSIVE, PAST, QUALIFYING, Arrangement

Pairs = Sequence[tuple[int, int]]
"""(index of a content word in one text, index of its counterpart in the other)"""
_QUALIFYING_PREPOSITIONS = g.LOOSE | {"for", "about", "to", "in", "on", "at", "with"}
"""Prepositions of phrases that may also stand before the word that they qualify: *the office in Berlin*."""
WINDOW = 8
"""Content words within which the order of two is compared."""


@dataclass(frozen=True, slots=True)
class _Side:
    """One text. `counterparts`: index of a content word -> index of its counterpart in the other text."""

    reading: Reading
    arrangement: Arrangement
    counterparts: dict[int, int]


def arrangement_difference(a: Reading, b: Reading, pairs: Pairs) -> str:
    """The kind of the first difference in arrangement that may change the meaning; empty: none."""
    one, other = a.clause.arrangement, b.clause.arrangement
    if _strays(a, b) != _strays(b, a) or one.codes != other.codes:
        return STRAY_KIND
    if one.demonstratives and other.demonstratives and one.demonstratives != other.demonstratives:
        return STRAY_KIND
    kept = [(i, j) for i, j in sorted(pairs) if one.runs[i] >= 0 and other.runs[j] >= 0]
    sides = _Side(a, one, dict(kept)), _Side(b, other, {j: i for i, j in kept})
    return next((kind for kind, differs in _RULES if differs(*sides)), "")


def _strays(reading: Reading, other: Reading) -> list[str]:
    """Stray words that count; `very` counts only where one of both texts asks for yes or no."""
    sharp = "polar" in (reading.clause.focus, other.clause.focus)
    return [said for said in reading.clause.arrangement.stray_words if sharp or said != "very"]


def _verb_forms_differ(one: _Side, other: _Side) -> bool:
    """Whether a verb has another aspect or tense, or an adverb stands for an adjective."""
    for i, j in one.counterparts.items():
        ours, theirs = one.reading.content_words[i], other.reading.content_words[j]
        if ours == theirs:
            continue
        voices = {one.arrangement.voices[i], other.arrangement.voices[j]}
        if DOING in voices and len(voices) > 1:
            return True
        if PAST in voices and is_past_form(ours) != is_past_form(theirs):
            return True
        if one.reading.stems[i] == other.reading.stems[j] and _adverb(ours, theirs) != _adverb(theirs, ours):
            return True
    return False


def _adverb(word: str, other: str) -> bool:
    """Whether a word is an adverb, and not a verb like *apply* of *applying*."""
    return word.endswith("ly") and not other.startswith(word[:-1])


def _scopes_differ(one: _Side, other: _Side) -> bool:
    """Whether a number or a negation belongs to another word."""
    for said, places in one.arrangement.scopes.items():
        there = other.arrangement.scopes.get(said)
        if there is not None:
            ours = {one.counterparts[i] for i in places if i in one.counterparts}
            theirs = {j for j in there if j in other.counterparts}
            if ours and theirs and ours != theirs:
                return True
    return False


def _modifiers_differ(one: _Side, other: _Side) -> bool:
    """Whether two words that belong together in one text do not in the other."""
    return _is_separated(one, other) or _is_separated(other, one)


def _is_separated(one: _Side, other: _Side) -> bool:
    runs, free_of = one.arrangement.runs, _movable_words(one, other)
    for i in one.counterparts:
        free = not free_of.isdisjoint((i, i + 1))
        if i + 1 in one.counterparts and runs[i] == runs[i + 1] and not free and not _stay_together(one, other, i):
            return True
    return any(_belongs_elsewhere(one, other, i) for i in one.counterparts if one.arrangement.relations[i] == "of")


def _movable_words(one: _Side, other: _Side) -> set[int]:
    """Words that may stand anywhere: adverbs of manner, and words that a conjunction joins in both texts."""
    joined = {
        stem
        for pair in one.reading.clause.coordinations.keys() & other.reading.clause.coordinations.keys()
        for stem in pair
    }
    return {
        i for i in one.counterparts if one.reading.content_words[i] in g.MANNER_WORDS or one.reading.stems[i] in joined
    }


def _stay_together(one: _Side, other: _Side, i: int) -> bool:
    """Whether a word and the next one of its run belong together in the other text as well."""
    x, y, theirs = one.counterparts[i], one.counterparts[i + 1], other.arrangement
    turned = _voice_changed(one, other, i, x) or _voice_changed(one, other, i + 1, y)
    if theirs.runs[x] == theirs.runs[y]:
        return x < y or turned
    if theirs.segments[x] != theirs.segments[y]:
        return False
    if y < x:
        return turned or theirs.relations[x] in _QUALIFYING_PREPOSITIONS
    if theirs.relations[y] not in ("", "of") or (theirs.relations[y] == "of" and one.arrangement.voices[i] != ACTING):
        return turned or _only_movable_between(one, other, i, range(x + 1, y))
    return turned or y == x + 1 or _only_movable_between(one, other, i, range(x + 1, y))


def _only_movable_between(one: _Side, other: _Side, i: int, places: range) -> bool:
    """Whether all words at these places may stand there: modifiers, verbs in the passive, words without counterpart."""
    ahead = {one.counterparts.get(k) for k in range(one.arrangement.runs.index(one.arrangement.runs[i]), i)}
    return bool(places) and all(
        place in ahead
        or place not in other.counterparts
        or _voice_changed(one, other, other.counterparts[place], place)
        for place in places
    )


def _voice_changed(one: _Side, other: _Side, i: int, j: int) -> bool:
    """Whether a verb is in the passive in only one of both texts."""
    voices = {one.arrangement.voices[i], other.arrangement.voices[j]}
    return PASSIVE in voices and len(voices) > 1 and QUALIFYING not in voices


def _belongs_elsewhere(one: _Side, other: _Side, i: int) -> bool:
    """Whether a word behind `of` belongs to another head in the other text."""
    run = one.arrangement.runs[i]
    head = next((k for k in range(i - 1, -1, -1) if one.arrangement.runs[k] not in (run, -1)), -1)
    if head not in one.counterparts or one.arrangement.segments[head] != one.arrangement.segments[i]:
        return False
    x, y = one.counterparts[i], one.counterparts[head]
    return (
        other.arrangement.segments[x] != other.arrangement.segments[y]
        or abs(other.arrangement.runs[x] - other.arrangement.runs[y]) > 1
    )


def _order_differs(one: _Side, other: _Side) -> bool:
    """Whether two words have another order that is not known to change nothing."""
    met = sorted(one.counterparts.items())
    if all(j < after for (_, j), (_, after) in pairwise(met)):
        return False
    for number, (i, j) in enumerate(met):
        for k, m in met[number + 1 : number + 1 + WINDOW]:
            if m < j and not _may_swap(one, other, (i, j), (k, m)):
                return True
    return False


def _may_swap(one: _Side, other: _Side, first: tuple[int, int], second: tuple[int, int]) -> bool:
    (i, j), (k, m) = first, second
    ours, theirs = one.arrangement, other.arrangement
    if ours.segments[i] != ours.segments[k] or theirs.segments[j] != theirs.segments[m]:
        return True
    if ours.relations[i] or ours.relations[k] or theirs.relations[j] or theirs.relations[m]:
        return True
    if _voice_changed(one, other, i, j) or _voice_changed(one, other, k, m):
        return True
    if one.reading.content_words[i] in g.MANNER_WORDS or one.reading.content_words[k] in g.MANNER_WORDS:
        return True
    joined = frozenset((one.reading.stems[i], one.reading.stems[k]))
    return joined in one.reading.clause.coordinations and joined in other.reading.clause.coordinations


def _roles_swapped(one: _Side, other: _Side) -> bool:
    """Whether the agent in one text is the object in the other."""
    ours, theirs = one.arrangement, other.arrangement
    if not one.reading.clause.focus or not other.reading.clause.focus:
        return False
    for verb, its in one.counterparts.items():
        if _voice_changed(one, other, verb, its):
            for i, j in one.counterparts.items():
                before = i < verb and j < its and not ours.relations[i] and not theirs.relations[j]
                if before and ours.segments[i] == ours.segments[verb] and theirs.segments[j] == theirs.segments[its]:
                    return True
    return False


def _segments_differ(one: _Side, other: _Side) -> bool:
    """Whether words are divided otherwise among the same number of segments."""
    met = {(one.arrangement.segments[i], other.arrangement.segments[j]) for i, j in one.counterparts.items()}
    ours, theirs = len({i for i, _ in met}), len({j for _, j in met})
    return ours == theirs > 1 and len(met) != ours


STRAY_KIND = "little word"
_RULES: tuple[tuple[str, Callable[[_Side, _Side], bool]], ...] = (
    ("form", _verb_forms_differ),
    ("scope", _scopes_differ),
    ("order", _modifiers_differ),
    ("order", _order_differs),
    ("voice", _roles_swapped),
    ("sentence", _segments_differ),
)
